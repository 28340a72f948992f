"""The large shape with all conditions: GPUs, tag expressions, wall time, disk, architectures. All of it is drawn.

Sites, queues, owners and amounts are those of :mod:`tests.benchmarks.large`; conditions are added to some classes and
what fulfils them to some nodes. Of the classes 20 % name a wall time, 15 % disk, 10 % an architecture level, 10 % a tag
expression, 4 % GPUs (a third of those a model, a third their memory). Nodes are x86-64 of level 2 to 4, one of twenty
is ARM; one of twelve has GPUs. The SQL baseline cannot say these, so it is compared on the large shape.
"""

from __future__ import annotations

import random
from dataclasses import replace

from consumers.domain.requirements import Requirements, canonical
from schemas.messages.pilot import Gpu
from tests.benchmarks.large import TAGS, large, tag_name
from tests.benchmarks.workload import Node, Site, Workload

SEED = 8_000
GPUS = (("NVIDIA A100-SXM4-40GB", 40_960.0), ("NVIDIA L4", 23_034.0), ("Tesla V100-SXM2-16GB", 16_160.0))
LEVELS = ("x86_64-v2", "x86_64-v3", "x86_64-v3", "x86_64-v4")
HOURS = (2, 6, 12, 24, 48)
DISKS = (2_000, 10_000, 15_000, 50_000)
COMMON = 30
"""Expressions name common tags, but for what they exclude."""


def demanding(seed: int = SEED) -> Workload:
    """The shape, with the choices of this seed."""
    base, random_ = large(), random.Random(seed)
    found: dict[Requirements, Requirements] = {}
    queues = []
    for queue in base.queues:
        if queue.requirements not in found:
            found[queue.requirements] = _more(queue.requirements, random_)
        queues.append(replace(queue, requirements=found[queue.requirements]))
    return replace(base, name="demanding", queues=tuple(queues), sites=tuple(_site(one, random_) for one in base.sites))


def _site(site: Site, random_: random.Random) -> Site:
    return replace(site, nodes=tuple(_node(node, random_) for node in site.nodes))


def _node(node: Node, random_: random.Random) -> Node:
    architecture = "aarch64" if random_.random() < 0.05 else random_.choice(LEVELS)
    model, memory = random_.choice(GPUS)
    number = random_.choice((1, 2, 4)) if random_.random() < 1 / 12 else 0
    return replace(node, architecture=architecture, gpus=(Gpu(model=model, memory_mb=memory),) * number)


def _more(want: Requirements, random_: random.Random) -> Requirements:
    gpus = random_.choice((1, 1, 2)) if random_.random() < 0.04 else 0
    model, memory = random_.choice(GPUS)
    kind = random_.randrange(3)
    return canonical(
        sites=want.sites,
        banned_sites=want.banned_sites,
        ces=want.ces,
        platforms=want.platforms,
        job_type=want.job_type,
        cpu_seconds=want.cpu_class,
        min_processors=want.min_processors,
        max_processors=want.max_processors,
        whole_node=want.whole_node,
        memory_mb=want.memory_mb,
        tags=want.tags,
        wall_seconds=3600 * random_.choice(HOURS) if random_.random() < 0.2 else 0,
        disk_mb=random_.choice(DISKS) * want.min_processors if random_.random() < 0.15 else 0,
        gpus=gpus,
        gpu_memory_mb=memory if gpus and kind == 0 else 0,
        gpu_models=[model] if gpus and kind == 1 else (),
        architecture=random_.choice((*LEVELS, "aarch64")) if random_.random() < 0.1 else "",
        tag_expression=_expression(want, random_) if random_.random() < 0.1 else "",
    )


def _expression(want: Requirements, random_: random.Random) -> str:
    """One of several, or with something excluded."""
    first, second = random_.sample(range(COMMON), 2)
    without = random_.choice([tag for tag in map(tag_name, range(COMMON, TAGS)) if tag not in want.tags])
    either = f"({tag_name(first)} || {tag_name(second)})"
    return random_.choice((either, f"{either} && !{without}", f"!{without}"))
