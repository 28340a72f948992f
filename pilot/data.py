"""Input data: a copy of each file from the best replica that works into the work directory.

Promises: a file is there whole and checked (size, Adler-32 if known) or not at all; the disk keeps a margin; every
replica that failed is named with its reason. Only storage elements that the site names are read, and only below
their folder, through no symbolic link: the catalog is written by users and must not steer the pilot's own rights.
Refuses: access protocols other than `file://` (said clearly, the next replica is tried).
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from schemas.errors import PermanentError, PilotageError, TemporaryError
from schemas.messages.common import InputFile, Replica

from .sandbox import SandboxError, check_name, open_inside
from .workdir import free_disk_mb

# DIRAC keeps 5 GB free when it downloads: the payload needs room for its outputs.
DEFAULT_MARGIN_MB = 5000.0
_CHUNK = 4 * 1024 * 1024


class InputDataError(TemporaryError):
    """Input data could not be fetched from any replica; another site may have better luck."""


class StagingCancelledError(PermanentError):
    """Fetching input data was cancelled."""


class _ReplicaError(PilotageError):
    """This replica cannot be used."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One file that was fetched."""

    lfn: str
    name: str
    size: int
    se: str


def stage(
    file: InputFile,
    directory: Path,
    stores: Mapping[str, Path],
    *,
    margin_mb: float = DEFAULT_MARGIN_MB,
    cancelled: Callable[[], bool] = lambda: False,
) -> StagedFile:
    """Fetch one input file under the last part of its LFN; `stores` maps storage elements to their folders here.

    Raises:
        InputDataError: if no replica could be fetched; the message names each with its reason.
        StagingCancelledError: if `cancelled()` became true.
    """
    name = PurePosixPath(file.lfn).name
    try:
        check_name(name)
    except SandboxError as error:
        raise InputDataError(f"{file.lfn}: {error}") from error
    free = free_disk_mb(directory)
    if file.size / 1e6 + margin_mb > free:
        needed = f"{file.size / 1e6:.0f} MB with a margin of {margin_mb:.0f} MB"
        raise InputDataError(f"{file.lfn}: {needed} do not fit: {free:.0f} MB are free")
    reasons = []
    for replica in file.replicas:
        try:
            _fetch(file, replica, directory, name, stores, cancelled)
        except (_ReplicaError, SandboxError) as error:
            reasons.append(f"{replica.se}: {error}")
        except OSError as error:
            reasons.append(f"{replica.se}: {error.strerror}")
        else:
            return StagedFile(file.lfn, name, file.size, replica.se)
    raise InputDataError(f"{file.lfn}: " + ("; ".join(reasons) or "no replica is known"))


def _fetch(
    file: InputFile,
    replica: Replica,
    directory: Path,
    name: str,
    stores: Mapping[str, Path],
    cancelled: Callable[[], bool],
) -> None:
    source = _open_replica(replica, stores)
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise _ReplicaError("not a regular file")
        partial = f".{name}.part"[:255]
        target = open_inside(directory, partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            _copy(source, target, file, cancelled)
            if (directory / name).exists():
                raise _ReplicaError(f"the name {name!r} is already taken in the work directory")
            (directory / partial).rename(directory / name)
        except BaseException:
            (directory / partial).unlink(missing_ok=True)
            raise
        finally:
            os.close(target)
    finally:
        os.close(source)


def _open_replica(replica: Replica, stores: Mapping[str, Path]) -> int:
    url = urlsplit(replica.pfn)
    if url.scheme != "file" or url.netloc not in {"", "localhost"}:
        raise _ReplicaError(f"access protocol {url.scheme or 'none'!r} is not available on this node")
    root = stores.get(replica.se)
    if root is None:
        raise _ReplicaError("this site names no folder for the storage element")
    path = PurePosixPath(unquote(url.path))
    if not path.is_relative_to(root):
        raise _ReplicaError("the replica lies outside of the storage element's folder")
    return open_inside(root, str(path.relative_to(root)), os.O_RDONLY | os.O_NONBLOCK)


def _copy(source: int, target: int, file: InputFile, cancelled: Callable[[], bool]) -> None:
    size, checksum = 0, 1
    while chunk := os.read(source, _CHUNK):
        if cancelled():
            raise StagingCancelledError
        size += len(chunk)
        if size > file.size:
            raise _ReplicaError(f"larger than the catalog's {file.size} bytes")
        checksum = zlib.adler32(chunk, checksum)
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
    if size != file.size:
        raise _ReplicaError(f"{size} bytes, the catalog says {file.size}")
    if file.adler32 and f"{checksum:08x}" != file.adler32:
        raise _ReplicaError(f"checksum {checksum:08x}, the catalog says {file.adler32}")
