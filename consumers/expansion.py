"""From a submission's templates to rows of jobs, a slice at a time; jobs that need no look elsewhere wait at once."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.jdl import JobDescription, Template, fill_job_id
from schemas.job import JobStatus
from schemas.messages.common import SandboxFile
from schemas.messages.event import JobChange, JobsReceived, WorkWaiting

from .batch import Batch
from .changes import publish_changes
from .domain.optimizers import Facts, Ready, Refuse, needs_io, optimize
from .domain.requirements import Requirements
from .store import history, jobs, queues
from .store.registry import Registry
from .store.rows import HistoryRow, JobDetails, JobRow
from .store.submissions import SubmissionRow

SLICE = 1000
"""Jobs written in one transaction: about 0.2 s, so that commands and other submissions get their turn."""

_S = JobStatus


class Expansion:
    """Writes jobs in one batch.

    Args:
        batch: the batch.
        registry: sites.
        source: name of the deciding service, for the history.
    """

    def __init__(self, batch: Batch, registry: Registry, source: str) -> None:
        self._batch = batch
        self._sites = frozenset(registry.sites) if registry.sites else None
        self._source = source
        self._rows: list[JobRow] = []
        self._details: list[JobDetails] = []
        self._lines: list[HistoryRow] = []
        self._ready: list[tuple[int, Requirements]] = []
        self._unchecked: list[tuple[int, int]] = []

    def write(self, submission: SubmissionRow, templates: Sequence[Template], start: int, most: int) -> int:
        """Expand up to ``most`` jobs from index ``start`` on; the index of the next one."""
        files = msgspec.json.decode(submission.files, type=tuple[SandboxFile, ...])
        by_name = {file.name: file for file in files}
        offset, index, end = 0, start, min(submission.count, start + most)
        for template in templates:
            first, last = max(index, offset) - offset, min(end, offset + template.count) - offset
            for description in template.expand(first, last) if first < last else ():
                self._one(submission, index, description, by_name)
                index += 1
            offset += template.count
        return index

    def _one(
        self, submission: SubmissionRow, index: int, description: JobDescription, files: dict[str, SandboxFile]
    ) -> None:
        job = submission.first + index
        described = fill_job_id(description, job)
        status, minor, cause = self._check(job, submission, described, files)
        now = self._batch.now
        self._rows.append(
            JobRow(
                id=job,
                submission=submission.id,
                owner=submission.owner,
                grp=submission.grp,
                name=described.job_name,
                job_group=described.job_group,
                job_type=described.job_type,
                status=status,
                minor=minor,
                lease_seconds=float(described.lease_duration),
                changed=now,
                priority=described.priority,
                submitted=submission.created,
                ended=now if status is _S.FAILED else None,
                processors=described.min_processors,
            )
        )
        own = [files[name] for name in described.input_sandbox if name in files]
        self._details.append(
            JobDetails(job, msgspec.json.encode(described), msgspec.json.encode(own) if own else b"[]")
        )
        self._note(job, _S.RECEIVED, "", f"submitted by {submission.client}")
        self._note(job, status, minor, cause)

    def _check(
        self, job: int, submission: SubmissionRow, described: JobDescription, files: dict[str, SandboxFile]
    ) -> tuple[JobStatus, str, str]:
        if needs_io(described):
            self._unchecked.append((submission.id, job))
            return _S.CHECKING, "", "optimizer"
        outcome = optimize(described, Facts(provided=frozenset(files), sites=self._sites))
        if isinstance(outcome, Refuse):
            return _S.FAILED, outcome.minor, outcome.reason
        if isinstance(outcome, Ready):
            self._ready.append((len(self._rows), outcome.requirements))
            return _S.WAITING, "", "ready to run"
        raise RuntimeError(f"job {job} needs facts although it said that it does not")

    def _note(self, job: int, status: JobStatus, minor: str, cause: str) -> None:
        self._lines.append(HistoryRow(job, 0, self._batch.now, status, minor, self._source, cause))

    def flush(self) -> None:
        """Write all of it, and say it."""
        self._queue()
        jobs.insert(self._batch.tx, self._rows, self._details)
        history.append(self._batch.tx, self._lines)
        rows = {row.id: row for row in self._rows}
        publish_changes(self._batch, [_change(rows[line.job], line) for line in self._lines])
        for submission, first, count in _runs(self._unchecked):
            self._batch.publish(JobsReceived(submission=submission, first=first, count=count))

    def _queue(self) -> None:
        """Find or make the task queues of the jobs that wait."""
        digests: dict[Requirements, str] = {}
        for _, wanted in self._ready:
            if wanted not in digests:
                digests[wanted] = wanted.digest()
        classes = queues.class_ids(self._batch.tx, {digest: wanted.to_json() for wanted, digest in digests.items()})
        keys = {}
        for place, wanted in self._ready:
            row = self._rows[place]
            keys[place] = (classes[digests[wanted]], row.owner, row.grp)
        ids = queues.queue_ids(self._batch.tx, set(keys.values()))
        for place, key in keys.items():
            row = self._rows[place]
            self._rows[place] = msgspec.structs.replace(row, class_id=key[0], queue_id=ids[key])
        if ids:
            self._batch.publish(WorkWaiting(queues=tuple(sorted(ids.values()))))


def _change(row: JobRow, line: HistoryRow) -> JobChange:
    return JobChange(
        job=line.job,
        status=line.status,
        minor=line.minor,
        attempt=line.attempt,
        time=line.time,
        owner=row.owner,
        group=row.grp,
        source=line.source,
        cause=line.cause,
    )


def _runs(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Consecutive jobs of a submission as (submission, first, count)."""
    runs: list[tuple[int, int, int]] = []
    for submission, job in pairs:
        if runs and runs[-1][0] == submission and runs[-1][1] + runs[-1][2] == job:
            runs[-1] = (submission, runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((submission, job, 1))
    return runs
