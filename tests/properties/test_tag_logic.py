"""Tag expressions against their truth tables: the canonical form says the same, and says it in one way."""

from __future__ import annotations

from itertools import chain, combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.jdl.tag_expression import MAX_LENGTH, TagExpressionError, holds, named, parse, settle

WORLDS = [frozenset(chosen) for chosen in chain.from_iterable(combinations("abcde", n) for n in range(6))]
expressions = st.recursive(
    st.sampled_from("abcde"),
    lambda part: st.one_of(
        part.map(lambda one: f"!({one})"),
        st.lists(part, min_size=2, max_size=3).map(lambda parts: f"({' && '.join(parts)})"),
        st.lists(part, min_size=2, max_size=3).map(lambda parts: f"({' || '.join(parts)})"),
    ),
    max_leaves=12,
)
wanted = st.lists(st.sampled_from("abc"), max_size=2, unique=True).map(lambda tags: tuple(sorted(tags)))


def table(tags: tuple[str, ...], expression: str) -> tuple[bool, ...]:
    return tuple(world.issuperset(tags) and holds(expression, world) for world in WORLDS)


@given(wanted, expressions)
@settings(max_examples=400, deadline=None)
def test_the_form_says_the_same(tags: tuple[str, ...], expression: str) -> None:
    truth = table(tags, expression)
    try:
        found = settle(tags, expression)
    except TagExpressionError:
        assert not any(truth)
        return
    assert any(truth)
    assert table(*found) == truth
    assert settle(*found) == found
    assert named(found[1]) <= set("abcde") - set(found[0])


@given(wanted, expressions, wanted, expressions)
@settings(max_examples=400, deadline=None)
def test_equal_meanings_have_equal_forms(
    tags: tuple[str, ...], expression: str, other_tags: tuple[str, ...], other: str
) -> None:
    # Two drawn at random seldom mean the same; the second, taken apart by cases of the first, always means the second.
    cases = f"({other}) && ({expression}) || ({other}) && !({expression})"
    forms: list[object] = []
    for text in (other, cases, f"!(!({other}))", f"({other}) && (a || !a)"):
        try:
            forms.append(settle(other_tags, text))
        except TagExpressionError:
            forms.append(None)
    assert forms.count(forms[0]) == len(forms)
    if table(tags, expression) == table(other_tags, other) and forms[0] is not None:
        assert settle(tags, expression) == forms[0]


@given(
    st.lists(
        st.sampled_from(["a", "b", "'x&'", "&&", "||", "!", "(", ")", " ", "&", "and", "\n", "é", ","]), max_size=60
    )
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_with_its_place(parts: list[str]) -> None:
    text = "".join(parts)
    offset = 0
    try:
        parse(text)
        settle((), text)
    except TagExpressionError as error:
        offset = error.offset
    assert 0 <= offset <= len(text) <= MAX_LENGTH
