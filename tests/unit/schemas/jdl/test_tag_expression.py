from __future__ import annotations

import time

import pytest

from schemas.jdl import check, unparse
from schemas.jdl.tag_expression import (
    MAX_DEPTH,
    MAX_DISTINCT,
    MAX_LENGTH,
    TagExpressionError,
    holds,
    named,
    names_of,
    parse,
    settle,
)


@pytest.mark.parametrize(
    ("written", "tags", "text"),
    [
        ("", (), ""),
        ("  ", (), ""),
        ("a", ("a",), ""),
        ("b && a", ("a", "b"), ""),
        ("a || b", (), "a || b"),
        ("b||a", (), "a || b"),
        ("!a", (), "!a"),
        ("!!a", ("a",), ""),
        ("!(a || b)", (), "!a && !b"),
        ("b && c || a", (), "a || b && c"),
        ("(a || b) && c", ("c",), "a || b"),
        ("a && b || a && c", ("a",), "b || c"),
        ("a || !a", (), ""),
        ("a || a && b", ("a",), ""),
        ("a && !b || b && !a", (), "!a && b || a && !b"),
        ("'x&y' || !'(z)'", (), "!'(z)' || 'x&y'"),
        ("os:el9||cvmfs-2.x", (), "cvmfs-2.x || os:el9"),
    ],
)
def test_equal_wishes_have_one_form(written: str, tags: tuple[str, ...], text: str) -> None:
    found = settle((), written)
    assert found == (tags, text)
    assert settle(*found) == found


def test_the_tags_that_are_wanted_anyway_shorten_it() -> None:
    assert settle(("a",), "a && b || c") == (("a",), "b || c")
    assert settle(("a",), "!a || b") == (("a", "b"), "")
    assert settle(("a",), "a || b") == (("a",), "")
    assert settle(("b", "a"), "") == (("a", "b"), "")


@pytest.mark.parametrize(
    ("tags", "written", "told"),
    [((), "a && !a", "itself"), ((), "!(a || !a)", "itself"), (("a",), "!a", "Tags"), (("a", "b"), "!a || !b", "Tags")],
)
def test_what_no_node_can_fulfil(tags: tuple[str, ...], written: str, told: str) -> None:
    with pytest.raises(TagExpressionError, match=f"contradicts {told}"):
        settle(tags, written)


@pytest.mark.parametrize(
    ("written", "offset", "told"),
    [
        ("a b", 2, "write && (both) or ||"),
        ("a and b", 2, "write && for and"),
        ("a OR b", 2, "write || for OR"),
        ("not a", 4, "follows without an operator"),
        ("a & b", 2, "write &&"),
        ("a | b", 2, "write ||"),
        ("a, b", 1, "joined by &&"),
        ("(a", 0, "not closed"),
        ("a)", 1, "closes nothing"),
        ("&& a", 0, "missing before &&"),
        ("a &&", 4, "missing at the end"),
        ("a || ()", 6, "missing before )"),
        ("a && (b c)", 8, "follows without an operator"),
        ("!", 1, "missing at the end"),
        ("a\x00", 1, "does not belong"),
        ("'a b'", 0, "does not belong"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(written: str, offset: int, told: str) -> None:
    with pytest.raises(TagExpressionError) as caught:
        parse(written)
    assert told in str(caught.value)
    assert caught.value.offset == offset


def test_bounds() -> None:
    parse("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH)
    parse(" || ".join(f"t{number}" for number in range(MAX_DISTINCT)))
    parse("!" * (MAX_LENGTH - 1) + "a")
    for written, told in (
        ("(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1), "nested"),
        (" || ".join(f"t{number}" for number in range(MAX_DISTINCT + 1)), "33 different tags"),
        ("!" * MAX_LENGTH + "a", "characters long"),
    ):
        with pytest.raises(TagExpressionError, match=told):
            parse(written)


def test_what_would_grow_without_bound_is_refused_soon() -> None:
    names = [f"t{number}" for number in range(MAX_DISTINCT)]
    clauses = [(names[3 * n % 32], "!" + names[7 * n % 32], names[11 * n % 32]) for n in range(1, 90)]
    begun = time.process_time()
    with pytest.raises(TagExpressionError, match="too complicated"):
        settle((), " && ".join(f"({' || '.join(clause)})" for clause in clauses))
    assert time.process_time() - begun < 2


def test_one_form_may_be_short_where_the_other_is_not() -> None:
    pairs = [f"(a{number} || b{number})" for number in range(16)]
    assert settle((), " && ".join(pairs)) == ((), " && ".join(sorted(pairs)))


def test_truth() -> None:
    assert holds("", ())
    assert holds("a && !b", ("a",))
    assert not holds("a && !b", ("a", "b"))
    assert holds("a || b", {"b"})
    assert not holds("this is unreadable", ("this",))


def test_names() -> None:
    assert named("a && !b || c && !(d || !e)") == {"a", "c", "e"}
    assert named("") == frozenset()
    assert names_of("b && !a || b") == ("b", "a")


def errors(text: str) -> list[tuple[int, int, str | None, str]]:
    checked = check(f"Executable = a;\n{text}")
    assert checked.jobs == () or checked.errors == ()
    return [(error.line, error.column, error.attribute, error.message) for error in checked.errors]


def test_in_a_description() -> None:
    [job] = check('Executable = a; TagExpression = "gpu && (big || !slow)";').jobs
    assert job.tag_expression == "gpu && (big || !slow)"
    assert check(unparse(job)).jobs == (job,)
    assert check("Executable = a; TagExpression = gpu;").jobs[0].tag_expression == "gpu"
    assert check('Executable = a; TagExpression = "";').jobs[0].tag_expression == ""


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ('TagExpression = "a && !a";', (2, 17, "TagExpression"), "no node can fulfil it"),
        ('Tags = {"a", "b"}; TagExpression = "!a";', (2, 36, "TagExpression"), "contradicts Tags"),
        ('TagExpression = "a || (b";', (2, 17, "TagExpression"), "not closed (character 6)"),
        ("TagExpression = gpu && big;", (2, 24, "TagExpression"), "put text in double quotes"),
        ('TagExpression = "a && 8Processors";', (2, 17, "TagExpression"), "write MinNumberOfProcessors = 8"),
        ('TagExpression = "!wholenode";', (2, 17, "TagExpression"), "write WholeNode = true"),
        ('Parameters = 3; TagExpression = "a || t%n";', (2, 33, "TagExpression"), "the same for all jobs"),
        ('TagExpression = "a || t%j";', (2, 17, "TagExpression"), "the same for all jobs"),
        (
            'Parameters = {a, b}; Tags = "%s"; TagExpression = "!b";',
            (2, 51, "TagExpression"),
            "contradicts Tags (job 1)",
        ),
    ],
)
def test_errors_say_where_and_what_to_do(text: str, place: tuple[int, int, str], told: str) -> None:
    [(line, column, attribute, message)] = errors(text)
    assert (line, column, attribute) == place
    assert told in message


def test_all_errors_come_at_once() -> None:
    told = errors('TagExpression = "(a";\nArchitecture = zz;\nWallTime = 0;\nPool = ANY;\nGPUModel = "--";')
    assert [attribute for _, _, attribute, _ in told] == [
        "TagExpression", "Architecture", "WallTime", "Pool", "GPUModel",
    ]  # fmt: skip
