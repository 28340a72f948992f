"""What a pilot's report does to its job.

* Fenced: only the live attempt's pilot is heard; anything else is :class:`~.decision.Stale` and changes nothing. The
  same final report again is :class:`~.decision.Ignored`.
* Cumulative: the highest sequence wins; an older one only fills in history lines that are not there yet.
* All steps are kept in order with the node's times, clamped into [match, now], so that a node's wrong clock never
  puts the history out of order. A short job may go from Matched to Done in one report.
* A payload's own failure is final, as in DIRAC. A failure of the infrastructure, or a job given back, is a new attempt,
  not charged to its owner.
"""

from __future__ import annotations

from schemas.job import FINAL, JobStatus, is_legal
from schemas.messages.pilot import Report, Step

from .attempt import fence, finish, lose, renewed
from .decision import BindOutputs, Draft, Ignored, Illegal, JobView, Outcome

_S = JobStatus

REPORTABLE: frozenset[JobStatus] = frozenset({_S.RUNNING, _S.COMPLETING, _S.DONE, _S.FAILED, _S.KILLED, _S.RESCHEDULED})
"""What a pilot may say about its attempt."""

_ENDS: frozenset[JobStatus] = FINAL | {_S.RESCHEDULED}


def on_report(job: JobView, report: Report, pilot: str, now: float) -> Outcome:
    """A pilot tells where an attempt stands."""
    stale = fence(job, report.attempt, pilot)
    if stale is not None:
        if (job.attempt, job.pilot) == (report.attempt, pilot) and report.sequence <= job.sequence:
            return Ignored("this report was taken before")
        return stale
    odd = next((status for status in _said(report) if status not in REPORTABLE), None)
    if odd is not None:
        return Illegal(job.status, odd, f"a pilot cannot report {odd}")
    if report.sequence <= job.sequence:
        return _fill_history(job, report, now)
    return _advance(job, report, now)


def _said(report: Report) -> tuple[JobStatus, ...]:
    return (*(step.status for step in report.steps), report.status)


def _on_time(job: JobView, step: Step, now: float) -> float:
    earliest = job.matched if job.matched is not None else job.changed
    # NaN and infinities from a node compare as "not in between" and end at a bound.
    return step.time if earliest <= step.time <= now else (earliest if step.time < earliest else max(now, earliest))


def _fill_history(job: JobView, report: Report, now: float) -> Outcome:
    missing = report.steps[job.steps :]
    if not missing:
        return Ignored("this report was taken before")
    draft = Draft(job, steps=len(report.steps))
    for step in missing:
        if step.status in _ENDS:
            continue  # an end is a decision, never a mere line
        draft.note(step.status, step.minor, _on_time(job, step, now), "late report")
    return draft.outcome()


def _advance(job: JobView, report: Report, now: float) -> Outcome:
    known = job.stalled_from if job.status is _S.STALLED else job.status
    draft = Draft(job, sequence=report.sequence, steps=max(job.steps, len(report.steps)), accepted=True)
    steps = tuple(step for step in report.steps[job.steps :] if step.status not in _ENDS)
    towards = steps[0].status if steps else report.status
    if known is not None and towards is not known and not is_legal(known, towards):
        return Illegal(known, towards, f"a report cannot lead from {known} to {towards}")
    for step in steps:
        draft.step(step.status, step.minor, _on_time(job, step, now), "pilot")
    if report.status in _ENDS:
        _end(draft, job, report, now)
        return draft.outcome()
    if draft.status is not report.status:
        draft.step(report.status, "", now, "pilot")
    draft.set(heartbeat=now, lease_until=renewed(job, now), stalled_from=None)
    return draft.outcome()


def _end(draft: Draft, job: JobView, report: Report, now: float) -> None:
    last = report.steps[-1] if report.steps and report.steps[-1].status in _ENDS else None
    at = now if last is None else _on_time(job, last, now)
    reason = report.reason or ("" if last is None else last.minor)
    if report.status is _S.DONE:
        draft.effect(BindOutputs(job.attempt, report.outputs))
        finish(draft, job, _S.DONE, reason, at, report)
    elif report.status is _S.KILLED and job.kill_requested:
        draft.effect(BindOutputs(job.attempt, report.outputs))
        finish(draft, job, _S.KILLED, reason or f"killed by {job.kill_requested}", at, report)
    elif report.status is _S.FAILED and not report.infrastructure:
        draft.effect(BindOutputs(job.attempt, report.outputs))
        finish(draft, job, _S.FAILED, reason or _failure(report), at, report)
    elif report.status is _S.KILLED:
        lose(draft, job, reason or "stopped on the node without an order", at, report=report)
    else:
        lose(draft, job, reason or "given back by the pilot", at, report=report)


def _failure(report: Report) -> str:
    if report.signal is not None:
        return f"the payload was ended by signal {report.signal}"
    if report.exit_code is not None:
        return f"the payload ended with exit code {report.exit_code}"
    return "the payload failed"


__all__ = ["REPORTABLE", "on_report"]
