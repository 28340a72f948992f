"""The audit's chain: places, hashes, seals. One auditor writes it, fenced by its leadership row (:mod:`.leader`).

What is read here may have been tampered with by somebody who writes to the database: whatever stands in a column comes
as a value of the right type, if need be a wrong one, so that the check finds it and nothing breaks on the way.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.audit import links, seals, signers, unsealed
from .tables.messages import audit

_decoder = msgspec.msgpack.Decoder(list[bytes])


class Entry(msgspec.Struct, frozen=True):
    """An entry of the audit, by place if it has one. ``gone``: its place is there, and it is not."""

    id: int
    time: float
    event: str
    identity: str
    client: str
    detail: str
    place: int = 0
    hash: str = ""
    gone: bool = False


class Link(msgspec.Struct, frozen=True):
    """One place of the chain."""

    place: int
    entry: int
    hash: str


class Seal(msgspec.Struct, frozen=True):
    """One seal: a signed ``audit.sealed.v1``."""

    last: int
    thumbprint: str
    payload: bytes
    jws: str


class Waiting(msgspec.Struct, frozen=True):
    """What waits for its place: how many entries, and the time of the oldest (0.0 if none)."""

    count: int
    oldest: float


# -- the auditor's side ----------------------------------------------------------------------------------------------


def waiting(tx: Reading) -> Waiting:
    """What waits for its place."""
    row = sql.fetch_one(tx, sa.select(sa.func.count(), sa.func.coalesce(sa.func.min(unsealed.c.time), 0.0)))
    return Waiting(0, 0.0) if row is None else Waiting(int(row[0]), float(row[1]))


def next_unsealed(tx: Reading, limit: int) -> list[Entry]:
    """Entries that wait for their place, by number; ``gone`` are those that somebody took away meanwhile."""
    statement = (
        sa.select(unsealed.c.entry, audit.c.id.is_(None), *_texts(tx.dialect))
        .outerjoin_from(unsealed, audit, audit.c.id == unsealed.c.entry)
        .where(*_is_whole(tx.dialect, unsealed.c.entry))
        .order_by(unsealed.c.entry)
        .limit(limit)
    )
    return [_entry(row[0], bool(row[1]), row[2:]) for row in sql.fetch(tx, statement)]


def newest_seal(tx: Reading) -> Seal | None:
    """The last seal, if there is any."""
    found = _seals(tx, seals.c.last.desc(), limit=1)
    return found[0] if found else None


def extend(tx: Transaction, new: Sequence[Link], seal: Seal, settled: Collection[int]) -> None:
    """Append places with their seal; ``settled`` entries wait no more.

    A place that somebody has written past the auditor stays as he left it: it must not stop the sealing, and the check
    must find it. The entry that had belonged there is found again by :func:`find_strays`.
    """
    sql.insert(tx, links, new, conflict="ignore")
    sql.insert(tx, seals, [seal], conflict="ignore")
    settle(tx, settled)


def settle(tx: Transaction, entries: Collection[int]) -> None:
    """These entries wait no more."""
    if entries:
        statement = sa.delete(unsealed).where(sql.among(tx.dialect, unsealed.c.entry))
        sql.run(tx, statement, ids=sql.listed(tx, sorted(entries)))


def put_signer(tx: Transaction, thumbprint: str, ders: Sequence[bytes], now: float) -> None:
    """Keep the chain that seals are signed with, from when it was first used."""
    row = {"thumbprint": thumbprint, "ders": msgspec.msgpack.encode(list(ders)), "seen": now}
    sql.insert(tx, signers, [row], conflict="ignore")


def find_strays(tx: Transaction, after: int, span: int) -> tuple[int, int]:
    """Let entries wait that neither have a place nor wait for one (an older release wrote them, or not one of us did).

    Args:
        tx: the auditor's transaction.
        after: look at larger numbers,
        span: so many of them.

    Returns:
        How many were found, and where to go on; 0 when everything was looked at.
    """
    newest = sql.fetch_one(tx, sa.select(sa.func.coalesce(sa.func.max(audit.c.id), 0)))
    top = int(newest[0]) if newest else 0
    until = min(after + span, top)
    if until <= after:
        return 0, 0
    c = audit.c
    strays = sa.select(c.id, c.time).where(
        c.id > after,
        c.id <= until,
        ~sa.exists().where(links.c.entry == c.id),
        ~sa.exists().where(unsealed.c.entry == c.id),
    )
    insert = sql.dialect_insert(tx.dialect, unsealed).from_select(["entry", "time"], strays)
    found = len(sql.fetch(tx, insert.on_conflict_do_nothing().returning(unsealed.c.entry)))
    return found, until if until < top else 0


# -- for those who check ---------------------------------------------------------------------------------------------


def last_place(tx: Reading) -> int:
    """The largest place that is there, sealed or not."""
    return _largest(tx, links.c.place)


def last_sealed(tx: Reading) -> int:
    """The last place that a seal speaks of."""
    return _largest(tx, seals.c.last)


def _largest(tx: Reading, column: sa.ColumnElement[Any]) -> int:
    statement = sa.select(column).where(*_is_whole(tx.dialect, column)).order_by(column.desc()).limit(1)
    row = sql.fetch_one(tx, statement)
    return 0 if row is None else int(row[0])


def walk(tx: Reading, after: int, until: int) -> list[Entry]:
    """The places after one and up to another that are there, with their entries."""
    dialect, c = tx.dialect, links.c
    number = sa.cast(c.entry, sa.BigInteger) if dialect == "sqlite" else c.entry
    statement = (
        sa.select(number, audit.c.id.is_(None), *_texts(dialect), c.place, _text(dialect, c.hash))
        .outerjoin_from(links, audit, audit.c.id == c.entry)
        .where(c.place > after, c.place <= until, *_is_whole(dialect, c.place))
        .order_by(links.c.place)
    )
    return [_entry(row[0], bool(row[1]), row[2:7], row[7], row[8]) for row in sql.fetch(tx, statement)]


def seals_between(tx: Reading, after: int, until: int) -> list[Seal]:
    """The seals whose last place lies after one place and not after another."""
    return _seals(tx, seals.c.last, seals.c.last > after, seals.c.last <= until)


def _seals(
    tx: Reading, order: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool], limit: int | None = None
) -> list[Seal]:
    c, dialect = seals.c, tx.dialect
    columns = (c.last, _text(dialect, c.thumbprint), _text(dialect, c.payload), _text(dialect, c.jws))
    statement = sa.select(*columns).where(*conditions, *_is_whole(dialect, c.last)).order_by(order).limit(limit)
    rows = sql.fetch(tx, statement)
    return [Seal(row[0], _shown(row[1]), _shown(row[2]).encode(), _shown(row[3])) for row in rows]


def signers_of(tx: Reading, thumbprints: Collection[str]) -> dict[str, list[bytes]]:
    """Chains by thumbprint (DER, leaf first); unknown ones are absent."""
    if not thumbprints:
        return {}
    statement = sa.select(signers.c.thumbprint, signers.c.ders).where(sql.among(tx.dialect, signers.c.thumbprint))
    rows = sql.fetch(tx, statement, ids=sql.listed(tx, sorted(thumbprints)))
    return {row[0]: ders for row in rows if (ders := _ders(row[1]))}


def _ders(data: object) -> list[bytes]:
    try:
        return _decoder.decode(data) if isinstance(data, bytes) else []
    except msgspec.DecodeError:
        return []


# -- columns of which nobody knows what stands in them ---------------------------------------------------------------


def _texts(dialect: DialectName) -> list[sa.ColumnElement[Any]]:
    c = audit.c
    time = sa.cast(c.time, sa.REAL) if dialect == "sqlite" else c.time
    return [time, *(_text(dialect, column) for column in (c.event, c.identity, c.client, c.detail))]


def _text(dialect: DialectName, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A text as bytes on SQLite, which keeps whatever it is given in any column."""
    if dialect == "sqlite":
        return sa.type_coerce(sa.cast(column, sa.LargeBinary), sa.LargeBinary)
    return sa.type_coerce(column, sa.Text)


def _is_whole(dialect: DialectName, column: sa.ColumnElement[Any]) -> list[sa.ColumnElement[bool]]:
    """A place that is no whole number is none."""
    return [sa.func.typeof(column) == "integer"] if dialect == "sqlite" else []


def _shown(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)


def _entry(number: int, gone: bool, values: Sequence[Any], place: int = 0, link: object = "") -> Entry:
    if gone:
        return Entry(int(number), 0.0, "", "", "", "", place, _shown(link), True)
    time = float(values[0] or 0.0)
    event, identity, client, detail = (_shown(value) for value in values[1:5])
    kept = time if math.isfinite(time) else 0.0  # JSON knows no other numbers
    return Entry(int(number), kept, event, identity, client, detail, int(place), _shown(link))
