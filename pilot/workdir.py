"""Work directories: one fresh folder per (job, attempt), wiped whatever happened in it.

Promises: a pilot owns `<area>/pilot-<name>/`, protected by a lock that the kernel drops when the pilot dies; at
start the folders of dead pilots are wiped, never those of living ones. Wiping follows no symbolic link, needs no
recursion and no long paths, and does not stop at folders without permissions.
Refuses: a work area that belongs to somebody else or that others may write.
Lies elsewhere: what is put into a work directory (:mod:`pilot.sandbox`, :mod:`pilot.data`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.errors import ConfigurationError

_PREFIX = "pilot-"
_LOCK = ".lock"
_MB = 1_000_000
# A tree that still changes after this many passes has living writers; the caller kills first, so it should not.
_PASSES = 20
_SAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class WorkAreaError(ConfigurationError):
    """The work area cannot be used."""


class WorkArea:
    """The folder of one living pilot inside the area that all pilots of this account share.

    Use as a context manager; leaving it wipes everything of this pilot.
    """

    def __init__(self, area: Path, name: str) -> None:
        self._area = area
        self.path = area / (_PREFIX + _SAFE.sub("_", name))
        self._lock: int | None = None
        self.reclaimed: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        _private_folder(self._area)
        with _locked(self._area / _LOCK):
            self.reclaimed = _reclaim(self._area)
            try:
                self.path.mkdir(mode=0o700)
            except FileExistsError as error:
                raise WorkAreaError(f"a living pilot already works in {self.path}") from error
            self._lock = _take_lock(self.path / _LOCK, wait=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wipe(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def fresh(self, job_id: str, attempt: int) -> Path:
        """Make the empty work directory (mode 0700) of one attempt.

        Raises:
            WorkAreaError: if this attempt already has one here.
        """
        path = self.path / f"{_SAFE.sub('_', job_id)[:100]}-{attempt}"
        try:
            path.mkdir(mode=0o700)
        except FileExistsError as error:
            raise WorkAreaError(f"attempt {attempt} of job {job_id} already has a work directory") from error
        return path


def _private_folder(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise WorkAreaError(f"the work area {path} is not a folder of this account")
    if status.st_mode & 0o022:
        raise WorkAreaError(f"others may write into the work area {path}; chmod go-w it")


def _take_lock(path: Path, *, wait: bool) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = _take_lock(path, wait=True)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def sweep(area: Path) -> tuple[str, ...]:
    """Wipe what dead pilots left in an area; the names of their folders.

    Raises:
        OSError: the area cannot be used.
    """
    if not area.is_dir():
        return ()
    with _locked(area / _LOCK):
        return _reclaim(area)


def _reclaim(area: Path) -> tuple[str, ...]:
    """Wipe what dead pilots left; their locks are free because the kernel dropped them."""
    names = []
    for path in sorted(area.glob(_PREFIX + "*")):
        if path.is_symlink() or not path.is_dir():
            continue
        try:
            lock = _take_lock(path / _LOCK, wait=False)
        except FileNotFoundError:  # its pilot has just wiped it itself
            continue
        if lock is None:
            continue
        try:
            wipe(path)
        finally:
            os.close(lock)
        names.append(path.name)
    return tuple(names)


def wipe(path: Path) -> tuple[str, ...]:
    """Remove a folder and all that is in it; returns what could not be removed (empty = all gone).

    Sub-folders are moved up next to each other and emptied one by one, so depth and path length do not matter.
    """
    try:
        top = _open_folder(path.name, parent=path.parent)
    except FileNotFoundError:
        return ()
    except OSError as error:
        return (f"{path}: {error.strerror}",)
    problems: tuple[str, ...] = ()
    try:
        for number in range(_PASSES):
            problems = _Wiper(top, number).run()
            try:
                path.rmdir()
            except FileNotFoundError:
                return ()
            except OSError:
                if problems and number >= 1:
                    break
            else:
                return ()
    finally:
        os.close(top)
    return problems or (f"{path}: still being written to",)


def _open_folder(name: str, *, parent: Path | None = None, within: int | None = None) -> int:
    """Open a folder that may lack permissions; never through a symbolic link."""
    target: str | Path = name if parent is None else parent / name
    try:
        return os.open(target, _OPEN_DIRECTORY, dir_fd=within)
    except PermissionError:
        # chmod by descriptor, so that a link put there meanwhile is not followed: O_PATH needs no permission.
        handle = os.open(target, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
        try:
            if not stat.S_ISDIR(os.fstat(handle).st_mode):
                raise
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
        finally:
            os.close(handle)
        return os.open(target, _OPEN_DIRECTORY, dir_fd=within)


class _Wiper:
    """One pass over a folder: files unlinked, sub-folders lifted to the top, emptied, removed."""

    def __init__(self, top: int, number: int) -> None:
        self._top = top
        self._prefix = f".wipe-{number}-"
        self._lifted = 0
        self._problems: list[str] = []

    def run(self) -> tuple[str, ...]:
        waiting: list[str] = []
        self._empty(self._top, waiting, at_top=True)
        while waiting:
            name = waiting.pop()
            try:
                folder = _open_folder(name, within=self._top)
            except OSError as error:
                self._note(name, error)
                continue
            try:
                self._empty(folder, waiting, at_top=False)
            finally:
                os.close(folder)
            try:
                os.rmdir(name, dir_fd=self._top)
            except OSError as error:
                self._note(name, error)
        return tuple(self._problems)

    def _empty(self, folder: int, waiting: list[str], *, at_top: bool) -> None:
        os.fchmod(folder, 0o700)
        with os.scandir(folder) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in names:
            try:
                if not is_folder:
                    os.unlink(name, dir_fd=folder)
                elif at_top:
                    waiting.append(name)
                else:
                    waiting.append(self._lift(name, folder))
            except FileNotFoundError:
                continue
            except OSError as error:
                self._note(name, error)

    def _lift(self, name: str, folder: int) -> str:
        self._lifted += 1
        target = f"{self._prefix}{self._lifted}"
        try:
            os.rename(name, target, src_dir_fd=folder, dst_dir_fd=self._top)
        except PermissionError:
            # moving a folder rewrites its `..`, which needs write permission on itself
            self._unlock(name, folder)
            os.rename(name, target, src_dir_fd=folder, dst_dir_fd=self._top)
        return target

    @staticmethod
    def _unlock(name: str, folder: int) -> None:
        descriptor = _open_folder(name, within=folder)
        try:
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)

    def _note(self, name: str, error: OSError) -> None:
        if error.errno != errno.ENOENT:
            self._problems.append(f"{name}: {error.strerror}")


def disk_usage_mb(path: Path) -> float:
    """Blocks taken by all files below `path` in MB (10**6 bytes); links not followed, vanished files not counted."""
    total = 0
    waiting = [str(path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        total += status.st_blocks * 512
                        if stat.S_ISDIR(status.st_mode):
                            waiting.append(entry.path)
        except OSError:
            continue
    return total / _MB


def free_disk_mb(path: Path) -> float:
    """What this account may still write on the file system of `path`, in MB (10**6 bytes)."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize / _MB
