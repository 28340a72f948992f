"""Building `pilot.pyz`: the pilot with all that it imports in one file (`python -m pilot.build`).

Promises: the archive holds `pilot`, `broker` and `schemas`, and the wheels of what these import, for CPython 3.11 to
3.13 on x86_64 (manylinux); versions are those of `requirements.lock` (where it is missing, those installed here);
the same inputs give the same bytes. Wheels come through pip and are kept in `build/wheels`.
Lies elsewhere: what happens at the start of the archive (:mod:`pilot.bootstrap`). This module is not in the archive.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from schemas.errors import PilotageError

from . import bootstrap

ROOMS = ("pilot", "broker", "schemas")
PYTHONS = ("3.11", "3.12", "3.13")
MACHINE = "x86_64"
# The oldest first: pip prefers the first that a distribution offers, and an older glibc runs on more nodes.
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
# Only needed to build, or at the top of the archive.
_LEFT_OUT = frozenset({"pilot/build.py", "pilot/bootstrap.py"})
_DATA_SUFFIXES = frozenset({".py", ".pyi", ".yaml", ".json", ".typed"})
# Zip cannot say earlier; a fixed time makes builds reproducible.
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Readable by every Python since 2.7, to tell it politely that it is too old.
_START = b"""import sys
if sys.version_info < (3, 11):
    sys.exit("pilot.pyz: needs CPython 3.11 to 3.13; this is %d.%d" % sys.version_info[:2])
import bootstrap
sys.exit(bootstrap.main(sys.path[0]))
"""
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class BuildError(PilotageError):
    """The pilot archive could not be built."""


@dataclass(frozen=True, slots=True)
class Pins:
    """Versions by normal distribution name, and the SHA-256 of their files where the lock tells."""

    versions: Mapping[str, str]
    hashes: Mapping[str, frozenset[str]]


def normal(name: str) -> str:
    """The normal form of a distribution name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_lock(text: str) -> Pins:
    """Read `name==version` lines, with `--hash` continuations, of a requirements file."""
    versions: dict[str, str] = {}
    hashes: dict[str, frozenset[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        found = _PIN.match(line.strip())
        if found:
            name = normal(found[1])
            versions[name] = found[2]
            hashes[name] = frozenset(_HASH.findall(line))
    return Pins(versions, hashes)


def installed_pins() -> Pins:
    """The versions of this environment, for a checkout without a lock."""
    return Pins({normal(d.metadata["Name"]): d.version for d in metadata.distributions()}, {})


def imported_modules(root: Path, rooms: Iterable[str] = ROOMS) -> frozenset[str]:
    """Top-level names of all foreign modules that the rooms import anywhere."""
    names: set[str] = set()
    for path in _sources(root, rooms):
        if path.suffix != ".py" or str(path.relative_to(root)) in _LEFT_OUT:
            continue
        for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    return frozenset(names - sys.stdlib_module_names - frozenset(rooms))


def required_distributions(modules: Iterable[str]) -> list[str]:
    """The distributions that provide these modules."""
    known = metadata.packages_distributions()
    return sorted({normal(known.get(module, [module])[0]) for module in modules})


def download_wheels(names: Iterable[str], pins: Pins, python: str, folder: Path) -> list[Path]:
    """Wheels of these distributions and all that they need, for one Python; from the folder if it has them already.

    Raises:
        BuildError: if pip fails or a wheel is not the one of the lock.
    """
    wanted = sorted(names)
    key = hashlib.sha256(repr((wanted, sorted(pins.versions.items()), PLATFORMS)).encode()).hexdigest()[:16]
    target = folder / f"cp{python.replace('.', '')}-{key}"
    done = target / "complete"
    if not done.exists():
        target.mkdir(parents=True, exist_ok=True)
        constraints = target / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins.versions.items())))
        _pip_download(wanted, constraints, python, target)
        done.touch()
    wheels = sorted(target.glob("*.whl"))
    for wheel in wheels:
        _check_wheel(wheel, pins)
    return wheels


