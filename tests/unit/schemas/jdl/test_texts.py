"""How a text is read: strings, words, comments, recovery, hostile input."""

from __future__ import annotations

import pytest

from schemas.jdl import MAX_JDL_BYTES, JobDescription, check, unparse


def one(text: str) -> JobDescription:
    checked = check(text)
    assert checked.errors == ()
    (job,) = checked.jobs
    return job


def places(text: str | bytes) -> list[tuple[int, int, str | None]]:
    return [(error.line, error.column, error.attribute) for error in check(text).errors]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r'"a\"b\\c\n\t"', 'a"b\\c\n\t'),
        (r'"\101\7z"', "A\x07z"),
        (r'"\305\274"', "ż"),
        (r"'it\'s'", "it's"),
        ('"two\nlines"', "two\nlines"),
        ('"// no /* comment # here"', "// no /* comment # here"),
        ("word", "word"),
        ("foo-bar.baz", "foo-bar.baz"),
        ("/bin/ls", "/bin/ls"),
        ("http://host/path", "http://host/path"),
        ("LFN:/vo/file", "LFN:/vo/file"),
        ("00012345", "00012345"),
        ("2024-01-01", "2024-01-01"),
        ("1.50", "1.50"),
        ("true", "true"),
        ("5", "5"),
        ("$HOME", "$HOME"),
        ("word // comment\n", "word"),
        ("word/* comment */", "word"),
        ('strcat("a", 1, 2.5)', "a12.5"),
        ('1 > 2 ? "x" : "y"', "y"),
        ("1 + 2", "3"),
    ],
)
def test_text_values(written: str, value: str) -> None:
    checked = check(f"Executable = x; StopSigRegex = {written};")
    control = any(ord(character) < 32 for character in value)
    if control:  # only Arguments may hold such characters
        checked = check(f"Executable = x; Extra1 = {written};")
        assert checked.jobs[0].extra["Extra1"] == value
    else:
        assert checked.jobs[0].stop_sig_regex == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("3600 * 24", 86400), ("3600*24", 86400), ("X + 1", 501), ("0x1F4", 500), ("1K", 1024), ("1e3", 1000),
        ("500.", 500), ('"3600"', 3600), ("-(-200)", 200), ("7200 / 7 % 1000 + 100", 128), ("max(100, X)", 500),
        ("ifThenElse(X == 500, 200, 100)", 200), ("undefinedName =?= undefined ? 200 : 300", 200),
        ("{100, 200}[1]", 200), ("[a = 300].a", 300), ("R.b", 400), ("int(150.9)", 150), ("300 << 1", 600),
        ("true && X > 1 ? 101 : 102", 101), ("false && nothing ? 101 : 102", 102),
    ],
)  # fmt: skip
def test_numbers_and_constant_expressions(written: str, value: int) -> None:
    assert one(f"Executable = x; X = 500; R = [ b = 400 ]; CPUTime = {written};").cpu_time == value


@pytest.mark.parametrize(
    "written",
    ["2.5", "abc", '"12x"', "0100", "{1}", "true", "Y * 2", "5 / 0", "CPUTime", "A", "99999999999999999999", "1e999",
     '"a" * 2', "time()", "strcat()", "0x", "other.X", "1 +", "(100", "100)", "-1", "99", "500001"],
)  # fmt: skip
def test_values_that_are_no_cpu_time_are_refused_at_their_place(written: str) -> None:
    checked = check(f"Executable = x; A = B; B = A;\nCPUTime = {written};")

    assert checked.jobs == ()
    assert any(error.line == 2 and error.attribute == "CPUTime" and error.column >= 9 for error in checked.errors)


def test_names_of_attributes_have_any_case_and_one_spelling_in_output() -> None:
    job = one("EXECUTABLE = a; cputime = 200; 'jobname' = b;")

    assert job.attributes()["CPUTime"] == 200
    assert (job.executable, job.job_name) == ("a", "b")


def test_byte_order_mark_and_line_ends_do_not_shift_places() -> None:
    assert places(b"\xef\xbb\xbfExecutable = x;\r\nPriority = 99;\r\n") == [(2, 12, "Priority")]
    assert places("Executable = x;\rPriority = 99;") == [(2, 12, "Priority")]
    assert places("\ufeffPriority = 99; Executable = x") == [(1, 12, "Priority")]


