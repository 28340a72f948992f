"""Matching: the index of waiting work kept in step with the store, and requests served from it.

A batch is served in rounds: choose for every request, claim all at once, and choose anew for what was taken meanwhile.
What stays unanswered is parked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from math import inf

import msgspec

from schemas.envelope import reply_queue
from schemas.limits import Attribute
from schemas.messages.event import EndedLease
from schemas.messages.pilot import RequestMatch

from ..batch import Batch
from ..changes import publish_changes
from ..directory import Directory
from ..domain.index import Index
from ..domain.reservations import Reservations
from ..domain.running_limits import queues_of
from ..domain.shares import Policy
from ..settings import LeaseSettings
from ..store import jobs, parked, sessions
from ..store.rows import Claim
from .answers import Answers
from .asked import Asked, Key
from .choosing import Chooser
from .limiting import Limiting
from .lobby import Lobby
from .pages import Pages
from .rights import Rights
from .stock import Stock
from .turns import Keeper

ROUNDS = 4
"""Claims that failed (killed meanwhile) are replaced by other jobs in so many rounds; then the pilot waits parked."""

DOUBTS = 8
"""Queues looked at for parked requests in one slice: some ms with 50,000 of them parked."""

ROWS = 300
"""Parked requests read in one slice, at a takeover: 10 ms."""

DOUBT_ALL = 10
"""Of so many comparisons with the store one doubts all queues, whether or not anything seems to have changed."""

OVERDUE = 512
"""Requests told in one transaction that they waited in vain."""


class Matching:
    """The leader's memory.

    Args:
        settings: times.
        directory: registry (who may have jobs run, shares, site mask, rules).
        fading: how usage is remembered.
    """

    def __init__(self, settings: LeaseSettings, directory: Directory, fading: Policy | None = None) -> None:
        self._settings = settings
        self._index = Index(fading)
        self._rights = Rights(directory)
        self._pages = Pages(self._index)
        self._stock = Stock(self._index, self._pages)
        self._lobby = Lobby()
        self._doubts: dict[int, float] = {}
        self._reconciled = 0
        self._unread: parked.Mark | None = None
        self._reservations = Reservations(self._index)
        self._limits = Limiting(self._index)
        self._turns = Keeper(self._index)
        self._chooser = Chooser(self._index, self._pages, self._rights, self._limits, self._reservations)
        self._answers = Answers(self._index, self._limits, self._rights)

    # -- from the store -----------------------------------------------------------------------------------------

    def load(self, batch: Batch) -> None:
        """Everything, at a takeover."""
        self._note_registry(batch)
        self._turns.load(batch.tx, batch.now)
        self._stock.begin()
        while self._stock.under_way:
            self._stock.go_on(batch.tx)
        self._unread = parked.FIRST
        self._read_parked(batch)

    def _read_parked(self, batch: Batch) -> None:
        """Read some parked requests; when all are read look what fits them."""
        if self._unread is None:
            return
        rows = parked.page(batch.tx, self._unread, ROWS)
        for row in rows:
            if (row.client, row.slot) not in self._lobby:  # else it came in this leadership
                request = msgspec.json.decode(row.request, type=RequestMatch)
                self._lobby.keep(Asked(row.client, row.identity, request, row.cid, row.since, row.deadline))
        if len(rows) == ROWS:
            self._unread = rows[-1].deadline, rows[-1].client, rows[-1].slot
        else:
            self._unread = None
            self.doubt(self._index)

    @property
    def outdated(self) -> bool:
        """Whether the registry has changed since this last looked: parked requests may have become answerable."""
        return self._rights.outdated

    def reconcile(self, batch: Batch) -> None:
        """Compare all queues and leases with the store, slice by slice (:meth:`work`): hints may have been lost."""
        self._note_registry(batch)
        self._limits.begin()
        self._reconciled += 1
        if self._reconciled % DOUBT_ALL == 0:
            self.doubt(self._index)
        self._stock.begin()

    def _note_registry(self, batch: Batch) -> None:
        if self._rights.note(self._index):
            self.doubt(self._index)  # who waits may run elsewhere now, or other owners' jobs here
            self._limits.note(batch.tx, self._rights.match_limits, batch.now)

    def doubt(self, ids: Iterable[int]) -> None:
        """Parked requests may fit these queues now although nothing came: look, slice by slice (:meth:`work`)."""
        self._doubts.update(dict.fromkeys(ids, inf))

    @property
    def busy(self) -> bool:
        """Whether :meth:`work` has something to do."""
        return bool(self._doubts) or self._unread is not None or self._stock.under_way or self._limits.under_way

    def work(self, batch: Batch) -> None:
        """Do a slice of what is in no hurry."""
        self._note_registry(batch)
        self._limits.go_on(batch.tx)
        self.open_up(batch.now)
        self._read_parked(batch)
        self.doubt(self._stock.go_on(batch.tx))
        if not self._lobby:
            self._doubts.clear()
        some = {queue_id: self._doubts.pop(queue_id) for queue_id in list(islice(self._doubts, DOUBTS))}
        if some:
            self._match(batch, [], some)

    # -- serving ------------------------------------------------------------------------------------------------

    def serve(self, batch: Batch, asked: Sequence[Asked], hinted: Collection[int]) -> None:
        """Answer requests, and those parked ones for which the hinted queues have work."""
        self._note_registry(batch)
        self._stock.refresh(batch.tx, hinted)
        self._pages.fill_up(batch.tx)
        self._match(batch, asked, dict.fromkeys(hinted, inf))

    def _match(self, batch: Batch, asked: Sequence[Asked], hinted: Mapping[int, float]) -> None:
        newest = {one.key: one for one in asked}
        # As long as not all are read, an older request may be in the store only.
        replaced = {key for key in newest if key in self._lobby or self._unread is not None}
        for key in replaced:
            self._lobby.drop(key)
        concerned, more = self._concerned(batch, hinted)
        at_work = [*concerned, *newest.values()]
        spoken_for: set[int] = set()
        for _ in range(ROUNDS):
            if not self._round(batch, at_work, spoken_for):
                break
        self._answer(batch, at_work, newest.keys(), replaced)
        self._doubts.update(
            (one, place) for one, place in more.items() if one in self._index and self._index.queue(one).waiting
        )
        self._turns.keep(batch.tx, batch.now)

    def keep_turns(self, batch: Batch, *, at_once: bool = False) -> None:
        """Write down whose turn it is, if it is time to."""
        self._turns.keep(batch.tx, batch.now, at_once=at_once)

    def _concerned(self, batch: Batch, hinted: Mapping[int, float]) -> tuple[list[Asked], Mapping[int, float]]:
        """Parked requests that fit a hinted queue, newest first; and where to go on for which queues."""
        while True:
            rooms = self._limits.rooms(batch.now)
            keys, more = self._lobby.concerned(self._index, hinted, self._rights.is_barred, batch.now, rooms)
            # The store knows better: a pilot that said goodbye to job-state is not to be given anything.
            gone = keys - parked.present(batch.tx, {client for client, _ in keys})
            barred = self._barred(batch, keys - gone)
            if not gone and not barred:
                return self._lobby.newest_first(keys), more
            for key in gone:
                self._lobby.drop(key)
            self._unpark(batch, barred)

    def _barred(self, batch: Batch, keys: Collection[Key]) -> set[Key]:
        """Of parked requests those whose senders may not have made them any more: what they may do has changed."""
        generation = self._rights.generation
        doubtful = [self._lobby[key] for key in keys if self._lobby[key].seen != generation]
        known = sessions.get_many(batch.tx, {one.client for one in doubtful})
        return {one.key for one in doubtful if not self._rights.may_still(one, known.get(one.client))}

    def _round(self, batch: Batch, at_work: Iterable[Asked], spoken_for: set[int]) -> bool:
        """Choose, page and claim once; whether another round could help."""
        for one in at_work:
            if one.wanted > 0:
                self._chooser.choose(batch, one, spoken_for)
        picks = [(one, choice, job) for one in at_work for choice, job in one.choices]
        if not picks:
            return False
        claims = [
            Claim(job, one.client, one.request.offer.site, batch.now + self._settings.accept) for one, _, job in picks
        ]
        claimed = {done.job: done for done in jobs.claim(batch.tx, claims, batch.now)}
        missed = False
        for one, choice, job in picks:
            if job in claimed:
                one.claimed.append(claimed[job])
                self._limits.claimed(claimed[job])
            else:
                self._limits.missed(job)
                missed = True
                if one.packing is not None:
                    one.packing.give_back(one.placed.pop(job))
                if choice.queue_id in self._index:
                    self._index.refund(choice.queue_id, choice.charge)
        for one in at_work:
            one.choices = []
        return missed

    # -- answering and parking ----------------------------------------------------------------------------------

    def _answer(
        self, batch: Batch, at_work: Sequence[Asked], known: Collection[Key], replaced: Collection[Key]
    ) -> None:
        changed = self._answers.give(batch, at_work)
        park: list[Asked] = []
        unpark: set[Key] = set()
        for one in at_work:
            if one.claimed:
                # A request that was answered at once replaces an older parked one of its slot, too.
                unpark.add(one.key)
            elif one.key not in known:
                one.renew()  # all that was chosen for it was gone: its certificate requests are unused
                if one.kept:
                    self._lobby.show(one.key)
            elif one.deadline > batch.now and self._lobby.has_room(one.client):
                park.append(one)
            else:
                unpark.add(one.key)
                self._answers.say_why_not(batch, one)
        if changed:
            publish_changes(batch, changed)
        # Most requests were never parked, and who leads knows all that are: then there is no row to look for.
        self._unpark(batch, {key for key in unpark if key in replaced or key not in known})
        parked.put(batch.tx, [_row(one) for one in park])
        for one in park:
            self._lobby.keep(one)

    def _unpark(self, batch: Batch, keys: Collection[Key]) -> None:
        parked.remove(batch.tx, keys)
        for key in keys:
            self._lobby.drop(key)

    def next_deadline(self) -> float | None:
        """When the next parked request must be answered."""
        return self._lobby.next_deadline()

    def answer_overdue(self, batch: Batch) -> None:
        """Tell those that waited in vain why."""
        overdue = list(islice(self._lobby.overdue(batch.now), OVERDUE))
        for one in overdue:
            self._answers.say_why_not(batch, one)
        if overdue:
            self._unpark(batch, {one.key for one in overdue})

    # -- limits -------------------------------------------------------------------------------------------------

    def ended(self, leases: Iterable[EndedLease]) -> None:
        """These leases are over: there may be room for others (:meth:`open_up`)."""
        self._limits.ended(leases)

    def next_opening(self, now: float) -> float | None:
        """When a limit will let something start that it holds now, as far as is known and anybody waits for it."""
        return self._limits.next_opening(now) if self._lobby else None

    def open_up(self, now: float) -> None:
        """Look anew for those whom limits held that hold no more, and for pilots that are kept no more."""
        over = self._reservations.review(now)
        for key in over:
            self._lobby.let_go(key)
        if over:
            self.doubt(self._index)
        for one in self._limits.take_opened(now):
            site = one.values.get(Attribute.SITE)
            if self._lobby and (site is None or self._lobby.has_site(site)):
                self.doubt(queues_of(one, self._index))

    def forget(self, clients: Collection[str]) -> None:
        """These clients are gone."""
        self._lobby.forget(clients)


def _row(one: Asked) -> parked.ParkedRow:
    return parked.ParkedRow(
        client=one.client,
        slot=one.request.slot,
        identity=one.identity,
        request=msgspec.json.encode(one.request),
        reply_to=reply_queue(one.client),
        cid=one.correlation,
        since=one.since,
        deadline=one.deadline,
    )
