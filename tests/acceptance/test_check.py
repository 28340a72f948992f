"""``pilotage submit --check`` from the command line: no server, no configuration, no proxy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
TEXTS = sorted((ROOT / "tests" / "fixtures" / "jdl").glob("*.jdl"))


def check(*words: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "compose.main", "submit", "--check", *words]
    return subprocess.run(command, input=text, capture_output=True, env=environment, timeout=60, check=False)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_fixtures(path: Path) -> None:
    done = check(str(path), "--output", "json")
    result = json.loads(done.stdout)
    assert set(result) == {"jobs", "errors"}
    assert done.returncode == (2 if result["errors"] else 0)
    assert bool(result["jobs"]) is not bool(result["errors"])
    lines = path.read_text().splitlines()
    for error in result["errors"]:
        assert set(error) == {"line", "column", "attribute", "message"}
        assert 1 <= error["line"] <= len(lines) + 1
        assert error["column"] >= 1
    assert done.stderr == b""


def test_every_error_at_once_from_standard_input() -> None:
    done = check("-", "-o", "json", text=b'[ Executable = "a";\n Priority = 11;\n CPUTime = 1; Sites = {"a" }; ]')
    errors = json.loads(done.stdout)["errors"]
    assert done.returncode == 2
    assert [(error["line"], error["attribute"]) for error in errors[:2]] == [(2, "Priority"), (3, "CPUTime")]


def test_people_see_the_line_and_a_caret() -> None:
    done = check("-", text=b'[\n  Executable = "a";\n  Priority = 11;\n]\n')
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("<stdin>:3:14: error: ")
    assert lines[1:3] == ["    Priority = 11;", "               ^"]
    assert done.stdout.decode() == "0 jobs, 1 error, 0 warnings\n"


@pytest.mark.parametrize(
    "text", [b"", b"\x00" * 100, b"\xff\xfe[\x00", b"[" * 60_000, b"x" * 200_000, b"[ Executable = \x1b[31m; ]"]
)
def test_garbage_is_an_error_and_no_traceback(text: bytes) -> None:
    done = check("-", text=text)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stderr


def test_missing_files_are_only_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "job.jdl"
    path.write_text('[ Executable = "a"; InputSandbox = "nowhere"; ]')
    done = check(str(path))
    assert (done.returncode, b"warning: cannot read 'nowhere'" in done.stderr) == (0, True)


def test_a_file_that_is_not_there() -> None:
    done = check("/nowhere.jdl")
    assert (done.returncode, done.stderr.decode()) == (
        2,
        "error: cannot read /nowhere.jdl: No such file or directory\n",
    )
