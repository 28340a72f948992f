"""Pilots: who is there, what they offered, how they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.pilots import pilots

ALIVE = "alive"
GONE = "gone"
LOST = "lost"


class PilotRow(msgspec.Struct, frozen=True):
    """A pilot.

    Attributes:
        status: ``alive``, ``gone`` (said goodbye) or ``lost`` (silent).
        offer: its last offer, JSON.
        draining: gets no more work.
    """

    client: str
    identity: str
    site: str = ""
    ce: str = ""
    status: str = ALIVE
    first_seen: float = 0.0
    last_seen: float = 0.0
    offer: bytes = b"{}"
    load: float = 0.0
    memory_mb: float = 0.0
    disk_mb: float = 0.0
    processors: int = 0
    draining: bool = False


class Beat(msgspec.Struct, frozen=True):
    """Figures of a heartbeat."""

    client: str
    identity: str
    site: str
    load: float
    memory_mb: float
    disk_mb: float
    processors: int


def seen(tx: Transaction, client: str, identity: str, now: float) -> None:
    """A pilot logged in."""
    row = PilotRow(client, identity, first_seen=now, last_seen=now)
    sql.insert(tx, pilots, [row], conflict="replace", replace=("identity", "status", "last_seen"))


def offered(tx: Transaction, rows: Sequence[PilotRow]) -> None:
    """Pilots made offers (``site``, ``ce``, ``offer``, ``last_seen`` count); each client once."""
    ordered = sorted(rows, key=lambda row: row.client)
    sql.insert(tx, pilots, ordered, conflict="replace", replace=("site", "ce", "offer", "status", "last_seen"))


def offer_now(tx: Transaction, offers: Mapping[str, bytes]) -> None:
    """What these clients offer, noted later than they said it: it is no sign of life."""
    sql.update(tx, pilots, [{"client": client, "offer": offers[client]} for client in sorted(offers)], ("client",))


def beat(tx: Transaction, beats: Sequence[Beat], now: float) -> None:
    """Heartbeats came; each client once. A lost pilot is alive again."""
    rows = [
        PilotRow(
            one.client, one.identity, one.site, first_seen=now, last_seen=now, load=one.load, memory_mb=one.memory_mb,
            disk_mb=one.disk_mb, processors=one.processors,
        )
        for one in sorted(beats, key=lambda one: one.client)
    ]  # fmt: skip
    changed = ("site", "status", "last_seen", "load", "memory_mb", "disk_mb", "processors")
    sql.insert(tx, pilots, rows, conflict="replace", replace=changed)


def gone(tx: Transaction, clients: Collection[str], now: float) -> None:
    """Pilots said goodbye."""
    _set(tx, clients, {"status": GONE, "last_seen": now})


def drain(tx: Transaction, clients: Collection[str], *, on: bool = True) -> None:
    """Give these pilots no more work (or work again)."""
    _set(tx, clients, {"draining": on})


def mark_lost(tx: Transaction, silent_since: float) -> list[PilotRow]:
    """Mark living pilots without a sign of life since a time as lost; those."""
    c = pilots.c
    statement = sa.update(pilots).where(c.status == ALIVE, c.last_seen < silent_since).values(status=LOST)
    found = sql.fetch(tx, statement.returning(*sql.picked(pilots, PilotRow)))
    return [PilotRow(*row) for row in found]


def get(tx: Reading, clients: Collection[str]) -> dict[str, PilotRow]:
    """Pilots by client id."""
    found = sql.fetch(tx, _get(tx.dialect), ids=sql.listed(tx, clients)) if clients else []
    return {row[0]: PilotRow(*row) for row in found}


def query(tx: Reading, *, status: str = "", site: str = "", after: str = "", limit: int = 100) -> list[PilotRow]:
    """One page by client id; ``after`` is the last client of the page before."""
    c = pilots.c
    wanted = ((status, c.status == status), (site, c.site == site), (after, c.client > after))
    statement = sa.select(*sql.picked(pilots, PilotRow)).where(*(condition for value, condition in wanted if value))
    return [PilotRow(*row) for row in sql.fetch(tx, statement.order_by(c.client).limit(limit))]


def purge(tx: Transaction, seen_before: float) -> int:
    """Drop pilots that ended before a time; how many."""
    return sql.run(tx, sa.delete(pilots).where(pilots.c.status != ALIVE, pilots.c.last_seen < seen_before))


def _set(tx: Transaction, clients: Collection[str], values: dict[str, object]) -> None:
    sql.update(tx, pilots, [{"client": client, **values} for client in sorted(clients)], ("client",))


@cache
def _get(dialect: DialectName) -> sa.Executable:
    return sa.select(*sql.picked(pilots, PilotRow)).where(sql.among(dialect, pilots.c.client))
