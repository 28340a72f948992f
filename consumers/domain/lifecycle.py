"""Every decision about a job's life: what happens to it when something happens.

``on_<what happened>(job, …, now)`` takes the job as the store shows it and returns an outcome (:mod:`.decision`);
:func:`decide` is the same for a fact as one value (:mod:`.facts`). Nothing here reads a clock, a store or a socket.

The rules that keep a job from running twice at once:

* A match starts an attempt with a number never used before and a short acceptance lease. Acceptance, heartbeats and
  reports of the live attempt renew the run lease; nothing else does.
* A new attempt is given only after the old one's end: its final report, its pilot's goodbye, a match reply that never
  reached its pilot, or :func:`on_lease_end`, which waits for lease end + margin + grace. (The pilot stops the payload
  at lease end - margin by its own clock.)
* A stale attempt changes nothing, whatever it says.
* ``Stalled`` is a sign that only :func:`on_silence` sets; heartbeats never change a state.
"""

from __future__ import annotations

from schemas.job import ACCEPT_LEASE, HEARTBEAT_SECONDS, MISSED_HEARTBEATS, JobStatus, lease_margin
from schemas.messages.common import MAX_ATTEMPTS, JobRef

from . import facts
from .attempt import fence, lose, release, renewed
from .commands import on_check, on_delete, on_kill, on_ready, on_refused, on_reschedule
from .decision import Account, Draft, Ignored, Illegal, JobView, Outcome, SendControl
from .reports import on_report

_S = JobStatus

SILENT_AFTER = MISSED_HEARTBEATS * HEARTBEAT_SECONDS
"""Seconds without a sign of life after which a job is shown as Stalled."""


def on_match(job: JobView, pilot: str, now: float, accept_lease: float = ACCEPT_LEASE) -> Outcome:
    """The matcher gives the job to a pilot: a new attempt begins."""
    if job.status is not _S.WAITING:
        return Illegal(job.status, _S.MATCHED, f"job {job.id} is {job.status}: only a waiting job can be matched")
    draft = Draft(job, attempt=job.attempt + 1, pilot=pilot, matched=now, lease_until=now + accept_lease)
    draft.set(accepted=False, sequence=0, steps=0, heartbeat=None, stalled_from=None)
    draft.step(_S.MATCHED, "", now, "matched")
    return draft.outcome()


def on_match_unroutable(job: JobView, attempt: int, pilot: str, now: float) -> Outcome:
    """The broker returned the match: its pilot is gone and never saw it. Released at once, uncharged."""
    stale = fence(job, attempt, pilot)
    if stale is not None:
        return stale
    if job.accepted or job.status is not _S.MATCHED:
        return Ignored("the pilot has it: it accepted")
    draft = Draft(job)
    reason = "the match never reached its pilot"
    if job.kill_requested or job.attempt >= MAX_ATTEMPTS:
        lose(draft, job, reason, now, charge=False)
        return draft.outcome()
    release(draft, "", now, reason)
    draft.effect(Account(job.attempt, job.pilot, _S.RESCHEDULED, reason, max(now, job.changed)))
    return draft.outcome()


def on_accept(job: JobView, ref: JobRef, pilot: str, now: float) -> Outcome:
    """The pilot has the match and starts on it: its run lease begins. Said again, it renews."""
    return fence(job, ref.attempt, pilot) or _renew(job, now)


def on_heartbeat(job: JobView, ref: JobRef, pilot: str, now: float) -> Outcome:
    """The pilot lives and has the job: its lease is renewed, its state is not touched.

    The acceptance lease is not a heartbeat's to renew: before ``job.accept`` the match may be unknown to the pilot.
    """
    stale = fence(job, ref.attempt, pilot)
    if stale is not None:
        return stale
    return _renew(job, now) if job.accepted else Ignored("not accepted yet: the acceptance lease runs on")


def _renew(job: JobView, now: float) -> Outcome:
    draft = Draft(job, accepted=True, heartbeat=max(now, job.heartbeat or now), lease_until=renewed(job, now))
    if job.kill_requested:
        # The order may have been lost with a connection; the pilot takes it any number of times.
        draft.effect(SendControl(job.pilot, job.attempt, "kill", f"killed by {job.kill_requested}"))
    return draft.outcome()


