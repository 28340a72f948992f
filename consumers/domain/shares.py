"""Whose turn it is: stride scheduling, deterministic and exact.

Every member has a *pass*; the lowest pass is next (ties by name), and each job taken adds ``STRIDE / share`` to it. So
over time members get work in the ratio of their shares exactly: 10:1 gives 90.9 %, where a lottery over
``RAND()/priority`` gives 95 %. (Waldspurger and Weihl, "Stride Scheduling", MIT LCS TM-528, 1995.)

Who comes (back) starts at the pass of the one whose turn it last was: nobody saves up turns while idle. Who is there
but is passed over, because no offer fits him, does save them, up to :data:`MAX_CREDIT` turns, so that he gets his share
of the few nodes that do fit and yet never takes them for hours.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

STRIDE = 1 << 40
"""Pass of one job at share 1: exact integers, and shares up to a million keep six digits."""

DEFAULT_SHARE = 1000
"""Share of a group that has no other (DIRAC's DEFAULT_GROUP_SHARE)."""

MAX_CREDIT = 256
"""Turns (at his own share) that a member who was passed over may have before the others."""


@dataclass(slots=True)
class Member:
    """One who takes part; ``turn`` is his pass."""

    name: str
    share: int = DEFAULT_SHARE
    turn: int = 0
    active: bool = False

    @property
    def stride(self) -> int:
        """What one job adds to his pass."""
        return STRIDE // self.share


class Turns:
    """The order of the active members."""

    __slots__ = ("last", "order")

    def __init__(self) -> None:
        self.order: list[tuple[int, str]] = []
        self.last = 0
        """Pass of the one whose turn it last was."""

    def join(self, member: Member) -> None:
        """He has work now."""
        if not member.active:
            member.active = True
            member.turn = max(member.turn, self.last)
            insort(self.order, (member.turn, member.name))

    def leave(self, member: Member) -> None:
        """He has no work any more."""
        if member.active:
            member.active = False
            del self.order[bisect_left(self.order, (member.turn, member.name))]

    def move(self, member: Member, turn: int) -> None:
        """Set his pass."""
        if member.active:
            del self.order[bisect_left(self.order, (member.turn, member.name))]
            insort(self.order, (turn, member.name))
        member.turn = turn

    def charge(self, member: Member) -> None:
        """He got a job."""
        self.last = max(self.last, member.turn)
        credit = max(self.order[-1][0] if self.order else 0, self.last) - MAX_CREDIT * member.stride
        self.move(member, max(member.turn, credit) + member.stride)

    def refund(self, member: Member) -> None:
        """The job that he was charged for was not his after all."""
        self.move(member, member.turn - member.stride)
