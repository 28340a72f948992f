"""Parked requests: at hand by what arrives, by their deadlines and by their clients."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeAlias

from ..domain.index import Index, Queue
from ..domain.parked import ParkedIndex
from ..domain.running_limits import Rooms
from .asked import Asked, Key

MAX_SLOTS = 64
"""Requests of one pilot that are parked: it has one for each of its slots, and nobody fills the memory."""

AT_ONCE = 256
"""Requests looked at in one transaction because jobs have come: about 50 ms if all of them get one."""

LOOKS = 4096
"""Requests passed over in one transaction, that fit but may have no job of the owner's, or that limits hold: 30 ms.
Where nobody may have any, all of 50,000 would take longer for a few queues than a leader may be silent."""

Barred: TypeAlias = Callable[[str, str, str], bool]
"""(owner, group, site) → whether his jobs are kept from it."""


class Lobby:
    """Requests that wait. Memory grows with them only."""

    def __init__(self) -> None:
        self._parked: ParkedIndex[Key] = ParkedIndex()
        self._waiting: dict[Key, Asked] = {}
        self._slots: dict[str, set[Key]] = {}
        self._sites: Counter[str] = Counter()
        self._deadlines: list[tuple[float, Key]] = []
        self._looks = LOOKS

    def __contains__(self, key: Key) -> bool:
        return key in self._waiting

    def __getitem__(self, key: Key) -> Asked:
        return self._waiting[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def has_room(self, client: str) -> bool:
        """Whether one more request of this pilot is kept."""
        return len(self._slots.get(client, ())) < MAX_SLOTS

    def keep(self, one: Asked) -> None:
        """Park a request; it takes the place of an older one of its slot."""
        one.message = None
        one.renew()
        self._slots.setdefault(one.client, set()).add(one.key)
        older = self._waiting.get(one.key)
        if older is not None:
            self._left(older)
        self._waiting[one.key] = one
        self._sites[one.request.offer.site] += 1
        self.show(one.key)
        heapq.heappush(self._deadlines, (one.deadline, one.key))
        if len(self._deadlines) > 2 * len(self._waiting) + 1000:  # replaced requests leave theirs behind
            self._deadlines = sorted((waiting.deadline, key) for key, waiting in self._waiting.items())

    def show(self, key: Key) -> None:
        """Jobs that come may wake it, unless it is kept for one; then they pass it over."""
        one = self._waiting.get(key)
        if one is not None and not one.kept:
            self._parked.add(key, one.request.offer, one.since)
        else:
            self._parked.remove(key)

    def let_go(self, key: Key) -> None:
        """It is kept for nothing any more."""
        if key in self._waiting:
            self._waiting[key].kept = ""
            self.show(key)

    def drop(self, key: Key) -> None:
        """It waits no more."""
        one = self._waiting.pop(key, None)
        if one is not None:
            self._left(one)
            self._parked.remove(key)
            slots = self._slots[key[0]]
            slots.discard(key)
            if not slots:
                del self._slots[key[0]]

    def _left(self, one: Asked) -> None:
        site = one.request.offer.site
        self._sites[site] -= 1
        if not self._sites[site]:
            del self._sites[site]

    def has_site(self, site: str) -> bool:
        """Whether somebody waits there."""
        return site in self._sites

    def newest_first(self, keys: Collection[Key]) -> list[Asked]:
        """These requests, in the order in which they are served."""
        return [self._waiting[key] for key in sorted(keys, key=self._parked.place, reverse=True)]

    def forget(self, clients: Collection[str]) -> None:
        """These pilots are gone."""
        for client in clients:
            for key in list(self._slots.get(client, ())):
                self.drop(key)

    def next_deadline(self) -> float | None:
        """When the next request must be answered."""
        return self._deadlines[0][0] if self._deadlines else None

    def overdue(self, now: float) -> Iterator[Asked]:
        """Those that waited in vain, each once; to be dropped by who answers them."""
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, key = heapq.heappop(self._deadlines)
            one = self._waiting.get(key)
            if one is not None and one.deadline == deadline:
                yield one

    def concerned(
        self, index: Index, hinted: Mapping[int, float], barred: Barred, now: float, rooms: Rooms | None = None
    ) -> tuple[set[Key], dict[int, float]]:
        """Requests that the waiting jobs of some queues fit, newest first and no more of them than jobs.

        Args:
            index: what waits.
            hinted: queues, and below which place to look for each (all of them: infinity).
            barred: who has no right to run where.
            now: offers have less time left than when they were made.
            rooms: what limits leave, if there are any.

        Returns:
            The requests, at most :data:`AT_ONCE`, and where to go on (as ``hinted``) if they leave jobs to others, for
            they may take other work, or less than they asked for; or if :data:`LOOKS` were passed over.
        """
        keys: set[Key] = set()
        more: dict[int, float] = {}
        self._looks = LOOKS
        for queue_id, below in hinted.items():
            if len(keys) >= AT_ONCE or self._looks <= 0:
                more[queue_id] = below
            elif self._waiting and queue_id in index:
                left = self._wake(index, index.queue(queue_id), barred, now, below, keys, rooms)
                if left is not None:
                    more[queue_id] = left
        return keys, more

    def _wake(
        self,
        index: Index,
        queue: Queue,
        barred: Barred,
        now: float,
        below: float,
        keys: set[Key],
        rooms: Rooms | None,
    ) -> float | None:
        """Add those for a queue's jobs to ``keys``; where to go on if there are more of them."""
        left, usable = queue.waiting, index.classes.usable_sites
        owner, group = queue.owner.name, queue.group.name
        if not left:
            return None
        hopes = _Hopes(rooms, queue)
        passed: float | None = None
        for key in self._parked.candidates(queue.requirements, owner, group, usable, now, below):
            one = self._waiting[key]
            if left <= 0 or len(keys) >= AT_ONCE or self._looks <= 0:
                return passed or self._parked.place(key) + 1
            if barred(owner, group, one.request.offer.site) or one.proxy_place(owner, group, now) is None:
                self._looks -= 1  # it can have no job of his
            elif hopes.has(one):
                keys.add(key)
                left -= one.request.jobs
            else:
                self._looks -= 1
                if hopes.later and passed is None:
                    passed = self._parked.place(key) + 1
        return passed


class _Hopes:
    """Whom limits may let have a job of one queue; at a place where they let nobody, nobody is asked twice.

    Attributes:
        later: somebody was passed over who may have one if those before him take other work.
    """

    def __init__(self, rooms: Rooms | None, queue: Queue) -> None:
        self._rooms = rooms
        self._whose = queue.requirements.job_type, queue.owner.name, queue.group.name
        self._shut: set[tuple[str, str]] = set()
        self.later = False

    def has(self, one: Asked) -> bool:
        if self._rooms is None:
            return True
        offer = one.request.offer
        if (offer.site, offer.ce) in self._shut:
            return False
        if self._rooms.take(offer, *self._whose, one.request.jobs):
            return True
        self._shut.add((offer.site, offer.ce))
        self.later = self.later or not self._rooms.is_closed(offer, *self._whose)
        return False
