"""Logged-in clients. A client id is also the broker user and names the reply queue."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.identity import sessions


class Session(msgspec.Struct, frozen=True):
    """One client; ``kind`` is ``user`` or ``pilot``."""

    client: str
    identity: str
    grp: str
    thumbprint: str
    kind: str
    created: float
    seen: float


def put(tx: Transaction, client: str, identity: str, grp: str, thumbprint: str, kind: str, now: float) -> None:
    """A client logged in, perhaps again with a newer proxy."""
    row = Session(client, identity, grp, thumbprint, kind, now, now)
    sql.insert(tx, sessions, [row], conflict="replace", replace=("identity", "grp", "thumbprint", "kind", "seen"))


def get(tx: Reading, client: str) -> Session | None:
    """A client's session."""
    row = sql.fetch_one(tx, _get(), client=client)
    return None if row is None else Session(*row)


def get_many(tx: Reading, clients: Collection[str]) -> dict[str, Session]:
    """Sessions of clients; unknown ones are absent."""
    found = sql.fetch(tx, _get_many(tx.dialect), ids=sql.listed(tx, clients)) if clients else []
    return {row[0]: Session(*row) for row in found}


def remove(tx: Transaction, client: str, seen_before: float) -> bool:
    """Forget a client that did not log in since a time: it may touch nothing any more; whether it was there."""
    statement = sa.delete(sessions).where(sessions.c.client == client, sessions.c.seen <= seen_before)
    return bool(sql.run(tx, statement))


def of_identity(tx: Reading, identity: str) -> list[Session]:
    """All clients of an identity (to close their connections when it is revoked)."""
    statement = sa.select(*sql.picked(sessions, Session)).where(sessions.c.identity == identity)
    return [Session(*row) for row in sql.fetch(tx, statement.order_by(sessions.c.client))]


def touch(tx: Transaction, clients: Collection[str], now: float) -> None:
    """These clients gave a sign of life."""
    if clients:
        sql.run(tx, _touch(tx.dialect), ids=sql.listed(tx, sorted(clients)), now=now)


def purge(tx: Transaction, seen_before: float) -> int:
    """Drop sessions without a sign of life since a time; how many."""
    return sql.run(tx, sa.delete(sessions).where(sessions.c.seen < seen_before))


@cache
def _get() -> sa.Executable:
    return sa.select(*sql.picked(sessions, Session)).where(sessions.c.client == sa.bindparam("client", type_=sa.Text))


@cache
def _get_many(dialect: DialectName) -> sa.Executable:
    return sa.select(*sql.picked(sessions, Session)).where(sql.among(dialect, sessions.c.client))


@cache
def _touch(dialect: DialectName) -> sa.Executable:
    now = sa.bindparam("now", type_=sa.Double)
    return sa.update(sessions).where(sql.among(dialect, sessions.c.client)).values(seen=now)
