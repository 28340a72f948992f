"""The matcher's memory: task queues with their counts, by group and owner; never a job id.

A *task queue* is requirements class × group × owner. The index knows for each how many jobs wait at each user priority
and since when the oldest one does; the shell pages the ids from the store. Everything is changed in small steps
(:meth:`Index.add`, :meth:`Index.take`, …), and :meth:`Index.set_counts` puts a queue right from the store. Only queues
with waiting jobs are in the order; an empty one is forgotten by :meth:`Index.drop_queue`.

Order inside an owner: :func:`rank`, smallest first; between groups and between a group's owners: :mod:`.shares`. In a
*sharing* group (property JobSharing) the owners have no turns: the order is that of their first jobs' ranks. Background
groups, and owners whose share is 0, come after all the others. Which queue is next for an offer is :mod:`.choose`'s to
say; what is kept of turns over a restart is :mod:`.standing`'s.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from .classes import ClassIndex
from .requirements import Requirements
from .shares import Clock, Member, Place, Policy, Turns

Mark: TypeAlias = tuple[float, float, float, float]
"""A member's pass and usage; virtual time and usage of all, where he has his turns."""

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


@dataclass(slots=True, eq=False)
class Owner(Member):
    """An owner within a group: his classes with waiting jobs, and his queues by rank."""

    sharing: bool = False
    mask: int = 0
    order: list[tuple[float, int]] = field(default_factory=list)
    by_place: dict[int, Queue] = field(default_factory=dict)
    queues: dict[int, Queue] = field(default_factory=dict)

    def standing(self) -> Place:
        """By his pass, or in a sharing group by the rank of his first job."""
        return self.background, self.order[0][0] if self.sharing else self.turn, self.name


@dataclass(slots=True, eq=False)
class Group(Member):
    """A group: its classes with waiting jobs (and which owners have each), and its owners by turn."""

    turns: Turns = field(kw_only=True)
    sharing: bool = False
    mask: int = 0
    users: dict[int, dict[str, Owner]] = field(default_factory=dict)
    owners: dict[str, Owner] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """One job taken from the index, what it cost, and how the turns were before (for :meth:`Index.untake`).

    Attributes:
        charge: processors times :attr:`.shares.Clock.weight`.
    """

    queue_id: int
    priority: int
    oldest: float
    charge: float
    turns: tuple[Mark, Mark]


