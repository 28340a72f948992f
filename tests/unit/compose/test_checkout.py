from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compose import checkout

PROJECT = """
[project]
name = "thing"
version = "1.2"
dependencies = ["rich>=13"]
[project.scripts]
thing = "thing_room.main:main"
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "thing_room").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "thing_room" / "main.py").write_text("def main():\n    print('it runs')\n    return 5\n")
    (tmp_path / "site").mkdir()
    (tmp_path / "bin").mkdir()
    checkout.install(root, tmp_path / "site", tmp_path / "bin")
    return tmp_path


def test_the_script_runs_the_checkout(installed: Path) -> None:
    assert (installed / "site/thing.pth").read_text().strip() == str(installed / "root")
    result = subprocess.run(
        [installed / "bin/thing"], env={"PYTHONPATH": str(installed / "root")}, cwd="/", capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (5, "it runs\n")
    assert os.access(installed / "bin/thing", os.X_OK)


def test_the_metadata_can_be_read_by_the_standard_library(installed: Path) -> None:
    found = importlib.metadata.Distribution.at(installed / "site/thing-1.2.dist-info")
    assert found.version == "1.2"
    assert found.requires == ["rich>=13"]
    assert [entry.value for entry in found.entry_points] == ["thing_room.main:main"]
    assert {str(file) for file in found.files or []} >= {"thing.pth", str(installed / "bin/thing")}


def test_a_second_installation_replaces_the_first(installed: Path) -> None:
    (installed / "root/pyproject.toml").write_text(PROJECT.replace("1.2", "1.3"))
    checkout.install(installed / "root", installed / "site", installed / "bin")
    assert [path.name for path in (installed / "site").glob("*.dist-info")] == ["thing-1.3.dist-info"]


def test_outside_a_virtual_environment_it_refuses() -> None:
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    result = subprocess.run([base, checkout.__file__], capture_output=True, text=True, env={})
    assert result.returncode == 1
    assert "virtual environment" in result.stderr
