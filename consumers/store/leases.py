"""Live leases, and what started lately: what the matcher's limits count. One statement each, if there are limits."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading
from .tables.jobs import LEASED_ONLY, attempts, jobs
from .tables.pilots import pilots

_CE = sa.func.coalesce(pilots.c.ce, sa.literal_column("''"))


class LeaseRow(msgspec.Struct, frozen=True, gc=False):
    """A lease: ``ce`` is its pilot's, empty if it names none.

    Attributes:
        job: of which job; 0 where several are told as one.
        attempt: its number; 0 likewise.
        matched: when it began; of several the latest.
    """

    job: int
    attempt: int
    site: str
    ce: str
    job_type: str
    owner: str
    group: str
    matched: float


def live(tx: Reading) -> list[LeaseRow]:
    """Every live lease: jobs that are Matched, Running, Completing or Stalled."""
    return [LeaseRow(*row) for row in sql.fetch(tx, _live())]


def started_since(tx: Reading, since: float) -> list[LeaseRow]:
    """The latest start since a time of each kind of job, whatever became of it."""
    return [LeaseRow(0, 0, *row) for row in sql.fetch(tx, _started(), since=since)]


def attempts_of(tx: Reading, ids: Collection[int]) -> dict[int, int]:
    """Attempts of those of these jobs that have a live lease."""
    found = sql.fetch(tx, _attempts_of(tx.dialect), ids=sql.listed(tx, ids)) if ids else []
    return {row[0]: row[1] for row in found}


@cache
def _attempts_of(dialect: DialectName) -> sa.Executable:
    return sa.select(jobs.c.id, jobs.c.attempt).where(LEASED_ONLY, sql.among(dialect, jobs.c.id))


@cache
def _live() -> sa.Executable:
    names = "id", "attempt", "site", "pilot", "job_type", "owner", "grp", "matched"
    j = sa.select(*(jobs.c[name] for name in names)).where(LEASED_ONLY).subquery()
    return sa.select(
        j.c.id, j.c.attempt, j.c.site, _CE, j.c.job_type, j.c.owner, j.c.grp, sa.func.coalesce(j.c.matched, 0.0)
    ).select_from(j.outerjoin(pilots, pilots.c.client == j.c.pilot))


@cache
def _started() -> sa.Executable:
    kind = attempts.c.site, _CE, jobs.c.job_type, jobs.c.owner, jobs.c.grp
    both = attempts.join(jobs, jobs.c.id == attempts.c.job)
    return (
        sa.select(*kind, sa.func.max(attempts.c.matched))
        .select_from(both.outerjoin(pilots, pilots.c.client == attempts.c.pilot))
        .where(attempts.c.matched >= sa.bindparam("since", type_=sa.Double))
        .group_by(*kind)
    )
