"""Match requests that wait for work: the matcher's question the other way round.

When jobs arrive in a task queue, :meth:`ParkedIndex.candidates` names the parked requests whose offers fit, newest
first; the shell then lets :func:`.choose.reserve` decide for each, so turns are kept. Newest first, because who asked
last is the likeliest to be alive still (a pilot that was killed cannot take its request back), and because pilots that
are too many then fall idle and end. Offers that differ in amounts only are judged once, by the code of
:func:`.requirements.misfit`, and then by their amounts; a property test holds the two together. Deadlines are the
shell's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator
from heapq import merge
from math import inf
from typing import Generic, TypeVar

from msgspec.structs import replace

from schemas.messages.pilot import Offer

from .choose import Reason
from .requirements import Condition, Requirements, describe, in_the_way

K = TypeVar("K", bound=Hashable)

MAX_PROCESSORS = 1 << 30
"""More than any class wants."""


class ParkedIndex(Generic[K]):
    """Parked requests by key (pilot and slot)."""

    def __init__(self) -> None:
        self._offers: dict[K, tuple[int, Offer]] = {}
        self._kinds: dict[Offer, dict[K, tuple[int, Offer]]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._offers)

    def __contains__(self, key: K) -> bool:
        return key in self._offers

    def add(self, key: K, offer: Offer) -> None:
        """Park a request; a newer one of the same key replaces the older and waits from now on."""
        self.remove(key)
        self._next += 1
        self._offers[key] = entry = (self._next, offer)
        self._kinds.setdefault(_kind(offer), {})[key] = entry

    def remove(self, key: K) -> Offer | None:
        """Take a request out (answered or over its deadline); its offer if it was there."""
        _, offer = self._offers.pop(key, (0, None))
        if offer is not None:
            kind = _kind(offer)
            del self._kinds[kind][key]
            if not self._kinds[kind]:
                del self._kinds[kind]
        return offer

    def offer(self, key: K) -> Offer:
        """The offer of a parked request.

        Raises:
            KeyError: not parked.
        """
        return self._offers[key][1]

    def candidates(
        self, requirements: Requirements, owner: str = "", usable_sites: Collection[str] | None = None
    ) -> Iterator[K]:
        """Keys of the requests that fit a class (and owner), newest first. Do not change the index meanwhile.

        Args:
            requirements: the class.
            owner: of the jobs; private pilots of others are left out. Empty: ask for the class only.
            usable_sites: the site mask, ``None`` if no site is barred.
        """
        fitting = [
            _big_enough(requirements, alike)
            for kind, alike in self._kinds.items()
            if _in_the_way(requirements, owner, kind, usable_sites) is None
        ]
        return (key for _, key in merge(*fitting, key=lambda entry: entry[0], reverse=True))

    def why_not(
        self, requirements: Requirements, owner: str = "", usable_sites: Collection[str] | None = None
    ) -> tuple[Reason, ...]:
        """Why parked requests do not fit a class: per text how many of them, most first."""
        counts: Counter[tuple[Condition, str]] = Counter()
        for _, offer in self._offers.values():
            condition = _in_the_way(requirements, owner, offer, usable_sites)
            if condition is not None:
                counts[condition, describe(condition, offer, requirements)] += 1
        return tuple(Reason(condition, count, text) for (condition, text), count in counts.most_common())


def _kind(offer: Offer) -> Offer:
    """The offer but for its amounts, which differ from node to node and from minute to minute."""
    return replace(offer, cpu_seconds=inf, wall_seconds=inf, processors=MAX_PROCESSORS, memory_mb=inf, disk_mb=inf)


def _big_enough(want: Requirements, alike: dict[K, tuple[int, Offer]]) -> Iterator[tuple[int, K]]:
    cpu, processors, memory = want.cpu_class, want.min_processors, want.memory_mb
    for key, (since, offer) in reversed(alike.items()):
        if cpu <= offer.cpu_seconds and processors <= offer.processors and memory <= offer.memory_mb:
            yield since, key


def _in_the_way(want: Requirements, owner: str, offer: Offer, usable_sites: Collection[str] | None) -> Condition | None:
    condition = in_the_way(want, offer, usable_sites)
    if condition is None and owner and offer.owners and owner not in offer.owners:
        return Condition.OWNER
    return condition
