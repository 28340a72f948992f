"""The matcher's index against a reference that asks every class of every queue, one by one."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast
from unittest import mock

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from consumers.domain import parked as parked_module
from consumers.domain.choose import NoMatch, choose, reserve, why_not
from consumers.domain.classes import ClassIndex
from consumers.domain.index import Index, rank
from consumers.domain.offers import bounded
from consumers.domain.parked import ParkedIndex
from consumers.domain.requirements import CPU_CLASSES, Condition, Requirements, canonical, misfit, not_theirs
from schemas.jdl.tag_expression import TagExpressionError
from schemas.messages.pilot import Gpu, Offer

SITES = ("A", "B", "C", "D")
some = st.lists(st.sampled_from(SITES), max_size=3)
tags = st.lists(st.sampled_from(("gpu", "avx", "big")), max_size=2)
platforms = st.lists(st.sampled_from(("x1", "x2", "arm", "Any")), max_size=2)
wishes: dict[str, st.SearchStrategy[Any]] = dict(  # noqa: C408 - as the arguments that they become
    sites=some,
    banned_sites=st.lists(st.sampled_from(SITES), max_size=1),
    ces=st.lists(st.sampled_from(("ce1", "ce2")), max_size=1),
    platforms=platforms,
    job_type=st.sampled_from(("User", "User", "Test")),
    cpu_seconds=st.sampled_from((100, 360, 361, 5000, 400_000)),
    min_processors=st.sampled_from((1, 1, 2, 8)),
    whole_node=st.sampled_from((False, False, True)),
    max_processors=st.sampled_from((1, 1, 2, None)),
    memory_mb=st.sampled_from((0, 1000, 2000)),
    tags=tags,
    wall_seconds=st.sampled_from((0, 0, 360, 5000)),
    memory_per_processor_mb=st.sampled_from((0, 0, 500)),
    disk_mb=st.sampled_from((0, 0, 1000)),
    gpus=st.sampled_from((0, 0, 1, 2)),
    gpu_memory_mb=st.sampled_from((0, 0, 16_000)),
    gpu_models=st.sampled_from(((), (), ("A100",), ("T4", "v100"))),
    architecture=st.sampled_from(("", "", "x86_64", "x86_64-v3", "aarch64")),
    tag_expression=st.sampled_from(("", "", "", "!avx", "gpu || big", "big && !avx || other", "avx || !avx")),
    pools=st.sampled_from(((), (), (), ("p1",), ("p1", "p2"))),
)


def possible(wishes: dict[str, object]) -> bool:
    """Tags and tag expression do not contradict each other."""
    try:
        canonical(**cast("dict[str, Any]", wishes))
    except TagExpressionError:
        return False
    return True


def some_of(strategies: dict[str, st.SearchStrategy[Any]], most: int) -> st.SearchStrategy[dict[str, Any]]:
    """Values for a few of the names: if all were drawn each time, hardly anything would fit anything."""
    names = st.lists(st.sampled_from(sorted(strategies)), max_size=most, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: strategies[name] for name in chosen}))


classes = some_of(wishes, 4).filter(possible).map(lambda given: canonical(**given))
GENEROUS = Offer(
    site="A",
    ce="ce1",
    platforms=("any",),
    cpu_seconds=1e7,
    wall_seconds=1e7,
    processors=8,
    memory_mb=64_000.0,
    disk_mb=1e6,
    tags=("gpu", "big", "avx"),
    whole_node=True,
    architecture="x86_64-v4",
    gpus=(Gpu(model="NVIDIA A100-SXM4-40GB", memory_mb=40_000.0),) * 2,
)
offerings: dict[str, st.SearchStrategy[Any]] = dict(  # noqa: C408 - as the arguments that they become
    site=st.sampled_from((*SITES, "E")),
    ce=st.sampled_from(("", "ce1", "ce2", "ANY")),
    platforms=platforms.map(tuple),
    cpu_seconds=st.sampled_from((0.0, 360.0, 1799.0, 1800.0, 1e7)),
    processors=st.sampled_from((0, 1, 2, 8)),
    memory_mb=st.sampled_from((0.0, 999.9, 1000.0, 2500.0, 64_000.0)),
    wall_seconds=st.sampled_from((0.0, 360.0, 1e6, 1e6)),
    disk_mb=st.sampled_from((0.0, 999.0, 1000.0, 1e6)),
    gpus=st.lists(
        st.builds(
            Gpu,
            model=st.sampled_from(("NVIDIA A100-SXM4-40GB", "Tesla T4", "Tesla V100", "")),
            memory_mb=st.sampled_from((15_999.0, 16_000.0)),
        ),
        max_size=3,
    ).map(tuple),
    architecture=st.sampled_from(("", "x86_64", "x86_64-v2", "x86_64-v4", "aarch64", "what is this")),
    job_types=st.sampled_from(((), (), (), ("User",), ("Test", "Sim"), ("ANY",))),
    pool=st.sampled_from(("", "", "", "p1", "p2")),
    tags=tags.map(tuple),
    required_tags=st.sampled_from(((), (), (), ("gpu",), ("avx", "big"), ("MultiProcessor",), ("WholeNode",))),
    whole_node=st.booleans(),
    owners=st.sampled_from(((), (), ("o1",), ("o0", "o2"))),
)
offers = some_of(offerings, 4).map(lambda given: replace(GENEROUS, **given))
usable = st.one_of(st.none(), st.frozensets(st.sampled_from(SITES)))


@given(st.lists(classes, max_size=40), st.lists(offers, min_size=1, max_size=10), usable, st.data())
@settings(max_examples=150, deadline=None)
def test_index_agrees_with_reference(
    wants: list[Requirements], some_offers: list[Offer], sites: frozenset[str] | None, data: st.DataObject
) -> None:
    index = ClassIndex()
    index.set_usable_sites(sites)
    places = {want: index.add(want) for want in wants}
    for offer in some_offers:
        index.fitting(offer)  # remembered answers must not outlive a change
    for want in data.draw(st.lists(st.sampled_from(wants), max_size=10, unique=True)) if wants else []:
        index.remove(want)
        del places[want]
    for want in data.draw(st.lists(classes, max_size=5)):
        places[want] = index.add(want)
    assert len(set(places.values())) == len(places)
    for offer in some_offers:
        expected = sum(1 << place for want, place in places.items() if misfit(want, offer, sites) is None)
        assert index.fitting(offer) == expected
        assert first_conditions(index, offer) == Counter(
            found.condition for want in places if (found := misfit(want, offer, sites)) is not None
        )


CONDITIONS = [one for one in Condition if one.value < Condition.OWNER.value]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_is_met_by_what_is_drawn(condition: Condition) -> None:
    found = find(
        st.tuples(classes, offers, usable),
        lambda drawn: (said := misfit(*drawn)) is not None and said.condition is condition,
        settings=settings(max_examples=5000, deadline=None),
        random=random.Random(1),
    )
    assert found


def first_conditions(index: ClassIndex, offer: Offer) -> Counter[Condition]:
    counts: Counter[Condition] = Counter()
    left = index.all
    for condition, passing in index.passing(offer):
        if failing := (left & ~passing).bit_count():
            counts[condition] = failing
        left &= passing
    return counts


@dataclass
class Waiting:
    """A job of the reference: it knows each one, and sorts them all for each choice."""

    queue: int
    requirements: Requirements
    group: str
    owner: str
    priority: int
    submitted: float


def reference_best(jobs: list[Waiting], offer: Offer, group: str, owner: str) -> float:
    return min(
        rank(job.priority, job.submitted)
        for job in jobs
        if (job.group, job.owner) == (group, owner) and misfit(job.requirements, offer) is None
    )


queues = st.lists(
    st.tuples(
        classes,
        st.sampled_from(("g0", "g1", "g2")),
        st.sampled_from(("o0", "o1", "o2")),
        st.dictionaries(st.integers(0, 10), st.tuples(st.integers(0, 3), st.integers(0, 10**6)), max_size=3),
    ),
    max_size=30,
    unique_by=lambda queue: queue[:3],
)


@given(queues, st.lists(offers, min_size=1, max_size=30))
@settings(max_examples=150, deadline=None)
def test_choices_agree_with_reference(
    described: list[tuple[Requirements, str, str, dict[int, tuple[int, int]]]], some_offers: list[Offer]
) -> None:
    index, jobs = Index(), list[Waiting]()
    for number, (want, group, owner, levels) in enumerate(described):
        index.add_queue(number, want, group, owner)
        index.set_counts(number, {priority: (count, float(old)) for priority, (count, old) in levels.items()})
        for priority, (count, old) in levels.items():
            jobs.extend(Waiting(number, want, group, owner, priority, float(old)) for _ in range(count))
    for offer in some_offers:
        fitting = [
            job
            for job in jobs
            if misfit(job.requirements, offer) is None and (not offer.owners or job.owner in offer.owners)
        ]
        looked = choose(offer, index, 2e6)
        outcome = reserve(offer, index, 2e6)
        assert looked == outcome, "looking is the same as taking"
        if not fitting:
            assert isinstance(outcome, NoMatch)
            assert sum(reason.count for reason in outcome.reasons) == len({job.requirements for job in jobs})
            continue
        assert not isinstance(outcome, NoMatch)
        [choice] = outcome
        queue = index.queue(choice.queue_id)
        taken = next(job for job in fitting if (job.queue, job.priority) == (choice.queue_id, choice.priority))
        best = reference_best(jobs, offer, queue.group.name, queue.owner.name)
        assert rank(taken.priority, taken.submitted) == best
        jobs.remove(taken)
        assert index.waiting() == len(jobs)


@given(queues, offers, st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_looking_changes_nothing(
    described: list[tuple[Requirements, str, str, dict[int, tuple[int, int]]]], offer: Offer, count: int
) -> None:
    index = Index()
    for number, (want, group, owner, levels) in enumerate(described):
        index.add_queue(number, want, group, owner)
        for priority, (jobs, old) in levels.items():
            index.add(number, priority, jobs, float(old))
    before = picture(index)
    first = choose(offer, index, 2e6, count)
    assert picture(index) == before
    assert choose(offer, index, 2e6, count) == first
    assert reserve(offer, index, 2e6, count) == first


def picture(index: Index) -> object:
    return (
        index.turns.order[:],
        (index.turns.last[:], index.turns.used),
        [
            (
                name,
                group.mask,
                (group.turn, group.used),
                [(place, sorted(users)) for place, users in sorted(group.users.items())],
                group.turns.order[:],
                (group.turns.last[:], group.turns.used),
                [(owner.name, owner.turn, owner.used, owner.mask, owner.order[:]) for owner in group.owners.values()],
            )
            for name, group in index.groups.items()
        ],
        [(number, index.queue(number).rank, str(sorted(index.queue(number).levels.items()))) for number in index],
    )


@given(st.lists(offers, max_size=30), st.lists(classes, min_size=1, max_size=5), usable, st.data())
@settings(max_examples=100, deadline=None)
def test_parked_candidates_agree_with_reference(
    some_offers: list[Offer], wants: list[Requirements], sites: frozenset[str] | None, data: st.DataObject
) -> None:
    age = data.draw(st.sampled_from((0.0, 10.0, 4_000.0)))
    with mock.patch.multiple(parked_module, SECTION=7, FEW=data.draw(st.sampled_from((0, 3)))):
        compare_parked(some_offers, wants, sites, data, age)


def compare_parked(
    some_offers: list[Offer], wants: list[Requirements], sites: frozenset[str] | None, data: st.DataObject, age: float
) -> None:
    parked: ParkedIndex[int] = ParkedIndex()
    reference: dict[int, Offer] = {}
    for offer in some_offers:
        key = data.draw(st.integers(0, 15))
        reference.pop(key, None)
        reference[key] = offer
        parked.add(key, offer)
        if data.draw(st.integers(0, 5)) == 0:
            assert parked.remove(key) == reference.pop(key)
    assert len(parked) == len(reference)
    for want in [*wants, *wants]:  # what was asked once is remembered
        expected = [
            key
            for key, offer in reversed(reference.items())
            if misfit(want, bounded(offer, age=age), sites) is None and not_theirs(offer, "o1", "g1") is None
        ]
        assert list(parked.candidates(want, "o1", "g1", sites, now=age)) == expected


def test_counts_stay_true_under_any_changes() -> None:
    random_ = random.Random(7)
    index, counts = Index(), Counter[int]()
    wants = [canonical(cpu_seconds=seconds) for seconds in CPU_CLASSES]
    for number in range(60):
        index.add_queue(number, wants[number % 13], f"g{number % 3}", f"o{number // 13}")
    offer = Offer(site="A", cpu_seconds=1e9)
    for step in range(20_000):
        number = random_.randrange(60)
        match random_.randrange(5):
            case 0:
                index.add(number, random_.randrange(3), 2, float(step))
                counts[number] += 2
            case 1 if index.queue(number).levels:
                priority = random_.choice(list(index.queue(number).levels))
                index.set_head(number, priority, float(step))
            case 2 if random_.random() < 0.1:
                index.set_counts(number, {1: (3, float(step)), 2: (0, 1.0)})
                counts[number] = 3
            case _:
                outcome = reserve(offer, index, float(step), random_.randrange(1, 4))
                if isinstance(outcome, NoMatch):
                    assert not counts.total()
                    continue
                for choice in outcome:
                    counts[choice.queue_id] -= 1
                if random_.random() < 0.2:
                    index.put_back(choice.queue_id, choice.priority, choice.oldest)
                    counts[choice.queue_id] += 1
        assert index.waiting() == counts.total()
    for number in range(60):
        assert index.queue(number).waiting == counts[number]
        index.drop_queue(number)
    assert not len(index)
    assert not len(index.classes)
    assert not index.turns.order
    assert why_not(offer, index) == ()
