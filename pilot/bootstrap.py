"""First code of `pilot.pyz`: unpack once into a checked cache, then start the pilot from there.

Promises: nothing is imported from the cache that was not compared with the archive's manifest: all of it at the start
(every file's SHA-256, and no file more), and each module once more when it is imported, however late: what is run is
what was compared, so that payloads, which have the same account, put no code into a pilot that runs. Besides that only
the standard library is imported. The cache belongs to this account and to nobody else (mode 0700, no links);
unpacking happens beside it and appears by one rename, so pilots that start together do not disturb each other.
Refuses: a cache folder of another account or open to others; an interpreter or machine that the archive has no
files for.
Imports nothing but the standard library: it runs before anything else is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

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


def prepare(archive_path: Path, cache: Path) -> tuple[Path, Mapping[str, str]]:
    """Make the archive's files ready; returns the folder to import from, and the SHA-256 of each file.

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
    return target, files


# -- importing -------------------------------------------------------------------------------------------------------


def _checked(path: str, digest: str) -> bytes:
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ImportError(f"{path} was changed after the pilot started", path=path)
    return data


class CheckedSource(SourceFileLoader):
    """Runs a source file if it is what the manifest says. No compiled file is ever read."""

    def __init__(self, name: str, path: str, digest: str) -> None:
        super().__init__(name, path)
        self._digest = digest

    def get_data(self, path: str) -> bytes:
        """The source; whatever else is asked for is not there."""
        if path != self.path:
            raise OSError(f"{path} is not in the manifest")
        return _checked(path, self._digest)


class CheckedExtension(ExtensionFileLoader):
    """Loads a compiled module from a sealed copy in memory: between a look at a file and its use it could change."""

    def __init__(self, name: str, path: str, digest: str) -> None:
        super().__init__(name, path)
        self._digest = digest

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Load it. The copy stays open: the dynamic loader knows libraries by their names, so none may come twice."""
        data = _checked(self.path, self._digest)
        copy = os.memfd_create(spec.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(copy, "wb", closefd=False) as file:
            file.write(data)
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
        return super().create_module(ModuleSpec(spec.name, self, origin=f"/proc/self/fd/{copy}"))


_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class CheckedFinder(MetaPathFinder):
    """Finds the manifest's modules, and for their packages nothing else.

    Args:
        folder: where they are.
        files: SHA-256 by name.
    """

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self._folder = folder
        self._files = files
        self._own = {name.partition("/")[0].partition(".")[0] for name in files}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's origin, if it is one of ours."""
        del path, target
        base = fullname.replace(".", "/")
        for suffix in ("/__init__.py", ".py"):
            if (digest := self._files.get(base + suffix)) is not None:
                place = str(self._folder / (base + suffix))
                below = [str(self._folder / base)] if suffix == "/__init__.py" else None
                loader = CheckedSource(fullname, place, digest)
                return spec_from_file_location(fullname, place, loader=loader, submodule_search_locations=below)
        for suffix in EXTENSION_SUFFIXES:
            if (digest := self._files.get(base + suffix)) is not None:
                place = str(self._folder / (base + suffix))
                return spec_from_file_location(fullname, place, loader=CheckedExtension(fullname, place, digest))
        if fullname.partition(".")[0] in self._own:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)  # not what lies beside ours
        return None


def only_checked(folder: Path, files: Mapping[str, str]) -> None:
    """From now on import the standard library and what the manifest names, and nothing else."""
    major, minor = sys.version_info[:2]
    standard = Path(os.__file__).parent
    compiled = Path(sys.base_exec_prefix) / sys.platlibdir / f"python{major}.{minor}"
    places = (
        standard,
        standard / "lib-dynload",
        compiled / "lib-dynload",
        standard.parent / f"python{major}{minor}.zip",
    )
    allowed = {place.resolve() for place in places}
    sys.path[:] = [place for place in sys.path if place and Path(place).resolve() in allowed]
    sys.meta_path.insert(0, CheckedFinder(folder, files))
    sys.dont_write_bytecode = True  # the cache holds what the manifest lists and nothing else


def main(archive_path: str) -> int:
    """Start the pilot from the cache; returns its exit code."""
    try:
        folder, files = prepare(Path(archive_path), default_cache(os.environ))
    except BootstrapError as error:
        sys.stderr.write(f"pilot.pyz: {error}\n")
        return EX_CONFIG
    only_checked(folder, files)
    from pilot.__main__ import main as pilot_main  # only now importable

    return pilot_main()
