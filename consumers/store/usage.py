"""What each owner has and asked for, per group: jobs that are not final, submissions, jobs and bytes of this time.

Promises: ``active`` is never below the truth (but see :func:`add_active`): it grows with each submission in its own
transaction, and shrinks only when it is counted anew (:func:`recount`), which callers do when a limit seems reached.
So a submission costs one row, however many jobs there are. Windows are whole minutes and hours since the epoch, kept
here, so they hold for all processes together and across restarts. Callers take :func:`hold` first: then nobody else
reads or adds until the transaction ends.
"""

from __future__ import annotations

from functools import cache

import msgspec
import sqlalchemy as sa

from . import counters, sql
from .engine import DialectName, Reading, Transaction
from .tables.jobs import ACTIVE_ONLY, jobs, submissions, usage

MINUTE, HOUR = 60, 3600


class Usage(msgspec.Struct, frozen=True):
    """What was used.

    Attributes:
        active: jobs that are not final, at most so many.
        counted: when the oldest of the counts behind ``active`` was made.
        submissions: of this minute.
        jobs: submitted in this hour.
        bytes: submitted in this hour.
    """

    active: int = 0
    counted: float = 0.0
    submissions: int = 0
    jobs: int = 0
    bytes: int = 0


def hold(tx: Transaction) -> None:
    """Be the only one who submits until this transaction ends, as :func:`.submissions.create` would be anyway."""
    counters.reserve(tx, "submissions", 0)


def of_owner(tx: Reading, owner: str, now: float) -> Usage:
    """Of one owner in all his groups."""
    return _summed(tx, "owner", owner, now)


def of_group(tx: Reading, grp: str, now: float) -> Usage:
    """Of all owners in a group."""
    return _summed(tx, "grp", grp, now)


def add(tx: Transaction, owner: str, grp: str, now: float, *, count: int, size: int) -> None:
    """One submission of ``count`` jobs and ``size`` bytes was granted."""
    values = {"owner": owner, "grp": grp, "minute": int(now // MINUTE), "hour": int(now // HOUR)}
    sql.run(tx, _add(tx.dialect), **values, amount=count, size=size)


def add_active(tx: Transaction, owner: str, grp: str, count: int) -> None:
    """Jobs that were final are not any more."""
    sql.run(tx, _add_active(tx.dialect), owner=owner, grp=grp, amount=count)


def recount(tx: Transaction, now: float, *, owner: str = "", grp: str = "") -> None:
    """Count the jobs of an owner, or of a group, as they are.

    Args:
        tx: the transaction; it holds (:func:`hold`), and has written what it has to write.
        now: becomes the time of the count.
        owner: whose, or
        grp: whose.
    """
    column, value = ("owner", owner) if owner else ("grp", grp)
    sql.run(tx, _recount(column), value=value, now=now)


def _summed(tx: Reading, column: str, value: str, now: float) -> Usage:
    row = sql.fetch_one(tx, _sum(column), value=value, minute=int(now // MINUTE), hour=int(now // HOUR))
    return Usage() if row is None or row[0] is None else Usage(int(row[0]), float(row[1]), *map(int, row[2:]))


@cache
def _sum(column: str) -> sa.Executable:
    u = usage.c
    is_minute = u.minute == sa.bindparam("minute", type_=sa.BigInteger)
    is_hour = u.hour == sa.bindparam("hour", type_=sa.BigInteger)
    return sa.select(
        sa.func.sum(u.active),
        sa.func.min(u.counted),
        sa.func.sum(sa.case((is_minute, u.submissions), else_=0)),
        sa.func.sum(sa.case((is_hour, u.jobs), else_=0)),
        sa.func.sum(sa.case((is_hour, u.bytes), else_=0)),
    ).where(u[column] == sa.bindparam("value", type_=sa.Text))


@cache
def _add(dialect: DialectName) -> sa.Executable:
    u = usage.c
    minute, hour, amount, size = (
        sa.bindparam(name, type_=sa.BigInteger) for name in ("minute", "hour", "amount", "size")
    )
    insert = sql.dialect_insert(dialect, usage).values(
        owner=sa.bindparam("owner", type_=sa.Text),
        grp=sa.bindparam("grp", type_=sa.Text),
        active=amount,
        counted=0.0,
        minute=minute,
        submissions=1,
        hour=hour,
        jobs=amount,
        bytes=size,
    )
    return insert.on_conflict_do_update(
        index_elements=["owner", "grp"],
        set_={
            "active": u.active + amount,
            "minute": minute,
            "submissions": sa.case((u.minute == minute, u.submissions + 1), else_=1),
            "hour": hour,
            "jobs": sa.case((u.hour == hour, u.jobs + amount), else_=amount),
            "bytes": sa.case((u.hour == hour, u.bytes + size), else_=size),
        },
    )


@cache
def _add_active(dialect: DialectName) -> sa.Executable:
    amount = sa.bindparam("amount", type_=sa.BigInteger)
    insert = sql.dialect_insert(dialect, usage).values(
        owner=sa.bindparam("owner", type_=sa.Text),
        grp=sa.bindparam("grp", type_=sa.Text),
        active=amount,
        counted=0.0,
        minute=0,
        submissions=0,
        hour=0,
        jobs=0,
        bytes=0,
    )
    return insert.on_conflict_do_update(index_elements=["owner", "grp"], set_={"active": usage.c.active + amount})


@cache
def _recount(column: str) -> sa.Executable:
    u, s = usage.c, submissions.c
    there = (
        sa.select(sa.func.count())
        .select_from(jobs)
        .where(jobs.c.grp == u.grp, jobs.c.owner == u.owner, ACTIVE_ONLY)
        .scalar_subquery()
    )
    to_come = (
        sa.select(sa.func.coalesce(sa.func.sum(s["count"] - s.expanded), 0))
        .where(s.expanded < s["count"], s.owner == u.owner, s.grp == u.grp)
        .scalar_subquery()
    )
    return (
        sa.update(usage)
        .where(u[column] == sa.bindparam("value", type_=sa.Text))
        .values(active=there + to_come, counted=sa.bindparam("now", type_=sa.Double))
    )
