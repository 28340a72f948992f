"""Numbers that DIRAC writes as tags keep their meaning."""

from __future__ import annotations

import pytest

from schemas.jdl import check, unparse
from schemas.jdl.number_tags import is_number_tag, replacement


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Tags = 8Processors;", {"min_number_of_processors": 8}),
        ("Tags = 1Processors;", {}),
        ("Tags = MultiProcessor;", {"min_number_of_processors": 2}),
        ("Tag = multiprocessor;", {"min_number_of_processors": 2}),
        ('Tags = "MultiProcessor, 8Processors";', {"min_number_of_processors": 8}),
        ("Tags = 4Processors; NumberOfProcessors = 8;", {"number_of_processors": 8}),
        ("Tags = 4Processors; MinNumberOfProcessors = 2;", {"min_number_of_processors": 4}),
        (
            "Tags = 4Processors; MaxNumberOfProcessors = 8;",
            {"min_number_of_processors": 4, "max_number_of_processors": 8},
        ),
        ("Tags = WholeNode;", {"whole_node": True}),
        ('Tags = "WholeNode, MultiProcessor";', {"whole_node": True}),
        ("Tags = 4GB;", {"min_ram": 4000}),
        ('Tags = "4GB, 2000MB";', {"min_ram": 4000}),
        ("Tags = 4GB; MaxRAM = 6000;", {"min_ram": 4000, "max_ram": 6000}),
        ('Tags = "gpu, 2Processors, cvmfs";', {"tags": ("gpu", "cvmfs"), "min_number_of_processors": 2}),
    ],
)
def test_they_become_numbers(text: str, meaning: dict[str, object]) -> None:
    checked = check(f"Executable = a; {text}")
    [job] = checked.jobs
    assert job.tags == meaning.pop("tags", ())
    plain = check("Executable = a;").jobs[0]
    assert {name: getattr(job, name) for name in job.__struct_fields__ if name != "tags"} == {
        name: meaning.get(name, getattr(plain, name)) for name in job.__struct_fields__ if name != "tags"
    }
    assert checked.warnings
    assert all("write " in warning.message and warning.attribute == "Tags" for warning in checked.warnings)
    again = check(unparse(job))
    assert (again.jobs, again.warnings) == ((job,), ())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "Tags = 8Processors; NumberOfProcessors = 4;",
            "8Processors in Tags contradicts NumberOfProcessors, which is 4",
        ),
        ("Tags = MultiProcessor; MaxNumberOfProcessors = 1;", "contradicts MaxNumberOfProcessors, which is 1"),
        ("Tags = 4GB; MaxRAM = 2000;", "4GB in Tags contradicts MaxRAM, which is 2000"),
        ("Tags = 99999GB;", "the highest MinRAM"),
        ("Tags = 5000Processors;", "the highest MinNumberOfProcessors"),
    ],
)
def test_contradictions_are_errors(text: str, told: str) -> None:
    [error] = check(f"Executable = a;\n{text}").errors
    assert told in error.message
    assert (error.line, error.column, error.attribute) == (2, 8, "Tags")


def test_each_job_has_its_own() -> None:
    jobs = check('Executable = a; Parameters = {2, 4}; Tags = "%sProcessors";').jobs
    assert [job.min_processors for job in jobs] == [2, 4]
    [error] = check('Executable = a; Parameters = {2, 4}; Tags = "%sProcessors"; NumberOfProcessors = 3;').errors
    assert error.message.endswith("(job 1)")


@pytest.mark.parametrize("tag", ["gpu", "8processor-nodes", "GB", "WholeNodes", "x4GB", "4 GB", "Multi"])
def test_other_tags_stay(tag: str) -> None:
    assert not is_number_tag(tag)


def test_replacements() -> None:
    assert replacement("8Processors") == "MinNumberOfProcessors = 8"
    assert replacement("MULTIPROCESSOR") == "MinNumberOfProcessors = 2"
    assert replacement("WholeNode") == "WholeNode = true"
    assert replacement("4gb") == "MinRAM = 4000"
    assert replacement("2500MB") == "MinRAM = 2500"
