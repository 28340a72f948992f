"""How everybody stands: kept over a restart, forgotten when it means nothing any more, told to who asks.

:func:`dump` and :func:`restore` carry the turns from one leader to the next, exactly: what is kept is each pass as it
was at the clock's epoch (later charges weigh more, see :mod:`.shares`), so nothing is rounded on the way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf

import msgspec

from schemas.messages.pilot import Offer

from .index import Index, Queue, rank
from .shares import DEFAULT_SHARE, Clock, Member, Turns


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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member stands among its like.

    Attributes:
        name: of the group or owner.
        share: as the registry says it, 1 by default.
        background: it gets only what others leave.
        used: processors that it was given lately: each counts half after every half-life.
        before: names of those whose turn is before, nearest last.
        among: how many have waiting jobs.
    """

    name: str
    share: float
    background: bool
    used: float
    before: tuple[str, ...]
    among: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a queue's jobs stand.

    Attributes:
        group: its group among the groups.
        owner: its owner among the group's owners.
        sharing: the group's jobs are in one order, whoever's they are: then ``owner.before`` are those whose first jobs
            come before his.
        ahead: other waiting jobs of the same owner (in a sharing group: of all owners) that may be before the job; at
            most so many, as of each queue and priority only the oldest job's age is known here.
    """

    group: Place
    owner: Place
    sharing: bool
    ahead: int


def standing(
    index: Index,
    queue_id: int,
    priority: int | None = None,
    submitted: float | None = None,
    offer: Offer | None = None,
) -> Standing:
    """Where a job stands now.

    Args:
        index: is only looked at.
        queue_id: the job's task queue.
        priority: of the job, ``None``: of the queue's next one.
        submitted: when the job was; ``None``: the oldest of its priority.
        offer: count those groups, owners and jobs only that fit this offer; ``None``: all.

    Raises:
        KeyError: the queue is not known, or no job of the priority waits there.
    """
    queue = index.queue(queue_id)
    fitting = -1 if offer is None else index.classes.fitting(offer)
    chosen = queue.head() if priority is None else priority
    since = queue.levels[chosen].oldest if submitted is None else submitted
    groups = [one for one in index.groups.values() if one.active and one.mask & fitting]
    owners = [one for one in queue.group.owners.values() if one.active and one.mask & fitting]
    concerned = owners if queue.group.sharing else [queue.owner]
    ahead = sum(_ahead(one, rank(chosen, since), fitting) for owner in concerned for one in owner.queues.values())
    return Standing(
        group=_place(queue.group, groups, index.clock),
        owner=_place(queue.owner, owners, index.clock),
        sharing=queue.group.sharing,
        ahead=max(0, ahead - (fitting >> queue.place & 1)),
    )


def place_of(index: Index, group: str, owner: str = "") -> Place:
    """How a group, or an owner in it, stands among all.

    Raises:
        KeyError: nothing is known of it.
    """
    known = index.groups[group]
    if owner:
        return _place(known.owners[owner], known.owners.values(), index.clock)
    return _place(known, index.groups.values(), index.clock)


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


def restore(index: Index, kept: Collection[Kept]) -> None:
    """Go on where another leader ended. The index must not have given anything away yet."""
    if not kept:
        return
    clock = index.clock
    clock.start(max(one.time for one in kept))
    for one in kept:
        factor = 1.0 if one.time == clock.epoch else 2.0 ** ((one.time - (clock.epoch or 0.0)) / clock.half_life)
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


def _place(member: Member, among: Iterable[Member], clock: Clock) -> Place:
    active = sorted(one.place for one in among if one.active)
    mine = member.place if member.active else (member.background, inf, member.name)
    return Place(
        name=member.name,
        share=member.share / DEFAULT_SHARE,
        background=member.background,
        used=member.used / clock.weight,
        before=tuple(name for *_, name in active if name != member.name)[: sum(one < mine for one in active)],
        among=len(active),
    )


def _ahead(queue: Queue, mine: float, fitting: int) -> int:
    if not fitting >> queue.place & 1:
        return 0
    return sum(level.count for priority, level in queue.levels.items() if rank(priority, level.oldest) <= mine)
