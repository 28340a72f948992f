"""Certificate chains known from logins, by the thumbprint of the signing certificate."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.identity import chains

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[bytes])


class Chain(msgspec.Struct, frozen=True):
    """A chain that was valid at a login.

    Attributes:
        ders: certificates, leaf first.
        identity: canonical DN of its end entity.
        seen: last login with it.
    """

    thumbprint: str
    ders: list[bytes]
    identity: str
    not_after: float
    seen: float


def put(tx: Transaction, thumbprint: str, ders: Sequence[bytes], identity: str, not_after: float, now: float) -> None:
    """Keep a verified chain; a known one was seen again."""
    row = {
        "thumbprint": thumbprint,
        "ders": _encoder.encode(list(ders)),
        "identity": identity,
        "not_after": not_after,
        "seen": now,
    }
    sql.insert(tx, chains, [row], conflict="replace", replace=("seen",))


def get(tx: Reading, thumbprints: Collection[str]) -> dict[str, Chain]:
    """Chains by thumbprint; unknown ones are absent."""
    found = sql.fetch(tx, _get(tx.dialect), ids=sql.listed(tx, thumbprints)) if thumbprints else []
    return {row[0]: _chain(row) for row in found}


def of_identity(tx: Reading, identity: str, *, valid_at: float) -> list[Chain]:
    """The chains of an identity that end after a time, the latest seen first."""
    c = chains.c
    statement = (
        sa.select(*sql.picked(chains, Chain))
        .where(c.identity == identity, c.not_after > valid_at)
        .order_by(c.seen.desc(), c.thumbprint)
    )
    return [_chain(row) for row in sql.fetch(tx, statement)]


def purge(tx: Transaction, ended_before: float) -> int:
    """Drop chains that ended before a time (older than any message that they may have signed); how many."""
    return sql.run(tx, sa.delete(chains).where(chains.c.not_after < ended_before))


def _chain(row: sql.Found) -> Chain:
    return Chain(row[0], _decoder.decode(row[1]), *row[2:])


@cache
def _get(dialect: DialectName) -> sa.Executable:
    return sa.select(*sql.picked(chains, Chain)).where(sql.among(dialect, chains.c.thumbprint))
