"""What is known at one moment, for many questions: one look at the store instead of one for each.

Promises: it is made of reads only and holds nothing; its index, its site mask and its rights are those of the matcher
(same code, same store), so what it says fits is what the matcher would take. Pilots' offers are grouped by what they
fit, so that a question costs kinds of pilots rather than pilots.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from schemas.entries import ComputingQueue
from schemas.messages.pilot import Offer

from ..directory import Directory
from ..domain.index import Index
from ..domain.obstacles import Seen
from ..domain.offers import bounded
from ..domain.requirements import Requirements, not_theirs
from ..domain.running_limits import Lease, RunningLimits
from ..domain.shares import Policy
from ..matching.rights import Rights
from ..matching.turns import Keeper
from ..store import Reading, heads, leases, queues, sights
from ..store.leases import LeaseRow
from ..store.registry import Registry
from ..store.sights import Leading, Matches

ROLE = "matcher"

MATCHES_SECONDS = 3600.0
"""How far back matches are counted: an hour tells of a job's wait in the next hours, a day not of the next minutes."""


class _Asking(msgspec.Struct):
    """Of a parked request what it offers; the rest is not even decoded."""

    offer: Offer


_offer = msgspec.json.Decoder(Offer)
_request = msgspec.json.Decoder(_Asking)


@dataclass(frozen=True, slots=True)
class Kind:
    """Offers that are alike for every class in the index."""

    fitting: int
    site: str
    owners: tuple[str, ...]
    groups: tuple[str, ...]
    parked: bool


@dataclass(slots=True)
class Snapshot:
    """The moment.

    Attributes:
        taken: when.
        registry: who is who, and what there is.
        rights: who may have jobs run where.
        index: task queues with waiting jobs, in the matcher's order. Counts in it only say whether there are any.
        crowd: alike offers.
        kinds: the same by what they fit.
        sites: site → its (CE, queue) pairs.
        limits: of running jobs, with what they count.
        leading: who leads the matching, or led last.
        matches: recent ones.
    """

    taken: float
    registry: Registry
    rights: Rights
    index: Index
    crowd: Sequence[Seen]
    kinds: Mapping[Kind, int]
    sites: Mapping[str, Sequence[tuple[str, ComputingQueue]]]
    limits: RunningLimits
    leading: Leading | None
    matches: Matches
    remembered: dict[object, object] = field(default_factory=dict)
    """What answers have in common."""

    @property
    def usable_sites(self) -> frozenset[str] | None:
        """The site mask."""
        return self.index.classes.usable_sites

    def fitting(self, queue_id: int) -> tuple[int, int]:
        """How many offers fit a queue of the index and may have its owner's jobs: all, and those parked."""
        queue = self.index.queue(queue_id)
        owner, group, every, parked = queue.owner.name, queue.group.name, 0, 0
        for kind, count in self.kinds.items():
            if not kind.fitting >> queue.place & 1:
                continue
            if kind.owners or kind.groups:
                offer = Offer(site=kind.site or "-", owners=kind.owners, groups=kind.groups)
                if not_theirs(offer, owner, group) is not None:
                    continue
            if self.rights.is_barred(owner, group, kind.site):
                continue
            every += count
            parked += count * kind.parked
        return every, parked


def take(tx: Reading, directory: Directory, now: float, fading: Policy | None = None) -> Snapshot:
    """Look at everything."""
    registry = directory.registry()
    rights, index = Rights(directory), Index(fading)
    rights.note(index)
    Keeper(index).load(tx, now)
    _fill(tx, index)
    crowd = _crowd(tx, now)
    return Snapshot(
        taken=now,
        registry=registry,
        rights=rights,
        index=index,
        crowd=crowd,
        kinds=_kinds(index, crowd),
        sites=_sites(registry),
        limits=_limits(tx, registry, now),
        leading=sights.leading(tx, ROLE),
        matches=sights.matches(tx, now - MATCHES_SECONDS, now),
    )


def _fill(tx: Reading, index: Index) -> None:
    """Every queue with waiting jobs, none of them counted: one is as good as a million for the order."""
    levels: dict[int, dict[int, tuple[int, float]]] = defaultdict(dict)
    for head in heads.scan(tx):
        levels[head.queue_id][head.priority] = (1, head.oldest)
    for row in queues.load(tx, levels.keys()):
        index.add_queue(row.id, Requirements.from_json(row.requirements), row.grp, row.owner)
        index.set_counts(row.id, levels[row.id])


def _crowd(tx: Reading, now: float) -> list[Seen]:
    """Each parked request by its offer; each other pilot by its last one, as if what it runs had ended."""
    found: Counter[tuple[Offer, bool]] = Counter()
    asking = sights.asking(tx, now)
    parked = {client for client, _, _ in asking}
    for _, request, since in asking:
        found[bounded(_request.decode(request).offer, age=now - since), True] += 1
    for client, text in sights.alive(tx):
        if client not in parked and text != b"{}":  # one that never asked has offered nothing
            found[_free(_offer.decode(text)), False] += 1
    return [Seen(offer, waits, count) for (offer, waits), count in found.items()]


def _free(offer: Offer) -> Offer:
    """What a busy pilot would have if all its payloads ended."""
    return msgspec.structs.replace(
        offer,
        processors=max(offer.processors, offer.total_processors),
        memory_mb=max(offer.memory_mb, offer.total_memory_mb),
    )


def _kinds(index: Index, crowd: Sequence[Seen]) -> dict[Kind, int]:
    kinds: dict[Kind, int] = defaultdict(int)
    for seen in crowd:
        offer = seen.offer
        kinds[Kind(index.classes.fitting(offer), offer.site, offer.owners, offer.groups, seen.parked)] += seen.count
    return dict(kinds)


def _limits(tx: Reading, registry: Registry, now: float) -> RunningLimits:
    """As the leading matcher has them at a takeover."""
    limits = RunningLimits(registry.match_limits)
    if limits:
        longest = max(limit.delay_seconds or 0.0 for limit in registry.match_limits)
        if longest:
            limits.note_starts(_lease(row) for row in leases.started_since(tx, now - longest))
        limits.set_leases(_lease(row) for row in leases.live(tx))
    return limits


def _lease(row: LeaseRow) -> Lease:
    return Lease(*msgspec.structs.astuple(row))


def _sites(registry: Registry) -> dict[str, list[tuple[str, ComputingQueue]]]:
    sites: dict[str, list[tuple[str, ComputingQueue]]] = {name: [] for name in registry.sites}
    for element in registry.computing_elements.values():
        if element.site in sites:
            sites[element.site].extend((element.name, queue) for queue in element.queues)
    return sites
