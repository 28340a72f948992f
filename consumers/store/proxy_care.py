"""What the proxy manager keeps in mind of a stored proxy, and its keys at rest when they are encrypted anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import sqlalchemy as sa

from . import proxies as repository
from . import sql, submission_proxies
from .engine import Reading, Transaction
from .proxies import Account
from .tables import identity as tables
from .tables.base import metadata
from .tables.identity import proxy_care

_C = proxy_care.c


class Care(msgspec.Struct, frozen=True):
    """Of one stored proxy.

    Attributes:
        idle_since: since when no job needs it; absent while one does.
        warned: the threshold that was warned of last, seconds.
        not_before: earliest time of the next try at renewal.
        failures: tries in vain, in a row.
        trouble: why the last one was in vain.
    """

    dn: str
    grp: str
    idle_since: float | None = None
    warned: float | None = None
    not_before: float | None = None
    failures: int = 0
    trouble: str = ""


class Sealed(msgspec.Struct, frozen=True):
    """One encrypted private key, wherever it lies.

    Attributes:
        table: of which table.
        key: primary key.
        token: what is encrypted.
        place: what it is bound to.
    """

    table: str
    key: tuple[str, ...]
    token: bytes
    place: str


def load(tx: Reading) -> dict[Account, Care]:
    """All that is kept in mind."""
    found = [Care(*row) for row in sql.fetch(tx, sa.select(*sql.picked(proxy_care, Care)))]
    return {(one.dn, one.grp): one for one in found}


def put(tx: Transaction, rows: Sequence[Care]) -> None:
    """Keep these in mind."""
    sql.insert(tx, proxy_care, rows, conflict="replace")


def claim(tx: Transaction, care: Care, now: float, until: float) -> bool:
    """Take an account's renewal until then; False if another process has it already."""
    free = sa.or_(_C.not_before.is_(None), _C.not_before <= now)
    mine = (_C.dn == care.dn, _C.grp == care.grp)
    if sql.run(tx, sa.update(proxy_care).where(*mine, free).values(not_before=until)):
        return True
    if sql.fetch_one(tx, sa.select(_C.dn).where(*mine)) is not None:
        return False
    sql.insert(tx, proxy_care, [msgspec.structs.replace(care, not_before=until)], conflict="ignore")
    return True


def forget(tx: Transaction, dn: str, grp: str) -> None:
    """The proxy is new, or gone."""
    sql.run(tx, sa.delete(proxy_care).where(_C.dn == dn, _C.grp == grp))


def forget_orphans(tx: Transaction) -> None:
    """Of those whose proxy is gone nothing is kept."""
    p = tables.proxies.c
    sql.run(tx, sa.delete(proxy_care).where(sa.not_(sa.exists().where(p.dn == _C.dn, p.grp == _C.grp))))


# -- keys at rest ---------------------------------------------------------------------------------------------------


def sealed(tx: Reading) -> Iterator[Sealed]:
    """Every encrypted private key."""
    d, p, s = tables.delegations.c, tables.proxies.c, tables.submission_proxies.c
    for row in sql.fetch(tx, sa.select(p.dn, p.grp, p.key)):
        yield Sealed("proxies", (row[0], row[1]), row[2], repository.place_of(row[0], row[1]))
    for row in sql.fetch(tx, sa.select(s.id, s.key)):
        yield Sealed("submission_proxies", (row[0],), row[1], submission_proxies.place_of(row[0]))
    for row in sql.fetch(tx, sa.select(d.id, d.key)):
        yield Sealed("delegations", (row[0],), row[1], f"delegation\n{row[0]}")


def reseal(tx: Transaction, old: Sealed, token: bytes) -> bool:
    """Put a new token in the place of an old one; False if that one is not there any more."""
    table = metadata.tables[old.table]
    names = ("dn", "grp") if old.table == "proxies" else ("id",)
    mine = [table.c[name] == value for name, value in zip(names, old.key, strict=True)]
    statement = sa.update(table).where(*mine, table.c.key == old.token).values(key=token)
    with repository.erasing(tx):
        return sql.run(tx, statement) > 0
