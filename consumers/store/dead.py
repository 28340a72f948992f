"""Messages that could not be handled: kept raw with the reason, until an operator replays or discards them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.messages import dead_letters

DEAD = "dead"
REPLAYED = "replayed"
DISCARDED = "discarded"


class NewLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that died.

    Attributes:
        queue: where.
        body: the raw bytes.
        jws: the signed header as it came.
        user_id: the AMQP user id that the broker had validated.
        headers: other headers worth keeping, JSON.
    """

    time: float
    queue: str
    typ: str
    issuer: str
    client: str
    reason: str
    body: bytes
    jws: str
    user_id: str
    headers: str = "{}"


class LetterInfo(msgspec.Struct, frozen=True):
    """A dead letter without its contents; ``size`` is that of the body."""

    id: int
    time: float
    queue: str
    typ: str
    issuer: str
    client: str
    reason: str
    state: str
    closed_by: str
    closed_reason: str
    closed: float | None
    size: int


class LetterBody(msgspec.Struct, frozen=True):
    """What came, exactly."""

    id: int
    queue: str
    body: bytes
    jws: str
    user_id: str
    headers: bytes


def add(tx: Transaction, letters: Sequence[NewLetter]) -> None:
    """Keep dead messages."""
    closed = {"state": DEAD, "closed_by": "", "closed_reason": "", "closed": None}
    rows = [{**msgspec.structs.asdict(one), "headers": one.headers.encode(), **closed} for one in letters]
    sql.insert(tx, dead_letters, rows)


def query(
    tx: Reading, *, ids: Collection[int] = (), before: int = 0, limit: int = 100, closed: bool = False
) -> tuple[list[LetterInfo], bool]:
    """One page, newest first, and whether another one follows.

    Args:
        tx: where.
        ids: only these.
        before: only ids below this one; 0 for the first page.
        limit: size of the page.
        closed: also those that were replayed or discarded.
    """
    c = dead_letters.c
    conditions = [] if closed else [c.state == DEAD]
    parameters = {}
    if ids:
        conditions.append(sql.among(tx.dialect, c.id))
        parameters["ids"] = sql.listed(tx, ids)
    if before:
        conditions.append(c.id < before)
    statement = (
        sa.select(*(c[name] for name in LetterInfo.__struct_fields__[:-1]), sa.func.length(c.body))
        .where(*conditions)
        .order_by(c.id.desc())
        .limit(limit + 1)
    )
    found = [LetterInfo(*row) for row in sql.fetch(tx, statement, **parameters)]
    return found[:limit], len(found) > limit


def get(tx: Reading, ids: Collection[int]) -> dict[int, LetterBody]:
    """Letters whole."""
    found = sql.fetch(tx, _get(tx.dialect), ids=sql.listed(tx, ids)) if ids else []
    return {row[0]: LetterBody(*row) for row in found}


def close(tx: Transaction, ids: Collection[int], state: str, by: str, reason: str, now: float) -> set[int]:
    """Close letters that are still dead, as replayed or discarded; those that this call closed."""
    if not ids:
        return set()
    closed = sql.fetch(tx, _close(tx.dialect), ids=sql.listed(tx, ids), new_state=state, by=by, why=reason, now=now)
    return {row[0] for row in closed}


def purge(tx: Transaction, before: float) -> int:
    """Drop letters that were closed before a time; how many."""
    return sql.run(tx, sa.delete(dead_letters).where(dead_letters.c.closed < before))


@cache
def _get(dialect: DialectName) -> sa.Executable:
    columns = sql.picked(dead_letters, LetterBody)
    return sa.select(*columns).where(sql.among(dialect, dead_letters.c.id)).order_by(dead_letters.c.id)


@cache
def _close(dialect: DialectName) -> sa.Executable:
    c = dead_letters.c
    return (
        sa.update(dead_letters)
        .where(sql.among(dialect, c.id), c.state == DEAD)
        .values(
            state=sa.bindparam("new_state", type_=sa.Text),
            closed_by=sa.bindparam("by", type_=sa.Text),
            closed_reason=sa.bindparam("why", type_=sa.Text),
            closed=sa.bindparam("now", type_=sa.Double),
        )
        .returning(c.id)
    )
