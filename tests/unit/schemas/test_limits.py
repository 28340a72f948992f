"""Scopes: one text form, whatever order they were written in, and any value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidInputError
from schemas.limits import Attribute, make_scope, parse_scope, scope_text

VALUES = st.text(
    st.one_of(st.sampled_from("\\\\,=*/ a"), st.characters(exclude_categories=["C", "Z"])), min_size=1
).filter(lambda value: value == value.strip())
SCOPES = st.dictionaries(st.sampled_from(Attribute), VALUES, min_size=1, max_size=2)


@given(SCOPES)
def test_what_is_written_is_read(wanted: dict[Attribute, str]) -> None:
    scope = make_scope([f"{attribute}={value}" for attribute, value in wanted.items()])
    assert dict(scope) == wanted
    assert parse_scope(scope_text(scope)) == scope


def test_the_order_of_attributes_is_ours() -> None:
    assert scope_text(parse_scope("group=g,site=S")) == "site=S,group=g"
    assert scope_text(make_scope(["owner=/CN=Doe, Jane"])) == "owner=/CN=Doe\\, Jane"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "is no scope"),
        ("site=A,", "is no scope"),
        ("site=A,,ce=B", "is no scope"),
        ("site=A\\", "is no scope"),
        ("site", "needs a value"),
        ("site=", "needs a value"),
        ("site=A\x1b[2J", "needs a value"),
        ("colour=red", "cannot be limited"),
        ("site=A,site=B", "twice"),
        ("site=A,ce=B,group=C", "one or two"),
    ],
)
def test_what_is_no_scope_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(InvalidInputError, match=wrong):
        parse_scope(text)
