"""Which task queue's next job goes to an offer: the matcher's one decision, and the reasons when there is none.

Walk the groups in the order of their turns (background groups last), then that group's owners, leaving out those with
no waiting class that fits, whom the pilot does not serve, and whose classes limits close; inside the owner take the
fitting queue whose first job has the smallest :func:`.index.rank` (ties: the smaller id). In a sharing group take the
queue with the smallest rank of all its owners' (ties: the owner's name). Same index, same offer, same moment: same
choice. :func:`choose` only looks; :func:`reserve` also takes, so that several jobs at once, or several requests of one
batch, are chosen as if one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import attrgetter, or_
from typing import Protocol, TypeAlias

from schemas.messages.pilot import Offer

from .index import Group, Index, Owner, Queue, Taken
from .requirements import Condition, Requirements, describe
from .shares import Place

FEW = 8
"""Among so few owners the walk is quick whoever fits."""

Serves: TypeAlias = Callable[[str, str], bool]
"""(group, owner) → whether a pilot may have jobs of theirs."""


class Closed(Protocol):
    """What limits close for one offer at one moment. Bits are places of classes (:mod:`.classes`), -1 is all."""

    @property
    def classes(self) -> int:
        """Classes closed to everybody."""

    def of_group(self, group: str) -> int:
        """Classes closed to a group, beside those."""

    def of_owner(self, group: str, owner: str) -> int:
        """Classes closed to an owner within a group, beside those."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Take the oldest job of this priority from this queue.

    Attributes:
        queue_id: task queue.
        priority: user priority of the job.
        oldest: submission time that the index has for it (for :meth:`.index.Index.put_back`).
        waited: seconds since then.
        charge: what its group and owner were charged (for :meth:`.index.Index.refund` and ``put_back``).
    """

    queue_id: int
    priority: int
    oldest: float
    waited: float
    charge: float = 1.0


@dataclass(frozen=True, slots=True)
class Reason:
    """One condition in the way of so many classes (of one offer) or requests (of one class), each counted once."""

    condition: Condition
    count: int
    text: str


@dataclass(frozen=True, slots=True)
class NoMatch:
    """Nothing fits; why, most classes first. No reasons: no job waits at all."""

    reasons: tuple[Reason, ...]

    def texts(self) -> tuple[str, ...]:
        """The reasons for people."""
        told = (f"{one.count} {'class' if one.count == 1 else 'classes'}: {one.text}" for one in self.reasons)
        return tuple(told) or ("no job is waiting",)


def reserve(
    offer: Offer,
    index: Index,
    now: float,
    count: int = 1,
    serves: Serves | None = None,
    closed: Closed | None = None,
) -> tuple[Choice, ...] | NoMatch:
    """Choose up to ``count`` jobs for an offer and take them out of the index.

    Args:
        offer: what the pilot has.
        index: changed by what is taken.
        now: what is taken counts as taken now. What is chosen first does not depend on it.
        count: jobs wanted, each as if it were the only one.
        serves: (group, owner) → whether this pilot may have their jobs; ``None``: everybody's. Asked of those only
            that have fitting work, in their turn.
        closed: what limits close for this offer; ``None``: nothing. It is not asked anew between the jobs.
    """
    taken = _take(offer, index, now, count, serves, closed)
    return _choices(taken, now) if taken else NoMatch(why_not(offer, index, serves, closed))


def choose(
    offer: Offer,
    index: Index,
    now: float,
    count: int = 1,
    serves: Serves | None = None,
    closed: Closed | None = None,
) -> tuple[Choice, ...] | NoMatch:
    """What :func:`reserve` would take; the index is left as it was."""
    taken = _take(offer, index, now, count, serves, closed)
    for one in reversed(taken):
        index.untake(one)
    return _choices(taken, now) if taken else NoMatch(why_not(offer, index, serves, closed))


def cost(want: Requirements, offer: Offer) -> int:
    """Processors that a job of a class takes of an offer: the least that it asks for, or the whole node."""
    return max(1, offer.processors) if want.whole_node else want.min_processors


def why_not(
    offer: Offer, index: Index, serves: Serves | None = None, closed: Closed | None = None
) -> tuple[Reason, ...]:
    """For each condition how many waiting classes fail at it first, most first; then what limits hold."""
    waiting = reduce(or_, (group.mask for group in index.groups.values()), 0)
    found: list[Reason] = []
    for condition, passing in index.classes.passing(offer):
        failing = waiting & ~passing
        if failing:
            found.append(Reason(condition, failing.bit_count(), describe(condition, offer)))
        waiting &= passing
    for condition, theirs in _whose(offer, index):
        if waiting & ~theirs:
            found.append(Reason(condition, (waiting & ~theirs).bit_count(), describe(condition, offer)))
        waiting &= theirs
    if waiting and closed is not None:
        held = waiting & ~_open(offer, index, waiting, closed)
        if held:
            found.append(Reason(Condition.LIMIT, held.bit_count(), describe(Condition.LIMIT, offer)))
        waiting &= ~held
    if waiting and serves is not None:
        found.append(Reason(Condition.SERVED, waiting.bit_count(), describe(Condition.SERVED, offer)))
    return tuple(sorted(found, key=lambda reason: (-reason.count, reason.condition.value, reason.text)))


def _whose(offer: Offer, index: Index) -> Iterator[tuple[Condition, int]]:
    """Classes of jobs that a private or group-bound pilot is for, condition by condition."""
    if offer.owners:
        yield Condition.OWNER, reduce(or_, (_of(index, "", owner) for owner in offer.owners))
    if offer.groups:
        both = ((group, owner) for group in offer.groups for owner in offer.owners or ("",))
        yield Condition.GROUP, reduce(or_, (_of(index, group, owner) for group, owner in both if group))


def _open(offer: Offer, index: Index, waiting: int, closed: Closed) -> int:
    """Those of some waiting classes that limits leave open to somebody whom the pilot is for."""
    found = 0
    for group in index.groups.values():
        if offer.groups and group.name not in offer.groups:
            continue
        left = group.mask & waiting & ~closed.classes
        left &= ~closed.of_group(group.name) if left else 0
        for owner in group.owners.values() if left & ~found else ():
            if owner.mask & left & ~found and (not offer.owners or owner.name in offer.owners):
                found |= owner.mask & left & ~closed.of_owner(group.name, owner.name)
    return found


def _of(index: Index, group: str, owner: str) -> int:
    """Waiting classes of a group, of an owner, or of an owner within a group; -1 for everybody's."""
    if not group and not owner:
        return -1
    groups = [index.groups[group]] if group in index.groups else [] if group else list(index.groups.values())
    if not owner:
        return reduce(or_, (one.mask for one in groups), 0)
    return reduce(or_, (one.owners[owner].mask for one in groups if owner in one.owners), 0)