class Index:
    """Task queues, their counts and their order.

    Args:
        policy: how usage is remembered.

    Attributes:
        charged: (group, owner) whose turns have changed since somebody looked and cleared this.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.clock = Clock(self.policy.half_life)
        self.classes = ClassIndex()
        self.groups: dict[str, Group] = {}
        self.turns = Turns(self.clock, self.policy.lately)
        self.charged: set[tuple[str, str]] = set()
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

    def at(self, now: float) -> None:
        """It is ``now``: what is taken from now on counts as taken now. Earlier than before is as late as before."""
        powers = self.clock.at(now)
        if powers:
            self._divide(powers)

    def set_share(self, group: str, share: float, *, background: bool = False, sharing: bool = False) -> None:
        """What a group has from now on; what was given is not reckoned anew.

        Args:
            group: its name.
            share: against the other groups; 0 is background.
            background: it gets only what the others leave.
            sharing: its owners' jobs are in one order, by rank, whoever's they are.
        """
        known = self.group(group)
        turn = known.turn
        self.turns.set_share(known, share, background)
        if known.turn != turn:  # a new leader would take the old pass by the new share
            self.charged.update((group, owner) for owner in list(known.owners)[:1])
        if known.sharing != sharing:
            known.sharing = sharing
            for owner in known.owners.values():
                owner.sharing = sharing
                known.turns.sort(owner)

    def set_member_share(self, group: str, owner: str, share: float) -> None:
        """What an owner has of his group from now on; 0: only what its other owners leave."""
        of_group, of_owner = self.group(group), self.owner(group, owner)
        turn = of_owner.turn
        of_group.turns.set_share(of_owner, share)
        if of_owner.turn != turn:
            self.charged.add((group, owner))

    def add_queue(self, queue_id: int, requirements: Requirements, group: str, owner: str) -> None:
        """Get to know a task queue, empty for now; known already: nothing changes."""
        if queue_id in self._queues:
            return
        of_group, of_owner = self.group(group), self.owner(group, owner)
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
        :func:`.standing.forget` drops those for whom it makes no difference any more.
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

    def take(self, queue_id: int, priority: int | None = None, processors: int = 1) -> Taken:
        """The next job of the queue (of this priority) was given away; its group and owner have had a turn.

        Args:
            queue_id: whose job it is.
            priority: of the job; ``None``: the one that is next.
            processors: that it takes, which is what it costs.
        """
        queue = self._queues[queue_id]
        group, owner = queue.group, queue.owner
        chosen = queue.head() if priority is None else priority
        charge = processors * self.clock.weight
        marks = (_mark(self.turns, group), _mark(group.turns, owner))
        taken = Taken(queue_id, chosen, queue.levels[chosen].oldest, charge, marks)
        self.turns.charge(group, charge)
        group.turns.charge(owner, charge)
        self.charged.add((group.name, owner.name))
        self.remove(queue_id, chosen)
        return taken

    def untake(self, taken: Taken) -> None:
        """Make the last :meth:`take` not have happened, exactly. No time may have gone by."""
        queue = self._queues[taken.queue_id]
        self.add(queue.id, taken.priority, 1, taken.oldest)
        _restore(self.turns, queue.group, taken.turns[0])
        _restore(queue.group.turns, queue.owner, taken.turns[1])

    def put_back(self, queue_id: int, priority: int, oldest: float, charge: float | None = None) -> None:
        """A job that was taken waits again after all: the turn is given back, too (see :meth:`refund`)."""
        self.add(queue_id, priority, 1, oldest)
        self.refund(queue_id, charge)

    def refund(self, queue_id: int, charge: float | None = None) -> None:
        """A job that was taken did not exist (any more): the turn is given back.

        Args:
            queue_id: whose job it was.
            charge: as :class:`Taken` and :class:`.choose.Choice` tell it; ``None``: one processor, now.
        """
        queue = self._queues[queue_id]
        amount = self.clock.weight if charge is None else charge
        self.turns.refund(queue.group, amount)
        queue.group.turns.refund(queue.owner, amount)
        self.charged.add((queue.group.name, queue.owner.name))

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

    def group(self, name: str) -> Group:
        """A group, known or new."""
        known = self.groups.get(name)
        if known is None:
            known = self.groups[name] = Group(name, turns=Turns(self.clock, self.policy.lately))
        return known

    def owner(self, group: str, name: str) -> Owner:
        """An owner within a group, known or new."""
        of_group = self.group(group)
        known = of_group.owners.get(name)
        if known is None:
            known = of_group.owners[name] = Owner(name, sharing=of_group.sharing)
        return known

    def _divide(self, powers: int) -> None:
        self.turns.divide(powers, self.groups.values())
        for group in self.groups.values():
            group.turns.divide(powers, group.owners.values())

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
        if queue.owner.sharing:
            queue.group.turns.sort(queue.owner)

    def _activate(self, queue: Queue) -> None:
        owner, group, bit = queue.owner, queue.group, 1 << queue.place
        head = queue.head()
        queue.rank = rank(head, queue.levels[head].oldest)
        insort(owner.order, (queue.rank, queue.id))
        owner.mask |= bit
        if not owner.active:
            group.turns.join(owner)
        elif owner.sharing:
            group.turns.sort(owner)
        group.users.setdefault(queue.place, {})[owner.name] = owner
        group.mask |= bit
        self.turns.join(group)

    def _deactivate(self, queue: Queue) -> None:
        owner, group, bit = queue.owner, queue.group, 1 << queue.place
        queue.levels = {}
        del owner.order[bisect_left(owner.order, (queue.rank, queue.id))]
        owner.mask &= ~bit
        if not owner.order:
            group.turns.leave(owner)
        elif owner.sharing:
            group.turns.sort(owner)
        del group.users[queue.place][owner.name]
        if not group.users[queue.place]:
            del group.users[queue.place]
            group.mask &= ~bit
        if not group.turns.order:
            self.turns.leave(group)


def _mark(turns: Turns, member: Member) -> Mark:
    return member.turn, member.used, turns.last[member.background], turns.used


def _restore(turns: Turns, member: Member, mark: Mark) -> None:
    member.turn, member.used, turns.last[member.background], turns.used = mark
    turns.sort(member)
