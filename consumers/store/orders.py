"""Orders to pilots (kill, abandon), sent again until they are done or their attempt is over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import TypeAlias

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.pilots import control_orders

OrderKey: TypeAlias = tuple[int, int, str]
"""(job, attempt, action)"""


class OrderRow(msgspec.Struct, frozen=True):
    """An order; ``sent`` is when it was last sent."""

    job: int
    attempt: int
    action: str
    client: str
    reason: str
    created: float
    sent: float
    done: float | None = None
    outcome: str = ""


def add(tx: Transaction, rows: Sequence[OrderRow]) -> None:
    """Give orders; one that was given before counts as sent again now."""
    ordered = sorted(rows, key=lambda row: (row.job, row.attempt, row.action))
    sql.insert(tx, control_orders, ordered, conflict="replace", replace=("sent",))


def pending(tx: Reading, sent_before: float, limit: int) -> list[OrderRow]:
    """Orders that are not done and were last sent before a time."""
    c = control_orders.c
    statement = (
        sa.select(*sql.picked(control_orders, OrderRow))
        .where(c.done.is_(None), c.sent < sent_before)
        .order_by(c.sent, c.job)
        .limit(limit)
    )
    return [OrderRow(*row) for row in sql.fetch(tx, statement)]


def sent(tx: Transaction, keys: Collection[OrderKey], now: float) -> None:
    """These were sent again."""
    _set(tx, [(key, {"sent": now}) for key in keys])


def done(tx: Transaction, outcomes: Sequence[tuple[OrderKey, str]], now: float) -> None:
    """These were carried out, with this outcome. An order that nobody gave changes nothing."""
    _set(tx, [(key, {"done": now, "outcome": outcome}) for key, outcome in outcomes])


def drop(tx: Transaction, attempts: Collection[tuple[int, int]]) -> None:
    """These attempts (job, attempt) are over, and orders about them with them."""
    if attempts:
        rows = sql.encoded([{"job": job, "attempt": attempt} for job, attempt in attempts])
        sql.run(tx, _drop(tx.dialect), rows=rows)


def purge(tx: Transaction, created_before: float) -> int:
    """Drop orders older than a time; how many."""
    return sql.run(tx, sa.delete(control_orders).where(control_orders.c.created < created_before))


def _set(tx: Transaction, changes: Sequence[tuple[OrderKey, dict[str, object]]]) -> None:
    rows = [{"job": job, "attempt": attempt, "action": action, **values} for (job, attempt, action), values in changes]
    sql.update(tx, control_orders, rows, ("job", "attempt", "action"))


@cache
def _drop(dialect: DialectName) -> sa.Executable:
    c, v = control_orders.c, sql.batch(dialect, {"job": sa.BigInteger(), "attempt": sa.BigInteger()})
    return sa.delete(control_orders).where(sa.exists().where(c.job == v["job"], c.attempt == v["attempt"]))
