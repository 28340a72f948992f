"""Small files in and out of a work directory, with nothing that can reach outside of it.

Promises: a name that is absolute, climbs with `..`, or is unreasonably long is refused before any file is touched;
output files are regular files inside the work directory, opened without following symbolic links; what does not
fit is listed with a reason, never silently left out.
Lies elsewhere: how the bytes travel (messages or chunks), what a job may ask for (schemas).
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from schemas.errors import InvalidInputError

# DIRAC's limit for an output sandbox; what is larger belongs on a storage element.
DEFAULT_LIMIT_BYTES = 10 * 1024 * 1024
# A sandbox is for small files that travel with a job; thousands of them are data in disguise.
MAX_FILES = 1000
_MAX_NAME_BYTES = 1024  # a quarter of PATH_MAX leaves room for the work area
_MAX_PART_BYTES = 255  # NAME_MAX of every Linux file system
_CHUNK = 1024 * 1024


class SandboxError(InvalidInputError):
    """A sandbox file cannot be used."""


@dataclass(frozen=True, slots=True)
class PickedFile:
    """One file of an output sandbox: its name in the work directory, size and SHA-256."""

    name: str
    size: int
    sha256: str
    executable: bool = False


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file (or pattern) of the output sandbox that is not taken, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Picked:
    """The result of :func:`pick_output`."""

    files: tuple[PickedFile, ...]
    refused: tuple[RefusedFile, ...]

    @property
    def total_bytes(self) -> int:
        """Size of all files taken."""
        return sum(file.size for file in self.files)


def check_name(name: str) -> PurePosixPath:
    """Accept a relative name inside the work directory.

    Raises:
        SandboxError: if it is empty, absolute, climbs out, holds control characters, or is too long.
    """
    encoded = name.encode("utf-8", "surrogateescape")
    if not name or len(encoded) > _MAX_NAME_BYTES:
        raise SandboxError(f"file name is empty or longer than {_MAX_NAME_BYTES} bytes")
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise SandboxError(f"file name {name!r} holds control characters")
    path = PurePosixPath(name)
    if path.is_absolute() or name.startswith("~") or name.endswith("/"):
        raise SandboxError(f"file name {name!r} is not a relative file name")
    if ".." in path.parts or not path.parts:
        raise SandboxError(f"file name {name!r} leaves the work directory")
    if any(len(part.encode("utf-8", "surrogateescape")) > _MAX_PART_BYTES for part in path.parts):
        raise SandboxError(f"a part of the file name {name!r} is longer than {_MAX_PART_BYTES} bytes")
    return path


def open_inside(directory: Path, name: str, flags: int, mode: int = 0o600, *, make_parents: bool = False) -> int:
    """Open a file below `directory` without following any symbolic link on the way; returns a descriptor.

    Raises:
        SandboxError: for a bad name.
        OSError: as open(2); a symbolic link in the way gives ELOOP or ENOTDIR.
    """
    parts = check_name(name).parts
    here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            if make_parents:
                _make_directory(part, here)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
    finally:
        os.close(here)


def _make_directory(name: str, parent: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return


def write_input(directory: Path, files: Mapping[str, bytes], *, executable: Iterable[str] = ()) -> None:
    """Write the input sandbox; names are all checked before the first byte is written.

    Raises:
        SandboxError: for a bad name, two files of one name, or too many files.
    """
    if len(files) > MAX_FILES:
        raise SandboxError(f"the input sandbox has {len(files)} files; at most {MAX_FILES} are allowed")
    for name in files:
        check_name(name)
    marked = frozenset(executable)
    for name, content in files.items():
        write_file(directory, name, content, executable=name in marked)


def write_file(directory: Path, name: str, content: bytes, *, executable: bool = False) -> None:
    """Write one new file below the work directory, making folders as needed.

    Raises:
        SandboxError: if the name is bad or already taken.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = open_inside(directory, name, flags, 0o700 if executable else 0o600, make_parents=True)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise SandboxError(f"file name {name!r} is already taken in the work directory") from error
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def replace_file(directory: Path, name: str, content: bytes) -> None:
    """Put a file (mode 0600) in the place of another at once: who reads sees the old one or the new one, whole.

    Args:
        directory: the work directory; it must not have become a link meanwhile.
        name: a plain file name in it.
        content: all of the new file.

    Raises:
        SandboxError: if the name is bad.
        OSError: the directory is not there any more, or full.
    """
    if len(check_name(name).parts) != 1:
        raise SandboxError(f"{name!r} is no plain file name")
    temporary = f"{name}.{secrets.token_hex(8)}"
    here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=here), "wb") as stream:
                stream.write(content)
            os.replace(temporary, name, src_dir_fd=here, dst_dir_fd=here)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=here)
            raise
    finally:
        os.close(here)


