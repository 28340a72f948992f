"""Carries out decisions about jobs: rows, history, attempts, events, orders — one flush for a whole batch.

The domain decides (:mod:`consumers.domain.lifecycle`); this writes. Several facts about one job in one batch are
decided one after the other on the row as it then stands. Nothing is written before :meth:`Changes.flush`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields

import msgspec
import structlog

from schemas.job import FINAL, LEASED, JobStatus
from schemas.messages.common import MAX_SANDBOX_BYTES, SandboxFile, Usage
from schemas.messages.event import MAX_ENDED, EndedLease, JobChange, JobsChanged, JobsReceived, LeasesEnded, WorkWaiting
from schemas.messages.service import ControlJobs, Order

from .batch import Batch
from .domain.decision import (
    Account,
    BindOutputs,
    Decision,
    Illegal,
    JobView,
    LeaveQueue,
    Line,
    Optimize,
    Outcome,
    ReleaseToQueue,
    SendControl,
    Stale,
)
from .domain.facts import Fact
from .domain.lifecycle import decide
from .store import attempts, history, jobs, orders, sandboxes
from .store.orders import OrderRow
from .store.rows import HistoryRow, JobRow
from .store.sandboxes import OutputRow, Whole

EVENT_CHANGES = 500
"""Changes in one event: 250 bytes each, so that an event stays near 100 kB."""

EVENT_BYTES = 1 << 20
"""Of one event: texts of pilots may be long, and an event above its type's bound (4 MiB) is read by nobody."""

SANDBOX_SECONDS = 30 * 86_400.0
"""How long a sandbox file is kept that nothing refers to."""

NAMED = 5
"""Files that a note names; the others are only counted."""

_VIEW = tuple(field.name for field in fields(JobView))

log = structlog.get_logger(__name__)


