"""Submissions: one row and one range of job ids each, whatever their size; expanded into jobs in slices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import TypeAlias

import msgspec
import sqlalchemy as sa

from . import counters, sql
from .engine import DialectName, Reading, Transaction
from .errors import StoreConflict
from .tables.jobs import submissions

SubmissionKey: TypeAlias = tuple[str, str, str]
"""(owner, group, idempotency key)"""


class NewSubmission(msgspec.Struct, frozen=True):
    """What a user sent.

    Attributes:
        key: idempotency key, empty if none.
        digest: of the content; the same key with another digest is the caller's to refuse.
        count: how many jobs it means.
        descriptions: JSON.
        files: JSON array of ``SandboxFile`` without contents.
        expanded: how many of its jobs are written already.
    """

    owner: str
    grp: str
    key: str
    digest: str
    count: int
    descriptions: bytes
    files: bytes
    client: str
    created: float
    expanded: int = 0


class SubmissionRow(msgspec.Struct, frozen=True):
    """A submission; its jobs are ``first`` … ``first + count - 1``."""

    id: int
    owner: str
    grp: str
    key: str
    digest: str
    first: int
    count: int
    expanded: int
    descriptions: bytes
    files: bytes
    client: str
    created: float


def create(tx: Transaction, new: Sequence[NewSubmission]) -> list[SubmissionRow]:
    """Enter submissions and reserve their job ids, in this order.

    Raises:
        StoreConflict: another transaction used one of the keys in this moment; look again (:func:`find_by_keys`).
    """
    if not new:
        return []
    number = counters.reserve(tx, "submissions", len(new))
    first = counters.reserve(tx, "jobs", sum(one.count for one in new))
    starts = accumulate((one.count for one in new), initial=first)
    rows = [
        SubmissionRow(id=number + place, first=start, **msgspec.structs.asdict(one))
        for place, (one, start) in enumerate(zip(new, starts, strict=False))
    ]
    # Holding the counters, nobody else can be between this look and our insert.
    if find_by_keys(tx, [(row.owner, row.grp, row.key) for row in rows if row.key]):
        raise StoreConflict("another transaction used the same idempotency key")
    sql.insert(tx, submissions, rows)
    return rows


def find_by_keys(tx: Reading, keys: Collection[SubmissionKey]) -> dict[SubmissionKey, SubmissionRow]:
    """Submissions that used these idempotency keys."""
    if not keys:
        return {}
    rows = sql.encoded([{"owner": owner, "grp": grp, "key": key} for owner, grp, key in keys])
    found = [SubmissionRow(*row) for row in sql.fetch(tx, _find(tx.dialect), rows=rows)]
    return {(row.owner, row.grp, row.key): row for row in found}


def load(tx: Reading, ids: Collection[int]) -> dict[int, SubmissionRow]:
    """Submissions by id."""
    found = sql.fetch(tx, _load(tx.dialect), ids=sql.listed(tx, ids)) if ids else []
    return {row[0]: SubmissionRow(*row) for row in found}


def unexpanded(tx: Transaction, limit: int) -> list[SubmissionRow]:
    """The oldest submissions with jobs still to be written; on PostgreSQL those that nobody else works on, locked."""
    return [SubmissionRow(*row) for row in sql.fetch(tx, _unexpanded(tx.dialect), most=limit)]


def mark_expanded(tx: Transaction, progress: Mapping[int, int]) -> None:
    """So many jobs of each submission are written now."""
    sql.update(tx, submissions, [{"id": key, "expanded": value} for key, value in progress.items()], ("id",))


def forget_keys(tx: Transaction, before: float) -> int:
    """Free the idempotency keys of submissions older than a time; how many."""
    statement = sa.update(submissions).where(submissions.c.key != "", submissions.c.created < before).values(key="")
    return sql.run(tx, statement)


@cache
def _find(dialect: DialectName) -> sa.Executable:
    s, v = submissions.c, sql.batch(dialect, {"owner": sa.Text(), "grp": sa.Text(), "key": sa.Text()})
    return sa.select(*sql.picked(submissions, SubmissionRow)).where(
        s.owner == v["owner"], s.grp == v["grp"], s.key == v["key"], s.key != sa.literal_column("''")
    )


@cache
def _load(dialect: DialectName) -> sa.Executable:
    return sa.select(*sql.picked(submissions, SubmissionRow)).where(sql.among(dialect, submissions.c.id))


@cache
def _unexpanded(dialect: DialectName) -> sa.Executable:
    statement = (
        sa.select(*sql.picked(submissions, SubmissionRow))
        .where(submissions.c.expanded < submissions.c["count"])
        .order_by(submissions.c.id)
        .limit(sa.bindparam("most", type_=sa.Integer))
    )
    return statement.with_for_update(skip_locked=True) if dialect == "postgresql" else statement
