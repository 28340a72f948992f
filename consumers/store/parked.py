"""Match requests that found nothing yet, one per pilot slot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import TypeAlias

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.pilots import parked

Slot: TypeAlias = tuple[str, str]
"""(client, slot)"""

Mark: TypeAlias = tuple[float, str, str]
"""(deadline, client, slot)"""

FIRST: Mark = (float("-inf"), "", "")
"""Before the first of all."""


class ParkedRow(msgspec.Struct, frozen=True):
    """A parked request.

    Attributes:
        request: the whole match request, JSON (offer, certificate requests, proxies held).
        cid: the request's ``jti``, for the answer.
        deadline: when it is answered with nothing.
    """

    client: str
    slot: str
    identity: str
    request: bytes
    reply_to: str
    cid: str
    since: float
    deadline: float


def put(tx: Transaction, rows: Sequence[ParkedRow]) -> None:
    """Park requests; a newer one of the same slot takes the older one's place. Each slot once."""
    ordered = sorted(rows, key=lambda row: (row.client, row.slot))
    sql.insert(tx, parked, ordered, conflict="replace")


def remove(tx: Transaction, slots: Collection[Slot]) -> None:
    """These were answered."""
    if slots:
        rows = sql.encoded([{"client": client, "slot": slot} for client, slot in sorted(slots)])
        sql.run(tx, _remove(tx.dialect), rows=rows)


def remove_clients(tx: Transaction, clients: Collection[str]) -> None:
    """These pilots ended."""
    if clients:
        sql.run(tx, _remove_clients(tx.dialect), ids=sql.listed(tx, sorted(clients)))


def present(tx: Reading, clients: Collection[str]) -> set[Slot]:
    """Which requests of these pilots are still parked: one that ended took its requests with it."""
    if not clients:
        return set()
    return {(row[0], row[1]) for row in sql.fetch(tx, _present(tx.dialect), ids=sql.listed(tx, sorted(clients)))}


def page(tx: Reading, after: Mark = FIRST, limit: int = 1 << 30) -> list[ParkedRow]:
    """Parked requests behind (deadline, client, slot), in this order: what a new leader reads, some at a time."""
    deadline, client, slot = after
    return [
        ParkedRow(*row)
        for row in sql.fetch(tx, _page(), deadline=max(deadline, -1e300), client=client, slot=slot, most=limit)
    ]


@cache
def _page() -> sa.Executable:
    c = parked.c
    deadline = sa.bindparam("deadline", type_=sa.Double)
    mark = sa.tuple_(deadline, sa.bindparam("client", type_=sa.Text), sa.bindparam("slot", type_=sa.Text))
    return (
        sa.select(*sql.picked(parked, ParkedRow))
        # The first condition is for the index, which has the deadline only.
        .where(c.deadline >= deadline, sa.tuple_(c.deadline, c.client, c.slot) > mark)
        .order_by(c.deadline, c.client, c.slot)
        .limit(sa.bindparam("most", type_=sa.Integer))
    )


@cache
def _present(dialect: DialectName) -> sa.Executable:
    return sa.select(parked.c.client, parked.c.slot).where(sql.among(dialect, parked.c.client))


@cache
def _remove(dialect: DialectName) -> sa.Executable:
    v = sql.batch(dialect, {"client": sa.Text(), "slot": sa.Text()})
    return sa.delete(parked).where(sa.exists().where(parked.c.client == v["client"], parked.c.slot == v["slot"]))


@cache
def _remove_clients(dialect: DialectName) -> sa.Executable:
    return sa.delete(parked).where(sql.among(dialect, parked.c.client))
