"""Whose turn it is: stride scheduling over a usage that fades, deterministic.

Every member has a *pass*; the lowest pass is next (ties by name). A job that takes ``p`` processors at time ``t`` adds
to the pass ::

    p * DEFAULT_SHARE / share * 2 ** ((t - epoch) / half_life)

A pass divided by ``2 ** ((now - epoch) / half_life)`` is what the member had lately for his share, each job counting
half as much after every half-life. That divisor is the same for all, so the passes are never touched for the passing of
time, and their order changes only with charges. (Stride scheduling: Waldspurger and Weihl, MIT LCS TM-528, 1995; the
order at a join: Goyal, Vin and Cheng, "Start-time Fair Queuing", 1996.) Members of equal wishes get work in the ratio
of their shares: 10:1 gives 90.9 %, where a lottery over ``RAND()/priority`` gives 95 %.

*Virtual time* is the highest pass that ever had its turn. A member's pass outlives his absence, so nobody gains or
loses by going and coming back. But who was away, or was passed over because no offer fitted, has a bounded *credit*:
when he is given a job, a pass that is further behind virtual time is first raised to :meth:`Turns.floor`, so that he is
behind by no more, in processors, than ::

    min(lately * virtual time * share / DEFAULT_SHARE,
        lately * used by all * share / shares of all who have work now (of his kind: background or not),
        MAX_CREDIT * 2 ** ((now - epoch) / half_life))
    where lately = 1 - 2 ** (-Policy.credit / half_life)

that is: what he would have had within the last half hour, at most his present share of what everybody had in that time,
at most 1000 processors. So who asks seldom goes first; and however many come with a million jobs each, they keep the
others waiting for half an hour, for all their credits together are what was given in that time. Nobody is ever ahead of
virtual time by more than one job of his own: who had everything while alone is not locked out when others come.

*Background* members have turns of their own, after all the others' (:attr:`Turns.order` has them last).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection
from dataclasses import dataclass
from math import ldexp
from typing import TypeAlias

DEFAULT_SHARE = 1000
"""Share of who has no other (DIRAC's DEFAULT_GROUP_SHARE)."""

LEAST_SHARE = 1
"""The least that is reckoned with; a share of 0 is background, with this among its like."""

MAX_CREDIT = 1000
"""Processors, counted as of now, that anyone may have before the others for having been away: at a small site the last
half hour is less, at a large one this is seconds, and either way a user's short burst starts at once."""

RENORMALIZED_AFTER = 64
"""Half-lives after which passes are divided by 2**64: far from what a double can hold, and hardly ever."""

Place: TypeAlias = tuple[bool, float, str]
"""What members are sorted by: background, pass, name."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How what was had is remembered.

    Attributes:
        half_life: seconds after which a job counts half (HTCondor's PRIORITY_HALFLIFE is a day, too).
        credit: seconds; who was away is treated as if he had been away no longer.
    """

    half_life: float = 86_400.0
    credit: float = 1800.0

    @property
    def lately(self) -> float:
        """The part of all usage that fades within :attr:`credit`."""
        return float(1.0 - 2.0 ** (-self.credit / self.half_life))


class Clock:
    """What a processor taken now adds: ``weight = 2 ** ((now - epoch) / half_life)``. It never goes back.

    Attributes:
        epoch: the time at which the weight is 1; the first that this sees.
        now: the latest time seen.
    """

    __slots__ = ("epoch", "half_life", "now", "weight")

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self.epoch: float | None = None
        self.now = 0.0
        self.weight = 1.0

    def start(self, epoch: float) -> None:
        """Weigh from this moment on, which may be long ago: :meth:`at` must follow."""
        self.epoch = self.now = epoch
        self.weight = 1.0

    def at(self, now: float) -> int:
        """It is ``now``. Returns by how many powers of two all passes are to be divided (almost always 0)."""
        if self.epoch is None:
            self.epoch = self.now = now
            return 0
        if now <= self.now:
            return 0
        self.now = now
        gone = (now - self.epoch) / self.half_life
        powers = 0
        if gone >= RENORMALIZED_AFTER:
            powers = int(gone)
            self.epoch += powers * self.half_life
            gone -= powers
        self.weight = 2.0**gone
        return powers


@dataclass(slots=True, eq=False)
class Member:
    """One who takes part.

    Attributes:
        name: of the group or the owner.
        share: against the others.
        background: only what the others leave.
        turn: his pass.
        used: processors taken, inflated as the pass is, whatever his share.
        active: has waiting jobs.
        place: by which he is in the order, while active.
    """

    name: str
    share: float = DEFAULT_SHARE
    background: bool = False
    turn: float = 0.0
    used: float = 0.0
    active: bool = False
    place: Place = (False, 0.0, "")

    def standing(self) -> Place:
        """The place that he should have."""
        return self.background, self.turn, self.name


class Turns:
    """The order of the active members.

    Attributes:
        order: of those who are active.
        last: virtual time, of the others and of the background.
        used: by all members, ever.
        shares: of the active members together, of the others and of the background.
    """

    __slots__ = ("clock", "last", "lately", "order", "shares", "used")

    def __init__(self, clock: Clock, lately: float) -> None:
        self.clock = clock
        self.lately = lately
        self.order: list[Place] = []
        self.last = [0.0, 0.0]
        self.shares = [0.0, 0.0]
        self.used = 0.0

    def floor(self, member: Member) -> float:
        """The lowest pass from which he is charged now."""
        share, last = member.share, self.last[member.background]
        shares = self.shares[member.background] if member.active else self.shares[member.background] + share
        credit = self.lately * min(last, self.used * DEFAULT_SHARE / shares)
        return last - min(credit, MAX_CREDIT * self.clock.weight * DEFAULT_SHARE / share)

    def join(self, member: Member) -> None:
        """He has work now."""
        if not member.active:
            member.active = True
            self.shares[member.background] += member.share
            member.place = member.standing()
            insort(self.order, member.place)

    def leave(self, member: Member) -> None:
        """He has no work any more."""
        if member.active:
            member.active = False
            del self.order[bisect_left(self.order, member.place)]
            self.shares[member.background] -= member.share
            if not self.order:
                self.shares = [0.0, 0.0]  # no rounding is carried on

    def sort(self, member: Member) -> None:
        """Put him where he should be."""
        if member.active:
            place = member.standing()
            if place != member.place:
                order = self.order
                del order[bisect_left(order, member.place)]
                insort(order, place)
                member.place = place

    def charge(self, member: Member, amount: float) -> None:
        """He got a job: ``amount`` is its processors times :attr:`Clock.weight`."""
        turn, floor = member.turn, self.floor(member)
        if turn > self.last[member.background]:
            self.last[member.background] = turn
        member.turn = (max(floor, turn)) + amount * DEFAULT_SHARE / member.share
        member.used += amount
        self.used += amount
        self.sort(member)

    def refund(self, member: Member, amount: float) -> None:
        """The job that he was charged for was not his after all."""
        member.turn -= amount * DEFAULT_SHARE / member.share
        member.used = max(0.0, member.used - amount)
        self.used = max(0.0, self.used - amount)
        self.sort(member)

    def set_share(self, member: Member, share: float, background: bool = False) -> None:
        """From now on his share is this: the processors that he is ahead or behind by are the same as before."""
        background, share = background or share <= 0, max(LEAST_SHARE, share)
        if (share, background) == (member.share, member.background):
            return
        if member.active:
            self.shares[member.background] -= member.share
            self.shares[background] += share
        ahead = (member.turn - self.last[member.background]) * member.share / share
        member.share, member.background = share, background
        member.turn = max(0.0, self.last[background] + ahead)
        self.sort(member)

    def is_forgettable(self, member: Member) -> bool:
        """Whether he could come anew and be treated the same."""
        if member.active or member.turn - self.floor(member) > _TRACE * self.clock.weight:
            return False
        return member.used <= _TRACE * self.clock.weight

    def divide(self, powers: int, members: Collection[Member]) -> None:
        """Divide all that is remembered here by a power of two."""
        self.last = [ldexp(value, -powers) for value in self.last]
        self.used = ldexp(self.used, -powers)
        for member in members:
            member.turn, member.used = ldexp(member.turn, -powers), ldexp(member.used, -powers)
            if member.active:
                member.place = member.standing()
        self.order = sorted(member.place for member in members if member.active)


_TRACE = 0.01
"""Of a processor: nobody's turn hangs on that."""
