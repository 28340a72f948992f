"""Whole batches as single statements, alike on both databases.

A batch travels as ONE parameter: its rows encoded as JSON, which the database unfolds (``json_to_recordset``,
``json_each``). So the statement's text never changes with the batch's size (it stays prepared and cached) and the
client spends microseconds per row. On SQLite plain inserts and updates go through ``executemany`` instead, which
costs no round trip there.

Statements are built once per shape and kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.types import TypeEngine

from .engine import DialectName, Reading, Transaction

RowLike: TypeAlias = "msgspec.Struct | Mapping[str, object]"
Conflict = Literal["fail", "ignore", "replace"]
Found: TypeAlias = tuple[Any, ...]
"""A row as it comes: what its columns hold is known to who wrote the statement, not to the type checker."""

ROWS = "rows"


def fetch(tx: Reading, statement: sa.Executable, **parameters: object) -> Sequence[Found]:
    """Run a statement and give all its rows."""
    return tx.connection.execute(statement, parameters).all()


def fetch_one(tx: Reading, statement: sa.Executable, **parameters: object) -> Found | None:
    """Run a statement and give its first row, if any."""
    return tx.connection.execute(statement, parameters).first()


def run(tx: Transaction, statement: sa.Executable, **parameters: object) -> int:
    """Run a statement that gives no rows; how many it touched."""
    return tx.connection.execute(statement, parameters).rowcount


def among(dialect: DialectName, column: sa.ColumnElement[Any], name: str = "ids") -> sa.ColumnElement[bool]:
    """The condition that a column is one of the values in parameter ``name`` (give it :func:`listed`)."""
    if dialect == "postgresql":
        return column == sa.any_(sa.bindparam(name, type_=postgresql.ARRAY(_plain(column.type))))
    each = sa.func.json_each(sa.bindparam(name, type_=sa.Text)).table_valued("value")
    return column.in_(sa.select(each.c.value))


def listed(tx: Reading, values: Collection[object]) -> object:
    """Values as the parameter of :func:`among`."""
    if tx.dialect == "postgresql":
        return [str(value) if isinstance(value, str) else value for value in values]
    return msgspec.json.encode(list(values)).decode()


def picked(table: sa.Table, struct: type[msgspec.Struct]) -> list[sa.Column[Any]]:
    """The columns of a table that a struct names, in its order: rows then make structs positionally."""
    return [table.c[name] for name in struct.__struct_fields__]


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
    statement = _insert(tx.dialect, table, _names(rows[0]), conflict, keys, replace, (), tx.dialect == "postgresql")
    if tx.dialect == "postgresql":
        tx.connection.execute(statement, {ROWS: encoded(rows)})
    else:
        tx.connection.execute(statement, [_dict(row) for row in rows])


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
    statement = _insert(tx.dialect, table, _names(rows[0]), conflict, keys, None, returning, True)
    return fetch(tx, statement, rows=encoded(rows))


def update(tx: Transaction, table: sa.Table, rows: Sequence[Mapping[str, object]], keys: tuple[str, ...]) -> None:
    """Update rows by their key columns, each naming only what changes; rows of one shape share a statement."""
    shapes: dict[frozenset[str], list[Mapping[str, object]]] = {}
    for row in rows:
        shapes.setdefault(frozenset(row), []).append(row)
    for shape, same in shapes.items():
        statement = _update(tx.dialect, table, shape, keys)
        if tx.dialect == "postgresql":
            tx.connection.execute(statement, {ROWS: encoded(same)})
        else:
            tx.connection.execute(statement, [{f"new_{name}": value for name, value in row.items()} for row in same])


def dialect_insert(dialect: DialectName, table: sa.Table) -> postgresql.Insert | sqlite_dialect.Insert:
    """An INSERT that knows ON CONFLICT."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite_dialect.insert(table)


