"""Jobs: written in batches, changed under row locks or by conditional UPDATE, listed by descending id."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import ReturningUpdate
from sqlalchemy.types import TypeEngine

from schemas.job import JobStatus

from . import attempts, history, sql, submission_proxies
from .engine import DialectName, Reading, Transaction
from .rows import AttemptRow, Claim, Claimed, HistoryRow, JobDetails, JobFilter, JobRow, JobState
from .tables.identity import submission_proxies as proxies
from .tables.jobs import LEASED_ONLY, job_details, jobs
from .tables.jobs import attempts as attempts_table
from .tables.jobs import history as history_table

__all__ = [
    "Claim",
    "Claimed",
    "JobDetails",
    "JobFilter",
    "JobRow",
    "claim",
    "details",
    "expired_leases",
    "heard",
    "held_by",
    "insert",
    "load",
    "load_range",
    "query",
    "set_details",
    "silent",
    "states",
    "update_many",
]


def insert(tx: Transaction, rows: Sequence[JobRow], what: Sequence[JobDetails]) -> None:
    """Enter new jobs with their details."""
    sql.insert(tx, jobs, rows)
    sql.insert(tx, job_details, what)


def load(tx: Reading, ids: Collection[int], *, for_update: bool = True) -> dict[int, JobRow]:
    """Jobs by id; unknown ids are absent.

    Args:
        tx: where.
        ids: which.
        for_update: hold their rows until the end of the transaction (in the order of ids: no deadlocks).
    """
    if not ids:
        return {}
    found = sql.fetch(tx, _load(tx.dialect, for_update), ids=sql.listed(tx, ids))
    return {row[0]: JobRow(*row) for row in found}


def load_range(tx: Reading, first: int, count: int, limit: int = 10_000) -> list[JobRow]:
    """Jobs ``first`` … ``first + count - 1`` in order, at most ``limit``; ids that do not exist are left out."""
    statement = (
        sa.select(*sql.picked(jobs, JobRow))
        .where(jobs.c.id >= first, jobs.c.id < first + count)
        .order_by(jobs.c.id)
        .limit(limit)
    )
    return [JobRow(*row) for row in sql.fetch(tx, statement)]


def states(tx: Reading, first: int, count: int, *, since: float = 0.0, limit: int = 10_000) -> list[JobState]:
    """How jobs ``first`` … ``first + count - 1`` stand, in order, at most ``limit``; those changed since a time."""
    return [JobState(*row) for row in sql.fetch(tx, _states(), first=first, end=first + count, since=since, most=limit)]


def details(tx: Reading, ids: Collection[int]) -> dict[int, JobDetails]:
    """What these jobs are."""
    found = sql.fetch(tx, _details(tx.dialect), ids=sql.listed(tx, ids)) if ids else []
    return {row[0]: JobDetails(*row) for row in found}


def set_details(tx: Transaction, changes: Mapping[int, Mapping[str, object]]) -> None:
    """Change columns of ``job_details`` (resolved input data, candidate sites)."""
    sql.update(tx, job_details, [{"job": job, **values} for job, values in changes.items()], ("job",))


def update_many(tx: Transaction, changes: Mapping[int, Mapping[str, object]]) -> None:
    """Change jobs, each naming only the columns that change; jobs that change alike share one statement.

    The caller holds the rows (:func:`load` with ``for_update``) and has decided what is legal.
    """
    sql.update(tx, jobs, [{"id": job, **values} for job, values in changes.items() if values], ("id",))


def claim(tx: Transaction, claims: Sequence[Claim], now: float, source: str = "matcher") -> list[Claimed]:
    """Give waiting jobs to pilots: a new attempt each, with an acceptance lease.

    Args:
        tx: the transaction; it should have checked its leader's epoch.
        claims: what to try; a job is named once.
        now: time of the match.
        source: for the history.

    Returns:
        Those that were really waiting, in the order of ``claims``. The others were taken, killed or deleted.
    """
    if not claims:
        return []
    rows = sql.encoded(claims)
    if tx.dialect == "postgresql":
        found = sql.fetch(tx, _claim_all(), rows=rows, now=now, source=source)
        taken = {row[0]: row for row in found}
        return [_claimed(one, row) for one in claims if (row := taken.pop(one.job, None)) is not None]
    taken = {row[0]: row for row in sql.fetch(tx, _claim(tx.dialect), rows=rows, now=now)}
    what = details(tx, taken)
    own = submission_proxies.having(tx, {row[4] for row in taken.values()})
    claimed = []
    for one in claims:
        if (row := taken.pop(one.job, None)) is not None:
            more = what[one.job]
            claimed.append(_claimed(one, (*row, more.description, more.files, more.data, row[4] in own)))
    sites = {one.job: one.site for one in claims}
    attempts.insert(tx, [AttemptRow(one.job, one.attempt, one.client, sites[one.job], now) for one in claimed])
    history.append(
        tx,
        [HistoryRow(one.job, one.attempt, now, JobStatus.MATCHED, "", source, _CAUSE + one.client) for one in claimed],
    )
    return claimed


def query(tx: Reading, wanted: JobFilter) -> tuple[list[JobRow], bool]:
    """One page of jobs by descending id, and whether another one follows."""
    conditions: list[sa.ColumnElement[bool]] = []
    parameters: dict[str, object] = {}
    if wanted.ids:
        conditions.append(sql.among(tx.dialect, jobs.c.id))
        parameters["ids"] = sql.listed(tx, wanted.ids)
    if wanted.status:
        conditions.append(jobs.c.status.in_(wanted.status))
    else:
        conditions.append(jobs.c.status != JobStatus.DELETED)
    exact = {name: getattr(wanted, name) for name in ("owner", "grp", "site", "job_group")}
    conditions.extend(jobs.c[name] == value for name, value in exact.items() if value)
    if wanted.before:
        conditions.append(jobs.c.id < wanted.before)
    statement = (
        sa.select(*sql.picked(jobs, JobRow)).where(*conditions).order_by(jobs.c.id.desc()).limit(wanted.limit + 1)
    )
    found = [JobRow(*row) for row in sql.fetch(tx, statement, **parameters)]
    return found[: wanted.limit], len(found) > wanted.limit


def expired_leases(tx: Reading, before: float, limit: int) -> list[int]:
    """Jobs whose lease ended before a time, longest over first; margin and grace are the caller's."""
    return _ids(tx, _expired(), before=before, most=limit)


