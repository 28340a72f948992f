"""What waits and what asks, as values of the matcher's core: the shapes that its figures are measured on.

A :class:`Workload` is a set of task queues with their waiting jobs and the sites whose pilots ask; no database, no
clock. The same seed gives the same workload and the same offers in every run. The shapes themselves are in
:mod:`tests.benchmarks.production` and :mod:`tests.benchmarks.large`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, count

from consumers.domain.index import Index
from consumers.domain.requirements import Requirements
from schemas.messages.pilot import Gpu, Offer

NOW = 10_000_000.0
"""The moment that the jobs' ages are told from."""

DAY = 86_400.0
OLDEST = 20 * DAY
"""No job has waited longer than that."""

USER_PRIORITIES = (5, 5, 5, 5, 5, 5, 1, 3, 7, 10)
"""Most jobs keep the default priority."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One task queue and what waits in it.

    Attributes:
        id: its number.
        requirements: its class.
        group: of its jobs.
        owner: of its jobs.
        weight: its weight in a lottery between queues (the baseline's order).
        levels: (user priority, jobs, submission time of the oldest), each priority once; empty: nothing waits.
    """

    id: int
    requirements: Requirements
    group: str
    owner: str
    weight: float
    levels: tuple[tuple[int, int, float], ...]

    @property
    def jobs(self) -> int:
        return sum(jobs for _, jobs, _ in self.levels)


@dataclass(frozen=True, slots=True)
class Node:
    """One kind of worker node: ``power`` is HS06 per processor."""

    platforms: tuple[str, ...]
    power: float
    processors: tuple[int, ...] = (1, 1, 1, 8)
    memory_per_processor: float = 2_500.0
    tags: tuple[str, ...] = ()
    architecture: str = ""
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """A site, how many pilots it has against others, its computing elements and its kinds of nodes."""

    name: str
    weight: float
    ces: tuple[str, ...]
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """Queues, groups' shares and sites."""

    name: str
    queues: tuple[Waiting, ...]
    shares: Mapping[str, int]
    sites: tuple[Site, ...]

    @property
    def jobs(self) -> int:
        return sum(queue.jobs for queue in self.queues)

    def index(self) -> Index:
        """The matcher's memory of it, as after a start."""
        index = Index()
        for group, share in self.shares.items():
            index.set_share(group, share)
        for queue in self.queues:
            index.add_queue(queue.id, queue.requirements, queue.group, queue.owner)
            for priority, jobs, oldest in queue.levels:
                index.add(queue.id, priority, jobs, oldest)
        return index

    def offers(self, number: int, seed: int = 1) -> list[Offer]:
        """What so many pilots ask with, one after the other: sites by size, then any of its nodes and elements.

        A slot is 24 to 96 hours long and asks again while it lasts, so what is left of it is uniform.
        """
        random_ = random.Random(f"{self.name} offers {seed}")
        ends = list(accumulate(site.weight for site in self.sites))
        sites = random_.choices(self.sites, cum_weights=ends, k=number)
        return [_offer(site, random_) for site in sites]

    def scaled(self, jobs: int) -> Workload:
        """The same queues with so many jobs in all, or one of each priority in each queue where that is more."""
        factor = jobs / self.jobs
        queues = [replace(queue, levels=_scaled(queue.levels, factor)) for queue in self.queues]
        return replace(self, queues=tuple(_filled_up(queues, jobs)))


def _offer(site: Site, random_: random.Random) -> Offer:
    node = random_.choice(site.nodes)
    processors = random_.choice(node.processors)
    left = random_.choice((24, 48, 48, 72, 96)) * 3600 * random_.random()
    return Offer(
        site=site.name,
        ce=random_.choice(site.ces),
        platforms=node.platforms,
        cpu_seconds=left * node.power,
        wall_seconds=left,
        processors=processors,
        memory_mb=processors * node.memory_per_processor,
        disk_mb=20_000.0 * processors,
        tags=node.tags,
        architecture=node.architecture,
        gpus=node.gpus,
        whole_node=processors == max(node.processors) and processors > 8,
    )


def _scaled(levels: tuple[tuple[int, int, float], ...], factor: float) -> tuple[tuple[int, int, float], ...]:
    return tuple((priority, max(1, int(jobs * factor)), oldest) for priority, jobs, oldest in levels)


def _filled_up(queues: list[Waiting], jobs: int) -> Iterable[Waiting]:
    """Exactly so many jobs: the rest goes to, or comes from, the largest queues, one job at a time round."""
    missing = jobs - sum(queue.jobs for queue in queues)
    largest = sorted((queue for queue in queues if queue.levels), key=lambda queue: (-queue.jobs, queue.id))
    share, rest = divmod(abs(missing), len(largest))
    sign = 1 if missing >= 0 else -1
    changed = {}
    for number, queue in enumerate(largest):
        priority, has, oldest = queue.levels[0]
        more = sign * (share + (number < rest))
        changed[queue.id] = replace(queue, levels=((priority, max(1, has + more), oldest), *queue.levels[1:]))
    return [changed.get(queue.id, queue) for queue in queues]


def levels_of(jobs: int, random_: random.Random) -> tuple[tuple[int, int, float], ...]:
    """So many jobs on one or, in one queue of four, two user priorities, submitted during the last days."""
    if not jobs:
        return ()
    first = random_.choice(USER_PRIORITIES)
    oldest = NOW - OLDEST * random_.random()
    if jobs < 2 or random_.random() < 0.75:
        return ((first, jobs, oldest),)
    part = random_.randint(1, jobs - 1)
    second = (first + random_.randint(1, 10)) % 11
    return ((first, jobs - part, oldest), (second, part, NOW - OLDEST * random_.random()))


def memory_steps() -> Iterator[int]:
    """Memory in MB: none said, then ever more, by which otherwise equal classes are told apart."""
    yield 0
    yield from count(500, 10)
