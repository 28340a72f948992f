"""First code of `pilot.pyz`: unpack once into a checked cache, then start the pilot from there.

Promises: nothing is imported from the cache that was not compared with the archive's manifest just before: every
file's SHA-256, and no file more. The cache belongs to this account and to nobody else (mode 0700, no links);
unpacking happens beside it and appears by one rename, so pilots that start together do not disturb each other.
Refuses: a cache folder of another account or open to others; an interpreter or machine that the archive has no
files for.
Imports nothing but the standard library: it runs before anything else is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

MANIFEST = "manifest.json"
CACHE_VARIABLE = "PILOTAGE_CACHE"
EX_CONFIG = 78  # sysexits.h


class BootstrapError(Exception):
    """The pilot cannot be started on this node."""  # of no family: schemas is not importable yet


def default_cache(environment: Mapping[str, str]) -> Path:
    """Where the unpacked files go: PILOTAGE_CACHE, else the XDG cache, else the folder for temporary files."""
    if chosen := environment.get(CACHE_VARIABLE):
        return Path(chosen).absolute()
    home = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "")) / ".cache")
    if home.is_absolute() and _is_writable(home):
        return home / "pilotage"
    return Path(tempfile.gettempdir()) / f"pilotage-{os.geteuid()}"


def _is_writable(path: Path) -> bool:
    existing = next(place for place in (path, *path.parents) if place.exists())
    return os.access(existing, os.W_OK | os.X_OK)


def make_private(path: Path) -> None:
    """Make the cache folder, or accept one that is ours alone.

    Raises:
        BootstrapError: if it is somebody else's, open to others, or cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise BootstrapError(f"cannot make the cache folder {path}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise BootstrapError(f"the cache folder {path} is not a folder of this account; set {CACHE_VARIABLE}")
    if status.st_mode & 0o077:
        raise BootstrapError(f"the cache folder {path} is open to others; chmod 700 it or set {CACHE_VARIABLE}")


def fitting_files(manifest: bytes) -> tuple[str, dict[str, str]]:
    """The interpreter's tag, and name and SHA-256 of the files for it on this machine.

    Raises:
        BootstrapError: if the archive has none.
    """
    content = json.loads(manifest)
    tag = f"{sys.version_info.major}{sys.version_info.minor}"
    if (platform.system(), platform.machine()) != ("Linux", content["machine"]):
        raise BootstrapError(f"this archive is for Linux on {content['machine']}")
    if sys.implementation.name != "cpython" or tag not in content["files"]:
        known = ", ".join(f"{name[0]}.{name[1:]}" for name in sorted(content["files"]))
        raise BootstrapError(f"this archive is for CPython {known}; this is {platform.python_version()}")
    return tag, content["files"][tag]


def is_intact(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether the folder holds exactly these files with these contents, all ours, and no links."""
    left = dict(files)
    try:
        for path, status in _walk(folder):
            expected = left.pop(str(path.relative_to(folder)), None)
            if expected is None or not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                return False
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                return False
    except OSError:
        return False
    return not left


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below that is no folder; links are reported, not followed."""
    for path in folder.iterdir():
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(path)
        else:
            yield path, status


def unpack(archive: zipfile.ZipFile, files: Mapping[str, str], target: Path) -> None:
    """Write the files beside the target, then let them appear there by one rename.

    Raises:
        BootstrapError: if the archive is damaged or the folder cannot be written.
    """
    try:
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
        try:
            for name, digest in files.items():
                content = archive.read(f"files/{digest}")
                if hashlib.sha256(content).hexdigest() != digest:
                    raise BootstrapError(f"the archive is damaged at {name}")
                path = fresh / name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.write_bytes(content)
            _put_in_place(fresh, target, files)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except (OSError, zipfile.BadZipFile) as error:
        raise BootstrapError(f"cannot unpack into {target.parent}: {error}") from error


def _put_in_place(fresh: Path, target: Path, files: Mapping[str, str]) -> None:
    with contextlib.suppress(OSError):
        fresh.rename(target)
        return
    if is_intact(target, files):  # another pilot was faster
        return
    damaged = Path(tempfile.mkdtemp(prefix=".old-", dir=target.parent))
    try:
        with contextlib.suppress(FileNotFoundError):
            target.rename(damaged / "files")
        fresh.rename(target)
    except OSError:
        if not is_intact(target, files):
            raise
    finally:
        shutil.rmtree(damaged, ignore_errors=True)


def prepare(archive_path: Path, cache: Path) -> Path:
    """Make the archive's files ready; returns the folder to import from.

    Raises:
        BootstrapError: if that is not possible here; the message says what to do.
    """
    with zipfile.ZipFile(archive_path) as archive:
        manifest = archive.read(MANIFEST)
        tag, files = fitting_files(manifest)
        make_private(cache)
        target = cache / f"{hashlib.sha256(manifest).hexdigest()[:32]}-cp{tag}"
        if not is_intact(target, files):
            unpack(archive, files, target)
            if not is_intact(target, files):
                raise BootstrapError(f"the cache folder {cache} changes under our hands")
    return target


def main(archive_path: str) -> int:
    """Start the pilot from the cache; returns its exit code."""
    try:
        folder = prepare(Path(archive_path), default_cache(os.environ))
    except BootstrapError as error:
        sys.stderr.write(f"pilot.pyz: {error}\n")
        return EX_CONFIG
    sys.dont_write_bytecode = True  # the cache holds what the manifest lists and nothing else
    sys.path[0] = str(folder)
    from pilot.__main__ import main as pilot_main  # only now importable

    return pilot_main()
