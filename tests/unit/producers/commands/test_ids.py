from __future__ import annotations

import io
from pathlib import Path

import pytest

from producers.commands.ids import parse_ids
from schemas.errors import InvalidInputError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["12"], [12]),
        (["12-14"], [12, 13, 14]),
        (["12,14", "13"], [12, 14, 13]),
        (["5,5-6"], [5, 6]),
        ([str(2**53)], [2**53]),
    ],
)
def test_ids(words: list[str], expected: list[int]) -> None:
    assert parse_ids(words) == expected


@pytest.mark.parametrize(
    "words", [["x"], ["0"], ["-5"], ["5-"], ["7-5"], ["1-10001"], [","], [str(2**53 + 1)], ["9" * 400], ["٣"], ["@/no"]]
)
def test_no_ids(words: list[str]) -> None:
    with pytest.raises(InvalidInputError):
        parse_ids(words)


def test_standard_input_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n2, 3\n\n"))
    (tmp_path / "ids").write_text("7-8 9\n")
    assert parse_ids(["-", f"@{tmp_path / 'ids'}"]) == [1, 2, 3, 7, 8, 9]
