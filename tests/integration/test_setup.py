"""The set-up finds what is there, and the checkout's packages are what a program outside of it imports."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("schemas", "broker", "producers", "consumers", "pilot", "compose")

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_ours_wherever_a_program_starts(room: str, tmp_path: Path) -> None:
    code = f"import {room}; print({room}.__file__)"
    result = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True)
    if "No module named" in result.stderr and not (Path(sys.prefix) / ".setup-dev").exists():
        pytest.fail("this environment was not made by `make setup`: run compose/checkout.py with its Python")
    assert result.stdout.strip() == str(ROOT / room / "__init__.py"), result.stderr


def test_servers_that_are_there_cost_no_time_and_no_words() -> None:
    begun = time.monotonic()
    result = subprocess.run(
        ["sh", ROOT / "compose/servers.sh", "rabbitmq", "postgres", "grid"], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("arguments", [[], ["mysql"], ["rabbitmq", "--help"]])
def test_odd_arguments_are_refused_in_words(arguments: list[str]) -> None:
    result = subprocess.run(["sh", ROOT / "compose/servers.sh", *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("pilotage: ")


def test_a_machine_without_a_usable_python_is_told_so(tmp_path: Path) -> None:
    for name in ("dirname", "cat", "sha256sum", "sh"):
        (tmp_path / name).symlink_to(_which(name))
    checkout = tmp_path / "checkout" / "compose"
    checkout.mkdir(parents=True)
    (checkout / "bootstrap.sh").write_text((ROOT / "compose/bootstrap.sh").read_text())
    for file in ("requirements.lock", "pyproject.toml", "compose/checkout.py"):
        (tmp_path / "checkout" / file).write_text("")
    result = subprocess.run(
        ["sh", checkout / "bootstrap.sh"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert not (tmp_path / "checkout" / ".venv").exists()


def _which(name: str) -> str:
    return next(path for folder in os.get_exec_path() if os.access(path := str(Path(folder) / name), os.X_OK))


def test_the_lock_files_name_no_index_and_hash_every_package() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert "--index-url" not in text
        entries = [line for line in text.splitlines() if line and line[0].isalpha()]
        assert len(entries) > 20
        assert all(line.rstrip().endswith("\\") and "==" in line for line in entries)


def test_the_developers_lock_holds_the_same_versions() -> None:
    def versions(name: str) -> set[str]:
        lines = (ROOT / name).read_text().splitlines()
        return {line.split(";")[0].rstrip(" \\") for line in lines if line and line[0].isalpha()}

    assert versions("requirements.lock") <= versions("requirements-dev.lock")
