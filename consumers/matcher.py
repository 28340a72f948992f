"""matcher: gives waiting jobs to pilots. The shell around :mod:`consumers.domain.choose`.

Promises: only the leader consumes, and each claim transaction checks its epoch, so a paused old leader does no harm;
claims, leases, parked requests and answers of a batch are one commit. The index is fed from the store; events are
hints; every :data:`RECONCILE_SECONDS` it is put right, in slices. Memory grows with classes and queues, not with jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import ClassVar

import msgspec
import structlog

from broker.publisher import Letter
from broker.subscriber import Admitted
from schemas.messages.event import EndedLease, LeasesEnded, WorkWaiting
from schemas.messages.pilot import RequestMatch
from schemas.messages.service import MatchResponse
from schemas.registry import by_name

from .batch import Batch, Consumer
from .changes import Changes
from .directory import Directory
from .domain.facts import Unroutable
from .domain.shares import Policy
from .matching import Asked, Matching
from .matching.noticeboard import Noticeboard
from .outcome import ACK, DeadLetter, Outcome
from .settings import LeaseSettings
from .store import leader, parked, pilots
from .store.errors import NotLeader

ROLE = "matcher"

LEAD_SECONDS = 3.5
"""A leader that was not heard of for so long is replaced."""

RENEW_SECONDS = 0.7
"""How often the leader says that it leads, and a standby asks: with half a second to read what waits, another one
leads within five seconds of its death."""

RECONCILE_SECONDS = 30.0
"""How old a lost hint can grow."""

log = structlog.get_logger(__name__)


class Matcher(Consumer):
    """The consumer.

    Args:
        settings: times.
        directory: registry (site mask).
        holder: this process's name for leadership.
        fading: how usage is remembered.
    """

    name = "matcher"
    handlers: ClassVar = {RequestMatch: "", WorkWaiting: "", LeasesEnded: ""}
    hints: ClassVar = frozenset({WorkWaiting, LeasesEnded})

    def __init__(
        self, settings: LeaseSettings, directory: Directory, holder: str, fading: Policy | None = None
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._holder = holder
        self._fading = fading
        self._epoch: int | None = None
        self._matching: Matching | None = None
        self._next_look = 0.0
        self._next_reconcile = 0.0
        self._returned: list[Letter] = []
        self._board = Noticeboard()

    # -- leadership ---------------------------------------------------------------------------------------------

    def wants_queues(self) -> bool:
        """Only the leader reads."""
        return self._matching is not None

    def due_in(self, now: float) -> float | None:
        """Leadership, deadlines of parked requests, returned answers."""
        if self._returned or (self._matching is not None and self._matching.busy):
            return 0.0
        if self._matching is None:
            return self._next_look - now
        due = self._next_look, self._matching.next_deadline(), self._matching.next_opening(now)
        return min(time for time in due if time is not None) - now

    def chores(self, batch: Batch) -> None:
        """Lead or try to; then look after what waits."""
        now = batch.now
        if now >= self._next_look:
            self._next_look = now + RENEW_SECONDS
            self._lead(batch)
        if self._matching is None:
            self._returned.clear()
            return
        if self._epoch is not None:
            leader.check(batch.tx, ROLE, self._epoch, now)  # a leader that was paused must not claim here either
        self._take_back(batch)
        self._matching.answer_overdue(batch)
        self._matching.open_up(now)
        self._matching.keep_turns(batch)
        if self._matching.busy:
            self._matching.work(batch)
        owed = self._board.due(now)
        if owed:  # rows of pilots after those of jobs, as everywhere
            pilots.offer_now(batch.tx, {client: msgspec.json.encode(offer) for client, offer in owed.items()})

    def _lead(self, batch: Batch) -> None:
        epoch = leader.acquire_or_renew(batch.tx, ROLE, self._holder, batch.now, LEAD_SECONDS)
        if epoch is None:
            if self._epoch is not None:
                log.warning("matcher.lost_leadership", epoch=self._epoch, holder=self._holder)
            self._epoch, self._matching = None, None
            return
        if epoch != self._epoch or self._matching is None:
            log.info("matcher.leads", epoch=epoch, holder=self._holder)
            self._epoch = epoch
            self._matching = Matching(self._settings, self._directory, self._fading)
            begun = monotonic()
            self._matching.load(batch)
            # What took longer than it may lead would leave it no time to: it would begin again, and again.
            now = batch.now + monotonic() - begun
            self._epoch = leader.acquire_or_renew(batch.tx, ROLE, self._holder, now, LEAD_SECONDS)
            self._next_reconcile = batch.now + RECONCILE_SECONDS
        elif batch.now >= self._next_reconcile or self._matching.outdated:
            self._matching.reconcile(batch)
            self._next_reconcile = batch.now + RECONCILE_SECONDS

    def stop(self, batch: Batch) -> None:
        """Another one may lead at once."""
        if self._epoch is not None:
            with suppress(NotLeader):
                leader.check(batch.tx, ROLE, self._epoch, batch.now)
                if self._matching is not None:
                    self._matching.keep_turns(batch, at_once=True)
            leader.release(batch.tx, ROLE, self._epoch)
        self._epoch, self._matching = None, None

    def on_rollback(self) -> None:
        """The index may tell of claims that were undone: build it anew."""
        self._matching = None
        self._next_look = 0.0
        self._board = Noticeboard()

    # -- requests and hints -------------------------------------------------------------------------------------

    def handle(self, batch: Batch, messages: Sequence[Admitted]) -> list[Outcome]:
        """Match all requests of a batch, and those parked ones that its hints concern."""
        matching = self._matching
        if matching is None or self._epoch is None:
            raise NotLeader(ROLE)
        leader.check(batch.tx, ROLE, self._epoch, batch.now)
        hinted: set[int] = set()
        ended: list[EndedLease] = []
        asked: list[Asked] = []
        outcomes: list[Outcome] = []
        for message in messages:
            match message.verified.message:
                case WorkWaiting(queues=queues):
                    hinted.update(queues)
                    outcomes.append(ACK)
                case LeasesEnded(leases=leases):
                    ended.extend(leases)
                    outcomes.append(ACK)
                case RequestMatch() as request:
                    asked.append(Asked.of(message, request, batch.now))
                    outcomes.append(ACK)
                case _:
                    outcomes.append(DeadLetter("neither match.request nor a hint"))
        matching.ended(ended)
        matching.serve(batch, asked, hinted)
        self._note_offers(batch, asked)
        return outcomes

    def _note_offers(self, batch: Batch, asked: Sequence[Asked]) -> None:
        """Keep what pilots offer, for operators and for explanations."""
        noted = self._board.take(asked, batch.now)
        if noted:
            pilots.offered(batch.tx, [_offered(one) for one in noted])

    # -- answers that came back ---------------------------------------------------------------------------------

    def on_returned(self, letter: Letter) -> None:
        """A match whose pilot is gone is released at once, uncharged."""
        if letter.name == "match.response.v1":
            self._returned.append(letter)

    def _take_back(self, batch: Batch) -> None:
        returned, self._returned = self._returned, []
        if not returned:
            return
        changes = Changes(batch, self.name)
        responses = [(letter, by_name(letter.name).decode(letter.payload)) for letter in returned]
        lost = [
            (match.job, match.attempt, letter.audience)
            for letter, response in responses
            if isinstance(response, MatchResponse)
            for match in response.matches
        ]
        changes.load({job for job, _, _ in lost})
        for job, attempt, client in lost:
            changes.decide(job, Unroutable(attempt, client))
        changes.flush()
        parked.remove_clients(batch.tx, {letter.audience for letter in returned})
        if self._matching is not None:
            self._matching.ended(changes.ended())
            self._matching.forget({letter.audience for letter in returned})
            queues = {row.queue_id for job, _, _ in lost if (row := changes.get(job)) is not None}
            self._matching.serve(batch, [], {queue for queue in queues if queue is not None})


def _offered(one: Asked) -> pilots.PilotRow:
    offer = one.request.offer
    return pilots.PilotRow(
        client=one.client,
        identity=one.identity,
        site=offer.site,
        ce=offer.ce,
        first_seen=one.since,
        last_seen=one.since,
        offer=msgspec.json.encode(offer),
    )
