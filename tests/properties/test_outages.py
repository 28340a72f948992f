"""Grace for our own outages, against a count second by second."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from consumers.outages import REMEMBERED_SECONDS, Outages

GAP = 5
looks = st.lists(st.integers(0, 200), min_size=1, max_size=20).map(sorted)


@given(looks, st.integers(-10, 210), st.integers(-10, 210), st.integers(0, 20))
def test_grace_is_the_time_in_which_nobody_listened(times: list[int], one: int, two: int, restart: int) -> None:
    start, end = sorted((one, two))
    outages = Outages(longest_gap=GAP)
    outages.restore(None, float(times[0]))
    for number, time in enumerate(times):
        if number == restart:  # another process goes on from what was written
            kept = outages.dump()
            outages = Outages(longest_gap=GAP)
            outages.restore(kept, 1e9)
        outages.listened(float(time))
    deaf = {
        second for before, after in itertools.pairwise(times) if after - before > GAP for second in range(before, after)
    }
    assert outages.between(start, end) == sum(second in deaf for second in range(start, end))


def test_old_outages_are_forgotten_and_young_ones_not() -> None:
    outages = Outages(longest_gap=GAP)
    outages.restore(None, 0.0)
    outages.listened(100.0)
    outages.listened(100.0 + REMEMBERED_SECONDS - 1)
    assert outages.between(0.0, 100.0) == 100.0
    outages.listened(100.0 + REMEMBERED_SECONDS + 1)
    assert outages.between(0.0, 100.0) == 0.0


def test_a_clock_that_steps_back_is_no_outage() -> None:
    outages = Outages(longest_gap=GAP)
    outages.restore(None, 100.0)
    outages.listened(50.0)
    outages.listened(52.0)
    assert outages.between(0.0, 1000.0) == 0.0
