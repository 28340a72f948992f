"""What decisions leave in the store and what is said of them, on both databases."""

from __future__ import annotations

import hashlib
import time

import pytest

from consumers import changes as changes_module
from consumers.batch import Batch
from consumers.changes import EVENT_CHANGES, Changes
from consumers.domain.facts import Accepted, KillAsked, Reported
from consumers.store import Store, attempts, history, jobs, orders, sandboxes
from consumers.store.rows import AttemptRow
from schemas.job import JobStatus
from schemas.messages.common import JobRef, SandboxFile, Usage
from schemas.messages.event import JobsChanged, WorkWaiting
from schemas.messages.pilot import Report, Step
from schemas.messages.service import ControlJobs
from tests.support.jobs import job_of, put_job
from tests.support.messages import opened, pilot

pytestmark = pytest.mark.integration

PILOT = pilot()
NOW = 1000.0
USED = Usage(cpu_seconds=5.0, wall_seconds=6.0, memory_mb=7.0, disk_mb=8.0, processors=2)


def running(store: Store, job: int = 1, **fields: object) -> None:
    values = {"status": JobStatus.MATCHED, "attempt": 1, "pilot": PILOT.cli, "site": "S1", "matched": 900.0,
              "lease_until": NOW + 20, "queue_id": 7}  # fmt: skip
    put_job(store, job, **(values | fields))  # type: ignore[arg-type]
    with store.transaction() as tx:
        attempts.insert(tx, [AttemptRow(job, 1, PILOT.cli, "S1", 900.0)])


def report(status: JobStatus, *steps: Step, job: int = 1, sequence: int = 1, **fields: object) -> Reported:
    said = Report(job=job, attempt=1, sequence=sequence, status=status, steps=steps, usage=USED, **fields)  # type: ignore[arg-type]
    return Reported(said, PILOT.cli)


def started(time: float = 950.0) -> Step:
    return Step(status=JobStatus.RUNNING, minor="Executing payload", time=time)


def decide(store: Store, *facts: Reported | Accepted | KillAsked, job: int = 1, now: float = NOW) -> Batch:
    with store.transaction() as tx:
        batch = Batch(tx, now)
        changes = Changes(batch, "test")
        changes.load([job])
        for fact in facts:
            changes.decide(job, fact)
        changes.flush()
    return batch


def attempt(store: Store, job: int = 1) -> AttemptRow:
    with store.reading() as tx:
        [row] = attempts.of(tx, job)
    return row


def test_several_facts_of_one_batch_are_decided_one_after_the_other(store: Store) -> None:
    running(store)
    batch = decide(
        store,
        Accepted(JobRef(job=1, attempt=1), PILOT.cli),
        report(JobStatus.RUNNING, started()),
        report(JobStatus.DONE, started(), Step(status=JobStatus.DONE, time=960.0), sequence=2, exit_code=0),
        report(JobStatus.RUNNING, started(), sequence=1),  # late: changes nothing
    )
    row, one = job_of(store, 1), attempt(store)
    assert (row.status, row.started, row.exit_code, row.lease_until) == (JobStatus.DONE, 950.0, 0, None)
    assert row.ended is not None
    assert row.ended >= 960.0
    assert (row.cpu_seconds, row.wall_seconds, row.memory_mb, row.disk_mb, row.processors) == (5.0, 6.0, 7.0, 8.0, 2)
    assert (one.started, one.outcome, one.exit_code, one.cpu_seconds) == (950.0, "Done", 0, 5.0)
    [event] = [opened(letter) for letter in batch.letters if letter.name == "job.changed.v1"]
    assert isinstance(event, JobsChanged)
    with store.reading() as tx:
        assert [(line.status, line.minor) for line in history.of(tx, 1)] == [
            (change.status, change.minor) for change in event.changes
        ]
    assert event.changes[-1].status is JobStatus.DONE
    assert {change.pilot for change in event.changes} == {PILOT.cli}


def test_an_attempt_that_was_given_back_leaves_its_row_and_the_job_waits_as_new(store: Store) -> None:
    running(store)
    decide(store, report(JobStatus.RUNNING, started()))
    batch = decide(
        store, report(JobStatus.RESCHEDULED, started(), sequence=2, infrastructure=True, reason="the pilot ends")
    )
    row, one = job_of(store, 1), attempt(store)
    assert (row.status, row.started, row.ended, row.exit_code, row.pilot) == (JobStatus.WAITING, None, None, None, "")
    assert row.infra_failures == 1
    assert (one.outcome, one.reason, one.started) == ("Rescheduled", "the pilot ends", 950.0)
    [hint] = [opened(letter) for letter in batch.letters if letter.name == "work.waiting.v1"]
    assert hint == WorkWaiting(queues=(7,))


def test_a_stale_report_changes_nothing(store: Store) -> None:
    running(store)
    before = job_of(store, 1)
    said = Report(job=1, attempt=2, sequence=9, status=JobStatus.DONE)
    batch = decide(store, Reported(said, PILOT.cli), Reported(said, "somebody"))
    assert job_of(store, 1) == before
    assert batch.letters == []