def _pip_download(wanted: list[str], constraints: Path, python: str, target: Path) -> None:
    abis = (f"cp{python.replace('.', '')}", "abi3", "none")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={python}", f"--dest={target}", f"--constraint={constraints}"]
    command += [f"--platform={name}" for name in PLATFORMS] + [f"--abi={abi}" for abi in abis]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"pip could not fetch the wheels for Python {python}:\n{done.stderr.strip()}")


def _check_wheel(wheel: Path, pins: Pins) -> None:
    allowed = pins.hashes.get(normal(wheel.name.split("-", 1)[0]))
    if allowed and hashlib.sha256(wheel.read_bytes()).hexdigest() not in allowed:
        raise BuildError(f"{wheel.name} is not the file that requirements.lock names")


def _sources(root: Path, rooms: Iterable[str]) -> Iterator[Path]:
    for room in rooms:
        yield from sorted(path for path in (root / room).rglob("*") if path.suffix in _DATA_SUFFIXES)


def own_files(root: Path) -> dict[str, bytes]:
    """Our own files for the archive."""
    paths = ((path.relative_to(root).as_posix(), path) for path in _sources(root, ROOMS))
    return {name: path.read_bytes() for name, path in paths if name not in _LEFT_OUT}


def wheel_files(wheel: Path) -> dict[str, bytes]:
    """What a wheel installs into site-packages (licences too), without its tests and bookkeeping.

    Raises:
        BuildError: if the wheel holds a name that leaves its folder.
    """
    files = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise BuildError(f"{wheel.name} holds the unsafe name {name!r}")
            if name.endswith(("/", "/RECORD")) or "tests" in path.parts or path.parts[0].endswith(".data"):
                continue
            files[name] = archive.read(name)
    return files


def write_archive(output: Path, trees: Mapping[str, Mapping[str, bytes]]) -> None:
    """Write the archive: a manifest per interpreter, and each content once under its SHA-256."""
    contents: dict[str, bytes] = {}
    listing: dict[str, dict[str, str]] = {}
    for tag, tree in sorted(trees.items()):
        listing[tag] = {}
        for name, content in sorted(tree.items()):
            digest = hashlib.sha256(content).hexdigest()
            contents[digest] = content
            listing[tag][name] = digest
    manifest = json.dumps({"machine": MACHINE, "files": listing}, indent=0, sort_keys=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".part")
    with partial.open("wb") as stream:
        stream.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, "__main__.py", _START)
            _add(archive, "bootstrap.py", Path(bootstrap.__file__).read_bytes())
            _add(archive, bootstrap.MANIFEST, manifest.encode())
            for digest, content in sorted(contents.items()):
                _add(archive, f"files/{digest}", content)
    partial.chmod(0o755)
    partial.rename(output)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED, 9)


def build(root: Path, output: Path, pythons: Iterable[str] = PYTHONS) -> None:
    """Build the archive from the checkout at `root`.

    Raises:
        BuildError: if a wheel cannot be had.
    """
    lock = root / "requirements.lock"
    pins = parse_lock(lock.read_text(encoding="utf-8")) if lock.exists() else installed_pins()
    names = required_distributions(imported_modules(root))
    own = own_files(root)
    trees: dict[str, Mapping[str, bytes]] = {}
    for python in pythons:
        tree: dict[str, bytes] = {}
        for wheel in download_wheels(names, pins, python, root / "build" / "wheels"):
            tree.update(wheel_files(wheel))
        trees[python.replace(".", "")] = tree | own
    write_archive(output, trees)


def main() -> int:
    """Command line of the build; returns the exit code."""
    root = Path(__file__).parent.parent
    parser = argparse.ArgumentParser(prog="python -m pilot.build", description="Build the pilot's single file.")
    parser.add_argument("--output", type=Path, default=root / "dist" / "pilot.pyz")
    options = parser.parse_args()
    try:
        build(root, options.output)
    except BuildError as error:
        sys.stderr.write(f"pilot.build: {error}\n")
        return 1
    sys.stdout.write(f"{options.output} ({options.output.stat().st_size / 1e6:.1f} MB)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
