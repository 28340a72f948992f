"""The baseline finds what the core finds, and gives each job once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.benchmarks.bench_matcher import check_alike
from tests.benchmarks.large import large
from tests.benchmarks.production import production
from tests.benchmarks.sql_matcher import SqlMatcher, fill
from tests.benchmarks.workload import Workload

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("make", [production, large])
def test_core_and_baseline_agree_and_each_job_is_given_once(make: Callable[[], Workload], postgres_url: str) -> None:
    url, workload = postgres_url.replace("+psycopg", ""), make().scaled(10_000)
    fill(url, workload)
    offers = workload.offers(30)
    check_alike(url, workload, offers)
    clients = [SqlMatcher(url, seed) for seed in (1, 2)]
    jobs = [client.match(offer) for offer in offers for client in clients]
    given = [job for job in jobs if job is not None]
    assert len(given) > 40
    assert len(set(given)) == len(given)
    for client in clients:
        client.close()
