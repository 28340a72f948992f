"""What each source says about the registry's entries, what follows from it, and every change there ever was.

Promises: claims, the tables of entries, the history and the version change together or not at all; who reads a book
to change it (:func:`book` with a transaction) is alone until the transaction ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import sqlalchemy as sa

from schemas.entries import (
    AnyEntry,
    ComputingEntry,
    EntryKey,
    GroupEntry,
    LimitEntry,
    MatchLimitEntry,
    MemberEntry,
    RuleEntry,
    ServiceEntry,
    SiteEntry,
    StorageEntry,
    UserEntry,
)
from schemas.errors import InvalidInputError
from schemas.messages.registrar import Difference, HistoryLine

from ..domain.registry import Book, Claim, Draft
from . import counters, sql
from .engine import Reading, Transaction
from .tables.identity import (
    access_rules,
    computing_elements,
    groups,
    limits,
    match_limits,
    memberships,
    registry_claims,
    registry_history,
    services,
    sites,
    storage_elements,
    users,
)
from .tables.messages import counters as counters_table

VERSION = "registry"

LOCK = 0x70696C6F74616765
"""PostgreSQL's advisory lock of who changes the registry ("pilotage" in ASCII): one at a time, in any process."""

_entry = msgspec.json.Decoder(AnyEntry)

TABLES: Mapping[str, tuple[sa.Table, tuple[str, ...]]] = {
    "user": (users, ("dn",)),
    "group": (groups, ("name",)),
    "member": (memberships, ("dn", "grp")),
    "service": (services, ("dn",)),
    "site": (sites, ("name",)),
    "se": (storage_elements, ("name",)),
    "ce": (computing_elements, ("name",)),
    "rule": (access_rules, ("name",)),
    "limit": (limits, ("who", "measure")),
    "match-limit": (match_limits, ("scope",)),
}
"""Where entries of each kind are kept, by their key columns."""


def version(tx: Reading) -> int:
    """The registry's version; 0 if it was never written."""
    row = sql.fetch_one(tx, sa.select(counters_table.c.next).where(counters_table.c.name == VERSION))
    return 0 if row is None else int(row[0])


def lock(tx: Transaction) -> None:
    """Be the only one who changes the registry until the transaction ends."""
    if tx.dialect == "postgresql":
        sql.fetch(tx, sa.select(sa.func.pg_advisory_xact_lock(LOCK)))


def book(tx: Reading) -> Book:
    """The whole registry with all claims; :func:`lock` first if it is to be changed."""
    number = version(tx)
    c = registry_claims.c
    found: dict[EntryKey, dict[str, Claim]] = {}
    for kind, name, scope, source, own, content in sql.fetch(
        tx, sa.select(c.kind, c.name, c.scope, c.source, c.own, c.content)
    ):
        found.setdefault((kind, name, scope), {})[source] = Claim(source, own, _entry.decode(content))
    return Book(found, number)


def write(
    tx: Transaction, draft: Draft, *, now: float, source: str, actor: str, reason: str
) -> tuple[list[Difference], int]:
    """Write a draft of the present book.

    Args:
        tx: the transaction; it holds the lock.
        draft: what is wanted.
        now: time of the change.
        source: whose claims it changes.
        actor: DN of the operator, or the source.
        reason: why.

    Returns:
        What changed, and the version since then.

    Raises:
        InvalidInputError: a claim is beyond the bounds of its kind; nothing was written.
    """
    puts, drops = draft.written()
    if not puts and not drops:
        return [], draft.book.version
    sql.insert(tx, registry_claims, [_claim_row(claim, now) for claim in puts], conflict="replace")
    for (kind, name, scope), of in drops:
        c = registry_claims.c
        wanted = (c.kind == kind, c.name == name, c.scope == scope, c.source == of)
        sql.run(tx, sa.delete(registry_claims).where(*wanted))
    differences = draft.differences()
    _write_entries(tx, differences)
    rows = [_history_row(one, now, source, actor, reason) for one in differences]
    sql.insert(tx, registry_history, rows)
    counters.reserve(tx, VERSION, 1)
    return differences, version(tx)


