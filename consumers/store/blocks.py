"""Owners who were blocked, and their jobs that are still to be dealt with."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import Reading, Transaction
from .tables.identity import job_blocks
from .tables.jobs import ACTIVE_ONLY, LEASED_ONLY, jobs, submissions


class JobBlock(msgspec.Struct, frozen=True):
    """One owner whose jobs are to be dealt with.

    Attributes:
        grp: only those of this group; empty for all.
        policy: what becomes of them.
        cause: for the jobs' histories.
        after: jobs up to this id were looked at.
    """

    id: int
    identity: str
    grp: str
    policy: str
    cause: str
    after: int
    created: float


def add(tx: Transaction, identity: str, grp: str, policy: str, cause: str, now: float) -> None:
    """Note that an owner was blocked."""
    row = {"identity": identity, "grp": grp, "policy": policy, "cause": cause, "after": 0, "created": now}
    sql.insert(tx, job_blocks, [row])


def oldest(tx: Reading, limit: int) -> list[JobBlock]:
    """Owners to be dealt with, in order."""
    statement = sa.select(*sql.picked(job_blocks, JobBlock)).order_by(job_blocks.c.id).limit(limit)
    return [JobBlock(*row) for row in sql.fetch(tx, statement)]


def advance(tx: Transaction, block: int, after: int) -> None:
    """Jobs up to this id were looked at."""
    sql.run(tx, sa.update(job_blocks).where(job_blocks.c.id == block).values(after=after))


def remove(tx: Transaction, block: int) -> None:
    """This one is done with."""
    sql.run(tx, sa.delete(job_blocks).where(job_blocks.c.id == block))


def targets(tx: Reading, block: JobBlock, *, leased: bool, limit: int) -> list[int]:
    """The next jobs of the owner that live (or that a pilot holds) and that nobody asked to stop yet."""
    c = jobs.c
    conditions = [c.owner == block.identity, c.id > block.after, c.kill_requested == ""]
    if block.grp:
        conditions.append(c.grp == block.grp)
    statement = sa.select(c.id).where(*conditions, LEASED_ONLY if leased else ACTIVE_ONLY).order_by(c.id).limit(limit)
    return [int(row[0]) for row in sql.fetch(tx, statement)]


def is_expanding(tx: Reading, block: JobBlock) -> bool:
    """Whether jobs of the owner are still to be written."""
    c = submissions.c
    conditions = [c.owner == block.identity, c.expanded < c.count]
    if block.grp:
        conditions.append(c.grp == block.grp)
    return sql.fetch_one(tx, sa.select(c.id).where(*conditions).limit(1)) is not None
