"""How much is asked for: bounded, never negative, no storms."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pilot.demand import HORIZON_SECONDS, Demand
from schemas.messages.pilot import MAX_JOBS_PER_REQUEST

processors = st.integers(1, 256)
seconds = st.floats(0, 1e6, allow_nan=False)


@given(processors, st.lists(seconds, max_size=20), st.integers(0, 512), st.integers(0, 512))
def test_never_more_than_a_request_may_ask_never_negative(
    count: int, durations: list[float], busy: int, waiting: int
) -> None:
    demand = Demand(count)
    for duration in durations:
        demand.ended(duration)
    assert 0 <= demand.in_advance() <= MAX_JOBS_PER_REQUEST
    assert 0 <= demand.wanted(busy, waiting) <= MAX_JOBS_PER_REQUEST


@given(processors, st.lists(st.floats(HORIZON_SECONDS * 1.01, 1e6), max_size=20), st.data())
def test_long_payloads_are_not_held_in_advance(count: int, durations: list[float], data: st.DataObject) -> None:
    demand = Demand(count)
    for duration in durations:
        demand.ended(duration)
    busy = data.draw(st.integers(0, count))
    waiting = data.draw(st.integers(0, count))
    assert demand.wanted(busy, waiting) <= max(0, count - busy - waiting)


@given(st.integers(1, 32), seconds)
def test_a_pilot_that_holds_what_it_asked_for_asks_no_more(count: int, duration: float) -> None:
    demand = Demand(count)
    demand.ended(duration)
    busy = waiting = rounds = 0
    while (wanted := demand.wanted(busy, waiting)) and rounds < 10:
        started = min(wanted, count - busy)
        busy, waiting, rounds = busy + started, waiting + wanted - started, rounds + 1
    assert rounds <= 2
    assert busy == count


def test_short_payloads_are_asked_for_in_few_large_requests() -> None:
    demand = Demand(2)
    demand.ended(0.05)
    advance = demand.in_advance()
    assert advance == 10
    waiting, requests = advance, 0
    for _ in range(100):  # a hundred payloads end, one after the other
        waiting -= 1
        wanted = demand.wanted(2, waiting)
        requests += bool(wanted)
        waiting += wanted
    assert 15 <= requests <= 25


def test_the_mean_follows_slowly() -> None:
    demand = Demand(1)
    demand.ended(10)
    demand.ended(0)
    assert demand.mean_seconds == 8
