"""Match requests that wait for work: the matcher's question the other way round.

When jobs arrive in a task queue, :meth:`ParkedIndex.candidates` names the parked requests whose offers fit, longest
waiting first; the shell then lets :func:`.choose.reserve` decide for each, so turns are kept. Offers that are alike are
judged once, by the same :func:`.requirements.misfit`. Deadlines are the shell's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator
from heapq import merge
from typing import Generic, TypeVar

from schemas.messages.pilot import Offer

from .choose import Reason
from .requirements import Condition, Requirements, describe, misfit

K = TypeVar("K", bound=Hashable)


class ParkedIndex(Generic[K]):
    """Parked requests by key (pilot and slot)."""

    def __init__(self) -> None:
        self._offers: dict[K, tuple[int, Offer]] = {}
        self._alike: dict[Offer, dict[K, int]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._offers)

    def __contains__(self, key: K) -> bool:
        return key in self._offers

    def add(self, key: K, offer: Offer) -> None:
        """Park a request; a newer one of the same key replaces the older and waits from now on."""
        self.remove(key)
        self._next += 1
        self._offers[key] = (self._next, offer)
        self._alike.setdefault(offer, {})[key] = self._next

    def remove(self, key: K) -> Offer | None:
        """Take a request out (answered or over its deadline); its offer if it was there."""
        _, offer = self._offers.pop(key, (0, None))
        if offer is not None:
            alike = self._alike[offer]
            del alike[key]
            if not alike:
                del self._alike[offer]
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
        """Keys of the requests that fit a class (and owner), longest waiting first. Do not change the index meanwhile.

        Args:
            requirements: the class.
            owner: of the jobs; private pilots of others are left out. Empty: ask for the class only.
            usable_sites: the site mask, ``None`` if no site is barred.
        """
        fitting = [
            [(since, key) for key, since in alike.items()]
            for offer, alike in self._alike.items()
            if _fit(requirements, owner, offer, usable_sites) is None
        ]
        return (key for _, key in merge(*fitting, key=lambda entry: entry[0]))

    def why_not(
        self, requirements: Requirements, owner: str = "", usable_sites: Collection[str] | None = None
    ) -> tuple[Reason, ...]:
        """Why parked requests do not fit a class: per text how many of them, most first."""
        counts: Counter[tuple[Condition, str]] = Counter()
        for offer, alike in self._alike.items():
            condition = _fit(requirements, owner, offer, usable_sites)
            if condition is not None:
                counts[condition, describe(condition, offer, requirements)] += len(alike)
        return tuple(Reason(condition, count, text) for (condition, text), count in counts.most_common())


def _fit(want: Requirements, owner: str, offer: Offer, usable_sites: Collection[str] | None) -> Condition | None:
    found = misfit(want, offer, usable_sites)
    if found is not None:
        return found.condition
    return Condition.OWNER if owner and offer.owners and owner not in offer.owners else None