def _take(
    offer: Offer, index: Index, now: float, count: int, serves: Serves | None, closed: Closed | None
) -> list[Taken]:
    index.at(now)
    taken: list[Taken] = []
    while len(taken) < count:
        queue = _next(offer, index, serves, closed)
        if queue is None:
            break
        taken.append(index.take(queue.id, processors=cost(queue.requirements, offer)))
    return taken


def _choices(taken: list[Taken], now: float) -> tuple[Choice, ...]:
    return tuple(
        Choice(one.queue_id, one.priority, one.oldest, max(0.0, now - one.oldest), one.charge) for one in taken
    )


def _next(offer: Offer, index: Index, serves: Serves | None, closed: Closed | None) -> Queue | None:
    fitting = index.classes.fitting(offer)
    if closed is not None:
        fitting &= ~closed.classes
    if not fitting:
        return None
    groups, only = index.groups, offer.groups
    for _, _, name in index.turns.order:
        group = groups[name]
        if group.mask & fitting and (not only or name in only):
            left = fitting if closed is None else fitting & ~closed.of_group(name)
            queue = _next_of_group(group, left, offer.owners, serves, closed)
            if queue is not None:
                return queue
    return None


def _next_of_group(
    group: Group, fitting: int, only: tuple[str, ...], serves: Serves | None, closed: Closed | None
) -> Queue | None:
    best: Place | None = None
    found: Queue | None = None
    for owner in _in_order(group, fitting):
        if best is not None and owner.place > best:
            break  # his first job comes later than one that was found, and so do all that follow
        if only and owner.name not in only:
            continue
        left = fitting if closed is None else fitting & ~closed.of_owner(group.name, owner.name)
        if not owner.mask & left or (serves is not None and not serves(group.name, owner.name)):
            continue
        queue = _next_of_owner(owner, left)
        if not group.sharing:
            return queue
        place = (owner.background, queue.rank, owner.name)
        if best is None or place < best:
            best, found = place, queue
    return found


def _in_order(group: Group, fitting: int) -> Iterator[Owner]:
    """The owners with work that fits, in their order."""
    order, owners = group.turns.order, group.owners
    if len(order) > FEW:
        hits = group.mask & fitting
        # One owner in len/many fits, so the walk takes that many steps; each that is looked up by class costs two.
        if 2 * hits.bit_count() ** 2 < len(order):
            users = [group.users[place] for place in _places(hits)]
            if 2 * sum(map(len, users)) ** 2 < len(order):
                some = {name: owner for one in users for name, owner in one.items()}
                yield from sorted(some.values(), key=_place)
                return
    for _, _, name in order:
        owner = owners[name]
        if owner.mask & fitting:
            yield owner


_place = attrgetter("place")


def _next_of_owner(owner: Owner, fitting: int) -> Queue:
    hits = owner.mask & fitting
    count = hits.bit_count()
    # In the order of rank one queue in len/count fits, so the walk takes that many steps; each fitting class costs two.
    if 2 * count * count < len(owner.order):
        return min((owner.by_place[place] for place in _places(hits)), key=lambda queue: (queue.rank, queue.id))
    queues = owner.queues
    return next(queues[queue_id] for _, queue_id in owner.order if hits >> queues[queue_id].place & 1)


def _places(bits: int) -> list[int]:
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found