class Changes:
    """The jobs that one batch touches.

    Args:
        batch: the batch.
        source: name of the deciding service, for the history.
        tells_ends: say which leases ended; of use only if the matcher has limits.
    """

    def __init__(self, batch: Batch, source: str, *, tells_ends: bool = False) -> None:
        self._batch = batch
        self._source = source
        self._tells_ends = tells_ends
        self._before: dict[int, JobRow] = {}
        self._rows: dict[int, JobRow] = {}
        self._lines: list[tuple[int, Line]] = []
        self._attempts: dict[tuple[int, int], dict[str, object]] = {}
        self._waiting: set[int] = set()
        self._optimize: list[JobRow] = []
        self._ordered: list[tuple[int, SendControl]] = []
        self._outputs: list[tuple[JobRow, BindOutputs]] = []
        self.stale = 0
        self.illegal = 0

    def load(self, ids: Collection[int]) -> None:
        """Fetch and lock jobs; unknown ids are simply absent."""
        rows = jobs.load(self._batch.tx, [job for job in ids if job not in self._rows])
        self._before |= rows
        self._rows |= rows

    def add(self, row: JobRow) -> None:
        """Take note of a row that was locked and read elsewhere in this transaction."""
        self._before[row.id] = self._rows[row.id] = row

    def get(self, job: int) -> JobRow | None:
        """The job as it stands now."""
        return self._rows.get(job)

    def decide(self, job: int, fact: Fact) -> Outcome | None:
        """Decide about a fact and keep the result; None if there is no such job."""
        row = self._rows.get(job)
        if row is None:
            return None
        outcome = decide(view_of(row), fact, self._batch.now)
        if isinstance(outcome, Decision):
            self._keep(row, outcome)
        elif isinstance(outcome, Stale):
            self.stale += 1
        elif isinstance(outcome, Illegal):
            self.illegal += 1
            log.error("job.illegal_transition", job=job, before=outcome.before, after=outcome.after, why=outcome.reason)
        return outcome

    def set(self, job: int, **values: object) -> None:
        """Change columns that are no matter of decision (figures, class, queue)."""
        self._rows[job] = msgspec.structs.replace(self._rows[job], **values)

    def ended(self) -> list[EndedLease]:
        """Leases that were live before and are not any more."""
        return [
            EndedLease(job=job, attempt=before.attempt)
            for job, before in self._before.items()
            if before.status in LEASED
            and ((row := self._rows[job]).status not in LEASED or row.attempt != before.attempt)
        ]

    def flush(self) -> None:
        """Write everything, and say it."""
        changes = {job: _difference(self._before[job], row) for job, row in self._rows.items()}
        jobs.update_many(self._batch.tx, {job: values for job, values in changes.items() if values})
        self._bind()
        if self._lines:
            history.append(self._batch.tx, [self._history(job, line) for job, line in self._lines])
            publish_changes(self._batch, [self._change(job, line) for job, line in self._lines])
        if self._attempts:
            attempts.update_many(self._batch.tx, self._attempts)
        self._hints()
        self._send_orders()

    # -- keeping ------------------------------------------------------------------------------------------------

    def _keep(self, row: JobRow, decision: Decision) -> None:
        values: dict[str, object] = dict(decision.changes())
        for line in decision.lines:
            self._lines.append((row.id, line))
            self._derive(row, line, values)
        self._rows[row.id] = row = msgspec.structs.replace(row, **values)
        for effect in decision.effects:
            self._effect(row, effect)

    def _derive(self, row: JobRow, line: Line, values: dict[str, object]) -> None:
        if line.status is JobStatus.RUNNING and row.started is None and "started" not in values:
            # Only the first of an attempt: later lines tell other minor states, kill requests, heartbeats again.
            self._attempts.setdefault((row.id, line.attempt), {})["started"] = values["started"] = line.time
        if line.status in FINAL - {JobStatus.DELETED}:
            values["ended"] = line.time
        elif line.status in {JobStatus.RESCHEDULED, JobStatus.WAITING}:
            values.update(ended=None, started=None, exit_code=None, signal=None)

    def _effect(self, row: JobRow, effect: object) -> None:
        match effect:
            case ReleaseToQueue() | LeaveQueue():
                if row.queue_id is not None:
                    self._waiting.add(row.queue_id)
            case Optimize():
                self._optimize.append(row)
            case SendControl():
                self._ordered.append((row.id, effect))
            case BindOutputs():
                self._outputs.append((row, effect))
            case Account():
                self._account(row, effect)

    def _account(self, row: JobRow, end: Account) -> None:
        values = self._attempts.setdefault((row.id, end.attempt), {})
        values.update(ended=end.time, outcome=end.outcome.value, reason=end.reason)
        if end.reported:
            figures = usage_columns(end.usage)
            values.update(exit_code=end.exit_code, signal=end.signal, **figures)
            self._rows[row.id] = msgspec.structs.replace(
                self._rows[row.id], exit_code=end.exit_code, signal=end.signal, **figures
            )

    # -- writing ------------------------------------------------------------------------------------------------

    def _history(self, job: int, line: Line) -> HistoryRow:
        return HistoryRow(job, line.attempt, line.time, line.status, line.minor, self._source, line.cause)

    def _change(self, job: int, line: Line) -> JobChange:
        row = self._rows[job]
        return JobChange(
            job=job,
            status=line.status,
            minor=line.minor,
            attempt=line.attempt,
            time=line.time,
            owner=row.owner,
            group=row.grp,
            site=row.site,
            pilot=row.pilot,
            source=self._source,
            cause=line.cause,
        )

    def _hints(self) -> None:
        if self._waiting:
            self._batch.publish(WorkWaiting(queues=tuple(sorted(self._waiting))))
        ended = self.ended() if self._tells_ends else []
        for start in range(0, len(ended), MAX_ENDED):
            self._batch.publish(LeasesEnded(leases=tuple(ended[start : start + MAX_ENDED])))
        for row in self._optimize:
            self._batch.publish(JobsReceived(submission=row.submission, first=row.id, count=1))

    def _bind(self) -> None:
        rows: list[OutputRow] = []
        now, tx = self._batch.now, self._batch.tx
        files = [(row.pilot, file) for row, effect in self._outputs for file in effect.outputs]
        inline = [Whole(pilot, file.sha256, file.content) for pilot, file in files if file.content is not None]
        sandboxes.put_whole(tx, inline, now, now + SANDBOX_SECONDS)
        there = sandboxes.may_refer_many(tx, [(pilot, file.sha256) for pilot, file in files])
        # What was uploaded tells the sizes, not the pilot: readers of the sandbox reckon with them.
        blobs = sandboxes.describe(tx, {sha256 for _, sha256 in there})
        for row, effect in self._outputs:
            outputs = {file.name: file for file in effect.outputs}.values()
            sent = [file for file in outputs if (row.pilot, file.sha256) in there]
            lost = [file.name for file in outputs if (row.pilot, file.sha256) not in there]
            kept, beyond = _within(sent, {file.sha256: blobs[file.sha256].size for file in sent})
            rows.extend(
                OutputRow(row.id, effect.attempt, file.name, file.sha256, size, file.mode) for file, size in kept
            )
            self._left_out(row, effect.attempt, lost, "the pilot did not send them")
            self._left_out(row, effect.attempt, beyond, f"beyond {MAX_SANDBOX_BYTES >> 20} MiB in total")
        sandboxes.bind_outputs(tx, rows)

    def _left_out(self, row: JobRow, attempt: int, names: Sequence[str], why: str) -> None:
        """Tell the owner what he will look for in vain."""
        if not names:
            return
        log.warning("job.outputs_left_out", job=row.id, attempt=attempt, files=len(names), names=names[:NAMED], why=why)
        now = self._rows[row.id]
        some = ", ".join(name[:100] for name in names[:NAMED]) + (", …" if len(names) > NAMED else "")
        cause = f"{len(names)} left out of the output sandbox ({why}): {some}"
        self._lines.append((row.id, Line(now.status, now.minor, now.changed, cause, attempt)))

    def _send_orders(self) -> None:
        now = self._batch.now
        orders.add(
            self._batch.tx,
            [
                OrderRow(job, order.attempt, order.action, order.pilot, order.reason, created=now, sent=now)
                for job, order in self._ordered
            ],
        )
        by_pilot: dict[str, list[Order]] = {}
        for job, order in self._ordered:
            by_pilot.setdefault(order.pilot, []).append(
                Order(job=job, attempt=order.attempt, action=order.action, reason=order.reason)
            )
        for pilot, some in by_pilot.items():
            self._batch.tell(pilot, ControlJobs(orders=tuple(some)))


