"""Auditors as processes, killed and frozen while entries come: one chain, whole, with every entry in it once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from consumers.auditor import LEAD_SECONDS
from consumers.store import audit, audit_chain
from schemas.audit_check import ChainCheck
from tests.support.wait import wait_until

from .harness import Stand, stand

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

PATIENCE = 2 * LEAD_SECONDS + 20
"""For a takeover on a loaded machine."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, postgres) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("auditors"), postgres) as one:
        one.serve("gatekeeper")
        one.serve("auditor", known_as="a")
        one.serve("auditor", known_as="b")
        yield one


def log_in(place: Stand, times: int) -> None:
    for _ in range(times):
        client = place.client()
        client.open()
        client.close()


def sealed(place: Stand) -> bool:
    with place.store.reading() as tx:
        return not audit_chain.waiting(tx).count


def leader_of(place: Stand) -> str:
    """Which process seals: it said so last."""
    said = {name: place.log(name, 10**6).rfind("audit.leading") for name in ("a", "b") if name in place.processes}
    return max(said, key=lambda name: said[name])


def check(place: Stand) -> ChainCheck:
    client = place.client()
    with client:
        result = client.audit.verify(heads=client.audit.told_heads())
    assert not result.problems
    with place.store.reading() as tx:
        assert result.last + result.waiting >= len(audit.query(tx, limit=10_000)) - 1  # this login may just come
    return result


def test_killed_between_batches(place) -> None:
    for _ in range(2):
        log_in(place, 3)
        victim = leader_of(place)
        place.kill(victim)
        log_in(place, 3)
        place.serve("auditor", known_as=victim)
        wait_until(lambda: sealed(place), PATIENCE, "the other one to seal what came")
    assert check(place).seals >= 2


def test_frozen_and_woken_it_does_no_harm(place) -> None:
    wait_until(lambda: sealed(place), PATIENCE, "a quiet beginning")
    frozen = leader_of(place)
    place.freeze(frozen)
    log_in(place, 3)
    try:
        wait_until(lambda: sealed(place), PATIENCE, "the other one to take over")
    finally:
        place.thaw(frozen)
    before = check(place)
    log_in(place, 3)
    wait_until(lambda: sealed(place), PATIENCE, "the end")
    assert check(place).last > before.last
