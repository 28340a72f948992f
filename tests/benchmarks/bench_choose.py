"""How fast the matcher's core is: choices per second and core, in pure Python, without any store.

Run it: ``python tests/benchmarks/bench_choose.py``. The shape is that of a large production task queue: 60 sites, 67
platforms of which most classes list many, a few owners with hundreds of classes each, and CPU classes as seen there;
the joint distribution is drawn with a fixed seed.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[2]))

from consumers.domain.choose import NoMatch, choose, reserve
from consumers.domain.index import Index
from consumers.domain.requirements import CPU_CLASSES, Requirements, canonical
from schemas.messages.pilot import Offer

SITES = [f"LCG.Site{number}.org" for number in range(60)]
PLATFORMS = [f"x86_64-level{number}" for number in range(67)]
GOALS = {500: 20_000, 5_000: 10_000}


def some_class(random_: random.Random) -> Requirements:
    some_sites = random_.sample(SITES, random_.choice((1, 3, 30, 50)))
    some_platforms = random_.sample(PLATFORMS, random_.choice((0, 5, 60)))
    return canonical(
        sites=some_sites if random_.random() < 0.99 else (),
        banned_sites=random_.sample(SITES, 2) if random_.random() < 0.05 else (),
        platforms=some_platforms,
        cpu_seconds=random_.choice(CPU_CLASSES[3:]),
        memory_mb=random_.choice((0, 0, 2000, 4000)),
        min_processors=random_.choice((1, 1, 1, 8)),
        max_processors=8,
    )


def some_offer(random_: random.Random) -> Offer:
    return Offer(
        site=random_.choice(SITES),
        platforms=tuple(PLATFORMS[: random_.randrange(1, 20)]),
        cpu_seconds=random_.uniform(0, 1_500_000),
        processors=random_.choice((1, 8, 64)),
        memory_mb=random_.uniform(1000, 64_000),
    )


def filled(classes: int, random_: random.Random) -> Index:
    index = Index()
    wanted: set[Requirements] = set()
    while len(wanted) < classes:
        wanted.add(some_class(random_))
    owners = [("mc", "prods"), ("data", "prods"), *[("user", f"user{number}") for number in range(50)]]
    for queue, requirements in enumerate(sorted(wanted, key=Requirements.to_json)):
        group, owner = random_.choices(owners, [40, 40, *[1] * 50])[0]
        index.add_queue(queue, requirements, group, owner)
        index.add(queue, random_.randrange(11), 100_000, random_.uniform(0, 1e6))
    return index


def measure(classes: int, seconds: float = 2.0) -> list[tuple[str, float]]:
    random_ = random.Random(classes)
    index = filled(classes, random_)
    offers = [some_offer(random_) for _ in range(2_000)]
    rows = []
    cases = (("choose", choose, True), ("reserve", reserve, True), ("reserve, offers never seen", reserve, False))
    for name, function, remembered in cases:
        done, started = 0, perf_counter()
        while (elapsed := perf_counter() - started) < seconds:
            for offer in offers[:200] if not remembered else offers:
                if not remembered:
                    index.set_usable_sites(None)
                function(offer, index, 2e6)
                done += 1
        rows.append((f"{name}, {classes} classes", done / elapsed))
    misses = sum(isinstance(choose(offer, index, 2e6), NoMatch) for offer in offers)
    rows.append((f"offers without a match, {classes} classes (%)", 100 * misses / len(offers)))
    return rows


if __name__ == "__main__":
    for size in GOALS:
        for name, figure in measure(size):
            print(f"{name:55} {figure:12,.0f}")
