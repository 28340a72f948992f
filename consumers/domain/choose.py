"""Which task queue's next job goes to an offer: the matcher's one decision, and the reasons when there is none.

Walk the groups in the order of their turns, then that group's owners, leaving out those with no waiting class that
fits; inside the owner the fitting queue whose first job has the smallest :func:`.index.rank`. Same index, same offer:
same choice. :func:`choose` only looks; :func:`reserve` also takes, so that several jobs at once, or several requests of
one batch, are chosen as if one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TypeAlias

from schemas.messages.pilot import Offer

from .index import Group, Index, Owner, Queue, Taken
from .requirements import Condition, describe

Serves: TypeAlias = Callable[[str, str], bool]
"""(group, owner) → whether a pilot may have jobs of theirs."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Take the oldest job of this priority from this queue.

    Attributes:
        queue_id: task queue.
        priority: user priority of the job.
        oldest: submission time that the index has for it (for :meth:`.index.Index.put_back`).
        waited: seconds since then.
    """

    queue_id: int
    priority: int
    oldest: float
    waited: float


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
    offer: Offer, index: Index, now: float, count: int = 1, serves: Serves | None = None
) -> tuple[Choice, ...] | NoMatch:
    """Choose up to ``count`` jobs for an offer and take them out of the index.

    Args:
        offer: what the pilot has.
        index: changed by what is taken.
        now: for :attr:`Choice.waited`; the order does not depend on it.
        count: jobs wanted.
        serves: (group, owner) → whether this pilot may have their jobs; ``None``: everybody's. Asked of those only
            that have fitting work, in their turn.
    """
    taken = _take(offer, index, count, serves)
    return _choices(taken, now) if taken else NoMatch(why_not(offer, index, serves))


def choose(
    offer: Offer, index: Index, now: float, count: int = 1, serves: Serves | None = None
) -> tuple[Choice, ...] | NoMatch:
    """What :func:`reserve` would take; the index is left as it was."""
    taken = _take(offer, index, count, serves)
    for one in reversed(taken):
        index.untake(one)
    return _choices(taken, now) if taken else NoMatch(why_not(offer, index, serves))


def why_not(offer: Offer, index: Index, serves: Serves | None = None) -> tuple[Reason, ...]:
    """For each condition how many waiting classes fail at it first, most first."""
    waiting = reduce(or_, (group.mask for group in index.groups.values()), 0)
    reasons = []
    for condition, passing in index.classes.passing(offer):
        reasons.append((condition, waiting & ~passing))
        waiting &= passing
    if serves is not None or offer.owners:
        reasons.append((Condition.OWNER, waiting))
    found = [Reason(condition, bits.bit_count(), describe(condition, offer)) for condition, bits in reasons if bits]
    return tuple(sorted(found, key=lambda reason: (-reason.count, reason.condition.value)))


def _take(offer: Offer, index: Index, count: int, serves: Serves | None) -> list[Taken]:
    taken: list[Taken] = []
    while len(taken) < count:
        queue = _next(offer, index, serves)
        if queue is None:
            break
        taken.append(index.take(queue.id))
    return taken


def _choices(taken: list[Taken], now: float) -> tuple[Choice, ...]:
    return tuple(Choice(one.queue_id, one.priority, one.oldest, max(0.0, now - one.oldest)) for one in taken)


def _next(offer: Offer, index: Index, serves: Serves | None) -> Queue | None:
    fitting = index.classes.fitting(offer)
    if not fitting:
        return None
    for _, name in index.turns.order:
        group = index.groups[name]
        if group.mask & fitting:
            queue = _next_of_group(group, fitting, offer.owners, serves)
            if queue is not None:
                return queue
    return None


def _next_of_group(group: Group, fitting: int, owners: tuple[str, ...], serves: Serves | None) -> Queue | None:
    for _, name in group.turns.order:
        owner = group.owners[name]
        if not owner.mask & fitting or (owners and name not in owners):
            continue
        if serves is None or serves(group.name, name):
            return _next_of_owner(owner, fitting)
    return None


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
