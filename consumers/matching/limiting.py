"""What limits close, kept in step with the store: counted anew at a takeover and when limits change.

Between the two every lease begins here, and that it ended is told by hints; a lost one is found slice by slice
(:meth:`Limiting.go_on`). Whose end is not known yet counts: never too many run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import astuple

from schemas.limits import MatchLimit
from schemas.messages.event import EndedLease
from schemas.messages.pilot import Offer

from ..domain.choose import Choice
from ..domain.index import Index
from ..domain.running_limits import Closed, Instance, Lease, Rooms, RunningLimits
from ..store import Reading, leases
from ..store.rows import Claimed

SLICE = 1000
"""Leases looked at at once: some ms, which a match may have to wait."""


class Limiting:
    """Keeps the counts.

    Args:
        index: what waits.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._limits = RunningLimits()
        self._doubted: list[tuple[int, int]] = []

    # -- from the store -----------------------------------------------------------------------------------------

    def note(self, tx: Reading, limits: Sequence[MatchLimit], now: float) -> bool:
        """These are the limits; whether they have changed. Unchanged they cost one comparison."""
        if self._limits.limits == tuple(limits):
            return False
        self._limits = made = RunningLimits(limits)
        self._doubted = []
        if limits:
            made.set_leases(Lease(*astuple(row)) for row in leases.live(tx))
        delay = max((one.delay_seconds or 0.0 for one in limits), default=0.0)
        if delay:
            made.note_starts(Lease(*astuple(row)) for row in leases.started_since(tx, now - delay))
        return True

    def begin(self) -> None:
        """Ask of every lease that counts whether it still lives."""
        self._doubted = self._limits.held()

    @property
    def under_way(self) -> bool:
        """Whether that has been begun and not ended."""
        return bool(self._doubted)

    def go_on(self, tx: Reading) -> None:
        """Ask of some."""
        some, self._doubted = self._doubted[:SLICE], self._doubted[SLICE:]
        alive = leases.attempts_of(tx, [job for job, _ in some])
        for job, attempt in some:
            if alive.get(job) != attempt:
                self._limits.ended(job, attempt)

    # -- what happens -------------------------------------------------------------------------------------------

    def chosen(self, offer: Offer, choice: Choice, job: int, now: float) -> None:
        """A job is to start: from now on it counts."""
        if self._limits:
            queue = self._index.queue(choice.queue_id)
            self._limits.started(
                Lease(
                    job, 0, offer.site, offer.ce, queue.requirements.job_type, queue.owner.name, queue.group.name, now
                )
            )

    def claimed(self, one: Claimed) -> None:
        """It started."""
        self._limits.confirm(one.job, one.attempt)

    def missed(self, job: int) -> None:
        """It could not: it was gone."""
        self._limits.withdraw(job)

    def ended(self, ended: Iterable[EndedLease]) -> None:
        """These leases are over, as far as somebody says."""
        for one in ended:
            self._limits.ended(one.job, one.attempt)

    # -- what may start -----------------------------------------------------------------------------------------

    def closed_for(self, offer: Offer, now: float) -> Closed | None:
        """What limits close for an offer now."""
        return self._limits.closed_for(offer, self._index, now) if self._limits else None

    def rooms(self, now: float) -> Rooms | None:
        """For trying what could start; None without limits."""
        return self._limits.rooms(now) if self._limits else None

    def next_opening(self, now: float) -> float | None:
        """When something will open, as far as is known."""
        return self._limits.next_opening(now) if self._limits else None

    def take_opened(self, now: float) -> list[Instance]:
        """What has opened since it was last asked."""
        return self._limits.take_opened(now) if self._limits else []
