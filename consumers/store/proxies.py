"""Delegation and the proxy repository. Keys come and go encrypted: a copy of the database is of no use to a thief.

What is taken away is overwritten as well (:func:`erasing`): a key must not lie in a free page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TypeAlias

import msgspec
import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.identity import delegations, proxies, proxy_care, proxy_issues
from .tables.jobs import ACTIVE_ONLY, jobs, submissions

Account: TypeAlias = tuple[str, str]
"""(DN, group)"""


class Delegation(msgspec.Struct, frozen=True):
    """A certificate request under way; ``key`` is encrypted.

    Attributes:
        purpose: empty or absent for the account's proxy, ``submission`` for one of a submission's own.
    """

    id: str
    dn: str
    grp: str
    key: bytes
    created: float
    expires: float
    purpose: str | None = None

    @property
    def place(self) -> str:
        """What its key is bound to."""
        return f"delegation\n{self.id}"


class Proxy(msgspec.Struct, frozen=True):
    """A stored proxy: chain in PEM, ``key`` encrypted."""

    dn: str
    grp: str
    chain: str
    key: bytes
    not_after: float
    stored: float

    @property
    def place(self) -> str:
        """What its key is bound to."""
        return place_of(self.dn, self.grp)


class Term(msgspec.Struct, frozen=True):
    """How long a stored proxy lives, without the proxy."""

    dn: str
    grp: str
    not_after: float
    stored: float

    @property
    def account(self) -> Account:
        """Whose it is."""
        return self.dn, self.grp


class Issue(msgspec.Struct, frozen=True):
    """A limited proxy that was given to a pilot; ``thumbprint`` is its certificate's."""

    client: str
    owner: str
    grp: str
    not_after: float
    job: int
    attempt: int
    time: float
    thumbprint: str | None = None


def place_of(dn: str, grp: str) -> str:
    """What the key of an account's proxy is bound to."""
    return f"proxy\n{dn}\n{grp}"


@contextmanager
def erasing(tx: Transaction) -> Iterator[None]:
    """Whatever is deleted or replaced inside is overwritten with zeros: a key must not stay behind in a free page.

    SQLite only. PostgreSQL keeps dead rows until its vacuum, and every database has logs and backups: what makes a
    copy worthless is the encryption.
    """
    tx.erased = True
    if tx.dialect != "sqlite":
        yield
        return
    before = tx.connection.exec_driver_sql("PRAGMA secure_delete").scalar_one()
    tx.connection.exec_driver_sql("PRAGMA secure_delete=ON")
    try:
        yield
    finally:
        tx.connection.exec_driver_sql(f"PRAGMA secure_delete={int(before)}")


def begin(tx: Transaction, row: Delegation) -> None:
    """Keep the key of a certificate request until its proxy comes."""
    sql.insert(tx, delegations, [row])


def take(tx: Transaction, delegation: str, dn: str, grp: str, now: float) -> Delegation | None:
    """The request for which a proxy came; it serves once, its own DN and group only, and not after its end."""
    c = delegations.c
    statement = sa.delete(delegations).where(c.id == delegation, c.dn == dn, c.grp == grp, c.expires > now)
    with erasing(tx):
        row = sql.fetch_one(tx, statement.returning(*sql.picked(delegations, Delegation)))
    return None if row is None else Delegation(*row)


def pending(tx: Reading, dn: str, now: float) -> int:
    """How many requests of a DN are under way."""
    c = delegations.c
    row = sql.fetch_one(tx, sa.select(sa.func.count()).where(c.dn == dn, c.expires > now))
    return 0 if row is None else int(row[0])


def put(tx: Transaction, proxy: Proxy) -> bool:
    """Keep a proxy in place of the older one of the same DN and group; False if that one lives longer and stays.

    What was kept in mind of the older one (warnings, tries) is forgotten.
    """
    statement = _put(tx.dialect)
    with erasing(tx):
        replaced = tx.connection.execute(statement, msgspec.structs.asdict(proxy)).first() is not None
    if replaced:
        sql.run(tx, sa.delete(proxy_care).where(proxy_care.c.dn == proxy.dn, proxy_care.c.grp == proxy.grp))
    return replaced


def get(tx: Reading, accounts: Collection[Account]) -> dict[Account, Proxy]:
    """Stored proxies of these accounts."""
    if not accounts:
        return {}
    return {(row[0], row[1]): Proxy(*row) for row in sql.fetch(tx, _get(tx.dialect), rows=_rows(accounts))}


def until(tx: Reading, dn: str, grp: str) -> float | None:
    """End of the proxy that the repository holds; ``None`` if it holds none."""
    row = sql.fetch_one(tx, sa.select(proxies.c.not_after).where(proxies.c.dn == dn, proxies.c.grp == grp))
    return None if row is None else float(row[0])