def view_of(row: JobRow) -> JobView:
    """What a decision sees of a row."""
    return JobView(**{name: getattr(row, name) for name in _VIEW})


def usage_columns(usage: Usage) -> dict[str, object]:
    """A usage as columns of ``jobs`` and ``attempts``."""
    return {
        "cpu_seconds": usage.cpu_seconds,
        "wall_seconds": usage.wall_seconds,
        "memory_mb": usage.memory_mb,
        "disk_mb": usage.disk_mb,
        "processors": usage.processors,
    }


def publish_changes(batch: Batch, changes: list[JobChange]) -> None:
    """Say what changed, in events of bounded size."""
    for part in parts(changes):
        batch.publish(JobsChanged(changes=part))


def parts(changes: Sequence[JobChange]) -> Iterator[tuple[JobChange, ...]]:
    """Changes in parts for one message each: few enough, and small enough whatever their texts are."""
    some: list[JobChange] = []
    size = 0
    for change in changes:
        weight = len(msgspec.json.encode(change)) + 1
        if some and (len(some) >= EVENT_CHANGES or size + weight > EVENT_BYTES):
            yield tuple(some)
            some, size = [], 0
        some.append(change)
        size += weight
    if some:
        yield tuple(some)


def _within(files: Sequence[SandboxFile], sizes: Mapping[str, int]) -> tuple[list[tuple[SandboxFile, int]], list[str]]:
    """Those that fit into an output sandbox together, with their sizes, and the names of the others."""
    total = 0
    kept: list[tuple[SandboxFile, int]] = []
    beyond: list[str] = []
    for file in files:
        size = sizes[file.sha256]
        if total + size > MAX_SANDBOX_BYTES:
            beyond.append(file.name)
        else:
            total += size
            kept.append((file, size))
    return kept, beyond


def _difference(before: JobRow, after: JobRow) -> Mapping[str, object]:
    if before is after:
        return {}
    return {
        name: value for name in JobRow.__struct_fields__ if (value := getattr(after, name)) != getattr(before, name)
    }
