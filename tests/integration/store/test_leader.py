"""One leader at a time; an old one can do no harm."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from consumers.store import NotLeader, Store, leader
from consumers.store.errors import StoreUnavailable

pytestmark = pytest.mark.integration


def test_leadership_is_renewed_taken_over_and_released(store: Store) -> None:
    with store.transaction() as tx:
        assert leader.acquire_or_renew(tx, "matcher", "a", 0.0, 5.0) == 1
        assert leader.acquire_or_renew(tx, "matcher", "b", 4.0, 5.0) is None
        assert leader.acquire_or_renew(tx, "matcher", "a", 4.0, 5.0) == 1
        leader.check(tx, "matcher", 1, 8.0)
        assert leader.acquire_or_renew(tx, "matcher", "b", 9.5, 5.0) == 2
        assert leader.acquire_or_renew(tx, "other", "a", 9.5, 5.0) == 1
        leader.release(tx, "matcher", 1)  # the old one's word counts no more
        leader.check(tx, "matcher", 2, 10.0)
        leader.release(tx, "matcher", 2)
        assert leader.acquire_or_renew(tx, "matcher", "b", 11.0, 5.0) == 3


@pytest.mark.parametrize(("epoch", "now"), [(1, 11.0), (2, 20.0), (3, 11.0)])
def test_who_does_not_lead_is_told(store: Store, epoch: int, now: float) -> None:
    with store.transaction() as tx:
        leader.acquire_or_renew(tx, "matcher", "a", 0.0, 5.0)
        leader.acquire_or_renew(tx, "matcher", "b", 10.0, 5.0)
    with pytest.raises(NotLeader), store.transaction() as tx:
        leader.check(tx, "matcher", epoch, now)


def test_of_many_candidates_one_leads(store: Store) -> None:
    together = threading.Barrier(4)

    def run(turn: int) -> int | None:
        together.wait(10)
        with store.transaction() as tx:
            return leader.acquire_or_renew(tx, "matcher", f"h{turn}", 1.0, 5.0)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(run, range(4)), key=str) == [1, None, None, None]


def test_a_successor_waits_for_a_checked_transaction(store: Store) -> None:
    with store.transaction() as tx:
        leader.acquire_or_renew(tx, "matcher", "a", 0.0, 5.0)
    took_over = threading.Event()

    def take_over() -> None:
        with store.transaction() as tx:
            assert leader.acquire_or_renew(tx, "matcher", "b", 9.0, 5.0) == 2
        took_over.set()

    successor = threading.Thread(target=take_over)
    with store.transaction() as tx:
        leader.check(tx, "matcher", 1, 4.9)
        successor.start()
        assert not took_over.wait(0.2)
    assert took_over.wait(10)
    successor.join(10)


def test_a_leader_that_is_paused_in_a_transaction_keeps_nobody_waiting(store: Store) -> None:
    if store.dialect == "sqlite":
        return  # one process, one writer: nobody else could lead
    with store.transaction() as tx:
        assert leader.acquire_or_renew(tx, "matcher", "one", 100.0, 5.0) == 1
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        _be_overtaken(store)
    assert time.monotonic() - began < leader.PATIENCE_MS / 1000 + 1.0


def _be_overtaken(store: Store) -> None:
    with store.transaction() as paused:
        leader.check(paused, "matcher", 1, 101.0)
        with store.transaction() as tx:  # waits for the server's patience with the paused one
            assert leader.acquire_or_renew(tx, "matcher", "two", 110.0, 5.0) == 2
        leader.check(paused, "matcher", 1, 102.0)
