"""How an attempt begins and ends, whoever decides it.

Every end of an attempt goes through :func:`finish` (the job is final) or :func:`lose` (the attempt is over through no
fault of the job): each writes exactly one :class:`~.decision.Account`, gives up the lease, and :func:`lose` always
leaves the job final or waiting, never in between.
"""

from __future__ import annotations

from schemas.job import MAX_INFRASTRUCTURE_RETRIES, JobStatus
from schemas.messages.common import MAX_ATTEMPTS
from schemas.messages.pilot import Report

from .decision import Account, Draft, JobView, ReleaseToQueue, Stale

_S = JobStatus


def fence(job: JobView, attempt: int, pilot: str) -> Stale | None:
    """Why this sender does not hold the job's live attempt; ``None`` if it does."""
    if not job.leased:
        return Stale(f"job {job.id} is {job.status}: no attempt of it is live")
    if attempt != job.attempt:
        return Stale(f"attempt {attempt} of job {job.id} is over; attempt {job.attempt} is live")
    if pilot != job.pilot:
        return Stale(f"attempt {attempt} of job {job.id} belongs to another pilot")
    return None


def renewed(job: JobView, now: float) -> float:
    """End of a run lease renewed now; a lease is never shortened."""
    return max(now + job.lease_seconds, job.lease_until or 0.0)


def finish(
    draft: Draft, job: JobView, status: JobStatus, reason: str, now: float, report: Report | None = None
) -> None:
    """The live attempt ended and the job with it; a wish to delete it comes true now."""
    draft.step(status, reason, now, reason or "pilot")
    _close(draft, job, status, reason, now, report)
    draft.set(lease_until=None, stalled_from=None)
    if job.delete_requested:
        draft.step(_S.DELETED, "", now, "deletion was requested while it ran")


def lose(
    draft: Draft, job: JobView, reason: str, now: float, *, charge: bool = True, report: Report | None = None
) -> None:
    """The live attempt is over through no fault of the job: killed if that was wanted, else it waits again.

    An attempt that has the last number (:data:`schemas.messages.common.MAX_ATTEMPTS`) ends the job.

    Args:
        draft: collects the decision.
        job: the job as it was.
        reason: for people.
        now: the server's time.
        charge: count it among ``infra_failures``; the one beyond :data:`MAX_INFRASTRUCTURE_RETRIES` fails the job.
        report: the report that told it, if any.
    """
    if job.kill_requested:
        finish(draft, job, _S.KILLED, f"killed by {job.kill_requested}", now, report)
        return
    failures = job.infra_failures + charge
    draft.set(infra_failures=failures)
    if failures > MAX_INFRASTRUCTURE_RETRIES:
        finish(draft, job, _S.FAILED, f"lost {failures} attempts; the last: {reason}", now, report)
        return
    if job.attempt >= MAX_ATTEMPTS:
        finish(draft, job, _S.FAILED, f"{job.attempt} attempts were made: their numbers are used up", now, report)
        return
    draft.step(_S.RESCHEDULED, reason, now, reason)
    _close(draft, job, _S.RESCHEDULED, reason, now, report)
    release(draft, "", now, f"attempt {job.attempt} is over")


def release(draft: Draft, minor: str, now: float, cause: str) -> None:
    """The job goes (back) to its task queue, held by nobody."""
    draft.step(_S.WAITING, minor, now, cause)
    draft.set(pilot="", matched=None, lease_until=None, accepted=False, heartbeat=None, stalled_from=None)
    draft.effect(ReleaseToQueue())


def _close(draft: Draft, job: JobView, outcome: JobStatus, reason: str, now: float, report: Report | None) -> None:
    if report is None:
        draft.effect(Account(job.attempt, job.pilot, outcome, reason, max(now, job.changed)))
        return
    draft.effect(
        Account(
            job.attempt,
            job.pilot,
            outcome,
            reason,
            max(now, job.changed),
            reported=True,
            usage=report.usage,
            exit_code=report.exit_code,
            signal=report.signal,
        )
    )
