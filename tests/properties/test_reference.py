"""What fits, against the specification in its plainest form (:mod:`tests.support.reference_matcher`).

Thousands of random wishes, offers and site masks; `make fuzz` tries more.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings

from consumers.domain.classes import ClassIndex
from consumers.domain.conditions import Condition
from consumers.domain.parked import ParkedIndex
from consumers.domain.requirements import misfit
from schemas.errors import PilotageError
from schemas.messages.pilot import Offer
from tests.support import reference_matcher as reference
from tests.support.effort import effort
from tests.support.reference_matcher import Wish, obstacle
from tests.support.wishes import SITES, impossible, scenes, usable

Scene = tuple[list[Wish], list[Offer]]


@given(scenes(10, 10), usable)
@effort(300)
def test_what_fits(scene: Scene, sites: frozenset[str] | None) -> None:
    """The definition, and the index over all classes at once, condition by condition."""
    some, offers = scene
    index = ClassIndex()
    index.set_usable_sites(sites)
    classes = {wish.requirements(): wish for wish in some}
    places = {want: index.add(want) for want in classes}
    for offer in offers:
        expected = {want: obstacle(wish, offer, sites) for want, wish in classes.items()}
        found = {want: misfit(want, offer, sites) for want in classes}
        assert {want: one and one.condition for want, one in found.items()} == expected
        assert index.fitting(offer) == sum(1 << places[want] for want, why in expected.items() if why is None)
        assert first_conditions(index, offer) == Counter(why for why in expected.values() if why is not None)


def first_conditions(index: ClassIndex, offer: Offer) -> Counter[Condition]:
    counts: Counter[Condition] = Counter()
    left = index.all
    for condition, passing in index.passing(offer):
        if failing := (left & ~passing).bit_count():
            counts[condition] = failing
        left &= passing
    return counts


@given(scenes(4, 15), usable)
@effort(150)
def test_who_is_parked_and_fits(scene: Scene, sites: frozenset[str] | None) -> None:
    """The same the other way round."""
    some, offers = scene
    parked: ParkedIndex[int] = ParkedIndex()
    for key, offer in enumerate(offers):
        parked.add(key, offer, 1000.0)
    for wish in some:
        expected = [
            key
            for key, offer in reversed(list(enumerate(offers)))
            if obstacle(wish, offer, sites) is None
            and reference.owner_is_served("o1", offer)
            and reference.group_is_served("g1", offer)
        ]
        assert list(parked.candidates(wish.requirements(), "o1", "g1", sites, 1000.0)) == expected


@given(impossible)
@effort(20)
def test_what_nobody_can_please_is_no_class(wish: Wish) -> None:
    with pytest.raises(PilotageError):
        wish.requirements()


def test_the_generators_reach_what_they_are_for() -> None:
    """Otherwise the tests above would prove little."""
    seen: Counter[Condition | None] = Counter()

    @settings(effort(600), derandomize=True)
    @given(scenes(10, 10))
    def look(scene: Scene) -> None:
        some, offers = scene
        seen.update(obstacle(wish, offer, frozenset(SITES)) for wish in some for offer in offers)

    look()
    asked = {None, Condition.SITE_UNUSABLE, *(condition for condition, _ in reference.CONDITIONS)}
    assert not asked - seen.keys()
    assert min(seen.values()) >= 10, seen
