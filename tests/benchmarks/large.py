"""A shape beyond any known queue: 10 M jobs, 5,000 requirements classes, 1,000 sites, 400 tags. All of it is drawn.

* Sites: 40 regions of 25; sizes like 1/rank. One to four computing elements, one to three kinds of nodes each, on 10
  processor levels × 10 systems; a node has the tags of a few dozen pieces of software, the popular ones nearly
  everywhere; one kind of ten is a whole node of 64 processors.
* Classes: 35 % any site (a third of them with bans), 30 % one to six sites (input data), 20 % one to three regions,
  15 % 300 to 900 sites. 70 % name platforms: a system's names from some level up. Half want one to four tags. 3 % name
  a computing element. CPU time, processors (1, 4, 8, whole node), memory and 30 job types besides.
* 40 groups with shares from 100 to 5,000; 400 owners, each in one group. A class belongs to one owner, every fourth
  to two or three: so there are some 6,900 task queues. Sizes are log-normal, of 10,000,000 jobs in all.
"""

from __future__ import annotations

import random

from consumers.domain.requirements import CPU_CLASSES, Requirements, canonical
from tests.benchmarks.workload import Node, Site, Waiting, Workload, levels_of

SEED = 5_000
JOBS = 10_000_000
CLASSES = 5_000
SITES = 1_000
TAGS = 400
REGION = 25
LEVELS = 10
SYSTEMS = 10
GROUPS = 40
OWNERS = 400
WORD = 20
"""A tag is on a node with probability WORD / (WORD + its number)."""


def site_name(number: int) -> str:
    return f"GRID.Site{number:04}.r{number // REGION:02}"


def tag_name(number: int) -> str:
    return f"software-{number:03}"


def large(seed: int = SEED) -> Workload:
    """The shape, with the choices of this seed."""
    random_ = random.Random(seed)
    sites = _sites(random_)
    shares = {f"group{number:02}": random_.choice((100, 500, 1000, 1000, 2000, 5000)) for number in range(GROUPS)}
    owners = [(random_.choice(sorted(shares)), f"user{number:03}") for number in range(OWNERS)]
    weights = [1 / (number + 5) for number in range(OWNERS)]
    classes: dict[Requirements, None] = {}
    while len(classes) < CLASSES:
        classes[_class(random_, sites)] = None
    belongs = []
    for requirements in classes:
        number = random_.choice((1, 1, 1, random_.choice((2, 3))))
        some = dict.fromkeys(random_.choices(owners, weights, k=number))
        belongs += [(requirements, group, owner) for group, owner in some]
    sizes = _sizes(len(belongs), random_)
    queues = [
        Waiting(number, requirements, group, owner, float(shares[group]), levels_of(jobs, random_))
        for number, ((requirements, group, owner), jobs) in enumerate(zip(belongs, sizes, strict=True))
    ]
    return Workload("large", tuple(queues), shares, sites)


def _sizes(number: int, random_: random.Random) -> list[int]:
    raw = [random_.lognormvariate(0, 1.5) for _ in range(number)]
    factor = (JOBS - number) / sum(raw)
    sizes = [1 + int(size * factor) for size in raw]
    for place in range(JOBS - sum(sizes)):
        sizes[place % number] += 1
    return sizes


def _sites(random_: random.Random) -> tuple[Site, ...]:
    sites = []
    for number in range(SITES):
        name = site_name(number)
        ces = tuple(f"ce{ce}.{name.lower()}" for ce in range(random_.randint(1, 4)))
        nodes = tuple(_node(random_) for _ in range(random_.randint(1, 3)))
        sites.append(Site(name, 1 / (random_.randrange(SITES) + 10), ces, nodes))
    return tuple(sites)


def _node(random_: random.Random) -> Node:
    level, system = random_.randrange(LEVELS), random_.randrange(SYSTEMS)
    tags = tuple(tag_name(tag) for tag in range(TAGS) if random_.random() < WORD / (WORD + tag))
    processors = (64,) if random_.random() < 0.1 else (1, 1, 8, 8, 16)
    platforms = (f"level{level}-system{system}", f"level{level}-any")
    return Node(platforms, random_.uniform(8, 25), processors, random_.choice((2000.0, 3000.0, 4000.0)), tags)


def _class(random_: random.Random, sites: tuple[Site, ...]) -> Requirements:
    wanted, banned = _wanted(random_)
    level, system = random_.randrange(LEVELS), random_.choice([*range(SYSTEMS), "any", "any"])
    some = [f"level{number}-{'any' if system == 'any' else f'system{system}'}" for number in range(level, LEVELS)]
    tags = random_.choices(range(TAGS), [1 / (tag + 2) for tag in range(TAGS)], k=random_.choice((0, 0, 0, 1, 2, 4)))
    if random_.random() < 0.05:  # the rare ones, too
        tags = [random_.randrange(TAGS)]
    processors = random_.choice((1, 1, 1, 4, 8, 64))
    elements = [random_.choice(random_.choice(sites).ces)] if random_.random() < 0.03 else []
    return canonical(
        sites=() if elements else wanted,
        banned_sites=banned,
        ces=elements,
        platforms=some if random_.random() < 0.7 else (),
        job_type=f"type{random_.randrange(30):02}",
        cpu_seconds=random_.choice(CPU_CLASSES),
        min_processors=processors,
        max_processors=max(processors, random_.choice((1, 8))),
        whole_node=processors == 64,
        memory_mb=processors * random_.choice((0, 1000, 1500, 2000, 2500, 4000)),
        tags=map(tag_name, tags),
    )


def _wanted(random_: random.Random) -> tuple[list[str], list[str]]:
    kind = random_.random()
    everywhere = range(SITES)
    if kind < 0.35:
        return [], [
            site_name(site) for site in random_.sample(everywhere, random_.choice((0, 0, random_.randint(1, 9))))
        ]
    if kind < 0.65:
        return [site_name(site) for site in random_.sample(everywhere, random_.randint(1, 6))], []
    if kind < 0.85:
        regions = random_.sample(range(SITES // REGION), random_.randint(1, 3))
        return [site_name(site) for site in everywhere if site // REGION in regions], []
    return [site_name(site) for site in random_.sample(everywhere, random_.randint(300, 900))], []