def test_all_errors_of_a_text_come_at_once() -> None:
    text = """[
  Executable = "run.sh";
  Arguments = "never closed;
  Priority = 50;
  OutputSandbox = {"a" "b"};
  Argments = "x";
  CPUTime = ;
  StdOutput = "/tmp/out";
  Environment = [ A = ; B = 2 ];
  MaxRAM = 0
  Tags = {"ok", "not ok"};
]
"""
    assert places(text) == [
        (3, 15, "Arguments"),
        (4, 14, "Priority"),
        (5, 24, "OutputSandbox"),
        (6, 3, "Argments"),
        (7, 13, "CPUTime"),
        (8, 15, "StdOutput"),
        (9, 23, "Environment"),
        (10, 12, "MaxRAM"),
        (10, 13, "MaxRAM"),
        (11, 17, "Tags"),
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('Executable = "a', (1, 14)),
        ('Executable = a;\nArguments = "b;\nStdOutput = "c";', (2, 13)),
        ("Executable = a; /* never", (1, 17)),
        ("[ Executable = a;", (1, 1)),
        ("Executable = a; ]", (1, 17)),
        ("[ Executable = a; ] more", (1, 21)),
        ("Executable = a\nArguments = b", (1, 15)),
        ("Executable = a b;", (1, 16)),
        ('Executable = "a" "b";', (1, 18)),
        ("Executable == a;", (1, 12)),
        ('Executable = a; Site = {"x",,"y"};', (1, 29)),
        ('Executable = a; Site = {"x"; Priority = 1;', (1, 24)),
        ("Executable = “a”;", (1, 14)),
        ("'not a name' = 1; Executable = a;", (1, 1)),
        (r'Executable = "a\0b";', (1, 14)),
        (r'Executable = "\377";', (1, 14)),
        ("Executable = a\x00b;", (1, 15)),
        ("Executable = 'a\ud800b';", (1, 16)),
        (b"Executable = a;\nJobName = '\xff';", (2, 12)),
        (b"\xff\xfeE\x00", (1, 1)),
        ("", (1, 1)),
        ("  \n ", (1, 1)),
        ("// nothing", (1, 1)),
        ("hello", (1, 6)),
        (" " * (MAX_JDL_BYTES + 1), (1, 1)),
        ("é" * (MAX_JDL_BYTES // 2 + 1), (1, 1)),
    ],
)
def test_broken_texts_are_reported_at_the_break(text: str | bytes, place: tuple[int, int]) -> None:
    assert place in [(line, column) for line, column, _ in places(text)]


def test_a_shell_script_in_a_string_is_no_unclosed_string() -> None:
    script = "-c 'A=1; B=2\nC = 3; echo $A'"

    assert one(f'Executable = sh; Arguments = "{script}";').arguments == script


def test_the_last_of_several_counts_and_the_first_is_warned_about() -> None:
    checked = check("Executable = a;\nExecutable = b; Tag = x; Tags = y;")

    assert checked.jobs[0].executable == "b"
    assert checked.jobs[0].tags == ("y",)
    assert [(w.line, w.attribute) for w in checked.warnings] == [(1, "Executable"), (2, "Tag")]


def test_unknown_escapes_drop_the_backslash_with_a_warning() -> None:
    checked = check(r'Executable = a; StopSigRegex = "\w+";')

    assert checked.jobs[0].stop_sig_regex == "w+"
    assert [(w.column, w.attribute) for w in checked.warnings] == [(33, "StopSigRegex")]


@pytest.mark.parametrize(
    "unit",
    ["[", "{", "(", '"\\', '"', "'", "/*", "/", "A=[", "A={", "A=((", "!", "A=-", "a.", "A=1?", '"\n', '"x;\nB=',
     "A=[B=1;", "%(", "a[0]", "x=1 ", "\\", ";", "]", "}", "A=1e", "f(", "#", "//", "=", '"a;b=', "XX = YY ", "A=B;",
     ",", "\n"],
)  # fmt: skip
@pytest.mark.timeout(20)
def test_hostile_texts_end_quickly_with_bounded_errors(unit: str) -> None:
    for prefix in ("", "Executable = a; A = ", 'Executable = "', "Executable = a; Site = {"):
        checked = check(prefix + unit * (60_000 // len(unit)))
        assert len(checked.errors) <= 50


def test_values_that_double_at_each_step_are_stopped() -> None:
    for form in ("strcat(A{0}, A{0})", "{{A{0}, A{0}}}"):
        text = "Executable = a; A0 = xxxxxxxxxxxxxxxxxxxxxxxx;" + "".join(
            f"A{number} = {form.format(number - 1)};" for number in range(1, 60)
        )
        assert check(text).errors


def test_nesting_through_references_is_bounded() -> None:
    for form in ("{{A{0}}}", "[b = A{0}]", "A{0} + 1", "{{{{{{{{{{A{0}}}}}}}}}}}", "-(A{0})"):
        text = "Executable = a; Environment = [ V = A19 ]; Site = A18; A0 = 1;" + "".join(
            f"A{number} = {form.format(number - 1)};" for number in range(1, 20)
        )
        checked = check(text)
        assert checked.jobs or checked.errors
        assert all(check(unparse(job)).jobs == (job,) for job in checked.jobs)


def test_too_many_unknown_attributes_are_refused() -> None:
    assert check("Executable = a;" + "".join(f"MyOwn{number} = 1;" for number in range(101))).errors
