"""The bits against the definition, for offers and classes that lie on both sides of each limit."""

from __future__ import annotations

from itertools import product

import pytest
from msgspec.structs import replace

from consumers.domain import classes
from consumers.domain.classes import MAX_TAG_LISTS, ClassIndex
from consumers.domain.requirements import Condition, Requirements, canonical, in_the_way
from schemas.messages.pilot import Gpu, Offer

NODE = Offer(
    site="A", ce="ce1", platforms=("x1",), cpu_seconds=86_400, wall_seconds=43_200, processors=4, memory_mb=8000,
    disk_mb=20_000, tags=("gpu",), whole_node=True, architecture="x86_64-v3", gpus=(Gpu(model="T4", memory_mb=16_000),),
)  # fmt: skip
OFFERS = (
    NODE,
    replace(NODE, processors=5),
    replace(NODE, memory_mb=8001.0),
    replace(NODE, whole_node=False),
    replace(NODE, gpus=()),
    replace(NODE, pool="p"),
    replace(NODE, architecture="aarch64"),
    replace(NODE, tags=()),
    replace(NODE, tags=("gpu", "big"), required_tags=("MultiProcessor",)),
    replace(NODE, job_types=("Sim", "Test")),
    replace(NODE, wall_seconds=360.0, disk_mb=0.0),
    replace(NODE, site="B", ce="any", platforms=("any",)),
)
WANTS = (
    canonical(),
    canonical(whole_node=True, memory_mb=1, memory_per_processor_mb=2000),
    canonical(whole_node=True, memory_per_processor_mb=2000),
    canonical(whole_node=True, memory_mb=8001),
    canonical(memory_per_processor_mb=4000, min_processors=2),
    canonical(gpus=1),
    canonical(gpu_models=["T4"], gpu_memory_mb=16_001),
    canonical(pools=["p", "q"]),
    canonical(architecture="x86_64-v2"),
    canonical(architecture="aarch64"),
    canonical(tags=["gpu"]),
    canonical(tag_expression="!big && (gpu || other)"),
    canonical(min_processors=5),
    canonical(job_type="Test"),
    canonical(job_type="Sim", wall_seconds=400, disk_mb=1),
    canonical(sites=["B"], ces=["ce2"], platforms=["x2"]),
    canonical(banned_sites=["B"], cpu_seconds=1),
)


def expected(places: dict[Requirements, int], offer: Offer, condition: Condition | None) -> int:
    return sum(1 << place for want, place in places.items() if in_the_way(want, offer, {"A"}) is condition)


@pytest.mark.parametrize("offer", OFFERS)
def test_each_condition_keeps_the_right_classes(offer: Offer) -> None:
    index = ClassIndex()
    index.set_usable_sites({"A"})
    places = {want: index.add(want) for want in WANTS}
    assert index.fitting(offer) == expected(places, offer, None)
    left = index.all
    for condition, passing in index.passing(offer):
        assert left & ~passing == expected(places, offer, condition), condition
        left &= passing


def test_answers_follow_the_classes_that_come_and_go() -> None:
    index = ClassIndex()
    index.set_usable_sites({"A"})
    places: dict[Requirements, int] = {}
    for offer, want in product(OFFERS, WANTS):
        index.fitting(offer)
        if want in places:
            index.remove(want)
            del places[want]
        else:
            places[want] = index.add(want)
        assert index.fitting(offer) == expected(places, offer, None)
        assert not any(passing & ~index.all for _, passing in index.passing(offer)), "classes that are gone"
    for want in list(places):
        index.remove(want)
    assert (len(index), index.all) == (0, 0)
    assert [index.fitting(offer) for offer in OFFERS] == [0] * len(OFFERS)


def test_places_are_given_again() -> None:
    index = ClassIndex()
    first, second = index.add(canonical()), index.add(canonical(disk_mb=1))
    assert index.add(canonical()) == first
    index.remove(canonical())
    assert index.add(canonical(gpus=1)) == first
    assert index.all == 1 << first | 1 << second
    assert index.of_job_type("User") == index.all
    assert index.of_job_type("Test") == 0


def test_lists_of_tags_that_are_remembered_are_bounded() -> None:
    index = ClassIndex()
    place = index.add(canonical(tags=["t7"]))
    for number in range(3 * MAX_TAG_LISTS):
        assert index.fitting(replace(NODE, tags=(f"t{number}",))) == (1 << place if number == 7 else 0)
    assert len(index._tag_lists) == MAX_TAG_LISTS
    index.forget()
    assert index.fitting(replace(NODE, tags=("t7",))) == 1 << place


def test_names_of_tags_that_pilots_make_up_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "MAX_TAG_NAMES", 1000)
    index = ClassIndex()
    index.add(Requirements(tags=("fast",)))
    index.add(Requirements(tag_expression="!fast"))
    enough = Offer(site="S", cpu_seconds=1e9, wall_seconds=1e9, processors=8, memory_mb=1e6, disk_mb=1e6)
    for number in range(100):
        made_up = tuple(f"tag-{number}-{each}" for each in range(20))
        assert index.fitting(replace(enough, tags=("fast", *made_up))) == 0b01
        assert index.fitting(replace(enough, tags=made_up)) == 0b10
        assert sum(map(len, index._names)) == index._names_length <= 1000
        assert len(index._tag_lists) <= 20
