from __future__ import annotations

import datetime as dt

import pytest

from producers.watching import parse_since
from schemas.errors import InvalidInputError

NOW = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first", "first"),
        ("next", "next"),
        ("90s", NOW - dt.timedelta(seconds=90)),
        ("10m", NOW - dt.timedelta(minutes=10)),
        ("1h", NOW - dt.timedelta(hours=1)),
        ("2d", NOW - dt.timedelta(days=2)),
        ("2026-11-29T10:00:00+00:00", dt.datetime(2026, 11, 29, 10, tzinfo=dt.UTC)),
    ],
)
def test_times(text: str, expected: object) -> None:
    assert parse_since(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "1y", "-1h", "1e3s", "9999999h", "2026-13-01"])
def test_no_times(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no time"):
        parse_since(text, NOW)
