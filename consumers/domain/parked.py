"""Match requests that wait for work: the matcher's question the other way round.

When jobs arrive in a task queue, :meth:`ParkedIndex.candidates` names the parked requests whose offers fit, newest
first; the shell then lets :func:`.choose.reserve` decide for each, so turns are kept. Newest first, because who asked
last is the likeliest to be alive still (a pilot that was killed cannot take its request back), and because pilots that
are too many then fall idle and end. Deadlines are the shell's.

Requests lie in *sections* of :data:`SECTION`, in the order of their coming. A section has for each value of each
attribute an integer whose bits are the requests that have it, so a class is asked of all its requests at once; what is
no value (amounts, GPUs, tag expressions) is asked of each request once and remembered. A request that leaves clears one
bit, a section that everybody left is thrown away. An offer's time shrinks while it waits, so whoever is found is judged
once more, by :func:`.requirements.in_the_way` and what :func:`.offers.bounded` leaves of the offer now; a property
test holds the bits to the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from functools import reduce
from math import inf
from operator import or_
from typing import Generic, TypeVar

from schemas.jdl.architecture import architecture_serves
from schemas.jdl.tag_expression import holds
from schemas.messages.pilot import Offer

from .conditions import has_gpus, is_usable, takes_any
from .offers import bounded
from .requirements import TEST_JOB, Requirements, carried, in_the_way, memory_needed, not_theirs

K = TypeVar("K", bound=Hashable)

SECTION = 1024
"""Requests in a section: an integer of so many bits costs about as much as a small one, and 50,000 are 50 of them."""

FEW = 24
"""So few are judged one by one, rather than all of their section for an answer to remember."""

MAX_REMEMBERED = 512
"""Answers that a section remembers: 70 KB."""


class ParkedIndex(Generic[K]):
    """Parked requests by key (pilot and slot)."""

    def __init__(self) -> None:
        self._sections: dict[int, _Section[K]] = {}
        self._places: dict[K, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: K) -> bool:
        return key in self._places

    def add(self, key: K, offer: Offer, since: float = 0.0) -> None:
        """Park a request; a newer one of the same key replaces the older and waits from now on.

        Args:
            key: whose it is.
            offer: as it was worth at ``since``.
            since: when that was.
        """
        self.remove(key)
        number = self._next // SECTION
        if number not in self._sections:
            self._sections[number] = _Section()
        self._sections[number].add(key, offer, since)
        self._places[key] = self._next
        self._next += 1

    def remove(self, key: K) -> Offer | None:
        """Take a request out (answered or over its deadline); its offer if it was there."""
        place = self._places.pop(key, None)
        if place is None:
            return None
        number, bit = divmod(place, SECTION)
        section = self._sections[number]
        offer = section.entries[bit][1]
        section.live &= ~(1 << bit)
        if not section.live and (number + 1) * SECTION <= self._next:
            del self._sections[number]
        return offer

    def offer(self, key: K) -> Offer:
        """The offer of a parked request.

        Raises:
            KeyError: not parked.
        """
        number, bit = divmod(self._places[key], SECTION)
        return self._sections[number].entries[bit][1]

    def place(self, key: K) -> int:
        """Where a parked request stands; newer ones stand higher.

        Raises:
            KeyError: not parked.
        """
        return self._places[key]

    def candidates(
        self,
        want: Requirements,
        owner: str = "",
        group: str = "",
        usable_sites: Collection[str] | None = None,
        now: float = 0.0,
        below: float = inf,
    ) -> Iterator[K]:
        """Keys of the requests that fit a class (and owner, and group), newest first.

        Do not change the index meanwhile.

        Args:
            want: the class.
            owner: of the jobs; private pilots of others are left out. Empty: ask for the class only.
            group: likewise.
            usable_sites: the site mask, ``None`` if no site is barred.
            now: offers have less time left than when they were made.
            below: only those that stand lower than this place.
        """
        usable = usable_sites if usable_sites is None else frozenset(usable_sites)
        for number in reversed(self._sections):
            section = self._sections[number]
            if number * SECTION < below and section.live:
                found = section.fitting(want, owner, group, usable)
                if below < (number + 1) * SECTION:
                    found &= (1 << (int(below) - number * SECTION)) - 1
                yield from section.really(found, want, owner, group, usable, now)


class _Section(Generic[K]):
    """Some requests; ``live`` are those that are still there. Nothing else of it is ever taken back."""

    __slots__ = ("_remembered", "_values", "entries", "live")

    def __init__(self) -> None:
        self.entries: list[tuple[K, Offer, float]] = []
        self.live = 0
        self._values: dict[tuple[str, str], int] = {}
        self._remembered: dict[Hashable, tuple[int, int]] = {}

    def add(self, key: K, offer: Offer, since: float) -> None:
        bit = 1 << len(self.entries)
        self.entries.append((key, offer, since))
        self.live |= bit
        for value in _values_of(offer):
            self._values[value] = self._values.get(value, 0) | bit

    def fitting(self, want: Requirements, owner: str, group: str, usable: frozenset[str] | None) -> int:
        """Those that fit as far as values and first amounts tell."""
        found = self.live
        for passing in self._by_value(want, owner, group):
            found &= passing
            if not found:
                return 0
        for name, wish, passes in _questions(want, usable):
            if found.bit_count() <= FEW:
                break
            found &= self._where((name, wish), passes)
        return found

    def really(
        self, found: int, want: Requirements, owner: str, group: str, usable: frozenset[str] | None, now: float
    ) -> Iterator[K]:
        """Those of ``found`` that fit now, newest first."""
        while found:
            place = found.bit_length() - 1
            found ^= 1 << place
            key, offer, since = self.entries[place]
            left = bounded(offer, age=now - since)
            if in_the_way(want, left, usable) is None and not_theirs(offer, owner, group) is None:
                yield key
            elif left is not offer:
                self._has_aged(1 << place, want, left)

    def _by_value(self, want: Requirements, owner: str, group: str) -> Iterator[int]:
        yield self._any("site", want.sites) if want.sites else -1
        yield ~self._any("site", want.banned_sites)
        yield self._any("pool", want.pools or ("",))
        yield self._any("ce", (*want.ces, "*")) if want.ces else -1
        yield self._any("type", (want.job_type, "*"))
        yield self._any("owner", (owner, "*")) if owner else -1
        yield self._any("group", (group, "*")) if group else -1
        yield self._any("platform", (*want.platforms, "*")) if want.platforms else -1
        yield self._values.get(("node", "whole"), 0) if want.whole_node else -1
        for tag in want.tags:
            yield self._values.get(("tag", tag), 0)
        requiring = self._values.get(("required", "*"), 0)
        if requiring:
            tags = carried(want)
            others = (
                bits
                for (name, tag), bits in self._values.items()
                if name == "required" and tag not in tags and tag != "*"
            )
            yield ~reduce(or_, others, 0)

    def _any(self, name: str, values: Iterable[str]) -> int:
        return reduce(or_, (self._values.get((name, value), 0) for value in values), 0)

    def _where(self, question: tuple[str, Hashable], passes: Callable[[Offer], bool]) -> int:
        """Those for whom the answer is yes; each is asked once."""
        bits, asked = self._remembered.get(question, (0, 0))
        if asked < len(self.entries):
            for place in range(asked, len(self.entries)):
                if self.live >> place & 1 and passes(self.entries[place][1]):
                    bits |= 1 << place
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[question] = bits, len(self.entries)
        return bits

    def _has_aged(self, bit: int, want: Requirements, left: Offer) -> None:
        """Its time is not enough any more, and never will be: remember that."""
        for question, enough in (
            (("cpu", want.cpu_class), want.cpu_class <= left.cpu_seconds),
            (("wall", want.wall_class), want.wall_class <= left.wall_seconds),
        ):
            if not enough and question in self._remembered:
                bits, asked = self._remembered[question]
                self._remembered[question] = bits & ~bit, asked


def _values_of(offer: Offer) -> Iterator[tuple[str, str]]:
    """What an offer is found by; ``*`` stands for whatever is wanted."""
    yield "site", offer.site
    yield "pool", offer.pool
    yield "ce", "*" if takes_any((offer.ce,)) else offer.ce
    for name, values in (("type", offer.job_types), ("owner", offer.owners), ("group", offer.groups)):
        if not values or (name == "type" and takes_any(values)):
            yield name, "*"
        else:
            yield from ((name, value) for value in values)
    if takes_any(offer.platforms):
        yield "platform", "*"
    else:
        yield from (("platform", value) for value in offer.platforms)
    if offer.whole_node:
        yield "node", "whole"
    yield from (("tag", tag) for tag in offer.tags)
    if offer.required_tags:
        yield "required", "*"
        yield from (("required", tag) for tag in offer.required_tags)


def _questions(
    want: Requirements, usable: frozenset[str] | None
) -> Iterator[tuple[str, Hashable, Callable[[Offer], bool]]]:
    """What is asked of each offer: a name, what is wanted, and the test."""
    if usable is not None and want.job_type != TEST_JOB:
        yield "usable", usable, lambda offer: is_usable(offer.site, usable)
    yield "cpu", want.cpu_class, lambda offer: want.cpu_class <= offer.cpu_seconds
    if want.min_processors > 1:
        yield "processors", want.min_processors, lambda offer: want.min_processors <= offer.processors
    if want.memory_mb or want.memory_per_processor_mb:
        wish = want.memory_mb, want.memory_per_processor_mb, want.min_processors, want.whole_node
        yield "memory", wish, lambda offer: memory_needed(want, offer.processors) <= offer.memory_mb
    if want.wall_class:
        yield "wall", want.wall_class, lambda offer: want.wall_class <= offer.wall_seconds
    if want.disk_mb:
        yield "disk", want.disk_mb, lambda offer: want.disk_mb <= offer.disk_mb
    if want.architecture:
        yield (
            "architecture",
            want.architecture,
            lambda offer: architecture_serves(offer.architecture, want.architecture),
        )
    if want.tag_expression:
        yield "expression", want.tag_expression, lambda offer: holds(want.tag_expression, offer.tags)
    if want.gpus:
        gpus = want.gpus, want.gpu_memory_mb, want.gpu_models
        yield "gpus", gpus, lambda offer: has_gpus(offer.gpus, want.gpus, want.gpu_memory_mb, want.gpu_models)
