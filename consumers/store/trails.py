"""By whom something was done: sessions, submissions, executions and kept proxies of one identity or its clients."""

from __future__ import annotations

import math
from collections.abc import Collection

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import Reading
from .tables.identity import proxies, sessions
from .tables.jobs import attempts, jobs, submissions
from .tables.pilots import pilots


class SessionTrail(msgspec.Struct, frozen=True):
    """A login that is known still."""

    client: str
    group: str
    thumbprint: str
    kind: str
    created: float
    seen: float


class SubmissionTrail(msgspec.Struct, frozen=True):
    """Jobs that were submitted together."""

    submission: int
    time: float
    client: str
    group: str
    first: int
    count: int


class AttemptTrail(msgspec.Struct, frozen=True):
    """An execution of somebody's job by a pilot."""

    client: str
    job: int
    attempt: int
    owner: str
    group: str
    site: str
    matched: float
    ended: float | None
    outcome: str


class ProxyTrail(msgspec.Struct, frozen=True):
    """A kept proxy."""

    group: str
    not_after: float
    stored: float


class PilotTrail(msgspec.Struct, frozen=True):
    """Where a pilot runs."""

    client: str
    identity: str
    site: str
    status: str
    last_seen: float


def sessions_of(tx: Reading, identity: str, limit: int) -> list[SessionTrail]:
    """Logins of an identity, the last seen first."""
    c = sessions.c
    statement = (
        sa.select(c.client, c.grp, c.thumbprint, c.kind, c.created, c.seen)
        .where(c.identity == identity)
        .order_by(c.seen.desc(), c.client)
        .limit(limit)
    )
    return [SessionTrail(*row) for row in sql.fetch(tx, statement)]


def submissions_of(tx: Reading, owner: str, since: float, until: float, limit: int) -> list[SubmissionTrail]:
    """What an identity submitted within a time, newest first."""
    c = submissions.c
    statement = (
        sa.select(c.id, c.created, c.client, c.grp, c.first, c.count)
        .where(c.owner == owner, *_within(c.created, since, until))
        .order_by(c.id.desc())
        .limit(limit)
    )
    return [SubmissionTrail(*row) for row in sql.fetch(tx, statement)]


def attempts_of(tx: Reading, clients: Collection[str], since: float, until: float, limit: int) -> list[AttemptTrail]:
    """What these pilots were given to run within a time, newest first."""
    if not clients:
        return []
    c = attempts.c
    columns = (c.pilot, c.job, c.attempt, sa.func.coalesce(jobs.c.owner, ""), sa.func.coalesce(jobs.c.grp, ""), c.site)
    statement = (
        sa.select(*columns, c.matched, c.ended, c.outcome)
        .outerjoin_from(attempts, jobs, jobs.c.id == c.job)
        .where(sql.among(tx.dialect, c.pilot), *_within(c.matched, since, until))
        .order_by(c.matched.desc(), c.job)
        .limit(limit)
    )
    return [AttemptTrail(*row) for row in sql.fetch(tx, statement, ids=sql.listed(tx, clients))]


def proxies_of(tx: Reading, identity: str) -> list[ProxyTrail]:
    """The proxies that are kept of an identity; one a group."""
    c = proxies.c
    statement = sa.select(c.grp, c.not_after, c.stored).where(c.dn == identity).order_by(c.grp).limit(1000)
    return [ProxyTrail(*row) for row in sql.fetch(tx, statement)]


def pilots_of(tx: Reading, clients: Collection[str]) -> list[PilotTrail]:
    """Those of these clients that are pilots."""
    if not clients:
        return []
    c = pilots.c
    statement = sa.select(c.client, c.identity, c.site, c.status, c.last_seen).where(sql.among(tx.dialect, c.client))
    return [PilotTrail(*row) for row in sql.fetch(tx, statement.order_by(c.client), ids=sql.listed(tx, clients))]


def _within(column: sa.Column[float], since: float, until: float) -> list[sa.ColumnElement[bool]]:
    conditions = [column >= since] if since else []
    return [*conditions, column < until] if math.isfinite(until) else conditions
