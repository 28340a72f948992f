"""Pilots that are kept for jobs too large for what is free of them: else small jobs would always come first.

When it is a job's turn on a pilot as far as its totals go, the job does not fit what is free there now, and it has
waited for :data:`PATIENCE`, the pilot is *reserved* for the job's class: it gets nothing else until it offers enough.
So turns decide who is waited for, and a large job starts when the longest of what the pilot ran then is over. Bounded:
:data:`MOST_PER_QUEUE` and :data:`MOST` pilots at a time, never more than jobs wait, none for longer than
:data:`LONGEST` (then it takes what comes for as long again), and only while it could have such a job once it is empty:
its time must be enough, and no limit reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from msgspec.structs import replace

from schemas.messages.pilot import Offer

from .choose import Closed, NoMatch, Serves, choose
from .index import Index, Queue
from .requirements import not_theirs

PATIENCE = 1800.0
"""Seconds that a job waits before a pilot is emptied for it: by then chance had its try."""

LONGEST = 4 * 3600.0
"""Seconds that a pilot is kept at most, partly idle."""

MOST_PER_QUEUE, MOST = 4, 64
"""Pilots emptied at a time. Few: while one is, its free processors do nothing."""

FORGOTTEN = 600.0
"""Seconds after which a pilot that does not ask any more has ended: they ask anew at least so often."""

Key: TypeAlias = tuple[str, str]
"""(client, slot)"""


@dataclass(slots=True)
class Reservation:
    """A pilot's: for which queue, since when, and when it last asked."""

    queue_id: int
    since: float
    asked: float


class Reservations:
    """Which pilots are reserved.

    Args:
        index: what waits.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._held: dict[Key, Reservation] = {}
        self._resting: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def ask(self, key: Key, offer: Offer, now: float, serves: Serves | None, closed: Closed | None) -> Queue | None:
        """For which queue a pilot that asks is reserved, from before or from now on; ``None``: it takes what comes."""
        held = self._held.get(key)
        total = whole(offer)
        if held is not None:
            if self._holds(held, now) and self._could_have(held, total or offer, serves, closed):
                held.asked = now
                return self._index.queue(held.queue_id)
            self._give_up(key, held, now)
        if total is None or len(self._held) >= MOST or self._resting.get(key, 0.0) > now:
            return None
        if not self._index.classes.fitting(total) & ~self._index.classes.fitting(offer):
            return None
        chosen = choose(total, self._index, now, 1, serves, closed)
        if isinstance(chosen, NoMatch) or chosen[0].waited < PATIENCE:
            return None
        queue = self._index.queue(chosen[0].queue_id)
        others = sum(1 for one in self._held.values() if one.queue_id == queue.id)
        if self._index.classes.fitting(offer) >> queue.place & 1 or others >= min(MOST_PER_QUEUE, queue.waiting):
            return None
        self._held[key] = Reservation(queue.id, now, now)
        return queue

    def release(self, key: Key) -> None:
        """It takes what comes."""
        self._held.pop(key, None)

    def review(self, now: float) -> list[Key]:
        """Give up those that make no sense any more: the pilots that take what comes from now on."""
        over: list[Key] = []
        for key, one in list(self._held.items()):
            if not self._holds(one, now):
                self._give_up(key, one, now)
                over.append(key)
        if self._resting and min(self._resting.values()) <= now:
            self._resting = {key: until for key, until in self._resting.items() if until > now}
        return over

    def _give_up(self, key: Key, one: Reservation, now: float) -> None:
        if now - one.since > LONGEST:
            self._resting[key] = now + LONGEST
        self.release(key)

    def _could_have(self, one: Reservation, total: Offer, serves: Serves | None, closed: Closed | None) -> bool:
        """Whether the pilot, once empty, could still have such a job: its time shrinks, limits may be reached."""
        queue = self._index.queue(one.queue_id)
        group, owner = queue.group.name, queue.owner.name
        shut = 0 if closed is None else closed.classes | closed.of_group(group) | closed.of_owner(group, owner)
        return (
            bool((self._index.classes.fitting(total) & ~shut) >> queue.place & 1)
            and not_theirs(total, owner, group) is None
            and (serves is None or serves(group, owner))
        )

    def _holds(self, one: Reservation, now: float) -> bool:
        if one.queue_id not in self._index or now - one.since > LONGEST or now - one.asked > FORGOTTEN:
            return False
        waiting = self._index.queue(one.queue_id).waiting
        return sum(1 for other in self._held.values() if other.queue_id == one.queue_id) <= waiting


class Only:
    """Closes all classes but one, and what limits close.

    Args:
        queue: of the class.
        closed: by limits.
    """

    def __init__(self, queue: Queue, closed: Closed | None) -> None:
        self._queue = queue
        self._closed = closed

    @property
    def classes(self) -> int:
        """All but the one."""
        others = ~(1 << self._queue.place)
        return others if self._closed is None else others | self._closed.classes

    def of_group(self, group: str) -> int:
        """What limits close."""
        return 0 if self._closed is None else self._closed.of_group(group)

    def of_owner(self, group: str, owner: str) -> int:
        """What limits close."""
        return 0 if self._closed is None else self._closed.of_owner(group, owner)


def whole(offer: Offer) -> Offer | None:
    """What a pilot would offer if nothing ran on it; ``None`` if that is what it offers."""
    if offer.total_processors <= offer.processors:
        return None
    memory = max(offer.memory_mb, offer.total_memory_mb)
    return replace(offer, processors=offer.total_processors, memory_mb=memory, whole_node=True)
