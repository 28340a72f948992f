"""Leadership: a row with an epoch and an end. A paused old leader is fenced off by :func:`check` in its transaction.

Whoever holds the row inside a transaction keeps a successor waiting. So on PostgreSQL the server ends such a
transaction when its process says nothing for :data:`PATIENCE_MS`, which is what a process that is paused does.
"""

from __future__ import annotations

from functools import cache

import sqlalchemy as sa

from . import sql
from .engine import DialectName, Transaction
from .errors import NotLeader
from .tables.messages import leaders

PATIENCE_MS = 3_000
"""Below the time after which a leader that is not heard of is replaced. Between two statements we need milliseconds."""


def acquire_or_renew(tx: Transaction, role: str, holder: str, now: float, ttl: float) -> int | None:
    """Lead, or go on leading, for ``ttl`` seconds.

    Returns:
        The epoch (it grows with each change of holder, and when one comes back after its time); ``None`` if another
        one leads.
    """
    row = sql.fetch_one(tx, _acquire(tx.dialect), role=role, holder=holder, now=now, until=now + ttl)
    return None if row is None else int(row[0])


def check(tx: Transaction, role: str, epoch: int, now: float) -> None:
    """Make sure that this epoch leads, until the transaction ends: a successor waits for it.

    Raises:
        NotLeader: it does not.
    """
    row = sql.fetch_one(tx, _check(tx.dialect), role=role)
    if row is None or row[0] != epoch or row[1] <= now:
        raise NotLeader(f"{role}: epoch {epoch} does not lead any more")


def release(tx: Transaction, role: str, epoch: int) -> None:
    """Step down, so that the next one need not wait. The row stays: epochs never come again."""
    statement = sa.update(leaders).where(leaders.c.role == role, leaders.c.epoch == epoch).values(until=0.0)
    sql.run(tx, statement)


@cache
def _acquire(dialect: DialectName) -> sa.Executable:
    insert = sql.dialect_insert(dialect, leaders)
    now, until = sa.bindparam("now", type_=sa.Double), sa.bindparam("until", type_=sa.Double)
    holder = sa.bindparam("holder", type_=sa.Text)
    mine = sa.and_(leaders.c.holder == holder, leaders.c.until > now)
    statement = insert.values(role=sa.bindparam("role", type_=sa.Text), holder=holder, epoch=1, until=until)
    return statement.on_conflict_do_update(
        index_elements=["role"],
        set_={
            "holder": holder,
            "epoch": sa.case((mine, leaders.c.epoch), else_=leaders.c.epoch + 1),
            "until": until,
        },
        where=sa.or_(leaders.c.holder == holder, leaders.c.until <= now),
    ).returning(leaders.c.epoch, *_impatient(dialect))


@cache
def _check(dialect: DialectName) -> sa.Executable:
    statement = sa.select(leaders.c.epoch, leaders.c.until, *_impatient(dialect)).where(
        leaders.c.role == sa.bindparam("role", type_=sa.Text)
    )
    return statement.with_for_update(read=True) if dialect == "postgresql" else statement


def _impatient(dialect: DialectName) -> tuple[sa.ColumnElement[str], ...]:
    """A column that sets the server's patience until the transaction ends."""
    if dialect == "sqlite":
        return ()
    setting: sa.ColumnElement[str] = sa.literal_column("'idle_in_transaction_session_timeout'")
    return (sa.func.set_config(setting, sa.literal_column(f"'{PATIENCE_MS}'"), sa.true()),)
