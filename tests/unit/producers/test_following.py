from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producers.following import MAX_RANGE, cover


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
