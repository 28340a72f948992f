"""Whose process is this? Orphans that left their process group are brought back to the payload that made them.

The pilot is a child subreaper (prctl(2)), so a daemon that forks twice becomes the pilot's child. A payload
starts in a session of its own and no descendant can ever join the pilot's session, so a child of ours in a
foreign session that is no payload's first process is a *stray*.

Promises: :func:`survey` only looks. A stray is attributed by session or group, by an earlier sighting, by the
marks in its environment, by its working directory, or because only one payload ran in its lifetime; what fits none
is unclaimed.
Lies elsewhere: reaping and killing (:mod:`pilot.runner`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .processes import Process, has_environment, tree, working_directory


@dataclass(slots=True)
class Household:
    """What identifies the processes of one payload; `seen` maps process id to start time."""

    leader: int
    marks: tuple[bytes, ...]
    directory: str
    seen: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at the machine: each payload's processes (zombies included), the strays on top, and the unclaimed."""

    members: Mapping[int, Sequence[Process]]
    strays: Mapping[int, Sequence[Process]]
    unclaimed: Sequence[Process]


def survey(
    table: Mapping[int, Process], households: Sequence[Household], pilot: int, session: int, alone_since: float
) -> Survey:
    """Attribute all processes below the pilot; the keys of the result are the payloads' first processes.

    `alone_since` is when the last payload ended (seconds since boot): a younger orphan can only belong to those that
    run now.
    """
    leaders = {household.leader for household in households}
    strays: dict[int, list[Process]] = {leader: [] for leader in leaders}
    unclaimed: list[Process] = []
    for process in table.values():
        if process.parent != pilot or process.session == session or process.pid in leaders:
            continue
        owner = _owner(process, households, alone_since)
        if owner is None:
            unclaimed.append(process)
        else:
            strays[owner.leader].append(process)
    members: dict[int, list[Process]] = {}
    for household in households:
        roots = [household.leader, *(stray.pid for stray in strays[household.leader])]
        members[household.leader] = tree(table, roots)
        household.seen = {process.pid: process.started for process in members[household.leader]}
    return Survey(members, strays, unclaimed)


def _owner(process: Process, households: Sequence[Household], alone_since: float) -> Household | None:
    for household in households:
        if household.leader in (process.session, process.group):
            return household
        if household.seen.get(process.pid) == process.started:
            return household
    for household in households:
        if has_environment(process.pid, household.marks):
            return household
    place = working_directory(process.pid)
    for household in households:
        if place is not None and (place == household.directory or place.startswith(household.directory + "/")):
            return household
    # a dead one shows neither environment nor place, but it can do no harm: only its CPU time is to be accounted
    only_one = len(households) == 1 and (process.is_zombie or process.started_seconds > alone_since)
    return households[0] if only_one else None
