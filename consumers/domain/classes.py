"""Which requirements classes fit an offer, for all classes at once.

Each class has a place (a bit). For each value of each attribute there is one Python int whose bits are the classes that
have it, so an offer is answered by a few ANDs and ORs over all classes together. Answers are remembered per kind of
offer until a class comes or goes. Memory grows with classes and values only. It agrees with
:func:`.requirements.misfit` for every class and offer, condition by condition (property-tested).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterator
from functools import reduce
from operator import or_

from schemas.messages.pilot import Offer

from .requirements import TEST_JOB, Condition, Requirements, is_usable, takes_any

MAX_REMEMBERED = 4096
"""Kinds of offers whose answer is kept: some per site and platform of a large grid, at 625 bytes per 5000 classes."""

Kind = tuple[object, ...]


class _Bits(dict[str, int]):
    """Value → classes that have it."""

    def put(self, value: str, bit: int) -> None:
        self[value] = self.get(value, 0) | bit

    def drop(self, value: str, bit: int) -> None:
        left = self[value] & ~bit
        if left:
            self[value] = left
        else:
            del self[value]


class _Steps:
    """Classes that need at least some amount; :meth:`within` gives those that a given amount satisfies."""

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}
        self._values: list[int] = []
        self._sums: list[int] | None = []

    def put(self, value: int, bit: int) -> None:
        if value not in self._bits:
            insort(self._values, value)
        self._bits[value] = self._bits.get(value, 0) | bit
        self._sums = None

    def drop(self, value: int, bit: int) -> None:
        left = self._bits[value] & ~bit
        if left:
            self._bits[value] = left
        else:
            del self._bits[value]
            self._values.remove(value)
        self._sums = None

    def rank(self, amount: float) -> int:
        """How many distinct needs an amount satisfies: offers of one rank are alike here."""
        return bisect_right(self._values, amount)

    def within(self, amount: float) -> int:
        if self._sums is None:
            total, self._sums = 0, []
            for value in self._values:
                total |= self._bits[value]
                self._sums.append(total)
        rank = self.rank(amount)
        return self._sums[rank - 1] if rank else 0


class ClassIndex:
    """The bit of each class and the answer to "which classes fit this offer?"."""

    def __init__(self) -> None:
        self._places: dict[Requirements, int] = {}
        self._free: list[int] = []
        self.all = 0
        self._test = self._whole_node = 0
        self._any_site = self._any_ce = self._any_platform = 0
        self._sites, self._banned, self._ces, self._platforms, self._tags = (_Bits() for _ in range(5))
        self._job_types = _Bits()
        self._cpu, self._processors, self._memory = _Steps(), _Steps(), _Steps()
        self._usable: frozenset[str] | None = None
        self._remembered: dict[Kind, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def usable_sites(self) -> frozenset[str] | None:
        """Sites that may run ordinary jobs; ``None`` if no site is barred."""
        return self._usable

    def set_usable_sites(self, sites: Collection[str] | None) -> None:
        """The site mask as it is now."""
        self._usable = None if sites is None else frozenset(sites)
        self._remembered.clear()

    def add(self, want: Requirements) -> int:
        """The place of a class, new or known."""
        known = self._places.get(want)
        if known is not None:
            return known
        place = self._free.pop() if self._free else len(self._places)
        self._places[want] = place
        bit = 1 << place
        self.all |= bit
        for bits, value in self._values_of(want):
            bits.put(value, bit)
        self._cpu.put(want.cpu_class, bit)
        self._processors.put(want.min_processors, bit)
        self._memory.put(want.memory_mb, bit)
        self._flag(want, bit)
        self._remembered.clear()
        return place

    def remove(self, want: Requirements) -> None:
        """Forget a class; its place is given to the next."""
        place = self._places.pop(want)
        bit = 1 << place
        self._free.append(place)
        self.all &= ~bit
        for bits, value in self._values_of(want):
            bits.drop(value, bit)
        self._cpu.drop(want.cpu_class, bit)
        self._processors.drop(want.min_processors, bit)
        self._memory.drop(want.memory_mb, bit)
        self._unflag(bit)
        self._remembered.clear()

    def _values_of(self, want: Requirements) -> Iterator[tuple[_Bits, str]]:
        for bits, values in (
            (self._sites, want.sites),
            (self._banned, want.banned_sites),
            (self._ces, want.ces),
            (self._platforms, want.platforms),
            (self._tags, want.tags),
            (self._job_types, (want.job_type,)),
        ):
            for value in values:
                yield bits, value

    def _flag(self, want: Requirements, bit: int) -> None:
        self._test |= bit * (want.job_type == TEST_JOB)
        self._whole_node |= bit * want.whole_node
        self._any_site |= bit * (not want.sites)
        self._any_ce |= bit * (not want.ces)
        self._any_platform |= bit * (not want.platforms)

    def _unflag(self, bit: int) -> None:
        self._test &= ~bit
        self._whole_node &= ~bit
        self._any_site &= ~bit
        self._any_ce &= ~bit
        self._any_platform &= ~bit

    def of_job_type(self, name: str) -> int:
        """The classes (bits) of a job type."""
        return self._job_types.get(name, 0)

    def fitting(self, offer: Offer) -> int:
        """The classes (bits) that fit an offer."""
        kind = self._kind(offer)
        found = self._remembered.get(kind)
        if found is None:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            found = self.all
            for _, passing in self.passing(offer):
                found &= passing
                if not found:
                    break
            self._remembered[kind] = found
        return found

    def _kind(self, offer: Offer) -> Kind:
        return (
            offer.site,
            offer.ce,
            offer.platforms,
            offer.tags,
            offer.required_tags,
            offer.whole_node,
            self._cpu.rank(offer.cpu_seconds),
            self._processors.rank(offer.processors),
            self._memory.rank(offer.memory_mb),
        )

    def passing(self, offer: Offer) -> Iterator[tuple[Condition, int]]:
        """Each condition in its order with the classes that it does not keep from this offer."""
        everything = self.all
        yield Condition.SITE_UNUSABLE, everything if is_usable(offer.site, self._usable) else self._test
        yield Condition.SITE, self._any_site | self._sites.get(offer.site, 0)
        yield Condition.BANNED, everything & ~self._banned.get(offer.site, 0)
        yield Condition.CE, everything if takes_any((offer.ce,)) else self._any_ce | self._ces.get(offer.ce, 0)
        yield Condition.PLATFORM, self._on_platforms(offer)
        yield Condition.CPU_TIME, self._cpu.within(offer.cpu_seconds)
        yield Condition.PROCESSORS, self._processors.within(offer.processors)
        yield Condition.WHOLE_NODE, everything if offer.whole_node else everything & ~self._whole_node
        yield Condition.MEMORY, self._memory.within(offer.memory_mb)
        missing = (bits for tag, bits in self._tags.items() if tag not in offer.tags)
        yield Condition.TAGS, everything & ~reduce(or_, missing, 0)
        required = everything
        for tag in offer.required_tags:
            required &= self._tags.get(tag, 0)
        yield Condition.REQUIRED_TAGS, required

    def _on_platforms(self, offer: Offer) -> int:
        if takes_any(offer.platforms):
            return self.all
        return reduce(or_, (self._platforms.get(name, 0) for name in offer.platforms), self._any_platform)
