"""What each attribute accepts."""

from __future__ import annotations

import msgspec
import pytest

from schemas.jdl import ATTRIBUTES, JobDescription, check, fill_job_id, parse, unparse
from schemas.jdl.attributes import closest_name


def one(text: str) -> JobDescription:
    checked = check(f"Executable = run.sh; {text}")
    assert checked.errors == ()
    (job,) = checked.jobs
    return job


def test_the_table_and_the_description_are_about_the_same_fields() -> None:
    fields = {field.name: field for field in msgspec.structs.fields(JobDescription)}
    job = JobDescription(executable="x")

    assert {attribute.field for attribute in ATTRIBUTES} | {"extra"} == set(fields)
    for attribute in ATTRIBUTES:
        assert fields[attribute.field].encode_name == attribute.name
        if attribute.field not in {"executable", "environment"}:
            assert getattr(job, attribute.field) == attribute.default


def test_defaults_are_those_of_the_language() -> None:
    job = one("")

    assert (job.job_name, job.job_type, job.std_output, job.std_error) == ("Unknown", "User", "std.out", "std.err")
    assert (job.cpu_time, job.priority, job.lease_duration) == (86400, 1, 7200)
    assert (job.min_processors, job.max_processors) == (1, 1)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [(a.name, a.minimum, a.maximum) for a in ATTRIBUTES if a.kind.value == "integer"],
)
def test_integers_have_bounds_and_are_never_clamped(name: str, low: int, high: int) -> None:
    assert one(f"{name} = {low};").attributes()[name] == low
    assert one(f"{name} = {high};").attributes()[name] == high
    for value in (low - 1, high + 1):
        (error,) = check(f"Executable = a;\n{name} = {value};").errors
        assert (error.line, error.column, error.attribute) == (2, len(name) + 4, name)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("Site = ANY;", "sites", ()),
        ('Site = "A.x, B.y";', "sites", ("A.x", "B.y")),
        ("Sites = {A, A, B};", "sites", ("A", "B")),
        ("BannedSite = A;", "banned_sites", ("A",)),
        ("Tag = GPU;", "tags", ("GPU",)),
        ("Platform = any;", "platforms", ()),
        ("WholeNode = yes;", "whole_node", True),
        ("WholeNode = 1 > 2;", "whole_node", False),
        ("LogLevel = debug;", "log_level", "DEBUG"),
        ("InputData = lfn:/vo/a;", "input_data", ("/vo/a",)),
        ('InputData = "";', "input_data", ()),
        ("InputSandbox = {lfn:/vo/a, sb:xyz, local/file};", "input_sandbox", ("LFN:/vo/a", "SB:xyz", "local/file")),
        ('OutputSandbox = {"*.log", "data/[ab]?.root"};', "output_sandbox", ("*.log", "data/[ab]?.root")),
        ("OutputData = {a.root, LFN:/vo/user/a.root};", "output_data", ("a.root", "LFN:/vo/user/a.root")),
        ('Environment = "A=1;B=2";', "environment", {"A": "1", "B": "2"}),
        ('Environment = "A=x;y";', "environment", {"A": "x;y"}),
        ('Environment = {"A=1=2", "B="};', "environment", {"A": "1=2", "B": ""}),
        ("Environment = [ path = 1; PATH = x; T = true ];", "environment", {"path": "1", "PATH": "x", "T": "true"}),
        ("ExecutionEnvironment = [ A = b ];", "environment", {"A": "b"}),
        ("Arguments = undefined;", "arguments", ""),
    ],
)
def test_accepted_forms(text: str, field: str, value: object) -> None:
    job = one(text)

    assert getattr(job, field) == value
    assert check(unparse(job)).jobs == (job,)


@pytest.mark.parametrize(
    "text",
    [
        'StdOutput = "/tmp/x";', 'StdError = "../x";', 'StdOutput = "a/b";', 'StdOutput = "";', 'StdOutput = {"a"};',
        'OutputSandbox = {"/etc/passwd"};', 'OutputSandbox = {"ok", "a/../../b"};', 'OutputSandbox = {"~/x"};',
        'OutputSandbox = {""};', 'OutputData = {"/abs"};', 'OutputData = {"LFN:x"};', 'OutputPath = "a/../b";',
        'InputData = {"relative"};', 'InputData = {"/vo//x"};', 'InputData = {"/vo"};', 'InputData = {"LFN:vo/x"};',
        'InputData = {"/vo/../x"};', 'InputSandbox = {"LFN:x"};', 'InputSandbox = {"SB:"};', 'InputSandbox = {""};',
        'Site = {"a b"};', 'Tags = {"x;y"};', "Tags = {[a = 1]};", "Tags = {undefined};", 'JobType = "a b";',
        'JobName = "a\\nb";', f'JobName = "{"x" * 256}";', "WholeNode = maybe;", "LogLevel = loud;",
        'Environment = {"A"};', 'Environment = {"1A=b"};', "Environment = 5;", 'Arguments = {"a"};',
        "MinNumberOfProcessors = 4; MaxNumberOfProcessors = 2;", "NumberOfProcessors = 4; MaxNumberOfProcessors = 8;",
        "Site = A; BannedSites = {A, B};",
    ],
)  # fmt: skip
def test_refused_values(text: str) -> None:
    checked = check(f"Executable = a;\n{text}")

    assert checked.jobs == ()
    assert len(checked.errors) == 1
    assert checked.errors[0].line == 2


