"""What can go wrong in the store, in our own words: nothing of SQLAlchemy leaves this room.

:func:`translate` maps driver errors. What may pass by itself becomes a ``TemporaryError``: callers pause, they
never reject a message for it.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from schemas.errors import ConfigurationError, PermanentError, TemporaryError


class StoreUnavailable(TemporaryError):  # noqa: N818 - a state of the store that callers wait for, not a mistake
    """The store does not answer."""


class StoreConflict(TemporaryError):  # noqa: N818 - the same transaction may succeed at once
    """Two transactions got into each other's way; try this one again."""


class StoreBusy(ConfigurationError):  # noqa: N818 - the name says what it finds
    """Another process serves this SQLite database."""


class StoreRejected(PermanentError):  # noqa: N818 - the name says what happened
    """The store refused a statement."""


class NotLeader(TemporaryError):  # noqa: N818 - a state, not a mistake
    """Another process leads now; nothing of this transaction may stand."""


_CONFLICTS = {"40001", "40P01", "55P03"}
"""PostgreSQL: serialization failure, deadlock, lock timeout."""

_AWAY_CLASSES = {"08", "53", "57", "58"}
"""PostgreSQL error classes: connection, resources, operator (also cancelled statements), system."""

_AWAY = {"25006", "XX001", "XX002"}
"""PostgreSQL: the server became a replica; data or an index is damaged."""

_SQLITE_AWAY = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}  # fmt: skip
"""SQLite's primary codes for trouble with the disk or the file; a wrong statement is none of them."""


def translate(error: SQLAlchemyError) -> Exception:
    """Our error for one of SQLAlchemy's. Programming mistakes come back unchanged."""
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailable("no database connection became free in time")
    if not isinstance(error, DBAPIError):
        return error
    cause = error.orig
    first_line = str(cause).strip().split("\n", 1)[0]
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _SQLITE_AWAY:
            return StoreUnavailable(f"the database is not usable now: {first_line}")
        return StoreRejected(first_line) if isinstance(cause, sqlite3.IntegrityError) else error
    state = getattr(cause, "sqlstate", None) or ""
    if state in _CONFLICTS:
        return StoreConflict(first_line)
    if error.connection_invalidated or isinstance(error, InterfaceError) or state[:2] in _AWAY_CLASSES:
        return StoreUnavailable(f"the database does not answer: {first_line}")
    if state in _AWAY or (not state and type(cause).__name__ == "OperationalError"):
        return StoreUnavailable(f"the database does not answer: {first_line}")
    return StoreRejected(first_line) if isinstance(error, DataError | IntegrityError) else error
