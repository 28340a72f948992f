"""What questions about waiting jobs look at: pilots, heads of queues, recent matches. All bounded, none of it held.

Promises: nothing here locks a row, and no statement reads more rows than its bound says, however many jobs wait.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import sqlalchemy as sa

from schemas.job import JobStatus

from . import sql
from .engine import Reading
from .pilots import ALIVE
from .tables.jobs import history, jobs, task_queues
from .tables.messages import leaders
from .tables.pilots import parked, pilots

MAX_LINES = 20_000
"""History lines looked back for matches: three or four thousand jobs' worth, read in some 20 ms."""


class Leading(NamedTuple):
    """Who leads, or did."""

    holder: str
    until: float


class Behind(NamedTuple):
    """Jobs of one priority in a queue that were submitted before a job (those at the same moment by id)."""

    queue: int
    priority: int
    submitted: float
    job: int


class Matches(NamedTuple):
    """How many jobs were matched lately.

    Attributes:
        since: of which time on this is known.
        counts: (group, owner) → jobs.
    """

    since: float
    counts: Mapping[tuple[str, str], int]


def leading(tx: Reading, role: str) -> Leading | None:
    """Who leads or led last."""
    statement = sa.select(leaders.c.holder, leaders.c.until).where(leaders.c.role == role)
    row = sql.fetch_one(tx, statement)
    return None if row is None else Leading(*row)


def alive(tx: Reading) -> Sequence[tuple[str, bytes]]:
    """Pilots that are alive and get work: client and last offer (JSON)."""
    c = pilots.c
    found = sql.fetch(tx, sa.select(c.client, c.offer).where(c.status == ALIVE, c.draining.is_(False)))
    return [(row[0], row[1]) for row in found]


def asking(tx: Reading, now: float) -> Sequence[tuple[str, bytes, float]]:
    """Parked requests that are not overdue: client, request (JSON), and since when."""
    c = parked.c
    found = sql.fetch(tx, sa.select(c.client, c.request, c.since).where(c.deadline > now))
    return [(row[0], row[1], row[2]) for row in found]


def queues_of(tx: Reading, owner: str, grp: str) -> list[int]:
    """All task queues of an owner in a group, with waiting jobs or without."""
    c = task_queues.c
    return [row[0] for row in sql.fetch(tx, sa.select(c.id).where(c.owner == owner, c.grp == grp))]


def counted(tx: Reading, queues: Collection[int], most: int) -> dict[int, int]:
    """Waiting jobs of these queues, each counted up to ``most`` only."""
    found = {queue: sql.fetch_one(tx, _counted(), queue=queue, most=most) for queue in queues}
    return {queue: 0 if row is None else int(row[0]) for queue, row in found.items()}


def before(tx: Reading, places: Collection[Behind], most: int) -> int:
    """How many waiting jobs there are before these places altogether, counted up to ``most`` only."""
    found = 0
    for place in places:
        if found >= most:
            break
        row = sql.fetch_one(tx, _before(), **place._asdict(), most=most - found)
        found += 0 if row is None else int(row[0])
    return found


def matches(tx: Reading, since: float, now: float) -> Matches:
    """Matches after a time, as far as the last :data:`MAX_LINES` lines of history tell."""
    latest = sa.select(history.c.job, history.c.time, history.c.status).order_by(history.c.id.desc()).limit(MAX_LINES)
    lines = latest.subquery()
    oldest = sql.fetch_one(tx, sa.select(sa.func.count(), sa.func.min(lines.c.time)).select_from(lines))
    full = oldest is not None and oldest[0] >= MAX_LINES
    start = min(now, max(since, float(oldest[1]))) if full and oldest is not None else since
    statement = (
        sa.select(jobs.c.grp, jobs.c.owner, sa.func.count())
        .join_from(lines, jobs, jobs.c.id == lines.c.job)
        .where(lines.c.status == JobStatus.MATCHED, lines.c.time >= start)
        .group_by(jobs.c.grp, jobs.c.owner)
    )
    return Matches(start, {(row[0], row[1]): row[2] for row in sql.fetch(tx, statement)})


# The order is that of the index of waiting jobs: so it is what is walked, up to the bound, whatever the planner thinks.
_IN_ORDER = (jobs.c.queue_id, jobs.c.priority, jobs.c.submitted, jobs.c.id)


def _count(*conditions: sa.ColumnElement[bool]) -> sa.Executable:
    queue, most = sa.bindparam("queue", type_=sa.BigInteger), sa.bindparam("most", type_=sa.Integer)
    some = (
        sa.select(jobs.c.id)
        .where(jobs.c.status == sa.literal_column("'Waiting'"), jobs.c.queue_id == queue, *conditions)
        .order_by(*_IN_ORDER)
        .limit(most)
        .subquery()
    )
    return sa.select(sa.func.count()).select_from(some)


@cache
def _counted() -> sa.Executable:
    return _count()


@cache
def _before() -> sa.Executable:
    mark = sa.tuple_(sa.bindparam("submitted", type_=sa.Double), sa.bindparam("job", type_=sa.BigInteger))
    return _count(
        jobs.c.priority == sa.bindparam("priority", type_=sa.BigInteger),
        sa.tuple_(jobs.c.submitted, jobs.c.id) < mark,
    )
