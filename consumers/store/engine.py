"""Opening the store, and its transactions.

Promises: one write transaction at a time on SQLite, in the order of arrival, durable when it returns; READ COMMITTED
on PostgreSQL. Errors leave as :mod:`.errors`. Refuses a second process on one SQLite database (:class:`StoreBusy`).
The statements themselves live in one module per topic, each taking the transaction first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from schemas.errors import ConfigurationError

from . import sqlite
from .errors import StoreUnavailable, translate
from .locks import FairLock

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

DialectName = Literal["sqlite", "postgresql"]

STATEMENT_TIMEOUT_MS = 30_000
"""A statement of ours takes milliseconds; one that takes longer than a lease's acceptance is lost anyway."""

IDLE_TRANSACTION_TIMEOUT_MS = 60_000
"""A process that stops inside a transaction must not hold its row locks for ever."""

CONNECT_TIMEOUT = 5
"""Seconds; callers pause and try again themselves."""

PLANNER = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
"""Our statements touch few rows of large tables, by key. Plans of prepared statements are kept, and one made while the
tables were still small would go on reading them whole when they are large."""

REQUIRE_AUTH_VERSION = 160_000
"""From PostgreSQL 16 on the client library refuses ways to log in that it is told not to take."""

POOL_SIZE = 4
"""A consumer writes from one thread and reads from a few; many processes share one server."""

WRITER_WAIT = 30.0
"""Seconds to wait for the one writer of SQLite; transactions take milliseconds."""


class OutboxRow(msgspec.Struct, frozen=True, gc=False):
    """A message to publish. ``jti`` is its key: a republication keeps it.

    Attributes:
        not_before: earliest time to publish (retries lie in the future).
        expires: when it loses its meaning; the relay drops it then.
    """

    jti: str
    exchange: str
    routing_key: str
    typ: str
    aud: str
    cid: str
    payload: bytes
    created: float
    not_before: float
    expires: float


class Reading:
    """A connection to read from.

    Attributes:
        connection: SQLAlchemy's.
        dialect: ``sqlite`` or ``postgresql``.
    """

    __slots__ = ("connection", "dialect")

    def __init__(self, connection: Connection, dialect: DialectName) -> None:
        self.connection = connection
        self.dialect: DialectName = dialect


class Transaction(Reading):
    """One write transaction: all of it or nothing.

    Attributes:
        fresh: outbox rows added in it, for the writer to publish right after the commit.
        erased: secrets were overwritten in it: no copy of them may stay in the database's log either.
    """

    __slots__ = ("erased", "fresh")

    def __init__(self, connection: Connection, dialect: DialectName) -> None:
        super().__init__(connection, dialect)
        self.fresh: list[OutboxRow] = []
        self.erased = False


