"""Jobs from their submission to their history."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from consumers.store import (
    Store,
    StoreConflict,
    Transaction,
    attempts,
    heads,
    history,
    jobs,
    queues,
    submission_proxies,
    submissions,
)
from consumers.store.rows import Claim, HistoryRow, JobDetails, JobFilter, JobRow
from consumers.store.submission_proxies import SubmissionProxy
from consumers.store.submissions import NewSubmission
from schemas.job import JobStatus as S

pytestmark = pytest.mark.integration

OWNER = '/C=XX/O=Test/CN=Jäne "Doe" \\u0000'


def submission(key: str = "", count: int = 1, owner: str = OWNER) -> NewSubmission:
    return NewSubmission(owner, "vo", key, "digest", count, b'["\xc3\xa4"]', b"[]", "client", 1.0)


def waiting(job: int, *, queue: int = 7, priority: int = 1, submitted: float = 10.0, owner: str = OWNER) -> JobRow:
    return JobRow(
        job, 1, owner, "vo", f"name {job}", status=S.WAITING, queue_id=queue, class_id=3, priority=priority,
        submitted=submitted, changed=submitted, lease_seconds=60.0,
    )  # fmt: skip


def detail(job: int) -> JobDetails:
    return JobDetails(job, f'{{"Executable":"{job}"}}'.encode(), b'[{"name":"x"}]')


def put(tx: Transaction, *rows: JobRow) -> None:
    jobs.insert(tx, rows, [detail(row.id) for row in rows])


def test_a_submission_reserves_its_range(store: Store) -> None:
    with store.transaction() as tx:
        one, two = submissions.create(tx, [submission("a", 10), submission("", 3)])
    with store.transaction() as tx:
        three = submissions.create(tx, [submission("b")])[0]
        assert [(s.first, s.count) for s in (one, two, three)] == [(1, 10), (11, 3), (14, 1)]
        assert submissions.find_by_keys(tx, [(OWNER, "vo", "a"), (OWNER, "vo", "z"), (OWNER, "x", "a")]) == {
            (OWNER, "vo", "a"): one
        }
        assert submissions.unexpanded(tx, 2) == [one, two]
        submissions.mark_expanded(tx, {one.id: 10, two.id: 1})
        assert [s.id for s in submissions.unexpanded(tx, 9)] == [two.id, three.id]
        assert submissions.load(tx, [two.id])[two.id].expanded == 1
        assert submissions.forget_keys(tx, 2.0) == 2
        assert submissions.find_by_keys(tx, [(OWNER, "vo", "a")]) == {}


def test_the_same_key_at_the_same_time_is_a_conflict_for_one(store: Store) -> None:
    together = threading.Barrier(2)

    def submit(_: int) -> str:
        with store.reading() as tx:
            assert not submissions.find_by_keys(tx, [(OWNER, "vo", "k")])
        together.wait(10)
        try:
            with store.transaction() as tx:
                submissions.create(tx, [submission("k", 5)])
        except StoreConflict:
            return "conflict"
        return "created"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(submit, range(2))) == ["conflict", "created"]
    with store.transaction() as tx:
        assert submissions.create(tx, [submission("l")])[0].first == 6  # the loser's range was given back


def test_jobs_keep_what_was_written(store: Store) -> None:
    row = waiting(1)
    with store.transaction() as tx:
        put(tx, row, waiting(2))
        loaded = jobs.load(tx, [1, 2, 99])
        assert loaded[1] == row
        assert set(loaded) == {1, 2}
        assert jobs.details(tx, [1]) == {1: detail(1)}
        jobs.set_details(tx, {1: {"data": b'[{"lfn":"/a"}]', "candidate_sites": b'["X"]'}})
        assert jobs.details(tx, [1])[1].candidate_sites == b'["X"]'
        assert jobs.load_range(tx, 1, 10) == [row, waiting(2)]


def test_nul_in_text_is_shown_not_fatal(store: Store) -> None:
    with store.transaction() as tx:
        history.append(tx, [HistoryRow(1, 1, 1.0, S.RUNNING, "a\0b"), HistoryRow(1, 1, 1.0, S.RUNNING, "a\\u0000b")])
        first, second = (line.minor for line in history.of(tx, 1))
    assert first in {"a\0b", "a\N{REPLACEMENT CHARACTER}b"}
    assert second == "a\\u0000b"


def test_changes_of_different_shapes(store: Store) -> None:
    with store.transaction() as tx:
        put(tx, *(waiting(i) for i in range(1, 6)))
        jobs.update_many(
            tx,
            {
                1: {"status": S.MATCHED, "lease_until": 5.5, "heartbeat": None},
                2: {"status": S.KILLED, "lease_until": None, "heartbeat": 1.0},
                3: {"stalled_from": S.RUNNING, "accepted": True},
                4: {},
            },
        )
        rows = jobs.load(tx, range(1, 6))
    assert (rows[1].status, rows[1].lease_until) == (S.MATCHED, 5.5)
    assert (rows[2].status, rows[2].lease_until, rows[2].heartbeat) == (S.KILLED, None, 1.0)
    assert (rows[3].stalled_from, rows[3].accepted, rows[3].status) == (S.RUNNING, True, S.WAITING)
    assert rows[4] == waiting(4)
    with pytest.raises(KeyError, match="no_such"), store.transaction() as tx:
        jobs.update_many(tx, {1: {"no_such": 1}})


def test_a_claim_tells_of_a_submissions_own_proxy(store: Store) -> None:
    with store.transaction() as tx:
        one, two = submissions.create(tx, [submission("a"), submission("b")])
        put(tx, msgspec.structs.replace(waiting(1), submission=one.id))
        put(tx, msgspec.structs.replace(waiting(2), submission=two.id))
        submission_proxies.put(tx, SubmissionProxy("p", OWNER, "vo", "chain", b"key", 1e6, 1.0, two.id))
        claimed = jobs.claim(tx, [Claim(i, "pilot.1", "Site", 120.0) for i in (1, 2)], 100.0)
    assert [(claim.job, claim.own_proxy) for claim in claimed] == [(1, False), (2, True)]


def test_a_claim_gives_a_waiting_job_once(store: Store) -> None:
    with store.transaction() as tx:
        put(tx, waiting(1), waiting(2), waiting(3))
        jobs.update_many(tx, {2: {"status": S.KILLED}})
        claimed = jobs.claim(tx, [Claim(i, "pilot.1", "Site", 120.0) for i in (3, 2, 1, 77)], 100.0)
        assert [one.job for one in claimed] == [3, 1]
        first = claimed[0]
        assert (first.attempt, first.client, first.owner, first.grp) == (1, "pilot.1", OWNER, "vo")
        assert (first.lease_until, first.lease_seconds, first.queue_id, first.priority) == (120.0, 60.0, 7, 1)
        assert (first.description, first.files, first.data) == (detail(3).description, b'[{"name":"x"}]', b"[]")
        assert jobs.claim(tx, [Claim(3, "pilot.2", "Site", 120.0)], 101.0) == []
        row = jobs.load(tx, [3])[3]
        assert (row.status, row.pilot, row.site, row.matched, row.lease_until, row.changed) == (
            S.MATCHED, "pilot.1", "Site", 100.0, 120.0, 100.0,
        )  # fmt: skip
        assert jobs.held_by(tx, "pilot.1") == [1, 3]
        assert [(a.attempt, a.pilot, a.matched) for a in attempts.of(tx, 3)] == [(1, "pilot.1", 100.0)]
        assert [(h.status, h.source) for h in history.of(tx, 3)] == [(S.MATCHED, "matcher")]
        attempts.update_many(tx, {(3, 1): {"outcome": "Done", "ended": 130.0, "exit_code": 0, "cpu_seconds": 2.5}})
        assert attempts.of(tx, 3)[0].cpu_seconds == 2.5


def test_concurrent_claims_of_the_same_jobs_give_each_once(store: Store) -> None:
    ids = list(range(1, 101))
    with store.transaction() as tx:
        put(tx, *(waiting(i) for i in ids))
    together = threading.Barrier(4)

    def grab(turn: int) -> list[int]:
        together.wait(10)
        mine = ids[turn * 25 :] + ids[: turn * 25]
        with store.transaction() as tx:
            return [one.job for one in jobs.claim(tx, [Claim(i, f"p.{turn}", "S", 9.0) for i in mine], 1.0)]

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(grab, range(4)))
    assert sorted(job for some in taken for job in some) == ids
    with store.reading() as tx:
        assert {row.attempt for row in jobs.load(tx, ids, for_update=False).values()} == {1}


def test_leases_and_silence(store: Store) -> None:
    def leased(job: int, status: S, lease: float, heartbeat: float | None, *, accepted: bool = True) -> JobRow:
        return JobRow(job, 1, OWNER, "vo", status=status, lease_until=lease, heartbeat=heartbeat, matched=1.0,
                      pilot="p", accepted=accepted)  # fmt: skip

    with store.transaction() as tx:
        put(
            tx,
            leased(1, S.RUNNING, 50.0, 40.0),
            leased(2, S.MATCHED, 20.0, None),
            leased(3, S.STALLED, 30.0, 10.0),
            leased(4, S.DONE, 1.0, 1.0),
            leased(5, S.MATCHED, 90.0, None, accepted=False),
            leased(6, S.STALLED, 95.0, 80.0),
        )
        assert jobs.expired_leases(tx, 60.0, 10) == [2, 3, 1]
        assert jobs.expired_leases(tx, 60.0, 1) == [2]
        assert jobs.silent(tx, 45.0, 10) == [1, 2]
        assert jobs.heard(tx, 70.0, 10) == [6]


def test_listing_pages_by_descending_id(store: Store) -> None:
    with store.transaction() as tx:
        put(tx, *(waiting(i, owner="/CN=a" if i % 2 else "/CN=b") for i in range(1, 21)))
        jobs.update_many(tx, {5: {"status": S.DELETED}, 7: {"status": S.DONE, "site": "X"}})
        seen: list[int] = []
        before, more = 0, True
        while more:
            page, more = jobs.query(tx, JobFilter(owner="/CN=a", before=before, limit=4))
            before = page[-1].id
            seen += [row.id for row in page]
        assert seen == [19, 17, 15, 13, 11, 9, 7, 3, 1]
        assert [r.id for r in jobs.query(tx, JobFilter(ids=(5, 7, 8)))[0]] == [8, 7]
        assert [r.id for r in jobs.query(tx, JobFilter(status=(S.DELETED, S.DONE)))[0]] == [7, 5]
        assert [r.id for r in jobs.query(tx, JobFilter(site="X", grp="vo"))[0]] == [7]


def test_classes_and_queues_are_found_or_made(store: Store) -> None:
    with store.transaction() as tx:
        first = queues.class_ids(tx, {"d1": b'{"a":1}', "d2": b"{}"})
        second = queues.class_ids(tx, {"d2": b"{}", "d3": b"{}"})
        assert first["d2"] == second["d2"]
        assert len({first["d1"], first["d2"], second["d3"]}) == 3
        keys = [(first["d1"], OWNER, "vo"), (first["d2"], OWNER, "vo")]
        found = queues.queue_ids(tx, keys)
        assert queues.queue_ids(tx, [*keys, (first["d1"], "/CN=b", "vo")]).items() >= found.items()
        row = queues.load(tx, [found[keys[0]]])[0]
        assert (row.class_id, row.owner, row.grp, row.requirements) == (first["d1"], OWNER, "vo", b'{"a":1}')


def test_heads_of_queues(store: Store) -> None:
    with store.transaction() as tx:
        put(
            tx,
            waiting(1, submitted=30.0),
            waiting(2, submitted=20.0),
            waiting(3, submitted=20.0),
            waiting(4, priority=5, submitted=40.0),
            waiting(5, queue=8, submitted=1.0),
        )
        jobs.update_many(tx, {5: {"status": S.MATCHED}})
        assert heads.scan(tx) == [(7, 1, 20.0), (7, 5, 40.0)]
        assert heads.of(tx, [8]) == []
        assert heads.page(tx, (7, 1), 10) == [(20.0, 2), (20.0, 3), (30.0, 1)]
        assert heads.page(tx, (7, 1), 1, (20.0, 2)) == [(20.0, 3)]
