from __future__ import annotations

import pytest

from producers.commands.printing import Column, age, cells_wide, cut, harmless, layout, print_fault
from producers.errors import Fault

COLUMNS = [Column("JOB", right=True), Column("STATUS"), Column("NAME", elastic=True), Column("SITE", elastic=True)]


def test_tables_fit() -> None:
    lines = layout(COLUMNS, [["7", "Running", "n" * 100, "LCG.CERN.ch"], ["12345", "Done", "short", "s" * 60]], 80)
    assert max(map(cells_wide, lines)) <= 80
    assert lines[0].startswith("  JOB  STATUS   NAME")
    assert "…" in lines[1]


def test_wide_characters_take_two_cells() -> None:
    assert cells_wide("日本") == 4
    assert cut("日本語", 5) == "日本…"
    assert cut("abc", 3) == "abc"


def test_foreign_text_cannot_steer_the_terminal() -> None:
    assert harmless("a\x1b[31mb\r\n\u202ec") == "a\ufffd[31mb\ufffd\ufffd\ufffdc"
    assert harmless("Grüße 日本") == "Grüße 日本"


@pytest.mark.parametrize(("seconds", "text"), [(-3, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200_000, "2d")])
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_faults_look_like_a_compilers(capsys: pytest.CaptureFixture[str]) -> None:
    print_fault(Fault("is wrong", 2, 4), "job.jdl", "[\n\tab = 1;\n]")
    assert capsys.readouterr().err == "job.jdl:2:4: error: is wrong\n   ab = 1;\n     ^\n"
    print_fault(Fault("far", 1, 3000), "j", "x" * 5000)
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1][lines[2].index("^")] == "x"
