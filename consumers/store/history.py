"""What happened to each job, and why. Append only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import sqlalchemy as sa

from . import sql
from .engine import Reading, Transaction
from .rows import HistoryRow
from .tables.jobs import history

__all__ = ["HistoryRow", "append", "of"]


def append(tx: Transaction, lines: Sequence[HistoryRow]) -> None:
    """Write lines; those of one job stay in this order."""
    sql.insert(tx, history, lines)


def of(tx: Reading, job: int, limit: int = 10_000) -> list[HistoryRow]:
    """A job's life in the order in which it was written."""
    return [HistoryRow(*row) for row in sql.fetch(tx, _of(), job=job, most=limit)]


@cache
def _of() -> sa.Executable:
    return (
        sa.select(*sql.picked(history, HistoryRow))
        .where(history.c.job == sa.bindparam("job", type_=sa.BigInteger))
        .order_by(history.c.id)
        .limit(sa.bindparam("most", type_=sa.Integer))
    )
