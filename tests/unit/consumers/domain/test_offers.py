"""What time and an owner leave of an offer: by examples and by properties."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.domain.offers import ASSUMED_POWER, bounded, private
from schemas.messages.pilot import Offer

POWER = 12.5


def offer(wall: float = 40_000.0, power: float = POWER) -> Offer:
    return Offer(site="S", wall_seconds=wall, cpu_seconds=wall * power, processors=4)


seconds = st.floats(0, 1e8)
offers = st.builds(offer, st.floats(1, 1e8), st.floats(0, 100))


def test_work_shrinks_with_the_time_by_the_power_that_the_offer_says() -> None:
    old = bounded(offer(), age=10_000)
    assert (old.wall_seconds, old.cpu_seconds) == pytest.approx((30_000, 30_000 * POWER))
    short = bounded(offer(), seconds_left=7200)
    assert (short.wall_seconds, short.cpu_seconds) == pytest.approx((7200, 7200 * POWER))


def test_the_smaller_of_slot_and_right_counts() -> None:
    assert bounded(offer(), 35_000, 10_000).wall_seconds == 30_000
    assert bounded(offer(), 20_000, 10_000).wall_seconds == 20_000


def test_nothing_is_left_after_the_end() -> None:
    for ended in (bounded(offer(), age=50_000), bounded(offer(), seconds_left=0), bounded(offer(), seconds_left=-5)):
        assert (ended.wall_seconds, ended.cpu_seconds) == (0, 0)


def test_an_offer_that_names_no_wall_time_has_the_power_that_the_grid_assumes() -> None:
    silent = Offer(site="S", cpu_seconds=100_000)
    assert bounded(silent) is silent
    assert bounded(silent, seconds_left=1000).cpu_seconds == 1000 * ASSUMED_POWER
    assert bounded(silent, age=1000).cpu_seconds == 100_000 - 1000 * ASSUMED_POWER
    assert bounded(silent, age=1e9).cpu_seconds == 0


def test_a_clock_ahead_makes_no_offer_larger() -> None:
    assert bounded(offer(), age=-300) == offer()


@given(offers, seconds, seconds)
def test_never_more_than_was_offered(one: Offer, left: float, age: float) -> None:
    found = bounded(one, left, age)
    assert found.wall_seconds <= min(one.wall_seconds, left)
    assert found.cpu_seconds <= one.cpu_seconds
    assert found.processors == one.processors


@given(offers, seconds, seconds, st.floats(0, 1e6))
def test_what_waits_is_worth_less_each_second(one: Offer, left: float, age: float, later: float) -> None:
    now, then = bounded(one, left, age), bounded(one, max(0.0, left - later), age + later)
    assert then.wall_seconds <= now.wall_seconds
    assert then.cpu_seconds <= now.cpu_seconds * (1 + 1e-9)


@given(offers, seconds, st.floats(0, 1e6), st.floats(0, 1e6))
def test_ageing_twice_is_ageing_once(one: Offer, left: float, first: float, second: float) -> None:
    twice = bounded(bounded(one, left, first), inf, second)
    once = bounded(one, max(0.0, left - second), first + second)
    assert twice.wall_seconds == pytest.approx(once.wall_seconds, abs=1e-3)
    if once.wall_seconds > 1:
        assert twice.cpu_seconds == pytest.approx(once.cpu_seconds, rel=1e-3)


@given(st.lists(st.text(min_size=1, max_size=5), max_size=3))
def test_a_private_pilot_has_one_owner_whatever_it_says(said: list[str]) -> None:
    found = private(Offer(site="S", owners=tuple(said), groups=("g",)), "/CN=ada")
    assert (found.owners, found.groups) == (("/CN=ada",), ("g",))
