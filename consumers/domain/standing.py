"""How everybody stands: kept over a restart, and forgotten when it means nothing any more.

:func:`dump` and :func:`restore` carry the turns from one leader to the next, exactly: what is kept is each pass as it
was at the clock's epoch (later charges weigh more, see :mod:`.shares`), so nothing is rounded on the way.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

import msgspec

from .index import Index
from .shares import DEFAULT_SHARE, Member, Turns

LARGEST_JOB = 4096
"""Processors; no offer has more (:class:`schemas.messages.pilot.Offer`)."""


class Kept(msgspec.Struct, frozen=True):
    """What is kept of a group (``owner`` empty), of an owner in a group, or of the turns between groups (both empty).

    Attributes:
        grp: name of the group.
        owner: name of the owner.
        turn: his pass.
        used: processors taken.
        last: virtual time of those whose turns are reckoned here: a group's owners, or the groups.
        last_background: the same of the background.
        time: of which moment all this is: half as much ``half_life`` later.
    """

    grp: str
    owner: str
    turn: float
    used: float
    last: float
    last_background: float
    time: float


def dump(index: Index, changed: Collection[tuple[str, str]] | None = None) -> list[Kept]:
    """What is to be kept of these (group, owner), or of all; names that are forgotten already are left out."""
    epoch = index.clock.epoch
    if epoch is None:
        return []
    known = {(group, owner) for group, one in index.groups.items() for owner in one.owners}
    some = known.intersection(changed) if changed is not None else {pair for pair in known if _of(index, *pair).turn}
    kept = [_kept(_of(index, group, owner), None, group, owner, epoch) for group, owner in sorted(some)]
    groups = {group for group, _ in some}
    if changed is None:
        groups |= {name for name, group in index.groups.items() if group.turn}
    kept += [_kept(index.groups[name], index.groups[name].turns, name, "", epoch) for name in sorted(groups)]
    kept.append(_kept(Member(""), index.turns, "", "", epoch))
    return kept


def restore(index: Index, kept: Collection[Kept], now: float = inf) -> None:
    """Go on where another leader ended. The index must not have given anything away yet.

    Args:
        index: of the new leader.
        kept: what the other left.
        now: what is of a later moment (the other's clock was wrong) counts as of this one, else nothing would fade
            until then.
    """
    if not kept:
        return
    clock, latest = index.clock, max(min(one.time, now) for one in kept)
    clock.start(latest)
    for one in kept:
        factor = 2.0 ** ((min(one.time, now) - latest) / clock.half_life)
        turns = index.turns
        if one.grp:
            group = index.group(one.grp)
            member: Member = index.owner(one.grp, one.owner) if one.owner else group
            of_member = group.turns if one.owner else index.turns
            member.turn, member.used = one.turn * factor, one.used * factor
            of_member.used += member.used
            of_member.sort(member)
            turns = group.turns
        if not one.owner:
            turns.last = [one.last * factor, one.last_background * factor]


def settle(index: Index) -> None:
    """After :func:`restore`, at the present moment: nobody is further ahead than one job of his own can put him.

    Shares may have changed while nobody led. A pass of the others means nothing among the background: taken as it is it
    would keep a group from its turn until all others had as much as it ever had.
    """
    for turns, members in (
        (index.turns, index.groups.values()),
        *((group.turns, group.owners.values()) for group in index.groups.values()),
    ):
        for member in members:
            ahead = LARGEST_JOB * index.clock.weight * DEFAULT_SHARE / member.share
            member.turn = min(member.turn, turns.last[member.background] + ahead)
            turns.sort(member)


def forget(index: Index) -> list[tuple[str, str]]:
    """Drop owners and groups without queues that would be treated the same if they came anew: bounds the memory.

    Returns:
        (group, owner) of whom nothing needs to be kept; the owner is empty for a group.
    """
    gone: list[tuple[str, str]] = []
    for name, group in list(index.groups.items()):
        for owner in [one for one in group.owners.values() if not one.queues and group.turns.is_forgettable(one)]:
            if owner.share == DEFAULT_SHARE and not owner.background:
                del group.owners[owner.name]
                gone.append((name, owner.name))
        plain = group.share == DEFAULT_SHARE and not group.background and not group.sharing
        if plain and not group.owners and index.turns.is_forgettable(group):
            del index.groups[name]
            gone.append((name, ""))
    return gone


def _of(index: Index, group: str, owner: str) -> Member:
    return index.groups[group].owners[owner]


def _kept(member: Member, turns: Turns | None, group: str, owner: str, epoch: float) -> Kept:
    last = turns.last if turns is not None else (0.0, 0.0)
    return Kept(group, owner, member.turn, member.used, last[0], last[1], epoch)
