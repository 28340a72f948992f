"""What questions about waiting jobs look at: bounded, by index, and right."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from consumers.store import Reading, Store, history, jobs, leader, parked, pilots, sights
from consumers.store.parked import ParkedRow
from consumers.store.pilots import PilotRow
from consumers.store.rows import HistoryRow, JobDetails, JobRow
from consumers.store.sights import Behind
from schemas.job import JobStatus

pytestmark = pytest.mark.integration


def put(store: Store, ids: Iterable[int], *, queue: int = 1, priority: int = 1, owner: str = "/CN=a") -> None:
    rows = [
        JobRow(job, 1, owner, "vo", status=JobStatus.WAITING, queue_id=queue, submitted=float(job), priority=priority)
        for job in ids
    ]
    with store.transaction() as tx:
        jobs.insert(tx, rows, [JobDetails(row.id, b"{}") for row in rows])


def test_jobs_before_a_place_are_counted_over_queues_and_priorities_up_to_a_bound(store: Store) -> None:
    put(store, range(1, 11))
    put(store, range(11, 21), queue=2, priority=3)
    put(store, range(21, 31), queue=3)
    with store.reading() as tx:
        places = [Behind(1, 1, 5.0, 5), Behind(2, 3, 15.0, 99), Behind(2, 1, 99.0, 99)]
        assert sights.before(tx, places, 100) == 4 + 5
        assert sights.before(tx, places, 3) == 3
        assert sights.before(tx, [], 100) == 0
        assert sights.counted(tx, [1, 2, 9], 7) == {1: 7, 2: 7, 9: 0}


def test_counts_stop_early_however_many_wait(store: Store) -> None:
    """Of 20 000 jobs in a queue no plan reads all: the index of waiting jobs is walked up to the bound."""
    put(store, range(1, 20_001))
    with store.transaction() as tx:
        tx.connection.exec_driver_sql("ANALYZE")
    with store.reading() as tx:
        for statement, values in (
            (sights._before(), {**Behind(1, 1, 1e9, 1)._asdict(), "most": 10}),
            (sights._counted(), {"queue": 1, "most": 10}),
        ):
            text = statement.params(**values).compile(tx.connection, compile_kwargs={"literal_binds": True})  # type: ignore[attr-defined]  # a select
            assert "ix_jobs_waiting" in explained(tx, str(text))


def explained(tx: Reading, text: str) -> str:
    word = "EXPLAIN QUERY PLAN" if tx.dialect == "sqlite" else "EXPLAIN"
    return "\n".join(str(row) for row in tx.connection.exec_driver_sql(f"{word} {text}"))


def test_recent_matches_by_owner(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, range(1, 5))
    put(store, range(5, 7), owner="/CN=b")
    lines = [HistoryRow(job, 1, 100.0 + job, JobStatus.MATCHED, "", "matcher", "") for job in range(1, 7)]
    with store.transaction() as tx:
        history.append(tx, [*lines, HistoryRow(1, 1, 120.0, JobStatus.RUNNING, "", "x", "")])
    with store.reading() as tx:
        assert sights.matches(tx, 50.0, 200.0) == (50.0, {("vo", "/CN=a"): 4, ("vo", "/CN=b"): 2})
        assert sights.matches(tx, 103.5, 200.0).counts == {("vo", "/CN=a"): 1, ("vo", "/CN=b"): 2}
        monkeypatch.setattr(sights, "MAX_LINES", 3)
        assert sights.matches(tx, 50.0, 200.0) == (105.0, {("vo", "/CN=b"): 2})


def test_who_is_alive_and_who_asks(store: Store) -> None:
    with store.transaction() as tx:
        pilots.offered(tx, [PilotRow("a", "/CN=p", offer=b'{"x":1}'), PilotRow("b", "/CN=p"), PilotRow("c", "/CN=p")])
        pilots.gone(tx, ["b"], 5.0)
        pilots.drain(tx, ["c"])
        parked.put(tx, [ParkedRow("a", "s", "/CN=p", b"{}", "", "", 1.0, 50.0),
                        ParkedRow("d", "s", "/CN=p", b"{}", "", "", 1.0, 5.0)])  # fmt: skip
    with store.reading() as tx:
        assert sights.alive(tx) == [("a", b'{"x":1}')]
        assert sights.asking(tx, 10.0) == [("a", b"{}", 1.0)]


def test_who_leads(store: Store) -> None:
    with store.transaction() as tx:
        assert sights.leading(tx, "matcher") is None
        leader.acquire_or_renew(tx, "matcher", "here", 10.0, 5.0)
        assert sights.leading(tx, "matcher") == ("here", 15.0)
