"""pilotage-serve before it serves anything: wrong names and wrong files are said, never traced back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from compose.serve import main
from compose.services import MAKERS, NAMES


def test_there_is_a_maker_for_each_service() -> None:
    assert set(MAKERS) | {"gatekeeper"} == set(NAMES)


def test_unknown_services_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matcher", "nothing", "--config", "x"]) == 2
    told = capsys.readouterr().err
    assert "no such service: nothing" in told
    assert all(name in told for name in NAMES)


def test_a_missing_file_is_said_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "compose.serve", "all", "--config", str(tmp_path / "none.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == f"error: {tmp_path}/none.toml: cannot be read: No such file or directory\n"


def test_help_loads_neither_database_nor_broker() -> None:
    code = (
        "import sys\nfrom compose.serve import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'sqlalchemy', 'pika'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_logs_are_json_lines_on_standard_error() -> None:
    code = (
        "import structlog\nfrom compose.logging_setup import configure\nconfigure(json=True)\n"
        "log = structlog.get_logger('x')\nlog.debug('unseen')\n"
        "try: 1 / 0\nexcept ZeroDivisionError: log.exception('broken', job=7)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    told = json.loads(line)
    assert (told["event"], told["job"], told["level"]) == ("broken", 7, "error")
    assert "ZeroDivisionError" in told["exception"]
    assert told["timestamp"].endswith("Z")