def history(
    tx: Reading, *, kind: str = "", name: str = "", actor: str = "", before: int = 0, limit: int = 100
) -> tuple[list[HistoryLine], bool]:
    """One page of changes, newest first, and whether another one follows; ``before`` is a number, 0 for the first."""
    c = registry_history.c
    conditions = [condition for wanted, condition in (
        (kind, c.kind == kind), (name, c.name == name), (actor, c.actor == actor), (before, c.id < before)
    ) if wanted]  # fmt: skip
    statement = (
        sa.select(c.id, c.time, c.source, c.actor, c.reason, c.before, c.after)
        .where(*conditions)
        .order_by(c.id.desc())
        .limit(limit + 1)
    )
    lines = [
        HistoryLine(
            id=number,
            time=time,
            source=source,
            actor=who,
            reason=why,
            before=None if old is None else _entry.decode(old),
            after=None if new is None else _entry.decode(new),
        )
        for number, time, source, who, why, old, new in sql.fetch(tx, statement)
    ]
    return lines[:limit], len(lines) > limit


def _claim_row(claim: Claim, now: float) -> dict[str, object]:
    kind, name, scope = claim.entry.key
    content = msgspec.json.encode(claim.entry)
    try:
        _entry.decode(content)  # what could not be read again would stop every reader
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"{kind} {name[:100]!r}: {error}") from None
    return {
        "kind": kind,
        "name": name,
        "scope": scope,
        "source": claim.source,
        "own": claim.own,
        "content": content,
        "time": now,
    }


def _history_row(one: Difference, now: float, source: str, actor: str, reason: str) -> dict[str, object]:
    entry = one.after or one.before
    if entry is None:
        raise ValueError(one)
    kind, name, scope = entry.key
    return {
        "time": now,
        "kind": kind,
        "name": name,
        "scope": scope,
        "source": source,
        "actor": actor,
        "reason": reason,
        "before": None if one.before is None else msgspec.json.encode(one.before),
        "after": None if one.after is None else msgspec.json.encode(one.after),
    }


def _write_entries(tx: Transaction, differences: Iterable[Difference]) -> None:
    new: dict[str, list[Mapping[str, object]]] = {}
    for one in differences:
        if one.after is not None:
            new.setdefault(one.after.key[0], []).append(_row(one.after))
        elif one.before is not None:
            kind = one.before.key[0]
            table, names = TABLES[kind]
            values = one.before.key[1 : 1 + len(names)]
            sql.run(
                tx, sa.delete(table).where(*(table.c[name] == value for name, value in zip(names, values, strict=True)))
            )
    for kind, rows in new.items():
        sql.insert(tx, TABLES[kind][0], rows, conflict="replace")


def _row(entry: AnyEntry) -> Mapping[str, object]:
    """An entry as a row of its table."""
    match entry:
        case UserEntry():
            return {"dn": entry.dn, "nickname": entry.nickname, "suspended": entry.suspended, "mail": entry.mail,
                    "reason": entry.reason}  # fmt: skip
        case GroupEntry():
            return {"name": entry.name, "fqan": entry.fqan, "properties": _json(entry.properties),
                    "share": float(entry.share or 0.0), "background": entry.background,
                    "voms_required": entry.voms_required}  # fmt: skip
        case MemberEntry():
            return {"dn": entry.dn, "grp": entry.group, "place": entry.place, "share": entry.share}
        case ServiceEntry():
            return {"dn": entry.dn, "name": entry.name, "sends": _json(entry.sends)}
        case SiteEntry():
            return {"name": entry.name, "usable": entry.usable, "reason": entry.reason}
        case StorageEntry():
            return {"name": entry.name, "sites": _json(entry.sites)}
        case ComputingEntry():
            return {"name": entry.name, "site": entry.site, "type": entry.type, "address": entry.address,
                    "queues": msgspec.json.encode(entry.queues)}  # fmt: skip
        case RuleEntry():
            return {"name": entry.name, "effect": entry.effect, "who": entry.who, "what": entry.what,
                    "site": entry.site, "reason": entry.reason}  # fmt: skip
        case LimitEntry():
            return {"who": entry.who, "measure": entry.measure.value, "value": entry.value}
        case MatchLimitEntry():
            return {"scope": entry.scope, "running": entry.running, "delay_seconds": entry.delay_seconds,
                    "reason": entry.reason}  # fmt: skip


def _json(values: Sequence[str] | None) -> bytes:
    return msgspec.json.encode(values or ())
