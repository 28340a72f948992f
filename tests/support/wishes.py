"""What jobs may want and pilots may offer, at random, for tests with Hypothesis.

A job says a few things only, and a node has most of what there is: otherwise nearly nothing would fit, and the first
conditions would be in the way of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from hypothesis import strategies as st

from schemas.messages.pilot import Gpu, Offer
from tests.support.reference_matcher import Both, Either, Expression, Not, Tag, Wish, nodes_that_please

T = TypeVar("T")

SITES = ("A", "B", "C")
TAGS = ("gold", "avx", "big", "Any")
OWNERS = ("o0", "o1", "o2")
GROUPS = ("g0", "g1", "g2")


def expressions() -> st.SearchStrategy[Expression]:
    """Small ones, of every form."""
    tag = st.builds(Tag, st.sampled_from(TAGS))
    return st.recursive(
        tag,
        lambda part: st.one_of(
            st.builds(Not, part),
            st.builds(Both, st.lists(part, min_size=2, max_size=3).map(tuple)),
            st.builds(Either, st.lists(part, min_size=2, max_size=3).map(tuple)),
        ),
        max_leaves=5,
    )


def saying(
    make: Callable[..., T], usual: Mapping[str, object], values: Mapping[str, Sequence[object]], most: int
) -> st.SearchStrategy[T]:
    """Some of these, differing from the usual in a few attributes, with one of the values each."""

    @st.composite
    def one(draw: st.DrawFn) -> T:
        names = st.lists(st.sampled_from(sorted(values)), max_size=most, unique=True) if values else st.just([])
        chosen = draw(names)
        return make(**{**usual, **{name: draw(st.sampled_from(values[name])) for name in chosen}})

    return one()


WANTED: Mapping[str, Sequence[object]] = {
    "sites": (("A",), ("B", "A"), ("any",), ("C", "Any")),
    "banned_sites": (("A",), ("B", "C")),
    "ces": (("ce1",), ("ce2", "ce1"), ("ANY",)),
    "platforms": (("x1",), ("x2", "x1"), ("any",)),
    "job_type": ("Test", "MCSim"),
    "cpu_seconds": (1, 361, 1800, 5000, 400_000, 10**8),
    "wall_seconds": (100, 360, 361, 10**8),
    "min_processors": (2, 7, 8),
    "whole_node": (True,),
    "memory_mb": (999.5, 1000, 2000, 64_000.5),
    "memory_per_processor_mb": (500, 1000),
    "disk_mb": (100, 100.5),
    "gpus": (1, 2, 3),
    "gpu_memory_mb": (15_999.5, 16_000),
    "gpu_models": (("A100",), ("T4", "A100"), ("any",), ("SXM4",)),
    "architecture": ("x86_64", "x86_64-v1", "x86_64-v2", "x86_64-v4", "aarch64", "any"),
    "tags": (("gold",), ("avx", "big"), ("big",)),
    "pools": (("p",), ("q", "p")),
}
OFFERED: Mapping[str, Sequence[object]] = {
    "site": ("B", "C", "E"),
    "ce": ("", "ce2", "ANY"),
    "platforms": ((), ("x3", "x2"), ("Any",)),
    "cpu_seconds": (0.0, 359.9, 360.0, 1799.0, 1800.0, 1e6),
    "wall_seconds": (0.0, 359.9, 360.0, 1800.0),
    "processors": (0, 1, 7),
    "memory_mb": (0.0, 999.9, 1000.0, 1500.0, 7000.0, 8000.0),
    "disk_mb": (0.0, 100.0, 101.0),
    "tags": ((), ("gold",), ("avx", "big"), ("Any",)),
    "required_tags": (("gold",), ("avx", "big"), ("big",)),
    "whole_node": (False,),
    "owners": (("o1",), ("o0", "o2")),
    "groups": (("g1",), ("g0", "g2")),
    "architecture": ("", "x86_64", "x86_64-v2", "aarch64"),
    "gpus": (
        (),
        (Gpu(model="NVIDIA A100-SXM4", memory_mb=15_999.0),),
        (Gpu(model="Tesla T4", memory_mb=16_000.0), Gpu(model="Tesla T4", memory_mb=1.0)),
    ),
    "job_types": (("User",), ("MCSim", "Test"), ("any",)),
    "pool": ("p", "r"),
}
NODE: Mapping[str, object] = {
    "site": "A",
    "ce": "ce1",
    "platforms": ("x1",),
    "cpu_seconds": 1e9,
    "wall_seconds": 1e9,
    "processors": 8,
    "memory_mb": 64_000.0,
    "disk_mb": 1e6,
    "tags": ("gold", "big", "avx"),
    "whole_node": True,
    "architecture": "x86_64-v3",
    "gpus": (Gpu(model="NVIDIA A100-SXM4", memory_mb=4e4), Gpu(model="Tesla T4", memory_mb=16_000.0)),
}

TOPICS: Mapping[str, tuple[str, ...]] = {
    "where": ("sites", "banned_sites", "site"),
    "ce": ("ces", "ce"),
    "platform": ("platforms", "platform", "architecture"),
    "time": ("cpu_seconds", "wall_seconds"),
    "processors": ("min_processors", "whole_node", "processors"),
    "memory": ("memory_mb", "memory_per_processor_mb", "min_processors", "whole_node", "processors"),
    "disk": ("disk_mb",),
    "gpus": ("gpus", "gpu_memory_mb", "gpu_models"),
    "tags": ("tags", "expression", "required_tags"),
    "type": ("job_type", "job_types", "site"),
    "pool": ("pools", "pool"),
    "whose": ("owners", "groups"),
}
"""Attributes of both sides that have to do with each other."""

usable = st.one_of(st.none(), st.frozensets(st.sampled_from(SITES)))
"""Site masks."""


@st.composite
def scenes(draw: st.DrawFn, jobs: int, nodes: int) -> tuple[list[Wish], list[Offer]]:
    """Up to so many jobs and nodes that differ mostly in one or two topics."""
    topics = draw(st.lists(st.sampled_from(sorted(TOPICS)), min_size=1, max_size=2, unique=True))
    likely = {name for topic in topics for name in TOPICS[topic]}
    if draw(st.integers(0, 3)) == 0:
        likely = {*WANTED, *OFFERED, "expression"}
    wanted = saying(Wish, {}, {name: WANTED[name] for name in WANTED if name in likely}, 3)
    if "expression" in likely:
        with_tags = st.builds(lambda wish, part: Wish(**{**vars(wish), "expression": part}), wanted, expressions())
        wanted = st.one_of(wanted, with_tags.filter(can_be_pleased))
    offered = saying(Offer, NODE, {name: OFFERED[name] for name in OFFERED if name in likely}, 4)
    return (
        draw(st.lists(wanted.filter(can_be_pleased), min_size=1, max_size=jobs)),
        draw(st.lists(offered, min_size=1, max_size=nodes)),
    )


def can_be_pleased(wish: Wish) -> bool:
    """Its tags do not contradict each other."""
    return bool(nodes_that_please(wish))


impossible = st.builds(
    lambda tags, expression: Wish(tags=tags, expression=expression),
    st.sampled_from(((), ("gold",), ("avx", "big"))),
    expressions(),
).filter(lambda wish: not can_be_pleased(wish))