def pick_output(directory: Path, patterns: Iterable[str], limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Picked:
    """Find the files of an output sandbox, in the order of the patterns, until the limit is reached.

    Raises:
        OSError: if the work directory itself cannot be read.
    """
    files: dict[str, PickedFile] = {}
    refused: dict[str, RefusedFile] = {}
    left = limit_bytes
    for pattern in dict.fromkeys(patterns):
        for name in _expand(directory, pattern, refused):
            if name in files or name in refused:
                continue
            taken = _take(directory, name, left, limit_bytes) if len(files) < MAX_FILES else _too_many(name)
            if isinstance(taken, RefusedFile):
                refused[name] = taken
            else:
                files[name] = taken
                left -= taken.size
    return Picked(tuple(files.values()), tuple(refused.values()))


def _too_many(name: str) -> RefusedFile:
    return RefusedFile(name, f"the output sandbox already holds {MAX_FILES} files")


def _expand(directory: Path, pattern: str, refused: dict[str, RefusedFile]) -> list[str]:
    try:
        wanted = str(check_name(pattern))
    except SandboxError as error:
        refused[pattern] = RefusedFile(pattern, str(error))
        return []
    if not any(sign in wanted for sign in "*?["):
        return [wanted]
    parts = PurePosixPath(wanted).parts
    names = sorted(name for name in _walk(directory, len(parts)) if _matches(name, parts))
    if not names:
        refused[pattern] = RefusedFile(pattern, "no file matches")
    return names


def _matches(name: str, parts: tuple[str, ...]) -> bool:
    own = PurePosixPath(name).parts
    return len(own) == len(parts) and all(map(_part_matches, own, parts))


def _part_matches(name: str, pattern: str) -> bool:
    """As a shell does it: a hidden file is meant only by a pattern that begins with a dot itself."""
    return fnmatch.fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def _walk(directory: Path, depth: int, prefix: str = "") -> Iterator[str]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if depth > 1:
                yield from _walk(Path(entry.path), depth - 1, f"{prefix}{entry.name}/")
        elif depth == 1:
            yield f"{prefix}{entry.name}"


def _take(directory: Path, name: str, left: int, limit: int) -> PickedFile | RefusedFile:
    try:
        descriptor = open_inside(directory, name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        return RefusedFile(name, _why_unopened(error))
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            return RefusedFile(name, "not a regular file")
        if status.st_size > left:
            return RefusedFile(name, f"{status.st_size} bytes do not fit: {left} of {limit} bytes are left")
        digest = hashlib.sha256()
        size = 0
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if size > left:
                return RefusedFile(name, f"grew while it was read: only {left} of {limit} bytes are left")
        return PickedFile(name, size, digest.hexdigest(), bool(status.st_mode & 0o100))


def _why_unopened(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "was not produced"
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "is or lies behind a symbolic link"
    return f"cannot be read: {os.strerror(error.errno or 0)}"


def read_picked(directory: Path, file: PickedFile) -> bytes:
    """The content of a picked file.

    Raises:
        SandboxError: if it changed since it was picked.
    """
    try:
        descriptor = open_inside(directory, file.name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise SandboxError(f"{file.name!r} vanished after it was picked") from error
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read(file.size + 1)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise SandboxError(f"{file.name!r} changed after it was picked")
    return content
