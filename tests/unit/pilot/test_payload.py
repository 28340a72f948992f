"""The environment is ours where it must be, and the user's everywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.payload import (
    Outcome,
    PayloadSpec,
    PayloadStartError,
    Usage,
    build_command,
    build_environment,
    describe_signal,
)

NOTHING = Usage(0, 0, 0, 0, 0, 0)


def spec(**fields: object) -> PayloadSpec:
    return PayloadSpec("12", 3, Path("/work/12-3"), "/bin/true", **fields)  # type: ignore[arg-type]


def test_names_that_payloads_expect() -> None:
    found = build_environment(spec(proxy=Path("/p/x509"), site="LCG.CERN.ch", processors=4, memory_mb=2000), "pilot1")
    assert found["X509_USER_PROXY"] == "/p/x509"
    assert found["PILOTAGE_JOB_ID"] == found["JOBID"] == "12"
    assert found["PILOTAGE_ATTEMPT"] == "3"
    assert found["PILOTAGE_SITE"] == found["DIRACSITE"] == "LCG.CERN.ch"
    assert found["PILOTAGE_PROCESSORS"] == found["DIRAC_JOB_PROCESSORS"] == "4"
    assert found["PILOTAGE_MEMORY_MB"] == "2000"
    assert found["HOME"] == found["TMPDIR"] == "/work/12-3"
    assert found["USER"] == "pilot1"


def test_users_add_and_change_but_not_what_is_protected() -> None:
    asked = {
        "MINE": "1",
        "PATH": "/opt/bin",
        "LANG": "de_DE",
        "HOME": "/root",
        "PILOTAGE_NEW": "x",
        "X509_USER_PROXY": "/y",
    }
    found = build_environment(spec(environment=asked), "u")
    assert (found["MINE"], found["PATH"], found["LANG"]) == ("1", "/opt/bin", "de_DE")
    assert found["HOME"] == "/work/12-3"
    assert "PILOTAGE_NEW" not in found
    assert "X509_USER_PROXY" not in found


def test_null_characters_are_refused() -> None:
    with pytest.raises(PayloadStartError, match="null"):
        build_command(spec(arguments=("a\0b",)), "/bin")


def test_a_payload_sees_its_own_gpus_and_no_others() -> None:
    wish = {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "NVIDIA_VISIBLE_DEVICES": "all"}
    some = build_environment(spec(gpus=("GPU-1", "GPU-2"), environment=wish), "u")
    assert (some["CUDA_VISIBLE_DEVICES"], some["PILOTAGE_GPUS"]) == ("GPU-1,GPU-2", "2")
    assert some["NVIDIA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    none = build_environment(spec(environment=wish), "u")
    assert (none["CUDA_VISIBLE_DEVICES"], none["NVIDIA_VISIBLE_DEVICES"]) == ("", "void")
    assert none["PILOTAGE_GPUS"] == "0"


def test_bad_environment_is_refused() -> None:
    for name, value in (("A=B", "x"), ("", "x"), ("A", "x\0y"), ("A\0", "x")):
        with pytest.raises(PayloadStartError, match="Environment"):
            build_environment(spec(environment={name: value}), "u")


def test_prefix_comes_first() -> None:
    assert build_command(spec(prefix=("bwrap", "--"), arguments=("a",)), "/bin") == ["bwrap", "--", "/bin/true", "a"]


def test_outcome_in_words() -> None:
    assert Outcome(3, None, None, NOTHING).describe() == "payload ended with exit code 3"
    assert "SIGXFSZ" in Outcome(None, 25, None, NOTHING).describe()
    assert Outcome(0, None, "lease over", NOTHING).describe() == "lease over"
    assert not Outcome(0, None, "lease over", NOTHING).succeeded
    assert describe_signal(63) == "signal 63"
