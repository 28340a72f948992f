"""The matcher's memory: task queues with their counts, by group and owner; never a job id.

A *task queue* is requirements class × group × owner. The index knows for each how many jobs wait at each user priority
and since when the oldest one does; the shell pages the ids from the store. Everything is changed in small steps
(:meth:`Index.add`, :meth:`Index.take`, …), and :meth:`Index.set_counts` puts a queue right from the store. Only queues
with waiting jobs are in the order; an empty one is forgotten by :meth:`Index.drop_queue`.

Order inside an owner: :func:`rank`, smallest first; between groups and between a group's owners: :mod:`.shares`.
Which queue is next for an offer is :mod:`.choose`'s to say.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from .classes import ClassIndex
from .requirements import Requirements
from .shares import DEFAULT_SHARE, Member, Turns

AGEING_SECONDS = 86_400.0
"""One step of user priority is worth a day of waiting. Priorities span ten steps, so a job is passed by its owner's
later jobs for ten days at most; shorter, and the priorities of a production that queues for days would mean little."""


def rank(priority: int, submitted: float) -> float:
    """Place of a job among its owner's: ``submitted - AGEING_SECONDS * priority``, smallest first.

    It is what "priority plus age in days" gives, but it does not change with time: it can be stored and sorted by. A
    job given back keeps its submission time and so its place.
    """
    return submitted - AGEING_SECONDS * priority


@dataclass(slots=True)
class Level:
    """The jobs of one priority in a queue."""

    count: int
    oldest: float


@dataclass(slots=True)
class Queue:
    """One task queue; ``place`` is the bit of its class, ``rank`` that of its first job."""

    id: int
    requirements: Requirements
    place: int
    group: Group
    owner: Owner
    levels: dict[int, Level] = field(default_factory=dict)
    rank: float = 0.0

    @property
    def waiting(self) -> int:
        """How many jobs wait in it."""
        return sum(level.count for level in self.levels.values())

    def head(self) -> int:
        """The priority whose oldest job is next."""
        return min(self.levels, key=lambda priority: (rank(priority, self.levels[priority].oldest), -priority))


@dataclass(slots=True)
class Owner(Member):
    """An owner within a group: his classes with waiting jobs, and his queues by rank."""

    mask: int = 0
    order: list[tuple[float, int]] = field(default_factory=list)
    by_place: dict[int, Queue] = field(default_factory=dict)
    queues: dict[int, Queue] = field(default_factory=dict)


@dataclass(slots=True)
class Group(Member):
    """A group: its classes with waiting jobs (and how many owners have each), and its owners by turn."""

    mask: int = 0
    users: dict[int, int] = field(default_factory=dict)
    owners: dict[str, Owner] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns)


@dataclass(frozen=True, slots=True)
class Taken:
    """One job taken from the index, and whose turns it was (for :meth:`Index.untake`)."""

    queue_id: int
    priority: int
    oldest: float
    turns: tuple[int, int, int, int]


class Index:
    """Task queues, their counts and their order."""

    def __init__(self) -> None:
        self.classes = ClassIndex()
        self.groups: dict[str, Group] = {}
        self.turns = Turns()
        self._queues: dict[int, Queue] = {}
        self._per_class: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def __contains__(self, queue_id: int) -> bool:
        return queue_id in self._queues

    def __iter__(self) -> Iterator[int]:
        return iter(self._queues)

    def queue(self, queue_id: int) -> Queue:
        """A queue, to look at.

        Raises:
            KeyError: it is not known here.
        """
        return self._queues[queue_id]

    def waiting(self) -> int:
        """All waiting jobs."""
        return sum(queue.waiting for queue in self._queues.values())

    def set_usable_sites(self, sites: Collection[str] | None) -> None:
        """The site mask: at other sites only Test jobs run; ``None`` bars none."""
        self.classes.set_usable_sites(sites)

    def set_share(self, group: str, share: int) -> None:
        """The share of a group from now on; what was given is not reckoned anew."""
        self._group(group).share = max(1, share)

    def add_queue(self, queue_id: int, requirements: Requirements, group: str, owner: str) -> None:
        """Get to know a task queue, empty for now; known already: nothing changes."""
        if queue_id in self._queues:
            return
        of_group = self._group(group)
        of_owner = of_group.owners.setdefault(owner, Owner(owner))
        place = self.classes.add(requirements)
        if place in of_owner.by_place:
            raise ValueError(f"task queue {of_owner.by_place[place].id} is the same as {queue_id}")
        self._per_class[place] = self._per_class.get(place, 0) + 1
        queue = Queue(queue_id, requirements, place, of_group, of_owner)
        of_owner.by_place[place] = of_owner.queues[queue_id] = queue
        self._queues[queue_id] = queue

    def drop_queue(self, queue_id: int) -> None:
        """Forget a task queue, and its class with the last queue of it.

        Groups and owners are kept with their pass: otherwise one who submits a job at a time would always be next.
        """
        queue = self._queues.pop(queue_id, None)
        if queue is None:
            return
        if queue.levels:
            self._deactivate(queue)
        del queue.owner.by_place[queue.place], queue.owner.queues[queue_id]
        self._per_class[queue.place] -= 1
        if not self._per_class[queue.place]:
            del self._per_class[queue.place]
            self.classes.remove(queue.requirements)

    def add(self, queue_id: int, priority: int, count: int, oldest: float) -> None:
        """So many more jobs of a priority wait, the oldest submitted at ``oldest``."""
        if count <= 0:
            return
        queue = self._queues[queue_id]
        level = queue.levels.get(priority)
        if level is None:
            self._set_levels(queue, {**queue.levels, priority: Level(count, oldest)})
            return
        level.count += count
        if oldest < level.oldest:
            level.oldest = oldest
            self._reorder(queue)

    def take(self, queue_id: int, priority: int | None = None) -> Taken:
        """The next job of the queue (of this priority) was given away; its group and owner have had a turn."""
        queue = self._queues[queue_id]
        group, owner = queue.group, queue.owner
        chosen = queue.head() if priority is None else priority
        turns = (self.turns.last, group.turn, group.turns.last, owner.turn)
        taken = Taken(queue_id, chosen, queue.levels[chosen].oldest, turns)
        self.turns.charge(group)
        group.turns.charge(owner)
        self.remove(queue_id, chosen)
        return taken

    def untake(self, taken: Taken) -> None:
        """Make the last :meth:`take` not have happened, exactly."""
        queue = self._queues[taken.queue_id]
        self.add(queue.id, taken.priority, 1, taken.oldest)
        group, owner = queue.group, queue.owner
        self.turns.last, group_turn, group.turns.last, owner_turn = taken.turns
        self.turns.move(group, group_turn)
        group.turns.move(owner, owner_turn)

    def put_back(self, queue_id: int, priority: int, oldest: float) -> None:
        """A job that was taken waits again after all: the turn is given back, too."""
        self.add(queue_id, priority, 1, oldest)
        self.refund(queue_id)

    def refund(self, queue_id: int) -> None:
        """A job that was taken did not exist (any more): the turn is given back."""
        queue = self._queues[queue_id]
        self.turns.refund(queue.group)
        queue.group.turns.refund(queue.owner)

    def remove(self, queue_id: int, priority: int, count: int = 1) -> None:
        """So many jobs left without a turn (killed, deleted). More than there are is none left."""
        queue = self._queues[queue_id]
        level = queue.levels.get(priority)
        if level is None:
            return
        level.count -= count
        if level.count <= 0:
            self._set_levels(queue, {key: value for key, value in queue.levels.items() if key != priority})

    def set_head(self, queue_id: int, priority: int, oldest: float) -> None:
        """The oldest job of this priority is this old (the shell saw it when it paged the ids)."""
        queue = self._queues[queue_id]
        level = queue.levels.get(priority)
        if level is not None and level.oldest != oldest:
            level.oldest = oldest
            self._reorder(queue)

    def set_counts(self, queue_id: int, levels: Mapping[int, tuple[int, float]]) -> None:
        """What the store says: priority → (waiting jobs, submission time of the oldest)."""
        found = {priority: Level(count, oldest) for priority, (count, oldest) in levels.items() if count > 0}
        self._set_levels(self._queues[queue_id], found)

    def _group(self, name: str) -> Group:
        return self.groups.setdefault(name, Group(name, DEFAULT_SHARE))

    def _set_levels(self, queue: Queue, levels: dict[int, Level]) -> None:
        if queue.levels:
            if levels:
                queue.levels = levels
                self._reorder(queue)
            else:
                self._deactivate(queue)
        elif levels:
            queue.levels = levels
            self._activate(queue)

    def _reorder(self, queue: Queue) -> None:
        head = queue.head()
        first = rank(head, queue.levels[head].oldest)
        if first == queue.rank:
            return
        order = queue.owner.order
        del order[bisect_left(order, (queue.rank, queue.id))]
        queue.rank = first
        insort(order, (first, queue.id))

    def _activate(self, queue: Queue) -> None:
        owner, group, bit = queue.owner, queue.group, 1 << queue.place
        head = queue.head()
        queue.rank = rank(head, queue.levels[head].oldest)
        insort(owner.order, (queue.rank, queue.id))
        owner.mask |= bit
        group.turns.join(owner)
        group.users[queue.place] = group.users.get(queue.place, 0) + 1
        group.mask |= bit
        self.turns.join(group)

    def _deactivate(self, queue: Queue) -> None:
        owner, group, bit = queue.owner, queue.group, 1 << queue.place
        queue.levels = {}
        del owner.order[bisect_left(owner.order, (queue.rank, queue.id))]
        owner.mask &= ~bit
        if not owner.order:
            group.turns.leave(owner)
        group.users[queue.place] -= 1
        if not group.users[queue.place]:
            del group.users[queue.place]
            group.mask &= ~bit
        if not group.turns.order:
            self.turns.leave(group)
