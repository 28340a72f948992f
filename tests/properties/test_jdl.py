"""What holds for every text and every description."""

from __future__ import annotations

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.jdl import ATTRIBUTES, JobDescription, check, fill_job_id, parse, unparse
from schemas.jdl.attributes import LOG_LEVELS

SETTINGS = settings(max_examples=200, deadline=None)  # a busy machine is no failure

FRAGMENTS = st.sampled_from(
    [attribute.name for attribute in ATTRIBUTES]
    + ["Parameters", "ParameterStart", "Parameters.A", "X", "%s", "%(A)s", "%n", "%j", "true", "undefined", "strcat("]
    + list("[]{}();,=\"'\\/*#%.+-?:!&|<> \n\t")
    + ["==", "//", "/*", "*/", "=?=", "10", "0x1", "1e5", "é", "\x00", "a b"]
)
JDL_LIKE = st.lists(FRAGMENTS | st.text(max_size=5), max_size=40).map("".join)


def assert_sound(text: str | bytes) -> None:
    checked = check(text)
    assert not (checked.jobs and checked.errors)
    assert checked.jobs or checked.errors
    shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
    lines = shown.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for problem in checked.errors + checked.warnings:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 2  # the end of a CRLF line has one more
    for job in checked.jobs[:3]:
        assert check(unparse(job)).jobs == (job,)


@SETTINGS
@given(st.text(max_size=200))
def test_any_text_gives_jobs_or_errors_inside_the_text(text: str) -> None:
    assert_sound(text)


@SETTINGS
@given(st.binary(max_size=200))
def test_any_bytes_give_jobs_or_errors_inside_the_text(data: bytes) -> None:
    assert_sound(data)


@SETTINGS
@given(JDL_LIKE)
def test_texts_that_look_like_descriptions(text: str) -> None:
    assert_sound(text)
    assert_sound(f"Executable = x; {text}")
    assert_sound(f"Executable = x; Arguments = {text}")


@SETTINGS
@given(st.sampled_from([attribute.name for attribute in ATTRIBUTES]), JDL_LIKE, st.integers(1, 30))
def test_any_value_of_any_attribute_of_parametric_jobs(name: str, value: str, count: int) -> None:
    assert_sound(f"Executable = x; Parameters = {count}; {name} = {value};")


WORDS = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=20)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)
FILES = WORDS.filter(lambda name: name not in {".", ".."})
LFNS = st.lists(FILES, min_size=2, max_size=4).map(lambda parts: "/" + "/".join(parts))
NUMBERS = st.integers(1, 1024)


def names(items: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(items, max_size=5, unique=True).map(tuple)


EXTRA_NAMES = st.sampled_from(["MyOwn", "Qqqq", "Zzz.Www"])
EXTRA_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)
DESCRIPTIONS = st.builds(
    JobDescription,
    executable=TEXTS.filter(str.strip),
    arguments=st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t"), max_size=60),
    job_name=TEXTS,
    job_group=TEXTS,
    job_type=WORDS,
    std_output=FILES,
    std_error=FILES,
    input_sandbox=names(FILES | LFNS.map("LFN:{}".format)),
    output_sandbox=names(FILES | st.just("*.log")),
    input_data=names(LFNS),
    output_data=names(FILES | LFNS.map("LFN:{}".format)),
    output_se=names(WORDS),
    cpu_time=st.integers(100, 500_000),
    priority=st.integers(0, 10),
    sites=names(WORDS.filter(lambda name: name.upper() != "ANY")),
    grid_ces=names(WORDS),
    tags=names(WORDS),
    number_of_processors=st.none() | NUMBERS,
    whole_node=st.booleans(),
    max_ram=st.none() | NUMBERS,
    environment=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), TEXTS, max_size=4),
    lease_duration=st.integers(1, 172_800),
    log_level=st.sampled_from(LOG_LEVELS),
    stop_sig_regex=st.none() | TEXTS,
    extra=st.dictionaries(EXTRA_NAMES, EXTRA_VALUES, max_size=2),
)


@SETTINGS
@given(DESCRIPTIONS)
def test_the_canonical_text_says_the_same(description: JobDescription) -> None:
    checked = check(unparse(description))

    assert checked.errors == ()
    assert checked.jobs == (description,)
    assert check(unparse(description).encode()).jobs == (description,)


@SETTINGS
@given(DESCRIPTIONS, st.integers(1, 10**12))
def test_filling_in_the_job_id_leaves_none_behind(description: JobDescription, job_id: int) -> None:
    assert "%j" not in repr(fill_job_id(description, job_id))


@SETTINGS
@given(st.integers(1, 40), st.integers(-3, 3), st.integers(-2, 2), st.data())
def test_slices_are_parts_of_the_whole(count: int, step: int, factor: int, data: st.DataObject) -> None:
    template = parse(
        f'Executable = a; Arguments = "%s %n %(A)s"; OutputSandbox = {{"o_%n"}}; Parameters = {count};'
        f"ParameterStep = {step}; ParameterFactor = {factor}; ParameterStart.A = 2; ParameterStep.A = 0.5;"
    )
    whole = template.expand()
    start, stop = data.draw(st.integers(0, count)), data.draw(st.integers(0, count + 5))

    assert template.count == count == len(whole)
    assert template.expand(start, stop) == whole[start:stop]
