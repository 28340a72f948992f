"""What users' commands and the optimizers do to a job.

A job that no pilot holds obeys at once. A leased one is asked to stop: the wish is recorded and ordered to the pilot;
its state changes with the pilot's report or with its lease's end, never before, so that nothing ever says Killed while
a payload runs.
"""

from __future__ import annotations

from schemas.job import MAX_INFRASTRUCTURE_RETRIES, JobStatus
from schemas.messages.common import MAX_ATTEMPTS

from .decision import Draft, Ignored, JobView, LeaveQueue, Optimize, Outcome, ReleaseToQueue, SendControl

_S = JobStatus

LAST_RESCHEDULED = MAX_ATTEMPTS - MAX_INFRASTRUCTURE_RETRIES - 1
"""A job that is run again has numbers left for every attempt that it may lose."""


def on_kill(job: JobView, now: float, by: str) -> Outcome:
    """Somebody with the right to do so wants the job stopped. Asked again, the order is sent again."""
    if job.final:
        return Ignored(f"already {job.status}")
    if job.leased:
        return _ask_pilot(job, now, by, delete=False)
    draft = Draft(job)
    _stop_unleased(draft, job, now, by)
    return draft.outcome()


def on_delete(job: JobView, now: float, by: str) -> Outcome:
    """Somebody with the right to do so wants the job forgotten; one that still lives is killed first."""
    if job.status is _S.DELETED:
        return Ignored("already Deleted")
    if job.leased:
        return _ask_pilot(job, now, by, delete=True)
    draft = Draft(job)
    if not job.final:
        _stop_unleased(draft, job, now, by)
    draft.step(_S.DELETED, "", now, f"deleted by {by}")
    return draft.outcome()


def on_reschedule(job: JobView, now: float, by: str) -> Outcome:
    """Somebody with the right to do so wants an ended job run again, as a new attempt.

    Bounded only by the numbers of attempts: limits are there for attempts that nobody asked for, and their counter
    starts anew. The optimizers look again, for sites and replicas may have changed. A job that still lives is left
    alone.
    """
    if job.status is _S.DELETED:
        return Ignored("Deleted: it cannot come back")
    if not job.final:
        return Ignored(f"still {job.status}: kill it first")
    if job.attempt > LAST_RESCHEDULED:
        return Ignored(f"run {job.attempt} times: the numbers of its attempts are used up, submit it as a new job")
    draft = Draft(
        job,
        reschedules=job.reschedules + 1,
        infra_failures=0,
        kill_requested="",
        pilot="",
        matched=None,
        heartbeat=None,
    )
    draft.set(accepted=False, sequence=0, steps=0, lease_until=None)
    draft.step(_S.RESCHEDULED, f"by {by}", now, f"rescheduled by {by}")
    draft.step(_S.CHECKING, "", now, f"rescheduled by {by}")
    draft.effect(Optimize())
    return draft.outcome()


def on_check(job: JobView, now: float) -> Outcome:
    """The optimizers need facts from elsewhere before they can tell: the job is being checked."""
    if job.status not in {_S.RECEIVED, _S.CHECKING}:
        return Ignored(f"{job.status}: nothing to check")
    if job.status is _S.CHECKING:
        return Ignored("being checked already")
    draft = Draft(job)
    draft.step(_S.CHECKING, "", now, "optimizer")
    return draft.outcome()


def on_ready(job: JobView, now: float) -> Outcome:
    """The optimizers found its requirements: it waits in its task queue."""
    if job.status not in {_S.RECEIVED, _S.CHECKING, _S.STAGING}:
        return Ignored(f"{job.status}: not to be queued")
    draft = Draft(job)
    draft.step(_S.WAITING, "", now, "optimizer")
    draft.effect(ReleaseToQueue())
    return draft.outcome()


def on_refused(job: JobView, minor: str, reason: str, now: float) -> Outcome:
    """The optimizers found that it cannot run."""
    if job.status not in {_S.RECEIVED, _S.CHECKING, _S.STAGING}:
        return Ignored(f"{job.status}: not to be refused")
    draft = Draft(job)
    draft.step(_S.FAILED, minor, now, reason)
    return draft.outcome()


def _ask_pilot(job: JobView, now: float, by: str, *, delete: bool) -> Outcome:
    draft = Draft(job, kill_requested=job.kill_requested or by, delete_requested=job.delete_requested or delete)
    if not job.kill_requested:
        draft.note(job.status, job.minor, now, f"{'deletion' if delete else 'kill'} requested by {by}")
    draft.effect(SendControl(job.pilot, job.attempt, "kill", f"killed by {job.kill_requested or by}"))
    return draft.outcome()


def _stop_unleased(draft: Draft, job: JobView, now: float, by: str) -> None:
    draft.step(_S.KILLED, f"killed by {by}", now, f"killed by {by}")
    if job.status is _S.WAITING:
        draft.effect(LeaveQueue())
