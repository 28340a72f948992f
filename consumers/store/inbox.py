"""Admission: each message (issuer, jti) has its effect once. A redelivery is answered with the recorded outcome."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import TypeAlias

import sqlalchemy as sa

from . import sql
from .engine import DialectName, Reading, Transaction
from .tables.messages import inbox

Key: TypeAlias = tuple[str, str]
"""(issuer, jti)"""


def admit(
    tx: Transaction, messages: Iterable[tuple[str, str, str]], now: float
) -> tuple[set[Key], dict[Key, bytes | None]]:
    """Enter messages.

    Args:
        tx: the transaction that will hold their effects, too.
        messages: (issuer, jti, type); the same key twice counts once.
        now: time of admission.

    Returns:
        The keys that are new (handle them), and the recorded outcomes of those that are not (``None``: none was
        recorded, there is nothing to answer).
    """
    # In one order everywhere, so that two transactions with the same keys wait for each other and never deadlock.
    keys = {(jti, iss): typ for iss, jti, typ in messages}
    rows = [{"jti": jti, "iss": iss, "typ": keys[jti, iss], "received": now} for jti, iss in sorted(keys)]
    fresh = {
        (str(iss), str(jti)) for iss, jti in sql.insert_returning(tx, inbox, rows, ("iss", "jti"), conflict="ignore")
    }
    known = [(iss, jti) for jti, iss in keys if (iss, jti) not in fresh]
    return fresh, outcomes(tx, known) if known else {}


def outcomes(tx: Reading, keys: Sequence[Key]) -> dict[Key, bytes | None]:
    """The recorded outcomes of messages that were admitted before."""
    rows = sql.encoded([{"iss": iss, "jti": jti} for iss, jti in keys])
    return {(iss, jti): outcome for iss, jti, outcome in sql.fetch(tx, _select_outcomes(tx.dialect), rows=rows)}


def record(tx: Transaction, results: Mapping[Key, bytes]) -> None:
    """Keep what was answered, for redeliveries."""
    rows = [{"iss": iss, "jti": jti, "outcome": outcome} for (iss, jti), outcome in results.items()]
    sql.update(tx, inbox, rows, ("jti", "iss"))


def forget(tx: Transaction, keys: Iterable[Key]) -> None:
    """Make messages new again: an operator re-admits them."""
    rows = [{"iss": iss, "jti": jti} for iss, jti in keys]
    sql.run(tx, _delete(tx.dialect), rows=sql.encoded(rows))


def purge(tx: Transaction, before: float, types: Collection[str] | None = None) -> int:
    """Drop rows from before a time (older than a message's lifetime and any outbox row of it); how many.

    Args:
        tx: where.
        before: the time.
        types: only rows of these message types.
    """
    conditions = [inbox.c.received < before]
    if types is not None:
        conditions.append(inbox.c.typ.in_(sorted(types)))
    return sql.run(tx, sa.delete(inbox).where(*conditions))


@cache
def _select_outcomes(dialect: DialectName) -> sa.Executable:
    v = sql.batch(dialect, {"iss": sa.Text(), "jti": sa.Text()})
    return sa.select(inbox.c.iss, inbox.c.jti, inbox.c.outcome).where(inbox.c.jti == v["jti"], inbox.c.iss == v["iss"])


@cache
def _delete(dialect: DialectName) -> sa.Executable:
    v = sql.batch(dialect, {"iss": sa.Text(), "jti": sa.Text()})
    return sa.delete(inbox).where(sa.exists().where(inbox.c.jti == v["jti"], inbox.c.iss == v["iss"]))
