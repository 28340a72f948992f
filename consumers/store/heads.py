"""Where jobs wait and since when, without counting them: the heads of task queues, and pages of job ids.

A *level* is the waiting jobs of one user priority in one queue. All levels are found by skipping from one to the next
in the index of waiting jobs, so a look costs as many index probes as there are levels, however many jobs they hold. A
page goes on behind a *mark*, the last (submitted, id) seen, and never reads again what was claimed before it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading
from .tables.jobs import jobs, task_queues

Level: TypeAlias = tuple[int, int]
"""(queue id, user priority)"""

Mark: TypeAlias = tuple[float, int]
"""(submitted, id)"""

START: Mark = (float("-inf"), 0)
FIRST: Level = (0, -(1 << 31))
"""Before the first of all."""


class Head(NamedTuple):
    """A level where jobs wait, and the submission time of its oldest."""

    queue_id: int
    priority: int
    oldest: float


def scan(tx: Reading, after: Level = FIRST, limit: int = 1 << 30) -> list[Head]:
    """The levels that follow ``after``, in order, at most ``limit``."""
    queue, priority = after
    return [Head(*row) for row in sql.fetch(tx, _scan(), queue=queue, priority=priority, most=limit)]


def of(tx: Reading, ids: Collection[int]) -> list[Head]:
    """The levels of some queues."""
    return [Head(*row) for row in sql.fetch(tx, _of(tx.dialect), ids=sql.listed(tx, ids))] if ids else []


def page(tx: Reading, level: Level, limit: int, after: Mark = START) -> list[Mark]:
    """Waiting jobs of a level behind a mark, by submission time, then id; at most ``limit``."""
    queue, priority = level
    submitted, job = after
    found = sql.fetch(
        tx, _page(), queue=queue, priority=priority, submitted=max(submitted, -1e300), job=job, most=limit
    )
    return [(row[0], row[1]) for row in found]


def pages(tx: Reading, wanted: Sequence[tuple[Level, Mark]], limit: int) -> dict[Level, list[Mark]]:
    """The next page of each of several levels, at most ``limit`` jobs each; a level without is absent."""
    if not wanted:
        return {}
    rows = sql.encoded(
        [
            {"queue": queue, "priority": priority, "submitted": max(submitted, -1e300), "job": job}
            for (queue, priority), (submitted, job) in wanted
        ]
    )
    found: dict[Level, list[Mark]] = {}
    for queue, priority, submitted, job in sql.fetch(tx, _pages(tx.dialect), rows=rows, most=limit):
        found.setdefault((queue, priority), []).append((submitted, job))
    return found


_WAITING: sa.ColumnElement[str] = sa.literal_column("'Waiting'")


def _first(*conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    """The first waiting job, in the order of the index, that satisfies some conditions on ``w``."""
    w = _w.c
    return (
        sa.select(w.id)
        .where(w.status == _WAITING, w.queue_id.is_not(None), *conditions)
        .order_by(w.queue_id, w.priority, w.submitted, w.id)
        .limit(1)
        .scalar_subquery()
    )


_w = jobs.alias("w")
_n = jobs.alias("n")
_HEAD = (_n.c.queue_id, _n.c.priority, _n.c.submitted)


@cache
def _scan() -> sa.Executable:
    queue, priority = sa.bindparam("queue", type_=sa.BigInteger), sa.bindparam("priority", type_=sa.BigInteger)
    found = sa.select(*_HEAD).where(_n.c.id == _first(_behind(queue, priority))).cte("level", recursive=True)
    following = _first(_behind(found.c.queue_id, found.c.priority)).correlate(found)
    found = found.union_all(sa.select(*_HEAD).join_from(found, _n, _n.c.id == following))
    return sa.select(*found.c).limit(sa.bindparam("most", type_=sa.Integer))


@cache
def _of(dialect: DialectName) -> sa.Executable:
    q = task_queues.alias("q")
    first = _first(_w.c.queue_id == q.c.id).correlate(q)
    found = (
        sa.select(*_HEAD)
        .join_from(q, _n, _n.c.id == first)
        .where(sql.among(dialect, q.c.id))
        .cte("level", recursive=True)
    )
    following = _first(_w.c.queue_id == found.c.queue_id, _w.c.priority > found.c.priority).correlate(found)
    found = found.union_all(sa.select(*_HEAD).join_from(found, _n, _n.c.id == following))
    return sa.select(*found.c)


def _behind(queue: sa.ColumnElement[int], priority: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    return sa.tuple_(_w.c.queue_id, _w.c.priority) > sa.tuple_(queue, priority)


@cache
def _page() -> sa.Executable:
    c = jobs.c
    mark = sa.tuple_(sa.bindparam("submitted", type_=sa.Double), sa.bindparam("job", type_=sa.BigInteger))
    return (
        sa.select(c.submitted, c.id)
        .where(
            c.status == _WAITING,
            c.queue_id == sa.bindparam("queue", type_=sa.BigInteger),
            c.priority == sa.bindparam("priority", type_=sa.BigInteger),
            sa.tuple_(c.submitted, c.id) > mark,
        )
        .order_by(c.submitted, c.id)
        .limit(sa.bindparam("most", type_=sa.Integer))
    )


@cache
def _pages(dialect: DialectName) -> sa.Executable:
    v = sql.batch(
        dialect,
        {"queue": sa.BigInteger(), "priority": sa.BigInteger(), "submitted": sa.Double(), "job": sa.BigInteger()},
    )
    asked = sa.select(*(one.label(name) for name, one in v.items())).subquery("asked")
    a, w = asked.c, _w.c
    some = (
        sa.select(w.id)
        .where(
            w.status == _WAITING,
            w.queue_id == a.queue,
            w.priority == a.priority,
            sa.tuple_(w.submitted, w.id) > sa.tuple_(a.submitted, a.job),
        )
        .order_by(w.submitted, w.id)
        .limit(sa.bindparam("most", type_=sa.Integer))
    )
    if dialect == "postgresql":
        each = some.with_only_columns(w.queue_id, w.priority, w.submitted, w.id).lateral("each_page")
        return sa.select(*each.c).select_from(asked.join(each, sa.true()))
    found = sa.select(*_HEAD, _n.c.id).join_from(asked, _n, _n.c.id.in_(some.correlate(asked)))
    return found.order_by(*_HEAD, _n.c.id)