class Store:
    """The database behind all consumers of a process. Safe to share between threads."""

    def __init__(self, writer: Engine, reader: Engine, dialect: DialectName, lock: sqlite.ProcessLock | None) -> None:
        self._writer = writer
        self._reader = reader
        self._process_lock = lock
        self._turn = FairLock() if dialect == "sqlite" else None
        self._log_eraser = sqlite.LogEraser(writer) if dialect == "sqlite" else None
        self.dialect: DialectName = dialect

    @classmethod
    def open(cls, url: str, *, upgrade: bool = True, password: str | None = None) -> Store:
        """Open the database at a URL (``sqlite:////path`` or ``postgresql://…``).

        Args:
            url: SQLAlchemy's form; without a secret in it.
            upgrade: bring the tables up to date first (under a lock); otherwise they must be.
            password: for PostgreSQL, where neither socket credentials nor a passfile serve.

        Raises:
            StoreBusy: another process serves this SQLite database.
            StoreUnavailable: the server does not answer.
            ConfigurationError: the URL is no good, or the tables do not fit this release.
        """
        parsed = _parse(url)
        if password is not None:
            parsed = parsed.set(password=password)
        store = cls._open_sqlite(parsed) if parsed.get_backend_name() == "sqlite" else cls._open_postgresql(parsed)
        try:
            store._prepare(upgrade=upgrade)  # noqa: SLF001 - our own class
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def _open_sqlite(cls, url: URL) -> Store:
        if not url.database or url.database == ":memory:":
            raise ConfigurationError("the SQLite store needs a file: sqlite:////path/to/store.db")
        path = Path(url.database).absolute()
        lock = sqlite.claim(path)
        url = url.set(database=str(path), drivername="sqlite+pysqlite")
        return cls(sqlite.writer(url), sqlite.reader(url), "sqlite", lock)

    @classmethod
    def _open_postgresql(cls, url: URL) -> Store:
        options = (
            f"-c statement_timeout={STATEMENT_TIMEOUT_MS} "
            f"-c idle_in_transaction_session_timeout={IDLE_TRANSACTION_TIMEOUT_MS} -c timezone=UTC {PLANNER}"
        )
        engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={
                "options": options,
                "connect_timeout": CONNECT_TIMEOUT,
                "application_name": "pilotage",
                **_sound_methods(url),
            },
            isolation_level="READ COMMITTED",
            pool_size=POOL_SIZE,
            max_overflow=POOL_SIZE,
            pool_timeout=CONNECT_TIMEOUT,
            hide_parameters=True,
        )
        sa.event.listen(engine, "before_cursor_execute", _without_nul, retval=True)
        return cls(engine, engine.execution_options(isolation_level="AUTOCOMMIT"), "postgresql", None)

    def _prepare(self, *, upgrade: bool) -> None:
        from . import upgrades

        try:
            upgrades.prepare(self._writer, upgrade=upgrade)
        except SQLAlchemyError as error:
            raise translate(error) from error

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A write transaction; committed when the block ends, rolled back when it raises."""
        with self._my_turn():
            with self._translated(), self._writer.begin() as connection:
                tx = Transaction(connection, self.dialect)
                yield tx
            if self._log_eraser is not None:
                self._log_eraser.after(erased=tx.erased)

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """A read-only view; on SQLite one snapshot, on PostgreSQL each statement sees what is committed."""
        with self._translated(), self._reader.connect() as connection:
            yield Reading(connection, self.dialect)

    def ping(self) -> float:
        """Ask the database for a sign of life; seconds it took.

        Raises:
            StoreUnavailable: it gave none.
        """
        start = time.monotonic()
        with self.reading() as tx:
            tx.connection.execute(sa.select(1))
        return time.monotonic() - start

    def finish_upgrade(self) -> None:
        """Take away what only the release before needed; for an operator, when its last process is gone."""
        from . import upgrades

        with self._my_turn(), self._translated():
            upgrades.run(self._writer, "post")

    def close(self) -> None:
        """Give everything back."""
        self._reader.dispose()
        self._writer.dispose()
        if self._process_lock is not None:
            self._process_lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(WRITER_WAIT):
            raise StoreUnavailable(f"the writer was not free within {WRITER_WAIT:.0f} s")
        try:
            yield
        finally:
            self._turn.release()

    @staticmethod
    @contextmanager
    def _translated() -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            translated = translate(error)
            if translated is error:
                raise
            raise translated from error


def _sound_methods(url: URL) -> dict[str, str]:
    """Let no server have the password itself, or an MD5 of it: peer, certificates and SCRAM do without."""
    from psycopg import pq

    if "require_auth" in url.query or pq.version() < REQUIRE_AUTH_VERSION:
        return {}
    return {"require_auth": "!password,!md5"}


def _without_nul(
    _connection: Connection,
    _cursor: object,
    statement: str,
    parameters: object,
    _context: object,
    _many: bool,
) -> tuple[str, object]:
    """PostgreSQL refuses a NUL in any text, even to look for it: what strangers ask for must not fail on that."""
    if isinstance(parameters, dict):
        bad = {name: _shown(value) for name, value in parameters.items() if _has_nul(value)}
        if bad:
            return statement, {**parameters, **bad}
    return statement, parameters


def _has_nul(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], str) and any(map(_has_nul, value))
    return isinstance(value, str) and "\0" in value


def _shown(value: object) -> object:
    if isinstance(value, list):
        return [_shown(one) for one in value]
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The text is not repeated: it may hold a secret.
        raise ConfigurationError("the store's URL is not of the form sqlite:////path or postgresql://…") from None
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigurationError(f"the store speaks sqlite and postgresql, not {parsed.get_backend_name()!r}")
    return parsed
