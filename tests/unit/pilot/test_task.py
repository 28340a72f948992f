"""The bookkeeping of one attempt."""

from __future__ import annotations

import msgspec

from pilot.payload import Outcome, Usage
from pilot.task import MAX_STEPS, Task
from schemas.job import JobStatus
from schemas.messages.pilot import ReportJobs
from schemas.messages.service import Match
from schemas.registry import by_name, encode
from tests.support.messages import description


def task() -> Task:
    match = Match(
        job=7, attempt=2, owner="/CN=ada", group="g", lease_until=120.0, run_lease=60.0,
        description=msgspec.Raw(description(NumberOfProcessors=3)),
    )  # fmt: skip
    return Task.of(match, "request", 20.0, 100.0)


def test_a_task_knows_its_attempt() -> None:
    made = task()
    assert made.key == (made.ref.job, made.ref.attempt) == (7, 2)
    assert (made.processors, made.lease_end, made.lease_seconds) == (3, 120.0, 20.0)


def test_reports_are_cumulative_and_bounded() -> None:
    made = task()
    for number in range(200):
        made.step(JobStatus.RUNNING, "x" * 5000, float(number))
    one, two = made.report(JobStatus.RUNNING), made.report(JobStatus.FAILED, reason="y" * 9999)
    assert (one.sequence, two.sequence) == (1, 2)
    assert len(two.steps) == MAX_STEPS
    again = by_name("job.report.v1").decode(encode(ReportJobs(reports=(one, two))))
    assert again == ReportJobs(reports=(one, two))


def test_figures_before_and_after_the_end() -> None:
    made = task()
    assert made.report(JobStatus.RUNNING).exit_code is None
    assert made.usage().processors == 3
    made.outcome = Outcome(None, 9, "the lease ends and was not renewed", Usage(1, 2, 3, 4, 5, 6))
    last = made.report(JobStatus.RESCHEDULED)
    assert (last.exit_code, last.signal, last.usage.memory_mb, last.usage.wall_seconds) == (None, 9, 4, 2)
    assert made.stops_by_lease
