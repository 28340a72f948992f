"""How ranges of jobs are cut into slices."""

from __future__ import annotations

import pytest

from consumers.optimizer import hash_of, split
from schemas.messages.event import JobsReceived


def received(first: int, count: int, submission: int = 1) -> JobsReceived:
    return JobsReceived(submission=submission, first=first, count=count)


def test_what_fits_is_taken_whole() -> None:
    assert split([received(1, 2), received(10, 1)], 3) == ([1, 2, 10], [])


def test_the_rest_is_left_as_few_ranges() -> None:
    ranges = [received(1, 5), received(6, 5), received(20, 1), received(21, 2, submission=2)]
    assert split(ranges, 3) == ([1, 2, 3], [received(4, 7), received(20, 1), received(21, 2, submission=2)])


def test_a_job_named_twice_is_looked_at_once() -> None:
    assert split([received(1, 2), received(2, 2)], 10) == ([1, 2, 3], [])


@pytest.mark.parametrize("count", [0, -5])
def test_an_empty_range_is_nothing(count: int) -> None:
    assert split([received(1, count)], 3) == ([], [])


def test_references() -> None:
    assert hash_of("SB:" + "a" * 64) == "a" * 64
    for odd in ("SB:", "SB:" + "A" * 64, "SB:" + "a" * 63, "SB:" + "a" * 64 + "/x", "SB:../" + "a" * 61):
        assert hash_of(odd) == ""
