"""The shapes have the marginals that they promise, and a seed gives one workload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from consumers.domain.choose import NoMatch, choose
from tests.benchmarks import large as large_shape
from tests.benchmarks.demanding import demanding
from tests.benchmarks.large import large
from tests.benchmarks.production import marginals, overview, platform_lists, production
from tests.benchmarks.workload import NOW, Waiting, Workload


@pytest.fixture(scope="module")
def real() -> Workload:
    return production()


@pytest.fixture(scope="module")
def big() -> Workload:
    return large()


def counted(queues: Iterable[Waiting], values: Callable[[Waiting], Iterable[str]]) -> dict[str, tuple[int, int]]:
    number: Counter[str] = Counter()
    jobs: Counter[str] = Counter()
    for queue in queues:
        for value in values(queue):
            number[value] += 1
            jobs[value] += queue.jobs
    return {value: (number[value], jobs[value]) for value in number}


def test_production_has_the_totals(real: Workload) -> None:
    total = overview()
    assert real.jobs == total["waiting_jobs"] == 871_973
    assert len(real.queues) == total["total_tqs"] == 501
    assert len({queue.requirements for queue in real.queues}) == 501
    assert len({queue.id for queue in real.queues}) == 501


def test_production_has_the_job_types(real: Workload) -> None:
    found = counted((queue for queue in real.queues if queue.jobs), lambda queue: [queue.requirements.job_type])
    for line in marginals("jobtype"):
        queues, jobs = found.pop(line.value)
        assert queues == line.queues
        assert jobs == pytest.approx(line.jobs, rel=0.01, abs=10)
    assert not found


def test_production_has_the_platforms(real: Workload) -> None:
    found = counted((queue for queue in real.queues if queue.jobs), lambda queue: queue.requirements.platforms)
    for line in marginals("platform"):
        queues, jobs = found.pop(line.value, (0, 0))
        assert queues == (line.queues if line.jobs else 0)
        assert jobs == pytest.approx(line.jobs, rel=0.005, abs=10)
    assert not found
    named = {name for queue in real.queues for name in queue.requirements.platforms}
    assert len(named) == overview()["distinct_platforms"]


def test_production_has_the_sites(real: Workload) -> None:
    found = counted((queue for queue in real.queues if queue.jobs), lambda queue: queue.requirements.sites)
    for line in marginals("site"):
        queues, jobs = found.pop(line.value)
        assert queues == line.queues
        assert jobs == pytest.approx(line.jobs, rel=0.005)
    assert not found
    anywhere = [queue for queue in real.queues if queue.jobs and not queue.requirements.sites]
    assert [queue.jobs for queue in anywhere] == [7]
    assert set(anywhere[0].requirements.banned_sites) == {line.value for line in marginals("banned") if line.jobs == 7}


def test_the_lists_account_for_every_platform_count() -> None:
    found: Counter[str] = Counter()
    for names, queues, _ in platform_lists().values():
        found.update(dict.fromkeys(names, queues))
    assert found == {line.value: line.queues for line in marginals("platform") if line.jobs}


def test_large_has_what_it_promises(big: Workload) -> None:
    assert big.jobs == large_shape.JOBS == 10_000_000
    assert len({queue.requirements for queue in big.queues}) == 5_000
    assert len({(queue.requirements, queue.group, queue.owner) for queue in big.queues}) == len(big.queues)
    assert len(big.sites) == 1_000
    assert len({site for queue in big.queues for site in queue.requirements.sites}) == 1_000
    assert len({tag for queue in big.queues for tag in queue.requirements.tags}) > 350
    assert all(queue.jobs for queue in big.queues)


def test_demanding_adds_every_condition_to_the_large_shape(big: Workload) -> None:
    hard = demanding()
    assert hard.jobs == big.jobs
    wants = {queue.id: queue.requirements for queue in hard.queues}
    assert len(set(wants.values())) == 5_000
    share = {
        name: sum(bool(getattr(want, name)) for want in wants.values()) / len(wants)
        for name in ("wall_class", "disk_mb", "architecture", "tag_expression", "gpus")
    }
    assert share == pytest.approx(
        {"wall_class": 0.2, "disk_mb": 0.15, "architecture": 0.1, "tag_expression": 0.1, "gpus": 0.04}, abs=0.02
    )
    assert any(want.gpu_models for want in wants.values())
    assert any(want.gpu_memory_mb for want in wants.values())
    index = hard.index()
    taken = [found for offer in hard.offers(3000) if not isinstance(found := choose(offer, index, NOW), NoMatch)]
    assert len(taken) > 2900
    fitting = 0
    for offer in hard.offers(3000):
        fitting |= index.classes.fitting(offer)
    reached = [wants[queue] for queue in index if fitting >> index.queue(queue).place & 1]
    for name in share:
        assert any(getattr(want, name) for want in reached), f"no offer ever fits a class with {name}"


@pytest.mark.parametrize("make", [production, large, demanding])
def test_a_seed_gives_one_workload(make: Callable[[int], Workload]) -> None:
    assert make(7) == make(7)
    assert make(7).queues != make(8).queues
    assert make(7).offers(50) == make(7).offers(50)
    assert make(7).offers(50) != make(7).offers(50, seed=2)


@pytest.mark.parametrize("name", ["real", "big"])
def test_most_offers_find_a_job(name: str, request: pytest.FixtureRequest) -> None:
    workload: Workload = request.getfixturevalue(name)
    index = workload.index()
    assert index.waiting() == workload.jobs
    found = [choose(offer, index, NOW) for offer in workload.offers(300)]
    assert sum(isinstance(one, NoMatch) for one in found) < 60


@pytest.mark.parametrize("jobs", [10_000, 10_000_000])
def test_scaling_keeps_the_queues(real: Workload, jobs: int) -> None:
    scaled = real.scaled(jobs)
    assert scaled.jobs == jobs
    assert [queue.requirements for queue in scaled.queues] == [queue.requirements for queue in real.queues]
