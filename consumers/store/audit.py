"""Logins, denials, proxy issues, admin acts: appended in the transaction that they tell of, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import Reading, Transaction
from .tables.messages import audit


class AuditRow(msgspec.Struct, frozen=True):
    """One entry; ``detail`` is JSON."""

    id: int
    time: float
    event: str
    identity: str
    client: str
    detail: bytes


def append(
    tx: Transaction,
    now: float,
    event: str,
    *,
    identity: str = "",
    client: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write one entry."""
    append_many(tx, [(now, event, identity, client, detail or {})])


def append_many(tx: Transaction, entries: Sequence[tuple[float, str, str, str, Mapping[str, object]]]) -> None:
    """Write entries: (time, event, identity, client, detail)."""
    rows = [
        {"time": time, "event": event, "identity": identity, "client": client, "detail": msgspec.json.encode(detail)}
        for time, event, identity, client, detail in entries
    ]
    sql.insert(tx, audit, rows)


def query(tx: Reading, *, before: int = 0, limit: int = 100, identity: str = "", event: str = "") -> list[AuditRow]:
    """One page, newest first; ``before`` is an id, 0 for the first page."""
    c = audit.c
    conditions = [condition for wanted, condition in (
        (before, c.id < before), (identity, c.identity == identity), (event, c.event == event)
    ) if wanted]  # fmt: skip
    statement = sa.select(*sql.picked(audit, AuditRow)).where(*conditions).order_by(c.id.desc()).limit(limit)
    return [AuditRow(*row) for row in sql.fetch(tx, statement)]
