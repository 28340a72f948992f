"""Several jobs of one description."""

from __future__ import annotations

import pytest

from schemas.jdl import MAX_PARAMETRIC_JOBS, check, parse


def arguments(text: str) -> list[str]:
    checked = check(f"Executable = a; {text}")
    assert checked.errors == ()
    return [job.arguments for job in checked.jobs]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('Parameters = 3; Arguments = "%s";', ["1", "1", "1"]),
        ('Parameters = 3; ParameterStart = 0.; ParameterStep = 0.5; Arguments = "%s";', ["0.0", "0.5", "1.0"]),
        ('Parameters = 2; ParameterStep = 0.5; Arguments = "%s";', ["1.0", "1.5"]),  # DIRAC: one type for all
        ('Parameters = 3; ParameterFactor = -2; Arguments = "%s";', ["1", "-2", "4"]),
        ('Parameters = "2"; ParameterStart = "5"; Arguments = "%s %s";', ["5 5", "5 5"]),
        ('Parameters = 1 + 1; Arguments = "%n";', ["0", "1"]),
        ('Parameters = {a, "b c", 1.50, 007, 1 + 1,}; Arguments = "%s";', ["a", "b c", "1.50", "007", "2"]),
        ('Parameters.A = {x, y}; Arguments = "%(A)s %s %n";', ["x %s 0", "y %s 1"]),
        ('Parameters = 2; ParameterStart.A = 5; ParameterStep.A = 2; Arguments = "%(a)s %s";', ["5 1", "7 1"]),
        ('parameters = {"%n", "%s"}; Arguments = "%s%s";', ["%n%n", "%s%s"]),  # values are not searched again
        ('Parameters = 2; Arguments = "%%s %d %j %";', ["%1 %d %j %"] * 2),
        ('L = {x, y}; Parameters = L; Arguments = "%s";', ["x", "y"]),
    ],
)
def test_values_and_placeholders(text: str, values: list[str]) -> None:
    assert arguments(text) == values


def test_numbers_are_padded_to_equal_width_as_dirac_does() -> None:
    assert arguments("Parameters = 11; Arguments = %n;")[::5] == ["00", "05", "10"]
    assert arguments("Parameters = 10; Arguments = %n;")[9] == "9"


def test_placeholders_work_in_numbers_lists_and_unknown_attributes() -> None:
    jobs = check(
        'Executable = a; CPUTime = %s; OutputSandbox = {"o_%n", "x"}; Environment = [ V = "%s" ]; My = {"%s"};'
        "Parameters = {200, 300};"
    ).jobs

    assert [job.cpu_time for job in jobs] == [200, 300]
    assert [job.output_sandbox for job in jobs] == [("o_0", "x"), ("o_1", "x")]
    assert [job.environment for job in jobs] == [{"V": "200"}, {"V": "300"}]
    assert [job.extra for job in jobs] == [{"My": ["200"]}, {"My": ["300"]}]


@pytest.mark.parametrize("written", ["%(D)s", '"%(D)s"', '{"%(D)s"}', "{%(D)s}"])
def test_a_value_that_is_a_list_becomes_items_of_a_list(written: str) -> None:
    jobs = check(f"Executable = a; InputData = {written}; Parameters.D = {{{{/v/a, /v/b}}, {{/v/c}}}};").jobs

    assert [job.input_data for job in jobs] == [("/v/a", "/v/b"), ("/v/c",)]


@pytest.mark.parametrize(
    ("text", "attribute"),
    [
        ("Parameters = 0;", "Parameters"),
        ("Parameters = -1;", "Parameters"),
        ("Parameters = 2.5;", "Parameters"),
        ("Parameters = abc;", "Parameters"),
        ("Parameters = {};", "Parameters"),
        (f"Parameters = {MAX_PARAMETRIC_JOBS + 1};", "Parameters"),
        ("Parameters.A = 3;", "Parameters.A"),
        ("Parameters = {1, 2}; Parameters.A = {1};", "Parameters.A"),
        ("Parameters = 3; Parameters.A = {1};", "Parameters.A"),
        ("ParameterStart = 3;", "ParameterStart"),
        ("Parameters = 2; ParameterStep = abc;", "ParameterStep"),
        ("Parameters = 100; ParameterFactor = 10;", "Parameters"),
        ("Parameters = {[a = 1]};", "Parameters"),
        ("Parameters = {{{1}}};", "Parameters"),
        ('Parameters = 2; Arguments = "%(Z)s";', "Arguments"),
        ('Parameters = {{a, b}}; Arguments = "%s";', "Arguments"),
        ('Parameters = {{a, b}}; InputData = {"/v/%s"};', "InputData"),
        ("Parameters = {200, 5}; CPUTime = %s;", "CPUTime"),
        ('Parameters = {"a", "/b"}; StdOutput = %s;', "StdOutput"),
        ('Parameters = {"a", ".."}; OutputSandbox = {"%s"};', "OutputSandbox"),
        (f'Parameters = {{"a", "{"b" * 300}", "c"}}; JobName = %s;', "JobName"),
        ("Parameters = {A, B}; Site = %s; BannedSites = B;", "Site"),
        ("Parameters = {1, 8}; MinNumberOfProcessors = %s; MaxNumberOfProcessors = 4;", "MaxNumberOfProcessors"),
    ],
)
def test_refused(text: str, attribute: str) -> None:
    checked = check(f"Executable = a; {text}")

    assert checked.jobs == ()
    assert [error.attribute for error in checked.errors] == [attribute]


def test_an_executable_that_becomes_empty_is_refused() -> None:
    (error,) = check('Executable = "%s"; Parameters = {"a", ""};').errors

    assert "(job 1)" in error.message


def test_without_parameters_percent_signs_stay() -> None:
    checked = check('Executable = a; Arguments = "+%s %n %(x)s %j";')

    assert checked.jobs[0].arguments == "+%s %n %(x)s %j"
    assert [warning.attribute for warning in checked.warnings] == ["Arguments"]


def test_a_slice_is_expanded_without_the_others() -> None:
    template = parse(f"Executable = a; Arguments = %s; Parameters = {MAX_PARAMETRIC_JOBS}; ParameterStep = 1;")

    assert template.count == MAX_PARAMETRIC_JOBS
    assert [job.arguments for job in template.expand(99_998)] == ["99999", "100000"]
    assert template.expand(5, 5) == ()
    assert template.expand(200_000, 300_000) == ()


def test_the_longest_values_of_several_vectors_are_seen_together() -> None:
    long, short = "x" * 200, "x"
    text = f"Executable = a; JobName = %(A)s%(B)s; Parameters.A = {{{short}, {long}}}; Parameters.B = "

    assert check(text + f"{{{long}, {short}}};").errors == ()
    assert check(text + f"{{{short}, {long}}};").errors
