"""What is told of obstacles is what the match says: the same first one, none where it fits, and none too many."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.domain.choose import NoMatch, choose
from consumers.domain.index import Index
from consumers.domain.obstacles import _WAIVERS, Seen, in_words, obstacles, survey
from consumers.domain.requirements import Condition, Requirements, in_the_way, misfit, not_theirs
from schemas.messages.pilot import Offer
from tests.properties.test_matching import classes, offers, usable

WAIVED_ELSEWHERE = {Condition.SITE_UNUSABLE}
OF_CLASSES = [one for one in Condition if one.value <= Condition.GROUP.value]


@given(classes, offers, usable, st.sampled_from(("", "o1", "o2")), st.sampled_from(("", "g1")))
@settings(max_examples=500, deadline=None)
def test_the_first_is_the_match_s_own(
    want: Requirements, offer: Offer, sites: frozenset[str] | None, owner: str, group: str
) -> None:
    found = obstacles(want, offer, sites, owner, group)
    first = in_the_way(want, offer, sites) or not_theirs(offer, owner, group)
    assert (found[0] if found else None) is first
    assert len(set(found)) == len(found)


@given(classes, offers, usable)
@settings(max_examples=500, deadline=None)
def test_without_all_of_them_it_fits_and_without_all_but_one_it_does_not(
    want: Requirements, offer: Offer, sites: frozenset[str] | None
) -> None:
    found = obstacles(want, offer, sites)
    for kept in (None, *found):
        wish, given_up, mask = want, offer, sites
        for condition in found:
            if condition is kept:
                continue
            if condition in WAIVED_ELSEWHERE:
                mask = None
            else:
                wish, given_up = _WAIVERS[condition](wish, given_up)
        assert in_the_way(wish, given_up, mask) is kept


@given(classes, st.lists(offers, max_size=20), usable, st.sampled_from(("o1", "o2")))
@settings(max_examples=150, deadline=None)
def test_a_survey_counts_each_offer(
    want: Requirements, some: list[Offer], sites: frozenset[str] | None, owner: str
) -> None:
    told = survey(want, [Seen(offer, number % 2 == 0) for number, offer in enumerate(some)], sites, owner)
    fit = [misfit(want, offer, sites) is None and not_theirs(offer, owner) is None for offer in some]
    assert told.fitting == sum(fit) == sum(told.sites.values())
    assert told.fitting_parked == sum(fit[::2])
    assert (told.offers, told.parked) == (len(some), len(some[::2]))
    assert sum(told.together.values()) == len(some) - told.fitting
    for condition, failing in told.failing.items():
        assert failing.offers == sum(condition in obstacles(want, offer, sites, owner) for offer in some)
        assert failing.only == sum(obstacles(want, offer, sites, owner) == (condition,) for offer in some)
        assert failing.parked <= failing.offers
        assert failing.closest


@given(classes, st.lists(offers, max_size=10), usable, st.sampled_from(("o1", "o2")))
@settings(max_examples=200, deadline=None)
def test_what_is_told_to_fit_is_what_is_chosen(
    want: Requirements, some: list[Offer], sites: frozenset[str] | None, owner: str
) -> None:
    """A job that is first in the order is given to exactly those parked offers that are told to fit."""
    index = Index()
    index.set_usable_sites(sites)
    index.add_queue(1, want, "g1", owner)
    index.set_counts(1, {1: (1, 10.0)})
    for offer in some:
        told = survey(want, [Seen(offer, True)], sites, owner, "g1")
        chosen = choose(offer, index, 20.0)
        assert isinstance(chosen, NoMatch) == (told.fitting_parked == 0)
        if isinstance(chosen, NoMatch):
            (reason,) = chosen.reasons
            assert reason.condition in told.failing


@pytest.mark.parametrize("condition", OF_CLASSES)
def test_every_condition_can_be_waived(condition: Condition) -> None:
    assert condition in _WAIVERS or condition in WAIVED_ELSEWHERE


@given(classes)
def test_every_class_has_words(want: Requirements) -> None:
    lines = in_words(want)
    assert all(lines)
    assert any("CPU time" in line for line in lines)
    for name in (*want.sites, *want.tags, *want.pools):
        assert any(name in line for line in lines)
