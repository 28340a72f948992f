from __future__ import annotations

import pytest

from schemas.jdl import check
from schemas.jdl.architecture import (
    ArchitectureError,
    architecture_serves,
    parse_architecture,
    wanted_architecture,
)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("x86_64", "x86_64"),
        ("x86_64-v1", "x86_64"),
        ("x86_64_v2", "x86_64-v2"),
        ("x86-64-v3", "x86_64-v3"),
        (" X86_64-V4 ", "x86_64-v4"),
        ("AMD64-v3", "x86_64-v3"),
        ("arm64", "aarch64"),
        ("aarch64-v8", "aarch64"),
        ("aarch64_v8.2", "aarch64-v8.2"),
        ("i586", "i686"),
        ("ppc64le", "ppc64le"),
        ("riscv64-v1", "riscv64-v1"),
    ],
)
def test_one_spelling_each(written: str, canonical: str) -> None:
    assert str(wanted_architecture(written)) == canonical
    assert str(parse_architecture(canonical)) == canonical


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("x86_64-v5", "those of x86_64 are v1 to v4"),
        ("x86_64-v0", "those of x86_64 are v1 to v4"),
        ("x86_64-v2.1", "those of x86_64 are v1 to v4"),
        ("x86_64v3", "did you mean x86_64-v3?"),
        ("x86_64-3", "did you mean x86_64-v3?"),
        ("amd64v3", "did you mean x86_64-v3?"),
        ("x86", "did you mean x86_64?"),
        ("x86_65", "did you mean x86_64?"),
        ("skylake", "known families are x86_64, aarch64"),
        ("x86_64-v2-v3", "write the family"),
        ("x86_64 v3", "write the family"),
        ("", "write the family"),
        ("x" * 65, "at most 64 characters"),
    ],
)
def test_slips_are_told_with_a_hint(written: str, told: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        wanted_architecture(written)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("offered", "wanted", "serves"),
    [
        ("x86_64-v3", "x86_64-v3", True),
        ("x86_64-v4", "x86_64-v2", True),
        ("x86_64-v2", "x86_64-v3", False),
        ("x86_64", "x86_64-v2", False),
        ("x86_64", "x86_64", True),
        ("x86_64-v10", "x86_64-v4", True),
        ("aarch64", "x86_64", False),
        ("aarch64-v9", "aarch64-v8.2", True),
        ("aarch64-v8.1", "aarch64-v8.2", False),
        ("aarch64", "aarch64-v8", True),
        ("skylake", "x86_64", False),
        ("", "x86_64", False),
        ("?", "x86_64", False),
    ],
)
def test_same_family_and_at_least_the_level(offered: str, wanted: str, serves: bool) -> None:
    assert architecture_serves(offered, wanted) is serves


def test_in_a_description() -> None:
    [job] = check("Executable = a; Architecture = x86_64_v2;").jobs
    assert job.architecture == "x86_64-v2"
    assert check("Executable = a; Architecture = any;").jobs[0].architecture == ""
    [error] = check('Executable = a;\nArchitecture = "x86_64v2";').errors
    assert (error.line, error.column, error.attribute) == (2, 16, "Architecture")
    assert "did you mean x86_64-v2?" in error.message