def on_lease_end(job: JobView, now: float, margin: float | None = None, grace: float = 0.0) -> Outcome:
    """The sweeper asks whether the lease is over: only then may the job be given to another.

    Args:
        job: the job.
        now: the server's time.
        margin: seconds past the lease's end; by default :func:`schemas.job.lease_margin` of the run lease.
        grace: length of an outage of ours, in which no heartbeat could arrive.
    """
    if not job.leased or job.lease_until is None:
        return Ignored("no lease")
    end = job.lease_until + (lease_margin(job.lease_seconds) if margin is None else margin) + grace
    if not now >= end:
        return Ignored(f"the lease holds until {end:.3f}")
    reason = "lease ended without a sign of the pilot" if job.accepted else "the match was not accepted in time"
    draft = Draft(job)
    lose(draft, job, reason, now)
    return draft.outcome()


def on_silence(job: JobView, now: float, silent_after: float = SILENT_AFTER, grace: float = 0.0) -> Outcome:
    """The sweeper looks for signs of life: Stalled when they are missing, back when they are there again."""
    if not job.leased or not job.accepted:
        return Ignored("nothing to listen for")
    last = max(job.heartbeat or 0.0, job.matched or 0.0)
    silent = now - last > silent_after + grace
    if silent == (job.status is _S.STALLED):
        return Ignored("as it was")
    if silent:
        draft = Draft(job, stalled_from=job.status)
        draft.step(_S.STALLED, f"no heartbeat for {now - last:.0f} s", now, "sweeper")
    else:
        draft = Draft(job, stalled_from=None)
        draft.step(job.stalled_from or _S.RUNNING, "heartbeats again", now, "sweeper")
    return draft.outcome()


def on_goodbye(job: JobView, pilot: str, now: float, reason: str = "") -> Outcome:
    """The pilot said goodbye: no payload of its own runs any more, so what it held is released at once."""
    if not job.leased or job.pilot != pilot:
        return Ignored("not held by this pilot")
    draft = Draft(job)
    lose(draft, job, f"its pilot ended{': ' + reason if reason else ''}", now)
    return draft.outcome()


def on_death(job: JobView, attempt: int, pilot: str, now: float, reason: str) -> Outcome:
    """Proof from elsewhere (the batch system) that the pilot is gone: as its goodbye, for this attempt only."""
    stale = fence(job, attempt, pilot)
    if stale is not None:
        return stale
    draft = Draft(job)
    lose(draft, job, reason, now)
    return draft.outcome()


def decide(job: JobView, fact: facts.Fact, now: float) -> Outcome:  # noqa: C901  # one row per fact
    """The decision for a fact, whatever it is."""
    match fact:
        case facts.Reported(report, pilot):
            return on_report(job, report, pilot, now)
        case facts.Beat(ref, pilot):
            return on_heartbeat(job, ref, pilot, now)
        case facts.Accepted(ref, pilot):
            return on_accept(job, ref, pilot, now)
        case facts.Matched(pilot, accept_lease):
            return on_match(job, pilot, now, accept_lease)
        case facts.Unroutable(attempt, pilot):
            return on_match_unroutable(job, attempt, pilot, now)
        case facts.SaidGoodbye(pilot, reason):
            return on_goodbye(job, pilot, now, reason)
        case facts.Died(attempt, pilot, reason):
            return on_death(job, attempt, pilot, now, reason)
        case facts.LeaseWatch(margin, grace):
            return on_lease_end(job, now, margin, grace)
        case facts.SilenceWatch(silent_after, grace):
            return on_silence(job, now, silent_after, grace)
        case facts.KillAsked(by):
            return on_kill(job, now, by)
        case facts.DeleteAsked(by):
            return on_delete(job, now, by)
        case facts.RescheduleAsked(by):
            return on_reschedule(job, now, by)
        case facts.CheckNeeded():
            return on_check(job, now)
        case facts.FoundReady():
            return on_ready(job, now)
        case facts.FoundRefused(minor, reason):
            return on_refused(job, minor, reason, now)


__all__ = [
    "SILENT_AFTER",
    "decide",
    "on_accept",
    "on_check",
    "on_death",
    "on_delete",
    "on_goodbye",
    "on_heartbeat",
    "on_kill",
    "on_lease_end",
    "on_match",
    "on_match_unroutable",
    "on_ready",
    "on_refused",
    "on_report",
    "on_reschedule",
    "on_silence",
]
