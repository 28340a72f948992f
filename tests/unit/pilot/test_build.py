"""What the build decides without a network: pins, imports, and which files of a wheel are taken."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from pilot.build import (
    BuildError,
    Pins,
    _check_wheel,
    imported_modules,
    own_files,
    parse_lock,
    required_distributions,
    wheel_files,
)

ROOT = Path(__file__).parents[3]
LOCK = f"""# made by a tool
Foo_Bar==1.2 \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
plain[extra]==3.0 ; python_version >= '3.11'
    # via foo
--index-url https://example.org
"""


def test_lock_is_read() -> None:
    pins = parse_lock(LOCK)
    assert pins.versions == {"foo-bar": "1.2", "plain": "3.0"}
    assert pins.hashes["foo-bar"] == {"a" * 64, "b" * 64}
    assert pins.hashes["plain"] == frozenset()


def test_imports_of_our_rooms_are_known_distributions() -> None:
    modules = imported_modules(ROOT)
    assert {"msgspec", "structlog"} <= modules
    assert "compose" not in modules
    assert "consumers" not in modules
    assert "msgspec" in required_distributions(modules)


def test_archive_holds_our_three_rooms_without_the_build() -> None:
    names = own_files(ROOT)
    assert {name.split("/")[0] for name in names} == {"pilot", "broker", "schemas"}
    assert "pilot/build.py" not in names
    assert "pilot/runner.py" in names


def wheel(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return path


def test_wheel_is_taken_without_bookkeeping(tmp_path: Path) -> None:
    names = ["a/b.py", "a/tests/t.py", "a-1.dist-info/RECORD", "a-1.dist-info/METADATA", "a-1.data/scripts/run"]
    assert set(wheel_files(wheel(tmp_path / "a-1-py3-none-any.whl", *names))) == {"a/b.py", "a-1.dist-info/METADATA"}


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py"])
def test_wheel_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BuildError, match="unsafe"):
        wheel_files(wheel(tmp_path / "a.whl", name))


def test_wheel_must_be_the_locked_one(tmp_path: Path) -> None:
    path = wheel(tmp_path / "foo_bar-1.2-py3-none-any.whl", "x.py")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _check_wheel(path, Pins({"foo-bar": "1.2"}, {"foo-bar": frozenset({digest})}))
    with pytest.raises(BuildError, match=r"requirements\.lock"):
        _check_wheel(path, Pins({"foo-bar": "1.2"}, {"foo-bar": frozenset({"a" * 64})}))
