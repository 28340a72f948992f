"""Longer proxies of single submissions: apart from the accounts' own, for those jobs only, gone with the last."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .proxies import erasing
from .tables.identity import submission_proxies
from .tables.jobs import ACTIVE_ONLY, jobs, submissions

_C = submission_proxies.c


class SubmissionProxy(msgspec.Struct, frozen=True):
    """A proxy for the jobs of one submission.

    Attributes:
        submission: absent until the submission comes.
        warned: the threshold before its end that was warned of last, seconds.
    """

    id: str
    dn: str
    grp: str
    chain: str
    key: bytes
    not_after: float
    stored: float
    submission: int | None = None
    warned: float | None = None

    @property
    def place(self) -> str:
        """What its key is bound to."""
        return place_of(self.id)


def place_of(identifier: str) -> str:
    """What the key of such a proxy is bound to."""
    return f"submission proxy\n{identifier}"


def put(tx: Transaction, proxy: SubmissionProxy) -> None:
    """Keep one."""
    sql.insert(tx, submission_proxies, [proxy])


def unbound(tx: Reading, dn: str) -> int:
    """How many of a DN's wait for their submission."""
    row = sql.fetch_one(tx, sa.select(sa.func.count()).where(_C.dn == dn, _C.submission.is_(None)))
    return 0 if row is None else int(row[0])


def end_of_unbound(tx: Reading, identifier: str, dn: str, grp: str) -> float | None:
    """When one that waits for its submission ends; None if there is none of that DN and group."""
    statement = sa.select(_C.not_after).where(_C.id == identifier, _C.dn == dn, _C.grp == grp, _C.submission.is_(None))
    row = sql.fetch_one(tx, statement)
    return None if row is None else float(row[0])


def bind(tx: Transaction, identifier: str, submission: int) -> bool:
    """It is for this submission and no other; False if it was for another already."""
    statement = sa.update(submission_proxies).where(_C.id == identifier, _C.submission.is_(None))
    return sql.run(tx, statement.values(submission=submission)) > 0


def warn(tx: Transaction, identifier: str, threshold: float) -> None:
    """It was warned of its end."""
    sql.run(tx, sa.update(submission_proxies).where(_C.id == identifier).values(warned=threshold))


def of_submissions(tx: Reading, ids: Collection[int]) -> dict[int, SubmissionProxy]:
    """Proxies of these submissions; most have none."""
    found = sql.fetch(tx, _load(tx.dialect), ids=sql.listed(tx, ids)) if ids else []
    rows = [SubmissionProxy(*row) for row in found]
    return {row.submission: row for row in rows if row.submission is not None}


def having(tx: Reading, ids: Collection[int]) -> set[int]:
    """Which of these submissions have a proxy of their own."""
    return {row[0] for row in sql.fetch(tx, _having(tx.dialect), ids=sql.listed(tx, ids))} if ids else set()


def listing(tx: Reading, owner: str = "") -> list[SubmissionProxy]:
    """All of them, or an owner's."""
    statement = sa.select(*sql.picked(submission_proxies, SubmissionProxy)).order_by(_C.dn, _C.grp, _C.stored)
    if owner:
        statement = statement.where(_C.dn == owner)
    return [SubmissionProxy(*row) for row in sql.fetch(tx, statement)]


def count_active(tx: Reading, submission: int) -> int:
    """How many jobs of a submission are not over."""
    row = sql.fetch_one(tx, sa.select(sa.func.count()).where(*_mine(submission), ACTIVE_ONLY))
    return 0 if row is None else int(row[0])


def _mine(submission: int) -> tuple[sa.ColumnElement[bool], ...]:
    s = submissions.c
    return s.id == submission, jobs.c.id >= s.first, jobs.c.id < s.first + s["count"]


def delete(tx: Transaction, dn: str, grp: str = "") -> int:
    """Forget all of somebody's; how many."""
    with erasing(tx):
        mine = [_C.dn == dn, *([_C.grp == grp] if grp else [])]
        return sql.run(tx, sa.delete(submission_proxies).where(*mine))


def purge(tx: Transaction, now: float, unbound_before: float) -> list[SubmissionProxy]:
    """Forget those that ended, whose submission never came, or whose jobs are all over; which."""
    s = submissions.c
    mine = s.id == _C.submission
    to_come = sa.exists().where(mine, s.expanded < s["count"])
    living = sa.exists().where(mine, jobs.c.id >= s.first, jobs.c.id < s.first + s["count"], ACTIVE_ONLY)
    never_came = sa.and_(_C.submission.is_(None), _C.stored < unbound_before)
    served = sa.and_(_C.submission.is_not(None), sa.not_(to_come), sa.not_(living))
    statement = sa.delete(submission_proxies).where(sa.or_(_C.not_after < now, never_came, served))
    with erasing(tx):
        found = sql.fetch(tx, statement.returning(*sql.picked(submission_proxies, SubmissionProxy)))
    return [SubmissionProxy(*row) for row in found]


@cache
def _load(dialect: DialectName) -> sa.Executable:
    return sa.select(*sql.picked(submission_proxies, SubmissionProxy)).where(sql.among(dialect, _C.submission))


@cache
def _having(dialect: DialectName) -> sa.Executable:
    return sa.select(_C.submission).where(sql.among(dialect, _C.submission))
