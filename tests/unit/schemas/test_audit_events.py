"""The table of the audit's events: every place that writes one names it and its facts as the table does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from schemas.audit_events import EVENTS, MAX_ITEMS, MAX_TEXT, fitting, ranges

ROOT = Path(__file__).parents[3]
SECRETS = re.compile(r"password|secret|private|pem|assertion|jws|token|csr")
DOTTED = re.compile(r"[a-z]+(\.[a-z-]+)+")
WRITERS = ("_note", "_audit", "_deny", "append", "append_many", "_say", "_closed")


def test_no_fact_is_meant_for_a_secret() -> None:
    for name, event in EVENTS.items():
        assert not [field for field in event.fields if SECRETS.search(field)], name


def test_every_event_says_what_it_means() -> None:
    for name, event in EVENTS.items():
        assert re.fullmatch(r"[a-z]+(\.[a-z-]+)*", name)
        assert event.meaning.endswith(".")
        assert event.who
        assert all(event.fields.values())


def test_what_the_services_write_is_in_the_table() -> None:
    """Names that are put together at run time are refused there (`fitting`), and tests of each service meet them."""
    written = set()
    for path in (ROOT / "consumers").rglob("*.py"):
        text = path.read_text("utf-8")
        if "audit" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and _name(node.func) in WRITERS:
                written |= {
                    word.value
                    for argument in node.args
                    for word in ast.walk(argument)
                    if isinstance(word, ast.Constant) and isinstance(word.value, str) and DOTTED.fullmatch(word.value)
                }
    assert {"audit.strays", "proxy.issued", "dead.replayed", "enrolment.used"} <= written
    assert not written - EVENTS.keys()


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def test_what_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no event 'lunch'"):
        fitting("lunch", {})
    with pytest.raises(ValueError, match="carries no password"):
        fitting("login", {"group": "g", "password": "x"})


def test_long_facts_are_cut() -> None:
    assert fitting("login.denied", {"reason": "x" * 5000})["reason"] == "x" * MAX_TEXT
    assert fitting("dead.replayed", {"letters": list(range(1000))})["letters"] == list(range(MAX_ITEMS))
    assert fitting("login", {"not_after": 1.5}) == {"not_after": 1.5}


def test_ranges() -> None:
    assert ranges([]) == ""
    assert ranges([3, 1, 2, 9, 7, 8, 5, 5]) == "1-3,5,7-9"
    assert len(ranges(list(range(0, 10_000, 2)))) <= MAX_TEXT
