"""Writing an output sandbox into a folder: never outside of it, never over something else, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path, PurePosixPath

from schemas.messages.common import SandboxFile

from .errors import OutputError

MAX_NAME_BYTES = 255
"""NAME_MAX of Linux."""


def target_of(folder: Path, name: str) -> Path:
    """Where a file of an output sandbox goes.

    Raises:
        OutputError: the name leads out of the folder, or is none.
    """
    path = PurePosixPath(name)
    bad = (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or any(ord(character) < 32 or ord(character) == 127 for character in name)
        or any(len(part.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES for part in path.parts)
    )
    if bad:
        raise OutputError(f"the job's output holds an unacceptable file name: {name[:200]!r}")
    target = folder.joinpath(*path.parts)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"{name[:200]!r} leads out of {folder} (a symbolic link in the way?)")
    return target


def is_there(target: Path, file: SandboxFile) -> bool:
    """Whether this very file was written before.

    Raises:
        OutputError: something else is there.
    """
    if not os.path.lexists(target):
        return False
    if target.is_file() and not target.is_symlink() and target.stat().st_size == file.size:
        with target.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256:
                return True
    raise OutputError(f"{target} exists and is something else: move it away, or choose another --dir")


def write(target: Path, content: bytes, mode: int) -> None:
    """Write a file: it appears whole, with the job's execute bit.

    Raises:
        OutputError: the disk says no.
    """
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777 if mode & 0o100 else 0o666)
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            os.link(temporary, target)  # unlike a rename it fails where something has come in between
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from None
