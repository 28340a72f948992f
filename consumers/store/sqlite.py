"""SQLite as a store of one process: file rights, the process lock, and how connections begin.

WAL lets readers go on while the one writer writes; ``synchronous=FULL`` makes a commit durable when it returns.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from schemas.errors import ConfigurationError

from .errors import StoreBusy

if TYPE_CHECKING:
    from sqlite3 import Connection as DriverConnection

    from sqlalchemy.engine import URL, Connection, Engine

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
"""Only the service account may read: the store holds (encrypted) proxy keys and users' files."""

BUSY_TIMEOUT_MS = 10_000
"""Only a checkpoint or a backup tool can be in the way: writers of this process queue before they begin."""

READERS = 8
"""Concurrent readers; a read is short."""


ERASE_SECONDS = 5.0
"""Secrets that were overwritten stay in the log no longer than this and the next transaction."""

ERASE_BUSY_MS = 20
"""How long erasing waits for readers of old snapshots; then it is tried again after a later transaction."""


class LogEraser:
    """Empties the write-ahead log after secrets were overwritten: it holds the pages as they were before.

    Args:
        engine: of the one writing connection; nobody else uses it at the same time.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted = False
        self._last = float("-inf")

    def after(self, *, erased: bool) -> None:
        """A transaction was committed."""
        self._wanted = self._wanted or erased
        now = time.monotonic()
        if self._wanted and now - self._last >= ERASE_SECONDS:
            self._last = now
            self._wanted = not self._empty()

    def _empty(self) -> bool:
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={ERASE_BUSY_MS}")
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                busy = cursor.fetchone()
            finally:
                cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            return busy is not None and busy[0] == 0
        except sqlite3.Error:
            return False  # a disk that is full, say; what was committed stays committed
        finally:
            connection.close()


class ProcessLock:
    """An exclusive lock on ``<database>.lock``, held for the life of the store."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another process have the database."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def claim(path: Path) -> ProcessLock:
    """Make directory and file with their rights, and take the process lock.

    Raises:
        StoreBusy: another process (or another store of this one) has it; the message says which.
        ConfigurationError: the place cannot be used.
    """
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        _check_folder(path.parent)
        lock = _private(path.with_name(path.name + ".lock"))
    except OSError as error:
        raise ConfigurationError(f"cannot use {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 32).decode("ascii", "replace").strip()
        os.close(lock)
        raise StoreBusy(
            f"{path} is in use by process {holder or 'unknown'}. SQLite serves one process at a time "
            "(pilotage-serve all); for several processes use PostgreSQL"
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        # SQLite gives its other files (-wal, -shm, -journal) the rights of the database; those of a crash stay as
        # they were made.
        os.close(_private(path))
        for suffix in ("-wal", "-shm", "-journal"):
            beside = path.with_name(path.name + suffix)
            if beside.exists():
                os.close(_private(beside))
    except OSError as error:
        os.close(lock)
        raise ConfigurationError(f"cannot use {path}: {error.strerror}") from error
    return ProcessLock(lock)


def _check_folder(folder: Path) -> None:
    """Whoever may write into the folder may put another database there."""
    state = folder.stat()
    if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"{folder}: others may write there, and it holds the store; try: chmod go-w {folder}")
    if state.st_uid not in {0, os.geteuid()}:
        raise ConfigurationError(f"{folder}: belongs to another account ({state.st_uid}), and it holds the store")


def _private(path: Path) -> int:
    """Open a file of the store, made if missing, for this account alone; a link is not followed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def writer(url: URL) -> Engine:
    """The engine of the one writing connection."""
    return _engine(url, "BEGIN IMMEDIATE", size=1, read_only=False)


def reader(url: URL) -> Engine:
    """The engine of the readers."""
    return _engine(url, "BEGIN", size=READERS, read_only=True)


def _engine(url: URL, begin: str, *, size: int, read_only: bool) -> Engine:
    engine = sa.create_engine(
        url,
        # The driver's own idea of transactions is off: we say when they begin.
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000},
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=30,
        hide_parameters=True,
    )

    def on_connect(connection: DriverConnection, _record: object) -> None:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "cache_size=-16384",
            f"query_only={'ON' if read_only else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine
