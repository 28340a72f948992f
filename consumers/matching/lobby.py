"""Parked requests: at hand by what arrives, by their deadlines and by their clients."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import TypeAlias

from ..domain.index import Index
from ..domain.parked import ParkedIndex
from ..domain.requirements import in_the_way
from .asked import Asked, Key

MAX_SLOTS = 64
"""Requests of one pilot that are parked: it has one for each of its slots, and nobody fills the memory."""

Barred: TypeAlias = Callable[[str, str, str], bool]
"""(owner, group, site) → whether his jobs are kept from it."""


class Lobby:
    """Requests that wait. Memory grows with them only."""

    def __init__(self) -> None:
        self._parked: ParkedIndex[Key] = ParkedIndex()
        self._waiting: dict[Key, Asked] = {}
        self._slots: Counter[str] = Counter()
        self._deadlines: list[tuple[float, Key]] = []

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
        return self._slots.get(client, 0) < MAX_SLOTS

    def keep(self, one: Asked) -> None:
        """Park a request; it takes the place of an older one of its slot."""
        one.message = None
        one.csr_of = {}
        self._slots[one.client] += one.key not in self._waiting
        self._waiting[one.key] = one
        self._parked.add(one.key, one.request.offer)
        heapq.heappush(self._deadlines, (one.deadline, one.key))
        if len(self._deadlines) > 2 * len(self._waiting) + 1000:  # replaced requests leave theirs behind
            self._deadlines = sorted((waiting.deadline, key) for key, waiting in self._waiting.items())

    def drop(self, key: Key) -> None:
        """It waits no more."""
        if self._waiting.pop(key, None) is not None:
            self._parked.remove(key)
            self._slots[key[0]] -= 1
            if not self._slots[key[0]]:
                del self._slots[key[0]]

    def forget(self, clients: Collection[str]) -> None:
        """These pilots are gone."""
        for key in [key for key in self._waiting if key[0] in clients]:
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

    def concerned(self, index: Index, hinted: Collection[int], barred: Barred, now: float) -> set[Key]:
        """Requests that the waiting jobs of some queues fit, newest first and no more of them than jobs."""
        keys: set[Key] = set()
        usable = index.classes.usable_sites
        for queue_id in hinted:
            if queue_id not in index:
                continue
            queue = index.queue(queue_id)
            left = queue.waiting
            for key in self._parked.candidates(queue.requirements, queue.owner.name, usable):
                if left <= 0:
                    break
                one = self._waiting[key]
                if barred(queue.owner.name, queue.group.name, one.request.offer.site):
                    continue
                if in_the_way(queue.requirements, one.offer(now), usable) is not None:
                    continue  # it fitted when it was asked; less time is left now
                keys.add(key)
                left -= one.request.jobs
        return keys