def batch(
    dialect: DialectName, columns: Mapping[str, TypeEngine[Any]], name: str = "v"
) -> Mapping[str, sa.ColumnElement[Any]]:
    """Expressions for the columns of the batch in parameter ``rows``; naming one puts the batch into FROM."""
    bind = sa.bindparam(ROWS, type_=sa.Text)
    if dialect == "postgresql":
        source = (
            sa.func.json_to_recordset(sa.cast(bind, postgresql.JSON))
            .table_valued(*(sa.column(key, _wire(kind)) for key, kind in columns.items()))
            .render_derived(name=name, with_types=True)
        )
        return {key: _unwrapped(source.c[key], kind) for key, kind in columns.items()}
    each = sa.func.json_each(bind).table_valued("value", name="each")
    rows = sa.select(
        *(sa.func.json_extract(each.c.value, f"$.{key}", type_=kind).label(key) for key, kind in columns.items())
    ).subquery(name)
    return {key: rows.c[key] for key in columns}


def encoded(rows: Sequence[RowLike]) -> str:
    """Rows as the batch parameter. Bytes become base64, which the statement undoes."""
    data = msgspec.json.encode(rows)
    if b"\\u0000" in data:
        # PostgreSQL keeps no NUL in text. It may come in any text that people send: show that it was there.
        data = msgspec.json.encode([{key: _no_nul(value) for key, value in _dict(row).items()} for row in rows])
    return data.decode()


def _no_nul(value: object) -> object:
    return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


@cache
def _insert(
    dialect: DialectName,
    table: sa.Table,
    names: tuple[str, ...],
    conflict: Conflict,
    keys: tuple[str, ...],
    replace: tuple[str, ...] | None,
    returning: tuple[str, ...],
    as_batch: bool,
) -> sa.Executable:
    statement = dialect_insert(dialect, table)
    if as_batch:
        source = batch(dialect, {name: table.c[name].type for name in names})
        chosen = sa.select(*source.values())
        if dialect == "sqlite":
            chosen = chosen.where(sa.true())  # SQLite's parser wants it before ON CONFLICT
        statement = statement.from_select(names, chosen, include_defaults=False)
    else:
        statement = statement.values({name: sa.bindparam(name, type_=table.c[name].type) for name in names})
    key_columns = keys or tuple(column.name for column in table.primary_key)
    if conflict == "ignore":
        statement = (
            statement.on_conflict_do_nothing() if not keys else statement.on_conflict_do_nothing(index_elements=keys)
        )
    elif conflict == "replace":
        changed = replace if replace is not None else tuple(name for name in names if name not in key_columns)
        statement = statement.on_conflict_do_update(
            index_elements=key_columns, set_={name: statement.excluded[name] for name in changed}
        )
    return statement.returning(*(table.c[name] for name in returning)) if returning else statement


@cache
def _update(dialect: DialectName, table: sa.Table, shape: frozenset[str], keys: tuple[str, ...]) -> sa.Executable:
    names = sorted(shape)
    unknown = [name for name in (*names, *keys) if name not in table.c]
    if unknown or not set(keys) < shape:
        raise KeyError(f"{table.name}: cannot update {unknown or names} by {keys}")
    if dialect == "postgresql":
        source = batch(dialect, {name: table.c[name].type for name in names})
    else:
        source = {name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in names}
    return (
        sa.update(table)
        .values({name: source[name] for name in names if name not in keys})
        .where(*(table.c[key] == source[key] for key in keys))
    )


def _names(row: RowLike) -> tuple[str, ...]:
    return row.__struct_fields__ if isinstance(row, msgspec.Struct) else tuple(row)


def _dict(row: RowLike) -> Mapping[str, object]:
    return msgspec.structs.asdict(row) if isinstance(row, msgspec.Struct) else row


def _value(row: RowLike, name: str) -> object:
    return getattr(row, name) if isinstance(row, msgspec.Struct) else row[name]


def _plain(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """A type without its Python side (states go to the database as their names)."""
    return kind.impl_instance if isinstance(kind, sa.TypeDecorator) else kind


def _is_bytes(kind: TypeEngine[Any]) -> bool:
    from .tables import Encoded

    return isinstance(kind, sa.LargeBinary | Encoded)


def _wire(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    return sa.Text() if _is_bytes(kind) else _plain(kind)


def _unwrapped(column: sa.ColumnElement[Any], kind: TypeEngine[Any]) -> sa.ColumnElement[Any]:
    if not _is_bytes(kind):
        return column
    data = sa.func.decode(column, sa.literal_column("'base64'"))
    return data if isinstance(kind, sa.LargeBinary) else sa.func.convert_from(data, sa.literal_column("'UTF8'"))
