"""Delegation and the proxy repository. Keys come and go encrypted: a copy of the database is of no use to a thief."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import TypeAlias

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.identity import delegations, proxies, proxy_issues

Account: TypeAlias = tuple[str, str]
"""(DN, group)"""


class Delegation(msgspec.Struct, frozen=True):
    """A certificate request under way; ``key`` is encrypted."""

    id: str
    dn: str
    grp: str
    key: bytes
    created: float
    expires: float


class Proxy(msgspec.Struct, frozen=True):
    """A stored proxy: chain in PEM, ``key`` encrypted."""

    dn: str
    grp: str
    chain: str
    key: bytes
    not_after: float
    stored: float


class Issue(msgspec.Struct, frozen=True):
    """A limited proxy that was given to a pilot."""

    client: str
    owner: str
    grp: str
    not_after: float
    job: int
    attempt: int
    time: float


def begin(tx: Transaction, row: Delegation) -> None:
    """Keep the key of a certificate request until its proxy comes."""
    sql.insert(tx, delegations, [row])


def take(tx: Transaction, delegation: str, dn: str, grp: str, now: float) -> Delegation | None:
    """The request for which a proxy came; it serves once, its own DN and group only, and not after its end."""
    c = delegations.c
    statement = sa.delete(delegations).where(c.id == delegation, c.dn == dn, c.grp == grp, c.expires > now)
    row = sql.fetch_one(tx, statement.returning(*sql.picked(delegations, Delegation)))
    return None if row is None else Delegation(*row)


def pending(tx: Reading, dn: str, now: float) -> int:
    """How many requests of a DN are under way."""
    c = delegations.c
    row = sql.fetch_one(tx, sa.select(sa.func.count()).where(c.dn == dn, c.expires > now))
    return 0 if row is None else int(row[0])


def put(tx: Transaction, proxy: Proxy) -> None:
    """Keep a proxy; it takes the place of the older one of the same DN and group, unless that one lives longer."""
    statement = _put(tx.dialect)
    tx.connection.execute(statement, msgspec.structs.asdict(proxy))


def get(tx: Reading, accounts: Collection[Account]) -> dict[Account, Proxy]:
    """Stored proxies of these accounts."""
    if not accounts:
        return {}
    rows = sql.encoded([{"dn": dn, "grp": grp} for dn, grp in accounts])
    return {(row[0], row[1]): Proxy(*row) for row in sql.fetch(tx, _get(tx.dialect), rows=rows)}


def until(tx: Reading, dn: str, grp: str) -> float | None:
    """End of the proxy that the repository holds; ``None`` if it holds none."""
    row = sql.fetch_one(tx, sa.select(proxies.c.not_after).where(proxies.c.dn == dn, proxies.c.grp == grp))
    return None if row is None else float(row[0])


def record_issues(tx: Transaction, rows: Sequence[Issue]) -> None:
    """Write down which pilots got proxies."""
    sql.insert(tx, proxy_issues, rows)


def issued_until(tx: Reading, client: str) -> dict[Account, float]:
    """Ends of the proxies that a pilot got, by account."""
    c = proxy_issues.c
    statement = sa.select(c.owner, c.grp, sa.func.max(c.not_after)).where(c.client == client).group_by(c.owner, c.grp)
    return {(owner, grp): end for owner, grp, end in sql.fetch(tx, statement)}


def issues_since(tx: Reading, client: str, since: float) -> int:
    """How many proxies a pilot got since a time."""
    c = proxy_issues.c
    row = sql.fetch_one(tx, sa.select(sa.func.count()).where(c.client == client, c.time >= since))
    return 0 if row is None else int(row[0])


def purge(tx: Transaction, now: float, issued_before: float) -> int:
    """Drop requests and proxies that are over, and old records of issues; how many proxies."""
    sql.run(tx, sa.delete(delegations).where(delegations.c.expires < now))
    sql.run(tx, sa.delete(proxy_issues).where(proxy_issues.c.time < issued_before))
    return sql.run(tx, sa.delete(proxies).where(proxies.c.not_after < now))


@cache
def _put(dialect: DialectName) -> sa.Executable:
    statement = sql.dialect_insert(dialect, proxies)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["dn", "grp"],
        set_={name: new[name] for name in ("chain", "key", "not_after", "stored")},
        where=proxies.c.not_after <= new.not_after,
    )


@cache
def _get(dialect: DialectName) -> sa.Executable:
    v = sql.batch(dialect, {"dn": sa.Text(), "grp": sa.Text()})
    return sa.select(*sql.picked(proxies, Proxy)).where(proxies.c.dn == v["dn"], proxies.c.grp == v["grp"])
