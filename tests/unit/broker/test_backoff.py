from __future__ import annotations

from itertools import pairwise

from broker._backoff import DOUBTS, Backoff
from broker.transport import Pace

PACE = Pace(first=0.25, longest=20, refused=20, stable=10)


def longest_delays(backoff: Backoff, tries: int) -> list[float]:
    return [backoff.delay(0.0) for _ in range(tries)]


def test_delays_stay_within_widening_bounds() -> None:
    for _ in range(50):
        delays = longest_delays(Backoff(PACE), 12)
        for attempt, delay in enumerate(delays):
            assert 0 <= delay <= min(20, 0.25 * 2**attempt)


def test_delays_are_jittered() -> None:
    assert len({longest_delays(Backoff(PACE), 1)[0] for _ in range(20)}) > 10


def test_a_thousand_failures_do_not_overflow() -> None:
    assert max(longest_delays(Backoff(PACE), 1000)) <= 20


def test_a_stable_connection_starts_the_delays_anew() -> None:
    backoff = Backoff(PACE)
    longest_delays(backoff, 10)
    backoff.opened(100.0)
    assert backoff.delay(110.0) <= 0.25


def test_a_flapping_connection_does_not() -> None:
    found = []
    for _ in range(30):
        backoff = Backoff(PACE)
        longest_delays(backoff, 10)
        backoff.opened(100.0)
        found.append(backoff.delay(101.0))
    assert max(found) > 1


def test_a_refusal_is_tried_again_slowly() -> None:
    backoff = Backoff(PACE)
    delays = [backoff.delay(0.0, refused=True) for _ in range(50)]
    assert all(20 <= delay <= 60 for delay in delays)
    assert any(one != other for one, other in pairwise(delays))


def test_who_was_let_in_before_doubts_some_refusals() -> None:
    backoff = Backoff(PACE)
    for _ in range(2):
        backoff.opened(100.0)
        delays = [backoff.delay(101.0, refused=True) for _ in range(10)]
        assert all(5 <= delay <= 10 for delay in delays[:DOUBTS])
        assert all(20 <= delay <= 60 for delay in delays[DOUBTS:])