@pytest.mark.parametrize("value", ['""', '"  "', "undefined", "{a}", '"a\\tb"', f'"{"x" * 5000}"'])
def test_the_executable_must_be_something(value: str) -> None:
    assert [error.attribute for error in check(f"Executable = {value};").errors] == ["Executable"]


def test_limits_of_lists_are_exact() -> None:
    files = ",".join(f"/vo/f{number}" for number in range(500))

    assert len(one(f"InputData = {{{files}}};").input_data) == 500
    (error,) = check(f"Executable = a; InputData = {{{files}, /vo/more}};").errors
    assert "501" in error.message


def test_input_data_lies_below_the_vo_where_it_is_known() -> None:
    text = "Executable = a;\nInputData = {/lhcb/x, LFN:/other/x};"

    assert len(check(text).jobs) == 1
    (error,) = check(text, vo="lhcb").errors
    assert (error.line, error.column, error.attribute) == (2, 23, "InputData")
    assert parse(text, vo="lhcb").count == 0


@pytest.mark.parametrize(
    ("given", "bounds"),
    [
        ("NumberOfProcessors = 4;", (4, 4)),
        ("MinNumberOfProcessors = 2; MaxNumberOfProcessors = 8;", (2, 8)),
        ("MinNumberOfProcessors = 2;", (2, None)),
        ("MaxNumberOfProcessors = 8;", (1, 8)),
        ("NumberOfProcessors = 4; MinNumberOfProcessors = 4;", (4, 4)),
    ],
)
def test_processors(given: str, bounds: tuple[int, int | None]) -> None:
    job = one(given)

    assert (job.min_processors, job.max_processors) == bounds


def test_arguments_are_split_as_in_a_shell_without_expansion() -> None:
    assert one("""Arguments = "-c 'echo one; echo $HOME' \\"a b\\" c\\\\ d";""").split_arguments() == [
        "-c", "echo one; echo $HOME", "a b", "c d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "meant"),
    [("Excutable", "Executable"), ("Argments", "Arguments"), ("StdOut", "StdOutput"), ("jobnmae", "JobName"),
     ("Parameter", "Parameters"), ("CpuTim", "CPUTime"), ("Sit", "Site"), ("Arguements", "Arguments")],
)  # fmt: skip
def test_misspelled_names_are_errors_that_name_the_right_one(written: str, meant: str) -> None:
    (error,) = check(f"Executable = a; {written} = b;").errors

    assert error.attribute == written
    assert meant in error.message


@pytest.mark.parametrize("name", ["X", "Y", "After", "Type", "DataType", "LHCbVersion", "Foo.Bar"])
def test_other_names_are_no_misspellings(name: str) -> None:
    assert closest_name(name) is None


def test_unknown_attributes_are_kept_with_a_warning() -> None:
    checked = check('Executable = a; MyTag = {1, "b", [c = 2.5]}; Ranking = other.Speed * 2;')
    (job,) = checked.jobs

    assert job.extra == {"MyTag": [1, "b", {"c": 2.5}], "Ranking": "other.Speed * 2"}
    assert {warning.attribute for warning in checked.warnings} == {"MyTag", "Ranking"}
    assert check(unparse(job)).jobs == (job,)


def test_what_the_server_sets_is_not_taken_from_the_text() -> None:
    checked = check("Executable = a; Owner = mallory; OwnerGroup = admin; VirtualOrganization = x; JobID = 5;")

    assert checked.jobs[0].extra == {}
    assert len(checked.warnings) == 4


def test_the_wire_carries_the_names_of_the_language_and_omits_defaults() -> None:
    job = one("Site = {A, B}; Environment = [ X = 1 ]; My = 5;")
    wire = msgspec.json.encode(job)

    assert msgspec.json.decode(wire) == {
        "Executable": "run.sh", "Site": ["A", "B"], "Environment": {"X": "1"}, "Extra": {"My": 5},
    }  # fmt: skip
    assert msgspec.json.decode(wire, type=JobDescription) == job


def test_output_shows_what_was_given_and_meaningful_defaults() -> None:
    output = check("Executable = a; Priority = 1; X = 2;").as_output()
    (job,) = output["jobs"]  # type: ignore[misc]  # a list, typed as object

    assert job["Priority"] == 1
    assert job["CPUTime"] == 86400
    assert job["X"] == 2
    assert job["InputSandbox"] == []
    assert "MaxRAM" not in job
    assert output["errors"] == []


def test_the_job_id_is_filled_in_everywhere() -> None:
    job = one('Arguments = "-j %j"; OutputSandbox = {"o_%j", "x"}; Environment = [ ID = "%j" ]; My = {[a = "%j"]};')
    filled = fill_job_id(job, 42)

    assert filled.arguments == "-j 42"
    assert filled.output_sandbox == ("o_42", "x")
    assert filled.environment == {"ID": "42"}
    assert filled.extra == {"My": [{"a": "42"}]}
    assert fill_job_id(filled, 7) is filled