def silent(tx: Reading, heartbeat_before: float, limit: int) -> list[int]:
    """Accepted jobs, not Stalled yet, whose last sign of life is older than a time."""
    return _ids(tx, _silent(), before=heartbeat_before, most=limit)


def heard(tx: Reading, heartbeat_after: float, limit: int) -> list[int]:
    """Stalled jobs that gave a sign of life since a time."""
    return _ids(tx, _heard(), after=heartbeat_after, most=limit)


def held_by(tx: Reading, client: str) -> list[int]:
    """Jobs whose live lease a pilot holds."""
    return _ids(tx, _held(), client=client)


def _claimed(one: Claim, row: sql.Found) -> Claimed:
    _, attempt, owner, grp, submission, lease_seconds, queue_id, priority, description, files, data, own = row
    return Claimed(
        one.job, attempt, one.client, owner, grp, submission, one.lease_until, lease_seconds, queue_id, priority,
        description, files, data, own,
    )  # fmt: skip


def _ids(tx: Reading, statement: sa.Executable, **parameters: object) -> list[int]:
    return [row[0] for row in sql.fetch(tx, statement, **parameters)]


@cache
def _load(dialect: DialectName, for_update: bool) -> sa.Executable:
    statement = sa.select(*sql.picked(jobs, JobRow)).where(sql.among(dialect, jobs.c.id)).order_by(jobs.c.id)
    return statement.with_for_update() if for_update and dialect == "postgresql" else statement


@cache
def _details(dialect: DialectName) -> sa.Executable:
    return sa.select(*sql.picked(job_details, JobDetails)).where(sql.among(dialect, job_details.c.job))


_CAUSE = "matched to "
_NOW = sa.bindparam("now", type_=sa.Double)
_CLAIM: Mapping[str, TypeEngine[Any]] = {
    "job": sa.BigInteger(),
    "client": sa.Text(),
    "site": sa.Text(),
    "lease_until": sa.Double(),
}
_IS_WAITING = jobs.c.status == sa.literal_column("'Waiting'")


@cache
def _claim(dialect: DialectName) -> sa.Executable:
    v = sql.batch(dialect, _CLAIM)
    return _give(v["client"], v["site"], v["lease_until"]).where(jobs.c.id == v["job"])


