"""Messages to publish, written with the state that they tell of. A row stays until the broker confirmed it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import sqlalchemy as sa

from . import sql
from .engine import DialectName, OutboxRow, Reading, Transaction
from .tables.messages import outbox

__all__ = ["OutboxRow", "add", "confirm", "count", "due", "expire", "postpone"]


def add(tx: Transaction, rows: Sequence[OutboxRow]) -> None:
    """Write rows; they are in ``tx.fresh`` then, for the writer to publish right after the commit."""
    sql.insert(tx, outbox, rows)
    tx.fresh.extend(rows)


def confirm(tx: Transaction, jtis: Collection[str]) -> None:
    """The broker has these: remove them."""
    if jtis:
        sql.run(tx, _confirm(tx.dialect), ids=sql.listed(tx, jtis))


def due(tx: Transaction, now: float, created_before: float, limit: int) -> list[OutboxRow]:
    """Rows to publish now, oldest first, that their writer did not get out.

    Args:
        tx: a transaction; on PostgreSQL the rows are locked in it and rows that another relay holds are skipped.
        now: rows with a later ``not_before`` wait.
        created_before: younger rows are still their writer's business, unless they waited on purpose.
        limit: at most so many.
    """
    found = sql.fetch(tx, _due(tx.dialect), now=now, created_before=created_before, most=limit)
    return [OutboxRow(*row) for row in found]


def postpone(tx: Transaction, jtis: Collection[str], not_before: float) -> None:
    """Try these later: nobody could take them now."""
    if jtis:
        sql.run(tx, _postpone(tx.dialect), ids=sql.listed(tx, jtis), later=not_before)


def expire(tx: Transaction, now: float) -> int:
    """Drop rows that lost their meaning; how many."""
    return sql.run(tx, sa.delete(outbox).where(outbox.c.expires < now))


def count(tx: Reading) -> int:
    """Rows that wait for their confirmation."""
    return tx.connection.execute(sa.select(sa.func.count()).select_from(outbox)).scalar_one()


@cache
def _confirm(dialect: DialectName) -> sa.Executable:
    return sa.delete(outbox).where(sql.among(dialect, outbox.c.jti))


@cache
def _postpone(dialect: DialectName) -> sa.Executable:
    later = sa.bindparam("later", type_=sa.Double)
    return sa.update(outbox).where(sql.among(dialect, outbox.c.jti)).values(not_before=later)


@cache
def _due(dialect: DialectName) -> sa.Executable:
    now, created_before = sa.bindparam("now", type_=sa.Double), sa.bindparam("created_before", type_=sa.Double)
    statement = (
        sa.select(*sql.picked(outbox, OutboxRow))
        .where(
            outbox.c.not_before <= now,
            sa.or_(outbox.c.created <= created_before, outbox.c.not_before > outbox.c.created),
            outbox.c.expires >= now,
        )
        .order_by(outbox.c.not_before, outbox.c.created, outbox.c.jti)
        .limit(sa.bindparam("most", type_=sa.Integer))
    )
    return statement.with_for_update(skip_locked=True) if dialect == "postgresql" else statement
