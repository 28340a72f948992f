"""Logins, denials, proxy issues, admin acts: appended in the transaction that they tell of, never changed.

No lock: entries are numbered as they come, and committed in any order. Their place in the chain is given later by the
auditor (:mod:`.audit_chain`); which of them wait for it stands in a table of its own, written in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec
import sqlalchemy as sa

from schemas.audit_events import fitting

from . import sql
from .engine import Reading, Transaction
from .tables.audit import links, unsealed
from .tables.messages import audit

NewEntry: TypeAlias = tuple[float, str, str, str, Mapping[str, object]]
"""(time, event, identity, client, detail)"""

SCAN = 20_000
"""Numbers that one question looks through: some tens of milliseconds on any database."""


class AuditRow(msgspec.Struct, frozen=True):
    """One entry; ``detail`` is JSON, ``place`` and ``hash`` are its link in the chain, if it is sealed."""

    id: int
    time: float
    event: str
    identity: str
    client: str
    detail: bytes
    place: int | None = None
    hash: str | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a question looks for; empty fields count for nothing.

    Attributes:
        event: a name, or the beginning of names with ``*`` at its end.
        about: a DN, a client id or a thumbprint: his doing, his client's, or named in the detail.
        clients_of: beginning of the client ids that belong to ``about``.
        text: somewhere in the detail, upper or lower case.
        job: whether the detail may tell of a job at all; which one is not looked at here.
    """

    since: float = 0.0
    until: float = 0.0
    event: str = ""
    identity: str = ""
    client: str = ""
    about: str = ""
    clients_of: str = ""
    text: str = ""
    job: bool = False


_NEWEST = "SELECT coalesce(max(id), 0) FROM audit"
_QUEUE = "INSERT OR IGNORE INTO audit_unsealed (entry, time) SELECT id, time FROM audit WHERE id > ?"
"""In SQLite's own words: said with each entry, and SQLAlchemy takes five times as long to build them. A number may come
again, and is queued already, if somebody has deleted the newest entry."""


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


def append_many(tx: Transaction, entries: Sequence[NewEntry]) -> None:
    """Write entries.

    Raises:
        ValueError: an event, or a fact of one, that the table of events does not know (:mod:`schemas.audit_events`).
    """
    rows = [
        {
            "time": time,
            "event": event,
            "identity": identity,
            "client": client,
            "detail": msgspec.json.encode(fitting(event, detail)),
        }
        for time, event, identity, client, detail in entries
    ]
    if not rows:
        return
    if tx.dialect == "postgresql":
        numbered = sql.insert_returning(tx, audit, rows, ("id", "time"))
        sql.insert(tx, unsealed, [{"entry": number, "time": time} for number, time in numbered])
        return
    # The only writer of SQLite: what is above the newest number of before is ours.
    newest = tx.connection.exec_driver_sql(_NEWEST).scalar_one()
    sql.insert(tx, audit, rows)
    tx.connection.exec_driver_sql(_QUEUE, (newest,))


def query(tx: Reading, *, before: int = 0, limit: int = 100, identity: str = "", event: str = "") -> list[AuditRow]:
    """One page, newest first; ``before`` is an id, 0 for the first page."""
    return page(tx, Wanted(identity=identity, event=event), before=before, limit=limit, scan=0)[0]


def page(
    tx: Reading, wanted: Wanted, *, before: int = 0, limit: int = 100, scan: int = SCAN
) -> tuple[list[AuditRow], int]:
    """Entries, newest first.

    Args:
        tx: any transaction.
        wanted: what must hold of them.
        before: only smaller numbers; 0 for the first page.
        limit: at most so many.
        scan: numbers to look through; 0 for all.

    Returns:
        The entries, and ``before`` of the next page: 0 if there is nothing older.
    """
    oldest, newest = _span(tx, wanted)
    top = min(before - 1, newest) if before else newest
    if oldest is None or top < oldest:
        return [], 0
    low = max(oldest, top - scan + 1) if scan else oldest
    c = audit.c
    statement = (
        sa.select(*(c[name] for name in AuditRow.__struct_fields__[:6]), links.c.place, links.c.hash)
        .outerjoin_from(audit, links, links.c.entry == c.id)
        .where(c.id.between(low, top), *_conditions(wanted))
        .order_by(c.id.desc())
        .limit(limit)
    )
    rows = [AuditRow(*row) for row in sql.fetch(tx, statement)]
    if len(rows) == limit:
        return rows, rows[-1].id if rows[-1].id > oldest else 0
    return rows, low if low > oldest else 0


def _span(tx: Reading, wanted: Wanted) -> tuple[int | None, int]:
    """The numbers between which the times asked for lie; numbers and times have nearly the same order."""
    c = audit.c
    if wanted.since or wanted.until:
        statement = sa.select(sa.func.min(c.id), sa.func.max(c.id)).where(*_times(wanted))
    else:
        statement = sa.select(
            sa.select(sa.func.min(c.id)).scalar_subquery(), sa.select(sa.func.max(c.id)).scalar_subquery()
        )
    row = sql.fetch_one(tx, statement)
    return (None, 0) if row is None or row[0] is None else (int(row[0]), int(row[1]))


def _times(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    conditions = []
    if wanted.since:
        conditions.append(audit.c.time >= wanted.since)
    if wanted.until:
        conditions.append(audit.c.time < wanted.until)
    return conditions


def _conditions(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    c = audit.c
    conditions = _times(wanted)
    if wanted.event.endswith("*"):
        conditions.append(c.event.startswith(wanted.event[:-1], autoescape=True))
    elif wanted.event:
        conditions.append(c.event == wanted.event)
    if wanted.identity:
        conditions.append(c.identity == wanted.identity)
    if wanted.client:
        conditions.append(c.client == wanted.client)
    detail = sa.type_coerce(c.detail, sa.Text)
    if wanted.about:
        named = msgspec.json.encode(wanted.about).decode()[1:-1]  # as it stands in JSON
        about = [c.identity == wanted.about, c.client == wanted.about, detail.contains(named, autoescape=True)]
        if wanted.clients_of:
            about.append(c.client.startswith(wanted.clients_of, autoescape=True))
        conditions.append(sa.or_(*about))
    if wanted.text:
        conditions.append(detail.icontains(wanted.text, autoescape=True))
    if wanted.job:
        conditions.append(detail.contains('"job'))
    return conditions
