"""Requirements classes and task queues: found or made in bulk. What waits in them: :mod:`.heads`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import TypeAlias

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.jobs import classes, task_queues

QueueKey: TypeAlias = tuple[int, str, str]
"""(class id, owner, group)"""


class QueueRow(msgspec.Struct, frozen=True):
    """A task queue with the requirements of its class (JSON)."""

    id: int
    class_id: int
    owner: str
    grp: str
    requirements: bytes


def class_ids(tx: Transaction, wanted: Mapping[str, bytes]) -> dict[str, int]:
    """Ids of requirements classes by digest; unknown ones are made.

    Args:
        tx: where.
        wanted: digest → requirements (JSON).
    """
    found = _class_ids(tx, wanted)
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        rows = [{"digest": digest, "requirements": wanted[digest]} for digest in missing]
        sql.insert(tx, classes, rows, conflict="ignore", keys=("digest",))
        found |= _class_ids(tx, missing)
    return found


def queue_ids(tx: Transaction, wanted: Collection[QueueKey]) -> dict[QueueKey, int]:
    """Ids of task queues by (class id, owner, group); unknown ones are made."""
    found = _queue_ids(tx, wanted)
    missing = sorted(set(wanted) - found.keys())
    if missing:
        rows = [{"class_id": class_id, "owner": owner, "grp": grp} for class_id, owner, grp in missing]
        sql.insert(tx, task_queues, rows, conflict="ignore", keys=("class_id", "owner", "grp"))
        found |= _queue_ids(tx, missing)
    return found


def load(tx: Reading, ids: Collection[int]) -> list[QueueRow]:
    """Task queues by id."""
    return [QueueRow(*row) for row in sql.fetch(tx, _load(tx.dialect), ids=sql.listed(tx, ids))] if ids else []


def _class_ids(tx: Reading, digests: Collection[str]) -> dict[str, int]:
    if not digests:
        return {}
    return {row[0]: row[1] for row in sql.fetch(tx, _find_classes(tx.dialect), ids=sql.listed(tx, digests))}


def _queue_ids(tx: Reading, keys: Collection[QueueKey]) -> dict[QueueKey, int]:
    if not keys:
        return {}
    rows = sql.encoded([{"class_id": class_id, "owner": owner, "grp": grp} for class_id, owner, grp in keys])
    return {(row[1], row[2], row[3]): row[0] for row in sql.fetch(tx, _find_queues(tx.dialect), rows=rows)}


@cache
def _find_classes(dialect: DialectName) -> sa.Executable:
    return sa.select(classes.c.digest, classes.c.id).where(sql.among(dialect, classes.c.digest))


@cache
def _find_queues(dialect: DialectName) -> sa.Executable:
    t, v = task_queues.c, sql.batch(dialect, {"class_id": sa.BigInteger(), "owner": sa.Text(), "grp": sa.Text()})
    return sa.select(t.id, t.class_id, t.owner, t.grp).where(
        t.class_id == v["class_id"], t.owner == v["owner"], t.grp == v["grp"]
    )


@cache
def _load(dialect: DialectName) -> sa.Executable:
    t = task_queues.c
    return (
        sa.select(t.id, t.class_id, t.owner, t.grp, classes.c.requirements)
        .join_from(task_queues, classes, t.class_id == classes.c.id)
        .where(sql.among(dialect, t.id))
    )
