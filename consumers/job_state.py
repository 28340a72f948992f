"""job-state: what pilots tell of jobs — acceptance, reports, heartbeats, goodbyes — and the leases' sweeper.

The sweeper also stops the jobs of who lost his rights (:mod:`consumers.blocked_jobs`).

Promises: a stale attempt changes nothing and its pilot is told to abandon it; heartbeats renew leases and carry
figures, nothing else. The sweeper looks only while heartbeats flow and are drained: an outage of ours is added to every
lease as grace. Decisions are the domain's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from broker.subscriber import Admitted
from schemas.job import lease_margin
from schemas.messages.common import JobRef
from schemas.messages.event import PilotChanged
from schemas.messages.pilot import AcceptJobs, ControlDone, Goodbye, Heartbeat, ReportJobs
from schemas.messages.registrar import IdentityBlocked
from schemas.messages.service import ControlJobs, Lease, LeasesRenewed, Order
from schemas.registry import Message

from . import blocked_jobs
from .batch import Batch, Consumer
from .changes import Changes, usage_columns
from .domain.decision import Decision, Stale
from .domain.facts import Accepted, Beat, LeaseWatch, Reported, SaidGoodbye, SilenceWatch
from .outages import Outages
from .outcome import ACK, DeadLetter, Outcome
from .settings import LeaseSettings
from .store import jobs, leader, orders, parked, pilots, state

ROLE = "job-state-sweeper"
SWEEP_LIMIT = 500
"""Leases looked at in one transaction; the next sweep goes on."""

RESEND_SECONDS = 5.0
"""An order that was not answered is said again after so long."""

PILOT_LOST_SECONDS = 600.0
"""A pilot that said nothing for so long is listed as lost."""


class JobState(Consumer):
    """The consumer.

    Args:
        settings: times.
        connected: whether the broker connection is there.
        holder: this process's name for leadership of the sweeper.
        limited: whether somebody counts leases, and wants to know of their ends at once.
    """

    name = "job-state"
    handlers: ClassVar = {
        AcceptJobs: "on_accept",
        ReportJobs: "on_report",
        Heartbeat: "on_heartbeat",
        Goodbye: "on_goodbye",
        ControlDone: "on_control_done",
        IdentityBlocked: "on_blocked",
    }

    def __init__(
        self,
        settings: LeaseSettings,
        connected: Callable[[], bool],
        holder: str,
        limited: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._limited = limited
        self._connected = connected
        self._holder = holder
        self._outages = Outages(longest_gap=max(5.0, 3 * settings.sweep))
        self._next_sweep = 0.0
        self._changes: Changes | None = None
        self._beats: dict[str, pilots.Beat] = {}
        self._over: list[tuple[int, int]] = []

    def handle(self, batch: Batch, messages: Sequence[Admitted]) -> list[Outcome]:
        """Handle a batch with one read and one write of all jobs that it names."""
        self._changes = changes = Changes(batch, self.name, tells_ends=self._limited())
        self._beats, self._over = {}, []
        changes.load({job for message in messages for job in _jobs_of(message.message)})
        outcomes = [self.dispatch(batch, message) for message in messages]
        changes.flush()
        pilots.beat(batch.tx, list(self._beats.values()), batch.now)
        orders.drop(batch.tx, self._over)
        return outcomes

    @property
    def changes(self) -> Changes:
        """Those of the present batch."""
        if self._changes is None:
            raise RuntimeError("no batch is at work")
        return self._changes

    # -- what pilots say ----------------------------------------------------------------------------------------

    def on_accept(self, batch: Batch, message: Admitted) -> Outcome:
        """The pilot starts on these matches: their run leases begin."""
        asked = message.verified.message
        if not isinstance(asked, AcceptJobs):
            return DeadLetter("not job.accept")
        self._renew(batch, message, [(ref, Accepted(ref, message.client)) for ref in asked.jobs])
        return ACK

    def on_heartbeat(self, batch: Batch, message: Admitted) -> Outcome:
        """The pilot lives: renew leases, note figures."""
        beat = message.verified.message
        if not isinstance(beat, Heartbeat):
            return DeadLetter("not pilot.heartbeat")
        refs = [JobRef(job=payload.job, attempt=payload.attempt) for payload in beat.payloads]
        renewed = self._renew(batch, message, [(ref, Beat(ref, message.client)) for ref in refs])
        for payload in beat.payloads:
            if (payload.job, payload.attempt) in renewed:
                self.changes.set(payload.job, **usage_columns(payload.usage))
        self._beats[message.client] = pilots.Beat(
            message.client,
            message.principal.identity,
            beat.site,
            beat.load,
            beat.memory_mb,
            beat.disk_mb,
            beat.processors,
        )
        return ACK

    def _renew(
        self, batch: Batch, message: Admitted, facts: Sequence[tuple[JobRef, Accepted | Beat]]
    ) -> set[tuple[int, int]]:
        leases: list[Lease] = []
        lost: list[JobRef] = []
        renewed: set[tuple[int, int]] = set()
        for ref, fact in facts:
            outcome = self.changes.decide(ref.job, fact)
            row = self.changes.get(ref.job)
            if isinstance(outcome, Decision) and row is not None and row.lease_until is not None:
                leases.append(Lease(job=ref.job, attempt=ref.attempt, until=row.lease_until))
                renewed.add((ref.job, ref.attempt))
            elif outcome is None or isinstance(outcome, Stale):
                lost.append(ref)
        if leases or lost:
            batch.answer(message, LeasesRenewed(leases=tuple(leases), lost=tuple(lost)))
        return renewed

    def on_report(self, batch: Batch, message: Admitted) -> Outcome:
        """Where attempts stand; fenced by (job, attempt, pilot, sequence)."""
        said = message.verified.message
        if not isinstance(said, ReportJobs):
            return DeadLetter("not job.report")
        abandon: list[Order] = []
        for report in said.reports:
            outcome = self.changes.decide(report.job, Reported(report, message.client))
            if outcome is None or isinstance(outcome, Stale):
                why = outcome.reason if isinstance(outcome, Stale) else "no such job"
                abandon.append(Order(job=report.job, attempt=report.attempt, action="abandon", reason=why))
            elif isinstance(outcome, Decision):
                if not outcome.after.leased:
                    self._over.append((report.job, report.attempt))
                else:
                    self.changes.set(report.job, **usage_columns(report.usage))
        if abandon:
            batch.tell(message.client, ControlJobs(orders=tuple(abandon)))
        return ACK

    def on_goodbye(self, batch: Batch, message: Admitted) -> Outcome:
        """The pilot ended: what it held is free at once."""
        said = message.verified.message
        if not isinstance(said, Goodbye):
            return DeadLetter("not pilot.goodbye")
        held = jobs.held_by(batch.tx, message.client)
        self.changes.load(held)
        for job in held:
            self.changes.decide(job, SaidGoodbye(message.client, said.reason))
        pilots.gone(batch.tx, [message.client], batch.now)
        parked.remove_clients(batch.tx, [message.client])
        fact = PilotChanged(
            client=message.client,
            identity=message.principal.identity,
            status="gone",
            site=said.site,
            time=batch.now,
            cause=said.reason,
        )
        batch.publish(fact)
        return ACK

    def on_control_done(self, batch: Batch, message: Admitted) -> Outcome:
        """An order was carried out."""
        done = message.verified.message
        if not isinstance(done, ControlDone):
            return DeadLetter("not control.done")
        row = self.changes.get(done.job)
        if row is None or row.pilot != message.client:
            return ACK  # not its order to answer
        orders.done(batch.tx, [((done.job, done.attempt, done.action), done.outcome)], batch.now)
        return ACK

    def on_blocked(self, batch: Batch, message: Admitted) -> Outcome:
        """Somebody lost his rights: the sweeper deals with his jobs as the policy says."""
        fact = message.verified.message
        if not isinstance(fact, IdentityBlocked):
            return DeadLetter("not identity.blocked")
        blocked_jobs.note(batch, fact)
        self._next_sweep = 0.0
        return ACK

    # -- the sweeper --------------------------------------------------------------------------------------------

    def start(self, batch: Batch) -> None:
        """Learn how long nobody listened."""
        kept = state.get(batch.tx, ROLE)
        self._outages.restore(kept[0] if kept else None, batch.now)

    def due_in(self, now: float) -> float | None:
        """Sweep regularly."""
        return self._next_sweep - now

    def chores(self, batch: Batch) -> None:
        """Look at leases, signs of life and unanswered orders."""
        now = batch.now
        self._next_sweep = now + self._settings.sweep
        if not self._connected():
            return
        self._outages.listened(now)
        if leader.acquire_or_renew(batch.tx, ROLE, self._holder, now, 10 * self._settings.sweep) is None:
            return
        state.put(batch.tx, ROLE, self._outages.dump(), now)
        self._stop_blocked(batch)
        if not self.idle:
            return  # heartbeats wait to be read: nobody is silent before they are
        changes = Changes(batch, self.name, tells_ends=self._limited())
        self._end_leases(batch, changes)
        self._listen(batch, changes)
        changes.flush()
        self._resend(batch)
        for lost in pilots.mark_lost(batch.tx, now - PILOT_LOST_SECONDS):
            batch.publish(
                PilotChanged(
                    client=lost.client,
                    identity=lost.identity,
                    status=lost.status,
                    site=lost.site,
                    time=now,
                    cause=f"no sign of life for {PILOT_LOST_SECONDS:.0f} s",
                )
            )

    def _stop_blocked(self, batch: Batch) -> None:
        changes = Changes(batch, self.name, tells_ends=self._limited())
        if blocked_jobs.work(batch, changes):
            self._next_sweep = batch.now
        changes.flush()

    def _end_leases(self, batch: Batch, changes: Changes) -> None:
        ids = jobs.expired_leases(batch.tx, batch.now, SWEEP_LIMIT)
        changes.load(ids)
        for job in ids:
            row = changes.get(job)
            if row is None:
                continue
            renewed = row.heartbeat or row.matched or 0.0
            length = row.lease_seconds if row.accepted else self._settings.accept
            grace = self._outages.between(renewed, batch.now)
            changes.decide(job, LeaseWatch(lease_margin(length), grace))

    def _listen(self, batch: Batch, changes: Changes) -> None:
        silent_before = batch.now - self._settings.silent
        ids = jobs.silent(batch.tx, silent_before, SWEEP_LIMIT) + jobs.heard(batch.tx, silent_before, SWEEP_LIMIT)
        changes.load(ids)
        for job in ids:
            row = changes.get(job)
            if row is not None:
                grace = self._outages.between(row.heartbeat or row.matched or 0.0, batch.now)
                changes.decide(job, SilenceWatch(self._settings.silent, grace))

    def _resend(self, batch: Batch) -> None:
        by_pilot: dict[str, list[Order]] = {}
        for row in orders.pending(batch.tx, batch.now - RESEND_SECONDS, SWEEP_LIMIT):
            order = Order(job=row.job, attempt=row.attempt, action=row.action, reason=row.reason)
            by_pilot.setdefault(row.client, []).append(order)
        for client, some in by_pilot.items():
            orders.sent(batch.tx, [(one.job, one.attempt, one.action) for one in some], batch.now)
            batch.tell(client, ControlJobs(orders=tuple(some)))


def _jobs_of(message: Message) -> set[int]:
    if isinstance(message, AcceptJobs):
        return {ref.job for ref in message.jobs}
    if isinstance(message, ReportJobs):
        return {report.job for report in message.reports}
    if isinstance(message, ControlDone):
        return {message.job}
    if isinstance(message, Heartbeat):
        return {payload.job for payload in message.payloads}
    return set()
