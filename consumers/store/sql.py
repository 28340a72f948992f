"""Whole batches as single statements, alike on both databases.

A batch travels as ONE parameter: its rows encoded as JSON, which the database unfolds (``json_to_recordset``,
``json_each``). So the statement's text never changes with the batch's size (it stays prepared and cached) and the
client spends microseconds per row. On SQLite plain inserts and updates go through ``executemany`` instead, which
costs no round trip there.

The statements are built in :mod:`.statements`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.sql.compiler import SQLCompiler

from .engine import Reading, Transaction
from .statements import ROWS, Conflict, among, batch, dialect_insert, insert_into, picked, update_by

__all__ = [
    "ROWS",
    "Conflict",
    "Found",
    "RowLike",
    "among",
    "batch",
    "dialect_insert",
    "encoded",
    "fetch",
    "fetch_one",
    "insert",
    "insert_returning",
    "listed",
    "picked",
    "run",
    "update",
]

RowLike: TypeAlias = "msgspec.Struct | Mapping[str, object]"
Found: TypeAlias = tuple[Any, ...]
"""A row as it comes: what its columns hold is known to who wrote the statement, not to the type checker."""


def fetch(tx: Reading, statement: sa.Executable, **parameters: object) -> Sequence[Found]:
    """Run a statement and give all its rows."""
    return tx.connection.execute(statement, parameters).all()


def fetch_one(tx: Reading, statement: sa.Executable, **parameters: object) -> Found | None:
    """Run a statement and give its first row, if any."""
    return tx.connection.execute(statement, parameters).first()


def run(tx: Transaction, statement: sa.Executable, **parameters: object) -> int:
    """Run a statement that gives no rows; how many it touched."""
    return tx.connection.execute(statement, parameters).rowcount


def listed(tx: Reading, values: Collection[object]) -> object:
    """Values as the parameter of :func:`among`."""
    if tx.dialect == "postgresql":
        return [str(value) if isinstance(value, str) else value for value in values]
    return msgspec.json.encode(list(values)).decode()


def insert(
    tx: Transaction,
    table: sa.Table,
    rows: Sequence[RowLike],
    *,
    conflict: Conflict = "fail",
    keys: tuple[str, ...] = (),
    replace: tuple[str, ...] | None = None,
) -> None:
    """Insert rows of one shape with one statement.

    Args:
        tx: the transaction.
        table: where.
        rows: structs or mappings, all with the same columns.
        conflict: what happens to a row whose key is there: an error, nothing, or its new values replace the old (of
            rows with the same key in ``rows`` the last one counts then).
        keys: the key's columns; the primary key if not given.
        replace: the columns that ``replace`` replaces; all but the key if not given.
    """
    if not rows:
        return
    if conflict == "replace" and len(rows) > 1:
        key_names = keys or tuple(column.name for column in table.primary_key)
        # PostgreSQL refuses to change a row twice in one statement.
        rows = list({tuple(_value(row, name) for name in key_names): row for row in rows}.values())
    if tx.dialect == "postgresql":
        statement = insert_into(tx.dialect, table, _names(rows[0]), conflict, keys, replace, (), True)
        tx.connection.execute(statement, {ROWS: encoded(rows)})
    else:
        _many(tx, _insert_many(table, _names(rows[0]), conflict, keys, replace), rows)


def insert_returning(
    tx: Transaction,
    table: sa.Table,
    rows: Sequence[RowLike],
    returning: tuple[str, ...],
    *,
    conflict: Conflict = "fail",
    keys: tuple[str, ...] = (),
) -> Sequence[Found]:
    """As :func:`insert`, and give back columns of the rows that were really inserted (no bytes columns here)."""
    if not rows:
        return []
    statement = insert_into(tx.dialect, table, _names(rows[0]), conflict, keys, None, returning, True)
    return fetch(tx, statement, rows=encoded(rows))


def update(tx: Transaction, table: sa.Table, rows: Sequence[Mapping[str, object]], keys: tuple[str, ...]) -> None:
    """Update rows by their key columns, each naming only what changes; rows of one shape share a statement."""
    shapes: dict[frozenset[str], list[Mapping[str, object]]] = {}
    for row in rows:
        shapes.setdefault(frozenset(row), []).append(row)
    for shape, same in shapes.items():
        if tx.dialect == "postgresql":
            tx.connection.execute(update_by(tx.dialect, table, shape, keys), {ROWS: encoded(same)})
        else:
            _many(tx, _update_many(table, shape, keys), same)


def encoded(rows: Sequence[RowLike]) -> str:
    """Rows as the batch parameter. Bytes become base64, which the statement undoes."""
    data = msgspec.json.encode(rows)
    if b"\\u0000" in data:
        # PostgreSQL keeps no NUL in text. It may come in any text that people send: show that it was there.
        data = msgspec.json.encode([{key: _no_nul(value) for key, value in _dict(row).items()} for row in rows])
    return data.decode()


def _no_nul(value: object) -> object:
    return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


class _Many(NamedTuple):
    """A statement for ``executemany`` of SQLite's driver: its text, and the values' names and conversions in order."""

    text: str
    names: tuple[str, ...]
    conversions: tuple[tuple[int, Callable[[Any], object]], ...]


def _many(tx: Transaction, statement: _Many, rows: Sequence[RowLike]) -> None:
    """Run a statement for each row in the driver's own loop: SQLAlchemy's costs three times as much per row."""
    # Both give the values as a tuple, in C; rows are all structs or all mappings.
    take: Callable[[Any], Any] = attrgetter(*statement.names)
    if not isinstance(rows[0], msgspec.Struct):
        take = itemgetter(*statement.names)
    values: list[tuple[object, ...]] = [take(row) for row in rows]
    if statement.conversions:
        values = [_converted(row, statement.conversions) for row in values]
    tx.connection.exec_driver_sql(statement.text, values)


def _converted(
    row: tuple[object, ...], conversions: tuple[tuple[int, Callable[[Any], object]], ...]
) -> tuple[object, ...]:
    changed = list(row)
    for place, convert in conversions:
        changed[place] = convert(changed[place])
    return tuple(changed)


@cache
def _insert_many(
    table: sa.Table, names: tuple[str, ...], conflict: Conflict, keys: tuple[str, ...], replace: tuple[str, ...] | None
) -> _Many:
    return _compiled(table, insert_into("sqlite", table, names, conflict, keys, replace, (), False), "")


@cache
def _update_many(table: sa.Table, shape: frozenset[str], keys: tuple[str, ...]) -> _Many:
    return _compiled(table, update_by("sqlite", table, shape, keys), "new_")


def _compiled(table: sa.Table, statement: sa.Executable, prefix: str) -> _Many:
    dialect = sqlite_dialect.dialect(paramstyle="qmark")
    if not isinstance(statement, sa.ClauseElement):
        raise TypeError(statement)
    compiled = statement.compile(dialect=dialect)
    if not isinstance(compiled, SQLCompiler) or compiled.positiontup is None:
        raise TypeError(compiled)
    names = tuple(name.removeprefix(prefix) for name in compiled.positiontup)
    if len(names) < 2:
        raise ValueError(f"{table.name}: a row has a key and at least one more value")
    found = ((place, table.c[name].type.bind_processor(dialect)) for place, name in enumerate(names))
    return _Many(str(compiled), names, tuple((place, convert) for place, convert in found if convert is not None))


def _names(row: RowLike) -> tuple[str, ...]:
    return row.__struct_fields__ if isinstance(row, msgspec.Struct) else tuple(row)


def _dict(row: RowLike) -> Mapping[str, object]:
    return msgspec.structs.asdict(row) if isinstance(row, msgspec.Struct) else row


def _value(row: RowLike, name: str) -> object:
    return getattr(row, name) if isinstance(row, msgspec.Struct) else row[name]