def test_a_kill_is_an_order_in_the_store_and_on_its_way(store: Store) -> None:
    running(store, status=JobStatus.RUNNING, accepted=True)
    batch = decide(store, KillAsked("ada"))
    [control] = [opened(letter) for letter in batch.letters if letter.name == "job.control.v1"]
    assert isinstance(control, ControlJobs)
    with store.reading() as tx:
        [kept] = orders.pending(tx, NOW + 100, 10)
    assert (kept.job, kept.attempt, kept.action, kept.client) == (1, 1, "kill", PILOT.cli)


def test_outputs_are_bound_only_if_their_bytes_are_there_and_the_pilots(store: Store) -> None:
    running(store)
    small = SandboxFile(name="small", sha256=hashlib.sha256(b"s").hexdigest(), size=1, content=b"s")
    sent = SandboxFile(name="sent", sha256=hashlib.sha256(b"sent").hexdigest(), size=4)
    foreign = SandboxFile(name="foreign", sha256=hashlib.sha256(b"foreign").hexdigest(), size=7)
    lost = SandboxFile(name="lost", sha256="0" * 64, size=1)
    with store.transaction() as tx:
        sandboxes.put_small(tx, PILOT.cli, {sent.sha256: b"sent"}, NOW, NOW + 9e9)
        sandboxes.put_small(tx, "another", {foreign.sha256: b"foreign"}, NOW, NOW + 9e9)
    batch = decide(store, report(JobStatus.DONE, outputs=(small, sent, foreign, lost)))
    with store.reading() as tx:
        assert {row.name for row in sandboxes.outputs_of(tx, 1)} == {"small", "sent"}
        lines = history.of(tx, 1)
    assert [line.status for line in lines] == [JobStatus.DONE, JobStatus.DONE]
    assert lines[-1].cause.endswith("(the pilot did not send them): foreign, lost")
    [event] = [opened(letter) for letter in batch.letters if letter.name == "job.changed.v1"]
    assert isinstance(event, JobsChanged)
    assert [change.cause for change in event.changes] == [line.cause for line in lines]


def test_an_output_sandbox_has_its_size_however_much_a_pilot_sends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is left out and named; sizes are those of the bytes, not the pilot's words."""
    monkeypatch.setattr(changes_module, "MAX_SANDBOX_BYTES", 10)
    running(store)
    contents = {name: name.encode() * size for name, size in {"a": 6, "b": 5, "c": 4, "d": 1}.items()}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    with store.transaction() as tx:
        sandboxes.put_small(tx, PILOT.cli, {hashes[name]: data for name, data in contents.items()}, NOW, NOW + 9e9)
    said = [SandboxFile(name=name, sha256=hashes[name], size=0) for name in ("a", "b", "c", "d", "a")]
    said += [SandboxFile(name="again", sha256=hashes["c"], size=0)]
    decide(store, report(JobStatus.DONE, outputs=tuple(said), exit_code=0))
    with store.reading() as tx:
        assert {row.name: row.size for row in sandboxes.outputs_of(tx, 1)} == {"a": 6, "c": 4}
        [end, note] = history.of(tx, 1)
    assert (end.status, note.status, note.time) == (JobStatus.DONE, JobStatus.DONE, end.time)
    assert note.cause.startswith("3 left out of the output sandbox")
    assert note.cause.endswith("in total): b, d, again")


def test_events_are_bounded_however_much_happens(store: Store) -> None:
    ids = range(1, 2 * EVENT_CHANGES + 2)
    for job in ids:
        put_job(store, job)
    with store.transaction() as tx:
        batch = Batch(tx, time.time())
        changes = Changes(batch, "test")
        changes.load(ids)
        for job in ids:
            changes.decide(job, KillAsked("ada"))
        changes.flush()
    events = [opened(letter) for letter in batch.letters if letter.name == "job.changed.v1"]
    assert [len(event.changes) for event in events if isinstance(event, JobsChanged)] == [500, 500, 1]
    with store.reading() as tx:
        assert {row.status for row in jobs.load_range(tx, 1, 5000)} == {JobStatus.KILLED}


def test_long_texts_do_not_make_events_that_nobody_may_read(store: Store) -> None:
    steps = [Step(status=JobStatus.RUNNING, minor="\x01" * 4096, time=950.0 + number) for number in range(60)]
    for job in range(1, 31):
        running(store, job)
    with store.transaction() as tx:
        batch = Batch(tx, NOW)
        changes = Changes(batch, "test")
        changes.load(range(1, 31))
        for job in range(1, 31):
            changes.decide(job, report(JobStatus.RUNNING, *steps, job=job))
        changes.flush()
    for letter in batch.letters:
        opened(letter)  # each within its type's bound


def test_unknown_jobs_are_simply_absent(store: Store) -> None:
    with store.transaction() as tx:
        changes = Changes(Batch(tx, NOW), "test")
        changes.load([5])
        assert changes.decide(5, KillAsked("ada")) is None
        changes.flush()
