"""Which requirements classes fit an offer, for all classes at once.

Each class has a place (a bit). For each value of each attribute there is one Python int whose bits are the classes that
have it, so an offer is answered by a few ANDs and ORs over all classes together. What takes longer than a look-up
(platforms, architecture, GPUs, tags, tag expressions) is worked out once per value that offers have of it, and put
right when classes come and go. Memory grows with classes and values only. It agrees with :func:`.requirements.misfit`
for every class and offer, condition by condition (property-tested).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import reduce
from operator import or_

from schemas.jdl.architecture import architecture_serves
from schemas.jdl.tag_expression import holds
from schemas.messages.pilot import Gpu, Offer

from .bits import Bits, Journal, Remembered, Steps
from .conditions import has_gpus
from .requirements import (
    TEST_JOB,
    Condition,
    Requirements,
    carried,
    is_usable,
    memory_needed,
    takes_any,
)

MAX_TAG_LISTS = 8192
"""Different lists of tags that are remembered: some per site of a large grid. Each takes 4 to 5 kB with 400 tags and
5000 classes."""

MAX_TAG_NAMES = 16 << 20
"""Characters of all tags that are remembered. Pilots make them up: at this all lists are forgotten."""

GpuWish = tuple[int, int, tuple[str, ...]]


class TagList:
    """A list of tags that offers have. Equal lists are one object: to compare them takes longer than to answer."""

    __slots__ = ("tags",)

    def __init__(self, tags: tuple[str, ...]) -> None:
        self.tags = tags


class ClassIndex:
    """The places of the classes, and the answer to "which classes fit this offer?"."""

    def __init__(self) -> None:
        self._places: dict[Requirements, int] = {}
        self._free: list[int] = []
        self.all = 0
        self._usable: frozenset[str] | None = None
        # By value. The empty text stands for the classes that say nothing.
        self._sites, self._banned, self._ces, self._pools = Bits[str](), Bits[str](), Bits[str](), Bits[str]()
        self._platforms, self._job_types, self._architectures = Bits[str](), Bits[str](), Bits[str]()
        self._tags, self._carried, self._expressions = Bits[str](), Bits[str](), Bits[str]()
        self._gpus: Bits[GpuWish] = Bits()
        # By amount.
        self._cpu, self._wall, self._processors, self._disk = Steps(), Steps(), Steps(), Steps()
        self._memory = Steps()
        self._whole_node = 0
        self._growing: Bits[tuple[int, int]] = Bits()
        # By value of offers.
        self._journal = journal = Journal[Requirements]()
        self._tag_lists: dict[tuple[str, ...], TagList] = {}
        # Not interned: Python 3.12 keeps what is for ever.
        self._names: dict[str, str] = {}
        self._names_length = 0
        self._on_platforms = Remembered(journal, self._all_on_platforms, _on_platforms)
        self._on_architecture = Remembered(journal, self._all_on_architecture, _on_architecture)
        self._with_gpus = Remembered(journal, self._all_with_gpus, _with_gpus)
        self._with_tags = Remembered(journal, self._all_with_tags, _with_tags, MAX_TAG_LISTS)
        self._where_true = Remembered(journal, self._all_where_true, _where_true, MAX_TAG_LISTS)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def usable_sites(self) -> frozenset[str] | None:
        """Sites that may run ordinary jobs; ``None`` if no site is barred."""
        return self._usable

    def set_usable_sites(self, sites: Collection[str] | None) -> None:
        """The site mask as it is now."""
        self._usable = None if sites is None else frozenset(sites)

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
        for steps, amount in self._amounts_of(want):
            steps.put(amount, bit)
        if want.gpus:
            self._gpus.put(_gpu_wish(want), bit)
        if _grows(want):
            self._growing.put((want.memory_mb, want.memory_per_processor_mb), bit)
        self._whole_node |= bit * want.whole_node
        self._journal.note(bit, want)
        return place

    def remove(self, want: Requirements) -> None:
        """Forget a class; its place is given to the next."""
        place = self._places.pop(want)
        bit = 1 << place
        self._free.append(place)
        self.all &= ~bit
        for bits, value in self._values_of(want):
            bits.drop(value, bit)
        for steps, amount in self._amounts_of(want):
            steps.drop(amount, bit)
        if want.gpus:
            self._gpus.drop(_gpu_wish(want), bit)
        if _grows(want):
            self._growing.drop((want.memory_mb, want.memory_per_processor_mb), bit)
        self._whole_node &= ~bit
        self._journal.note(bit, None)

    def _values_of(self, want: Requirements) -> Iterator[tuple[Bits[str], str]]:
        nothing = ("",)
        for bits, values in (
            (self._sites, want.sites or nothing),
            (self._banned, want.banned_sites),
            (self._ces, want.ces or nothing),
            (self._pools, want.pools or nothing),
            (self._platforms, want.platforms or nothing),
            (self._job_types, (want.job_type,)),
            (self._architectures, (want.architecture,)),
            (self._tags, want.tags),
            (self._carried, carried(want)),
            (self._expressions, (want.tag_expression,)),
        ):
            for value in values:
                yield bits, value

    def _amounts_of(self, want: Requirements) -> Iterator[tuple[Steps, int]]:
        yield self._cpu, want.cpu_class
        yield self._wall, want.wall_class
        yield self._processors, want.min_processors
        yield self._disk, want.disk_mb
        if not _grows(want):
            yield self._memory, memory_needed(want, 1)

    def of_job_type(self, name: str) -> int:
        """The classes (bits) of a job type."""
        return self._job_types.get(name, 0)

    def fitting(self, offer: Offer) -> int:
        """The classes (bits) that fit an offer."""
        found = self.all
        for _, passing in self.passing(offer):
            found &= passing
            if not found:
                break
        return found

    def passing(self, offer: Offer) -> Iterator[tuple[Condition, int]]:
        """Each condition in its order with the classes that it does not keep from this offer."""
        everything = self.all
        yield Condition.SITE_UNUSABLE, everything if is_usable(offer.site, self._usable) else self.of_job_type(TEST_JOB)
        yield Condition.POOL, self._pools.get(offer.pool, 0)
        yield Condition.SITE, self._sites.get("", 0) | self._sites.get(offer.site, 0)
        yield Condition.BANNED, everything & ~self._banned.get(offer.site, 0)
        any_ce = takes_any((offer.ce,))
        yield Condition.CE, everything if any_ce else self._ces.get("", 0) | self._ces.get(offer.ce, 0)
        any_type = not offer.job_types or takes_any(offer.job_types)
        yield Condition.JOB_TYPE, everything if any_type else _union(map(self.of_job_type, offer.job_types))
        yield Condition.PLATFORM, self._on_platforms.get(offer.platforms)
        yield Condition.ARCHITECTURE, self._on_architecture.get(offer.architecture)
        yield Condition.CPU_TIME, self._cpu.within(offer.cpu_seconds)
        yield Condition.WALL_TIME, self._wall.within(offer.wall_seconds)
        yield Condition.PROCESSORS, self._processors.within(offer.processors)
        yield Condition.WHOLE_NODE, everything if offer.whole_node else everything & ~self._whole_node
        yield Condition.MEMORY, self._memory.within(offer.memory_mb) | self._growing_within(offer)
        yield Condition.DISK, self._disk.within(offer.disk_mb)
        yield Condition.GPU, self._with_gpus.get(offer.gpus) if self._gpus else everything
        tags = self._tag_lists.get(offer.tags)
        if tags is None:
            tags = self._tag_list(offer.tags)
        yield Condition.TAGS, self._with_tags.get(tags)
        yield Condition.TAG_EXPRESSION, self._where_true.get(tags)
        yield Condition.REQUIRED_TAGS, self._all_carrying(offer.required_tags)

    def forget(self) -> None:
        """Remember nothing of the offers so far: what a matcher does that has just begun."""
        for answers in (self._on_platforms, self._on_architecture, self._with_gpus):
            answers.forget()
        self._forget_tags()

    def _growing_within(self, offer: Offer) -> int:
        """Whole-node classes whose memory grows with the node's processors."""
        processors, memory = offer.processors, offer.memory_mb
        return _union(bits for (fixed, each), bits in self._growing.items() if fixed + each * processors <= memory)

    def _tag_list(self, tags: tuple[str, ...]) -> TagList:
        if len(self._tag_lists) >= MAX_TAG_LISTS:
            del self._tag_lists[next(iter(self._tag_lists))]
        new = [tag for tag in tags if tag not in self._names]
        length = sum(map(len, new))
        if self._names_length + length > MAX_TAG_NAMES:
            self._forget_tags()
            new, length = list(tags), sum(map(len, tags))
        self._names.update(zip(new, new, strict=True))
        self._names_length += length
        names = tuple(map(self._names.__getitem__, tags))
        found = self._tag_lists[names] = TagList(names)
        return found

    def _forget_tags(self) -> None:
        for answers in (self._with_tags, self._where_true):
            answers.forget()
        self._tag_lists.clear()
        self._names.clear()
        self._names_length = 0

    def _all_carrying(self, required: tuple[str, ...]) -> int:
        found = self.all
        for tag in required:
            found &= self._carried.get(tag, 0)
        return found

    def _all_on_platforms(self, platforms: tuple[str, ...]) -> int:
        if takes_any(platforms):
            return self.all
        return self._platforms.get("", 0) | _union(self._platforms.get(name, 0) for name in platforms)

    def _all_on_architecture(self, offered: str) -> int:
        wishes = self._architectures.items()
        return _union(bits for wanted, bits in wishes if not wanted or architecture_serves(offered, wanted))

    def _all_with_gpus(self, gpus: tuple[Gpu, ...]) -> int:
        return self.all & ~_union(bits for wish, bits in self._gpus.items() if not has_gpus(gpus, *wish))

    def _all_with_tags(self, tag_list: TagList) -> int:
        tags = frozenset(tag_list.tags)
        return self.all & ~_union(bits for tag, bits in self._tags.items() if tag not in tags)

    def _all_where_true(self, tag_list: TagList) -> int:
        tags = frozenset(tag_list.tags)
        return _union(bits for wanted, bits in self._expressions.items() if holds(wanted, tags))


def _union(several: Iterator[int]) -> int:
    return reduce(or_, several, 0)


def _gpu_wish(want: Requirements) -> GpuWish:
    return want.gpus, want.gpu_memory_mb, want.gpu_models


def _grows(want: Requirements) -> bool:
    return want.whole_node and want.memory_per_processor_mb > 0


def _on_platforms(platforms: tuple[str, ...], want: Requirements) -> bool:
    return not want.platforms or takes_any(platforms) or any(name in want.platforms for name in platforms)


def _on_architecture(offered: str, want: Requirements) -> bool:
    return not want.architecture or architecture_serves(offered, want.architecture)


def _with_gpus(gpus: tuple[Gpu, ...], want: Requirements) -> bool:
    return not want.gpus or has_gpus(gpus, *_gpu_wish(want))


def _with_tags(tag_list: TagList, want: Requirements) -> bool:
    return all(tag in tag_list.tags for tag in want.tags)


def _where_true(tag_list: TagList, want: Requirements) -> bool:
    return not want.tag_expression or holds(want.tag_expression, tag_list.tags)