@cache
def _claim_all() -> sa.Executable:
    """Everything about a claim in one statement of PostgreSQL: each one costs more than what it does to a few rows.

    The rows are locked first, in the order of ids: two claims of the same jobs wait for each other and never deadlock.
    """
    v = sql.batch("postgresql", _CLAIM)
    mine = (
        sa.select(jobs.c.id, v["client"].label("client"), v["site"].label("site"), v["lease_until"].label("until"))
        .where(jobs.c.id == v["job"], _IS_WAITING)
        .order_by(jobs.c.id)
        .with_for_update(of=jobs)
        .cte("mine")
    )
    taken = (
        _give(mine.c.client, mine.c.site, mine.c.until)
        .where(jobs.c.id == mine.c.id)
        .returning(jobs.c.pilot, jobs.c.site)
        .cte("taken")
    )
    t = taken.c
    empty = AttemptRow(0, 0, "", "", 0.0)
    first = (t.id, t.attempt, t.pilot, t.site, _NOW)
    rest = AttemptRow.__struct_fields__[len(first) :]
    values: list[sa.ColumnElement[Any]] = [
        sa.literal_column(_literal(getattr(empty, name))).label(name) for name in rest
    ]
    began = (
        sa.insert(attempts_table)
        .from_select(AttemptRow.__struct_fields__, sa.select(*first, *values), include_defaults=False)
        .cte("began")
    )
    source, cause = sa.bindparam("source", type_=sa.Text), _text(_CAUSE) + t.pilot
    line = (t.id, t.attempt, _NOW, _text(JobStatus.MATCHED.value), _text(""), source, cause)
    told = (
        sa.insert(history_table)
        .from_select(HistoryRow.__struct_fields__, sa.select(*line), include_defaults=False)
        .cte("told")
    )
    d, p = job_details.c, proxies.c.submission
    own = sa.exists().where(p == t.submission).label("own_proxy")
    return (
        sa.select(*(t[column.name] for column in _TAKEN), d.description, d.files, d.data, own)
        .join_from(taken, job_details, d.job == t.id)
        .add_cte(began, told)
    )


def _text(value: str) -> sa.ColumnElement[str]:
    return sa.literal_column(f"'{value}'", sa.Text)


def _literal(value: object) -> str:
    return "NULL" if value is None else "''" if value == "" else str(value)


_TAKEN = (
    jobs.c.id, jobs.c.attempt, jobs.c.owner, jobs.c.grp, jobs.c.submission, jobs.c.lease_seconds, jobs.c.queue_id,
    jobs.c.priority,
)  # fmt: skip


def _give(
    client: sa.ColumnElement[str], site: sa.ColumnElement[str], until: sa.ColumnElement[float]
) -> ReturningUpdate[Any]:
    return (
        sa.update(jobs)
        .where(_IS_WAITING)
        .values(
            status=JobStatus.MATCHED,
            minor="",
            attempt=jobs.c.attempt + 1,
            pilot=client,
            site=site,
            matched=_NOW,
            lease_until=until,
            accepted=False,
            sequence=0,
            steps=0,
            heartbeat=None,
            stalled_from=None,
            # The history's times never go back.
            changed=sa.case((jobs.c.changed > _NOW, jobs.c.changed), else_=_NOW),
        )
        .returning(*_TAKEN)
    )


_MOST = sa.bindparam("most", type_=sa.Integer)
_BEFORE = sa.bindparam("before", type_=sa.Double)


@cache
def _states() -> sa.Executable:
    return (
        sa.select(*sql.picked(jobs, JobState))
        .where(
            jobs.c.id >= sa.bindparam("first", type_=sa.BigInteger),
            jobs.c.id < sa.bindparam("end", type_=sa.BigInteger),
            jobs.c.changed >= sa.bindparam("since", type_=sa.Double),
        )
        .order_by(jobs.c.id)
        .limit(_MOST)
    )


@cache
def _expired() -> sa.Executable:
    return (
        sa.select(jobs.c.id)
        .where(LEASED_ONLY, jobs.c.lease_until < _BEFORE)
        .order_by(jobs.c.lease_until, jobs.c.id)
        .limit(_MOST)
    )


@cache
def _silent() -> sa.Executable:
    last = sa.func.coalesce(jobs.c.heartbeat, jobs.c.matched)
    return (
        sa.select(jobs.c.id)
        .where(LEASED_ONLY, jobs.c.status != JobStatus.STALLED, jobs.c.accepted, last < _BEFORE)
        .order_by(jobs.c.id)
        .limit(_MOST)
    )


@cache
def _heard() -> sa.Executable:
    after = sa.bindparam("after", type_=sa.Double)
    return (
        sa.select(jobs.c.id)
        .where(LEASED_ONLY, jobs.c.status == JobStatus.STALLED, jobs.c.heartbeat >= after)
        .order_by(jobs.c.id)
        .limit(_MOST)
    )


@cache
def _held() -> sa.Executable:
    return (
        sa.select(jobs.c.id)
        .where(LEASED_ONLY, jobs.c.pilot == sa.bindparam("client", type_=sa.Text))
        .order_by(jobs.c.id)
    )
