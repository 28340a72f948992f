"""Executions of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import sqlalchemy as sa

from . import sql
from .engine import Reading, Transaction
from .rows import AttemptRow
from .tables.jobs import attempts

__all__ = ["AttemptRow", "insert", "of", "update_many"]


def insert(tx: Transaction, rows: Sequence[AttemptRow]) -> None:
    """New attempts begin."""
    sql.insert(tx, attempts, rows)


def update_many(tx: Transaction, changes: Mapping[tuple[int, int], Mapping[str, object]]) -> None:
    """Change attempts by (job, attempt), each naming only the columns that change."""
    rows = [{"job": job, "attempt": attempt, **values} for (job, attempt), values in changes.items() if values]
    sql.update(tx, attempts, rows, ("job", "attempt"))


def of(tx: Reading, job: int) -> list[AttemptRow]:
    """All executions of a job, in order."""
    return [AttemptRow(*row) for row in sql.fetch(tx, _of(), job=job)]


@cache
def _of() -> sa.Executable:
    return (
        sa.select(*sql.picked(attempts, AttemptRow))
        .where(attempts.c.job == sa.bindparam("job", type_=sa.BigInteger))
        .order_by(attempts.c.attempt)
    )
