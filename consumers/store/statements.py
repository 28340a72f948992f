"""Statements over whole batches, built once per shape and kept. What they are for: :mod:`.sql`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.types import TypeEngine

from .engine import DialectName
from .tables import Encoded

Conflict = Literal["fail", "ignore", "replace"]

ROWS = "rows"
"""The parameter that carries a batch."""


def among(dialect: DialectName, column: sa.ColumnElement[Any], name: str = "ids") -> sa.ColumnElement[bool]:
    """The condition that a column is one of the values in parameter ``name`` (give it :func:`listed`)."""
    if dialect == "postgresql":
        return column == sa.any_(sa.bindparam(name, type_=postgresql.ARRAY(_plain(column.type))))
    each = sa.func.json_each(sa.bindparam(name, type_=sa.Text)).table_valued("value")
    return column.in_(sa.select(each.c.value))


def picked(table: sa.Table, struct: type[msgspec.Struct]) -> list[sa.Column[Any]]:
    """The columns of a table that a struct names, in its order: rows then make structs positionally."""
    return [table.c[name] for name in struct.__struct_fields__]


def dialect_insert(dialect: DialectName, table: sa.Table) -> postgresql.Insert | sqlite_dialect.Insert:
    """An INSERT that knows ON CONFLICT."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite_dialect.insert(table)


def batch(
    dialect: DialectName, columns: Mapping[str, TypeEngine[Any]], name: str = "v", rows: str = ROWS
) -> Mapping[str, sa.ColumnElement[Any]]:
    """Expressions for the columns of the batch in a parameter; naming one puts the batch into FROM."""
    bind = sa.bindparam(rows, type_=sa.Text)
    if dialect == "postgresql":
        source = (
            sa.func.json_to_recordset(sa.cast(bind, postgresql.JSON))
            .table_valued(*(sa.column(key, _wire(kind)) for key, kind in columns.items()))
            .render_derived(name=name, with_types=True)
        )
        return {key: _unwrapped(source.c[key], kind) for key, kind in columns.items()}
    each = sa.func.json_each(bind).table_valued("value", name="each")
    found = sa.select(
        *(sa.func.json_extract(each.c.value, f"$.{key}", type_=kind).label(key) for key, kind in columns.items())
    ).subquery(name)
    return {key: found.c[key] for key in columns}


@cache
def insert_into(
    dialect: DialectName,
    table: sa.Table,
    names: tuple[str, ...],
    conflict: Conflict,
    keys: tuple[str, ...],
    replace: tuple[str, ...] | None,
    returning: tuple[str, ...],
    as_batch: bool,
) -> sa.Executable:
    """An INSERT of whole rows with these columns; ``as_batch``: from the one parameter ``rows``."""
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
def update_by(dialect: DialectName, table: sa.Table, shape: frozenset[str], keys: tuple[str, ...]) -> sa.Executable:
    """An UPDATE by key columns; on PostgreSQL of the batch, on SQLite of one row with parameters ``new_…``.

    Raises:
        KeyError: a column is not the table's, or nothing but keys is named.
    """
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


def _plain(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """A type without its Python side (states go to the database as their names)."""
    return kind.impl_instance if isinstance(kind, sa.TypeDecorator) else kind


def _is_bytes(kind: TypeEngine[Any]) -> bool:
    return isinstance(kind, sa.LargeBinary | Encoded)


def _wire(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    return sa.Text() if _is_bytes(kind) else _plain(kind)


def _unwrapped(column: sa.ColumnElement[Any], kind: TypeEngine[Any]) -> sa.ColumnElement[Any]:
    if not _is_bytes(kind):
        return column
    data = sa.func.decode(column, sa.literal_column("'base64'"))
    return data if isinstance(kind, sa.LargeBinary) else sa.func.convert_from(data, sa.literal_column("'UTF8'"))
