"""Small facts that services keep across restarts."""

from __future__ import annotations

import sqlalchemy as sa

from . import sql
from .engine import Reading, Transaction
from .tables.messages import service_state


def put(tx: Transaction, name: str, value: bytes, now: float) -> None:
    """Keep a value (JSON) under a name."""
    row = {"name": name, "value": value, "time": now}
    sql.insert(tx, service_state, [row], conflict="replace")


def get(tx: Reading, name: str) -> tuple[bytes, float] | None:
    """The value and when it was kept."""
    c = service_state.c
    row = sql.fetch_one(tx, sa.select(c.value, c.time).where(c.name == name))
    return None if row is None else (row[0], row[1])
