"""Matching: the index of waiting work kept in step with the store, and requests served from it.

A batch is served in rounds: choose for every request, claim all at once, and choose anew for what was taken meanwhile.
What stays unanswered is parked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from schemas.envelope import reply_queue
from schemas.messages.pilot import RequestMatch

from ..batch import Batch
from ..changes import publish_changes
from ..directory import Directory
from ..domain.choose import NoMatch, reserve
from ..domain.index import Index
from ..domain.requirements import Requirements
from ..settings import LeaseSettings
from ..store import jobs, parked, queues
from ..store.rows import Claim
from .answers import Answers
from .asked import Asked, Key
from .lobby import Lobby
from .pages import Pages
from .rights import Rights

ROUNDS = 4
"""Claims that failed (killed meanwhile) are replaced by other jobs in so many rounds; then the pilot waits parked."""


class Matching:
    """The leader's memory.

    Args:
        settings: times.
        directory: registry (who may have jobs run, shares, site mask, rules).
    """

    def __init__(self, settings: LeaseSettings, directory: Directory) -> None:
        self._settings = settings
        self._index = Index()
        self._rights = Rights(directory)
        self._pages = Pages(self._index)
        self._lobby = Lobby()
        self._answers = Answers(self._index)

    # -- from the store -----------------------------------------------------------------------------------------

    def load(self, batch: Batch) -> None:
        """Everything, at a takeover."""
        self.reconcile(batch)
        for row in parked.load(batch.tx):
            request = msgspec.json.decode(row.request, type=RequestMatch)
            self._lobby.keep(Asked(row.client, row.identity, request, row.cid, row.since, row.deadline))
        self.serve_all(batch)

    def serve_all(self, batch: Batch) -> None:
        """Answer whatever parked request can be answered: at a takeover, and where a hint was lost."""
        self.serve(batch, [], set(self._index))

    @property
    def outdated(self) -> bool:
        """Whether the registry has changed since this last looked: parked requests may have become answerable."""
        return self._rights.outdated

    def reconcile(self, batch: Batch) -> None:
        """Put the counts of all queues right."""
        self._rights.note(self._index)
        counts = queues.waiting_counts(batch.tx)
        self._learn(batch, counts.keys() - set(self._index))
        for queue_id in list(self._index):
            if queue_id in counts:
                self._index.set_counts(queue_id, counts[queue_id])
            else:
                self._index.drop_queue(queue_id)
        self._pages.clear()

    def _learn(self, batch: Batch, ids: Collection[int]) -> None:
        for row in queues.load(batch.tx, ids):
            self._index.add_queue(row.id, Requirements.from_json(row.requirements), row.grp, row.owner)

    def _refresh(self, batch: Batch, ids: Collection[int]) -> None:
        if not ids:
            return
        self._learn(batch, [queue_id for queue_id in ids if queue_id not in self._index])
        counts = queues.waiting_counts(batch.tx, ids)
        for queue_id in ids:
            if queue_id in self._index:
                self._index.set_counts(queue_id, counts.get(queue_id, {}))
        self._pages.forget(ids)

    # -- serving ------------------------------------------------------------------------------------------------

    def serve(self, batch: Batch, asked: Sequence[Asked], hinted: Collection[int]) -> None:
        """Answer requests, and those parked ones for which the hinted queues have work."""
        self._rights.note(self._index)
        self._refresh(batch, hinted)
        newest = {one.key: one for one in asked}
        for key in newest:
            self._lobby.drop(key)
        at_work = [*self._concerned(batch, hinted), *newest.values()]
        spoken_for: set[int] = set()
        for _ in range(ROUNDS):
            if not self._round(batch, at_work, spoken_for):
                break
        self._answer(batch, at_work, known={one.key for one in newest.values()})

    def _concerned(self, batch: Batch, hinted: Collection[int]) -> list[Asked]:
        """Parked requests that fit a hinted queue, newest first."""
        while True:
            keys = self._lobby.concerned(self._index, hinted, self._rights.is_barred, batch.now)
            # The store knows better: a pilot that said goodbye to job-state is not to be given anything.
            gone = keys - parked.present(batch.tx, {client for client, _ in keys})
            if not gone:
                return sorted((self._lobby[key] for key in keys), key=lambda one: -one.since)
            for key in gone:
                self._lobby.drop(key)

    def _round(self, batch: Batch, at_work: Iterable[Asked], spoken_for: set[int]) -> bool:
        """Choose, page and claim once; whether another round could help."""
        for one in at_work:
            if one.wanted > 0:
                self._choose(batch, one, spoken_for)
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
            else:
                missed = True
                if choice.queue_id in self._index:
                    self._index.refund(choice.queue_id)
        for one in at_work:
            one.choices = []
        return missed

    def _choose(self, batch: Batch, one: Asked, spoken_for: set[int]) -> None:
        """Choose job by job: what a pilot can serve changes with each certificate request that is used up."""
        offer = one.offer(batch.now)

        def serves(group: str, owner: str) -> bool:
            if self._rights.is_barred(owner, group, offer.site):
                return False
            return one.proxy_place(owner, group, batch.now) is not None

        while len(one.choices) < one.wanted:
            chosen = reserve(offer, self._index, batch.now, 1, serves)
            if isinstance(chosen, NoMatch):
                return
            choice = chosen[0]
            queue = self._index.queue(choice.queue_id)
            job = self._pages.next_job(batch.tx, choice, spoken_for)
            if job is None:
                continue  # the counts were put right meanwhile
            place = one.proxy_place(queue.owner.name, queue.group.name, batch.now)
            if place is not None:
                one.csr_of[queue.owner.name, queue.group.name] = place
            spoken_for.add(job)
            one.choices.append((choice, job))

    # -- answering and parking ----------------------------------------------------------------------------------

    def _answer(self, batch: Batch, at_work: Sequence[Asked], known: Collection[Key]) -> None:
        changed = self._answers.give(batch, at_work)
        park: list[Asked] = []
        unpark: set[Key] = set()
        for one in at_work:
            if one.claimed:
                # A request that was answered at once replaces an older parked one of its slot, too.
                unpark.add(one.key)
            elif one.key not in known:
                one.csr_of = {}  # all that was chosen for it was gone: its certificate requests are unused
            elif one.deadline > batch.now and self._lobby.has_room(one.client):
                park.append(one)
            else:
                unpark.add(one.key)
                self._answers.say_why_not(batch, one)
        if changed:
            publish_changes(batch, changed)
        self._unpark(batch, unpark)
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
        overdue = list(self._lobby.overdue(batch.now))
        for one in overdue:
            self._answers.say_why_not(batch, one)
        if overdue:
            self._unpark(batch, {one.key for one in overdue})

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
