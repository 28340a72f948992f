"""Messages to publish, written with the state that they tell of. A row stays until the broker confirmed it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache

import sqlalchemy as sa

from . import inbox, sql
from .engine import DialectName, OutboxRow, Reading, Transaction
from .tables.messages import inbox as inbox_table
from .tables.messages import outbox

__all__ = ["OutboxRow", "add", "close", "confirm", "count", "due", "expire", "postpone"]


def add(tx: Transaction, rows: Sequence[OutboxRow]) -> None:
    """Write rows; they are in ``tx.fresh`` then, for the writer to publish right after the commit."""
    sql.insert(tx, outbox, rows)
    tx.fresh.extend(rows)


def confirm(tx: Transaction, jtis: Collection[str]) -> None:
    """The broker has these: remove them."""
    if jtis:
        sql.run(tx, _confirm(tx.dialect), ids=sql.listed(tx, jtis))


def close(
    tx: Transaction, answers: Mapping[inbox.Key, bytes], rows: Sequence[OutboxRow], confirmed: Collection[str]
) -> None:
    """What ends the transaction of a batch: :func:`.inbox.record`, :func:`add` and :func:`confirm` at once.

    Every message of every consumer goes this way, so on PostgreSQL it is one statement.
    """
    if tx.dialect != "postgresql" or not rows:
        if answers:
            inbox.record(tx, answers)
        add(tx, rows)
        confirm(tx, confirmed)
        return
    outcomes = [{"iss": iss, "jti": jti, "outcome": outcome} for (iss, jti), outcome in answers.items()]
    encoded = {"outcomes": sql.encoded(outcomes), "rows": sql.encoded(rows)}
    sql.run(tx, _close(), **encoded, ids=sql.listed(tx, confirmed))
    tx.fresh.extend(rows)


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
def _close() -> sa.Executable:
    c = inbox_table.c
    answered = sql.batch("postgresql", {name: c[name].type for name in ("iss", "jti", "outcome")}, "a", "outcomes")
    noted = (
        sa.update(inbox_table)
        .values(outcome=answered["outcome"])
        .where(c.jti == answered["jti"], c.iss == answered["iss"])
        .cte("noted")
    )
    names = OutboxRow.__struct_fields__
    said = sql.batch("postgresql", {name: outbox.c[name].type for name in names})
    kept = sa.insert(outbox).from_select(names, sa.select(*said.values()), include_defaults=False).cte("kept")
    return sa.delete(outbox).where(sql.among("postgresql", outbox.c.jti)).add_cte(noted, kept)


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
