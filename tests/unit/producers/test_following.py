from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from producers.errors import AwayError
from producers.following import MAX_RANGE, Follower, cover


@given(st.lists(st.integers(1, 2**53), max_size=50))
def test_cover_holds_every_id(jobs: list[int]) -> None:
    ranges = cover(jobs)
    assert all(any(first <= job < first + count for first, count in ranges) for job in jobs)
    assert all(1 <= count <= MAX_RANGE for _first, count in ranges)
    assert {first for first, _count in ranges} <= set(jobs)


def test_neighbours_are_one_question() -> None:
    assert cover(range(5, 100_005)) == [(5, 100_000)]
    assert cover(range(5, 100_006)) == [(5, 100_000), (100_005, 1)]
    assert cover([1, 500, 50_000]) == [(1, 500), (50_000, 1)]


class FlakySession:
    """A session whose broker goes away and comes back."""

    def __init__(self, *works: bool) -> None:
        self._works = deque(works)

    def send(self, _message: object, _patience: float) -> None:
        if not self._works.popleft():
            raise AwayError


def test_an_absence_is_told_once_and_so_is_its_end() -> None:
    told: list[bool] = []
    follower = Follower(FlakySession(True, False, False, True, True), deque(), told.append)  # type: ignore[arg-type]  # sends, and that is all that is asked here
    assert [follower._ask([(1, 1)]) for _ in range(5)] == [True, False, False, True, True]
    assert told == [True, False]