def terms(tx: Reading) -> list[Term]:
    """How long all stored proxies live."""
    statement = sa.select(*sql.picked(proxies, Term)).order_by(proxies.c.dn, proxies.c.grp)
    return [Term(*row) for row in sql.fetch(tx, statement)]


def listing(tx: Reading, owner: str, offset: int, limit: int) -> list[Proxy]:
    """One page of the repository in order of names."""
    statement = sa.select(*sql.picked(proxies, Proxy)).order_by(proxies.c.dn, proxies.c.grp)
    if owner:
        statement = statement.where(proxies.c.dn == owner)
    return [Proxy(*row) for row in sql.fetch(tx, statement.offset(offset).limit(limit))]


def delete(tx: Transaction, dn: str, grp: str = "") -> int:
    """Forget somebody's proxies and requests, keys and all; of one group, or of all. How many proxies."""
    with erasing(tx):
        for table in (delegations, proxies):
            mine = [table.c.dn == dn, *([table.c.grp == grp] if grp else [])]
            count = sql.run(tx, sa.delete(table).where(*mine))
        return count


def active(tx: Reading, accounts: Collection[Account]) -> set[Account]:
    """Those of these accounts that have jobs which are not over, or which are still to be written."""
    if not accounts:
        return set()
    return {(row[0], row[1]) for row in sql.fetch(tx, _active(tx.dialect), rows=_rows(accounts))}


def count_active(tx: Reading, dn: str, grp: str) -> int:
    """How many jobs of an account are not over."""
    statement = sa.select(sa.func.count()).where(jobs.c.grp == grp, jobs.c.owner == dn, ACTIVE_ONLY)
    row = sql.fetch_one(tx, statement.select_from(jobs))
    return 0 if row is None else int(row[0])


def record_issues(tx: Transaction, rows: Sequence[Issue]) -> None:
    """Write down which pilots got proxies."""
    sql.insert(tx, proxy_issues, rows)


def issued_until(tx: Reading, client: str) -> dict[Account, float]:
    """Ends of the proxies that a pilot got, by account."""
    c = proxy_issues.c
    statement = sa.select(c.owner, c.grp, sa.func.max(c.not_after)).where(c.client == client).group_by(c.owner, c.grp)
    return {(owner, grp): end for owner, grp, end in sql.fetch(tx, statement)}


def issues_since(tx: Reading, since: float, *, client: str = "", owner: str = "") -> int:
    """How many proxies a pilot got, or were made of an owner's, since a time."""
    c = proxy_issues.c
    whose = c.client == client if client else c.owner == owner
    row = sql.fetch_one(tx, sa.select(sa.func.count()).where(whose, c.time >= since))
    return 0 if row is None else int(row[0])


def purge(tx: Transaction, now: float, issued_before: float) -> int:
    """Drop requests and proxies that are over, and old records of issues; how many keys are gone."""
    sql.run(tx, sa.delete(proxy_issues).where(proxy_issues.c.time < issued_before))
    with erasing(tx):
        gone = sql.run(tx, sa.delete(delegations).where(delegations.c.expires < now))
        return gone + sql.run(tx, sa.delete(proxies).where(proxies.c.not_after < now))


def _rows(accounts: Collection[Account]) -> str:
    return sql.encoded([{"dn": dn, "grp": grp} for dn, grp in accounts])


@cache
def _put(dialect: DialectName) -> sa.Executable:
    statement = sql.dialect_insert(dialect, proxies)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["dn", "grp"],
        set_={name: new[name] for name in ("chain", "key", "not_after", "stored")},
        where=proxies.c.not_after <= new.not_after,
    ).returning(proxies.c.dn)


@cache
def _get(dialect: DialectName) -> sa.Executable:
    v = sql.batch(dialect, {"dn": sa.Text(), "grp": sa.Text()})
    return sa.select(*sql.picked(proxies, Proxy)).where(proxies.c.dn == v["dn"], proxies.c.grp == v["grp"])


@cache
def _active(dialect: DialectName) -> sa.Executable:
    v = sql.batch(dialect, {"dn": sa.Text(), "grp": sa.Text()})
    living = sa.exists().where(jobs.c.grp == v["grp"], jobs.c.owner == v["dn"], ACTIVE_ONLY)
    to_come = sa.exists().where(
        submissions.c.expanded < submissions.c["count"], submissions.c.owner == v["dn"], submissions.c.grp == v["grp"]
    )
    return sa.select(v["dn"], v["grp"]).where(sa.or_(living, to_come))
