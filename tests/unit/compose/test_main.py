"""The script: its help is true, its commands are lazy, and nobody sees a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from compose import main as script
from compose.group import load
from producers.commands.exit_codes import ExitCode


def run(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": str(Path(script.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "compose.main", *words],
        capture_output=True, text=True, env=base | environment, cwd=cwd, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("mount", script.available(), ids=lambda mount: mount.name)
def test_the_table_says_what_the_commands_say(mount: script.Mount) -> None:
    """Word for word up to its end; the command itself may say more."""
    assert (load(mount).help or "").strip().startswith(mount.summary.rstrip("."))


def test_help_in_every_form() -> None:
    texts = {run(*words).stdout for words in ([], ["--help"], ["-h"], ["help"])}
    assert texts == {script.help_text() + "\n"}
    assert max(map(len, script.help_text().splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "forbidden"),
    [
        (["--help"], ("typer", "msgspec", "cryptography", "pika", "rich")),
        (["--version"], ("typer", "msgspec", "cryptography", "pika", "rich")),
        (["job", "--help"], ("cryptography", "pika", "rich", "sqlalchemy")),
        (["submit", "--check", "-"], ("cryptography", "pika", "rich", "sqlalchemy")),
    ],
)
def test_what_is_not_imported(words: list[str], forbidden: tuple[str, ...]) -> None:
    code = (
        "import io, sys; sys.stdin = io.TextIOWrapper(io.BytesIO(b'[Executable=1;]'))\n"
        f"from compose.main import run; run({words!r})\n"
        f"sys.exit(' '.join(name for name in {forbidden!r} if name in sys.modules) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
        cwd=Path(script.__file__).parents[1],
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bug_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def burst(_words: object) -> int:
        raise ZeroDivisionError("inside")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("PILOTAGE_DEBUG", raising=False)
    monkeypatch.setattr(script, "_dispatch", burst)
    assert script.run(["job"]) == ExitCode.INTERNAL == script.INTERNAL_ERROR
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    (log,) = (tmp_path / "pilotage").iterdir()
    assert str(log) in err
    assert "ZeroDivisionError: inside" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_errors_are_one_line(tmp_path: Path) -> None:
    done = run("job", "list", HOME=str(tmp_path))
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith("error: No deployment is configured")
    assert len(done.stderr.splitlines()) == 1
    (tmp_path / "bad.toml").write_text("[broker]\nport = 1\n")
    done = run("job", "list", PILOTAGE_CONFIG=str(tmp_path / "bad.toml"))
    assert (done.returncode, "[broker] host is missing" in done.stderr) == (2, True)


def test_what_the_machine_refuses_is_no_bug(tmp_path: Path) -> None:
    """A file in the way, a full disk: said in one line, with the place."""
    (tmp_path / "data").touch()
    done = run("up", "--data-dir", str(tmp_path / "data" / "local"))
    assert (done.returncode, done.stderr) == (ExitCode.NO, f"error: {tmp_path}/data/local: Not a directory\n")


@pytest.mark.parametrize("words", [["--help"], ["job", "--help"], ["submit", "--check", "-o", "json", "-"]])
def test_a_full_disk_below_the_output_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = in_shell(*words, stdout=full)
    assert (done.returncode, done.stderr) == (ExitCode.NO, "error: No space left on device\n")


@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_empty_streams(closing: str) -> None:
    """Started by a program that closed them, as some cron daemons do."""
    done = in_shell("submit", "--check", "-", closing=closing)
    assert done.returncode == ExitCode.USAGE
    assert "bug" not in done.stderr


def test_a_reader_that_has_left_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        done = in_shell("submit", "--check", "-o", "json", "-", stdout=gone)
    assert (done.returncode, done.stderr) == (script.READER_LEFT, "")


def in_shell(
    *words: str, closing: str = "", stdout: IO[str] | int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run the script as a shell would, with redirections; an empty description on standard input."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": str(Path(script.__file__).parents[1])}
    command = ["sh", "-c", f'"$@" {closing}', "sh", sys.executable, "-m", "compose.main", *words]
    return subprocess.run(
        command, input="", stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, timeout=60, check=False
    )  # fmt: skip


def test_completion_of_command_names_imports_none() -> None:
    done = run(_PILOTAGE_COMPLETE="complete_bash", COMP_WORDS="pilotage repl", COMP_CWORD="1")
    assert done.stdout.split() == ["replica"]
    done = run(_PILOTAGE_COMPLETE="complete_bash", COMP_WORDS="pilotage job k", COMP_CWORD="2")
    assert done.stdout.split() == ["kill"]
