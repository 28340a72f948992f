"""What must hold whatever was killed: no job lost, none running twice at once, none stuck, none finished twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import pairwise

from schemas.job import FINAL, LEASED, JobStatus, is_legal
from tests.support.wait import wait_until

from .harness import Execution, Stand

CLOCK_TICK = 0.02
"""``/proc/uptime`` counts hundredths."""


def check(place: Stand, ids: Collection[int], expected: JobStatus = JobStatus.DONE) -> None:
    """All of it, for jobs that have ended."""
    rows = place.jobs(ids)
    assert sorted(rows) == sorted(ids), f"lost: {sorted(set(ids) - set(rows))}"
    wrong = {job: (row.status, row.minor) for job, row in rows.items() if row.status is not expected}
    assert not wrong, f"not {expected}: {wrong}\n{place.history(next(iter(wrong)))}"
    told = place.told()
    for job in ids:
        _one_after_the_other(place, job)
        _history_tells(place, job, expected)
        _payloads_apart([one for one in told.values() if one.job == job])
        if expected is JobStatus.DONE:
            _done_by_its_payload(place, job, told)


def nothing_left(place: Stand, timeout: float = 30.0) -> None:
    """No message lies about: everything that was to be said is said, and everything that came is handled."""
    wait_until(lambda: place.count("outbox") == 0, timeout, "the outbox to be empty")
    assert place.count("jobs", "status NOT IN ('Done','Failed','Killed','Deleted')") == 0

    def queues() -> dict[str, int]:
        lines = place.place.node.ctl("list_queues", "-q", "name", "messages", "type").splitlines()
        rows = [line.split() for line in lines]
        return {row[0]: int(row[1]) for row in rows if row[-1] != "stream" and row[1] not in {"0", "messages"}}

    left: dict[str, int] = {}

    def empty() -> bool:
        nonlocal left
        # Heartbeats come all the time; replies of clients that left and hints for monitors that died expire.
        passing = ("reply.", "followers.", "heartbeats")
        left = {name: many for name, many in queues().items() if not name.startswith(passing)}
        return not left

    wait_until(empty, timeout, f"the queues to be empty, but {left}")


def no_letter_died(place: Stand) -> None:
    """Nothing honest was given up."""
    assert place.count("dead_letters", "state = 'dead'") == 0


def _one_after_the_other(place: Stand, job: int) -> None:
    """At most one lease at any time: each attempt ended before the next one was matched."""
    rows = place.attempts(job)
    assert [row.attempt for row in rows] == list(range(1, len(rows) + 1)), f"job {job}: {rows}"
    for earlier, later in pairwise(rows):
        assert earlier.ended is not None, f"job {job}: attempt {earlier.attempt} never ended, {later.attempt} began"
        assert earlier.ended <= later.matched, f"job {job}: attempts {earlier} and {later} overlap"
    assert all(row.ended is not None and row.outcome for row in rows), f"job {job}: {rows}"
    assert all(row.reason for row in rows if row.outcome == JobStatus.RESCHEDULED), f"job {job}: no reason in {rows}"


def _history_tells(place: Stand, job: int, expected: JobStatus) -> None:
    lines = place.history(job)
    shown = "\n".join(map(str, lines))
    assert lines, f"job {job} has no history"
    assert lines[-1].status is expected, shown
    finals = Counter(line.status for line in lines if line.status in FINAL)
    assert finals == {expected: 1}, f"finished more than once or otherwise:\n{shown}"
    for earlier, later in pairwise(lines):
        assert earlier.time <= later.time, f"not in order of time:\n{shown}"
        assert earlier.status is later.status or is_legal(earlier.status, later.status), f"illegal:\n{shown}"
    assert all(line.source for line in lines), shown
    assert all(line.cause for line in lines), f"a change without a cause:\n{shown}"
    matched = [line.attempt for line in lines if line.status is JobStatus.MATCHED]
    assert matched == [row.attempt for row in place.attempts(job)], f"attempts that the history does not tell:\n{shown}"
    for attempt in matched[:-1]:
        assert _end_is_told(line for line in lines if line.attempt == attempt), f"attempt {attempt}'s end:\n{shown}"


def _end_is_told(lines: Iterable[object]) -> bool:
    return any(getattr(line, "status", None) not in LEASED for line in lines)


def _payloads_apart(payloads: Collection[Execution]) -> None:
    for earlier, later in pairwise(sorted(payloads, key=lambda one: one.start)):
        assert earlier.last <= later.start + CLOCK_TICK, f"ran twice at once: {earlier} and {later}"


def _done_by_its_payload(place: Stand, job: int, told: dict[tuple[int, int], Execution]) -> None:
    last = place.attempts(job)[-1].attempt
    assert told[job, last].ended, f"job {job} is Done, but the payload of attempt {last} did not come to its end"
