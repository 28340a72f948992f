"""What the auditor answers: pages of the audit, parts of its chain. Reading only, and each answer bounded.

Nothing here is believed by who asks: the chain is checked at his side (:mod:`schemas.audit_check`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec

from broker.identity import pem_chain
from schemas.identity import client_id_prefix
from schemas.messages.audit import (
    PAGE_ENTRIES,
    TRACE_CLIENTS,
    AuditEntry,
    AuditLinks,
    AuditPage,
    AuditSeal,
    AuditSigner,
    AuditTrail,
    QueryAudit,
    TraceAudit,
    TrailAttempt,
    TrailPilot,
    TrailProxy,
    TrailSession,
    TrailSubmission,
    WalkAudit,
)

from .store import audit, audit_chain, trails
from .store.audit import AuditRow, Wanted
from .store.engine import Reading

TRAIL_ROWS = 1000
"""Rows of each kind in one answer: below half a megabyte each."""

PAGE_BYTES = 1 << 20
"""Texts in one answer; with all the rest it stays below four times that."""


def page_of(tx: Reading, asked: QueryAudit) -> AuditPage:
    """A page, newest first."""
    wanted = Wanted(
        since=asked.since, until=asked.until, event=asked.event, identity=asked.identity, client=asked.client,
        about=asked.about, clients_of=f"{client_id_prefix(asked.about)}." if asked.about.startswith("/") else "",
        text=asked.text, job=asked.job > 0,
    )  # fmt: skip
    # Which job it is stands in the detail and is looked at here; so whole pages may have nothing of it.
    rows, following = audit.page(tx, wanted, before=asked.before, limit=PAGE_ENTRIES if asked.job else asked.limit)
    if asked.job:
        chosen = [row for row in rows if tells_of_job(row.detail, asked.job)]
        if len(chosen) > asked.limit:
            chosen = chosen[: asked.limit]
            following = chosen[-1].id
        rows = chosen
    kept = _bounded(rows)
    if len(kept) < len(rows):
        following = kept[-1].id
    return AuditPage(entries=tuple(_shown(row) for row in kept), next=following)


def links_of(tx: Reading, asked: WalkAudit, now: float) -> AuditLinks:
    """A part of the chain, as it is kept."""
    # In this order: what another auditor seals meanwhile must not look like places without a seal.
    beyond, last = audit_chain.last_place(tx), audit_chain.last_sealed(tx)
    until = max(asked.after, min(asked.after + asked.limit, last))
    entries = audit_chain.walk(tx, asked.after, until)
    kept = _bounded(entries)
    if len(kept) < len(entries):
        until = kept[-1].place
    seals = audit_chain.seals_between(tx, asked.after, until)
    chains = audit_chain.signers_of(tx, {seal.thumbprint for seal in seals})
    waits = audit_chain.waiting(tx)
    return AuditLinks(
        entries=tuple(AuditEntry(**msgspec.structs.asdict(entry)) for entry in kept),
        seals=tuple(AuditSeal(last=seal.last, payload=seal.payload, jws=seal.jws) for seal in seals),
        signers=tuple(
            AuditSigner(thumbprint=name, chain=pem_chain(ders).decode()) for name, ders in sorted(chains.items())
        ),
        until=until,
        last=last,
        beyond=beyond if beyond > last else 0,
        unsealed=waits.count,
        oldest_unsealed=waits.oldest,
        time=now,
    )


def trail_of(tx: Reading, asked: TraceAudit) -> AuditTrail:
    """What other tables than the audit know of somebody."""
    since, until = asked.since, asked.until or float("inf")
    sessions = trails.sessions_of(tx, asked.identity, TRAIL_ROWS)
    submissions = trails.submissions_of(tx, asked.identity, since, until, TRAIL_ROWS)
    own = {one.client for one in sessions} | set(asked.clients)
    attempts = trails.attempts_of(tx, sorted(own)[:TRACE_CLIENTS], since, until, TRAIL_ROWS)
    return AuditTrail(
        sessions=_alike(sessions, TrailSession),
        submissions=_alike(submissions, TrailSubmission),
        attempts=_alike(attempts, TrailAttempt),
        proxies=_alike(trails.proxies_of(tx, asked.identity), TrailProxy),
        pilots=_alike(trails.pilots_of(tx, sorted(own)[:TRACE_CLIENTS]), TrailPilot),
        more=any(len(rows) == TRAIL_ROWS for rows in (sessions, submissions, attempts)) or len(own) > TRACE_CLIENTS,
    )


T = TypeVar("T", bound=msgspec.Struct)


def _alike(rows: Sequence[msgspec.Struct], struct: type[T]) -> tuple[T, ...]:
    return tuple(msgspec.convert(row, struct, from_attributes=True) for row in rows)


def tells_of_job(detail: bytes, job: int) -> bool:
    """Whether a detail names a job: as ``job``, or in the ranges of ``jobs``."""
    try:
        facts = msgspec.json.decode(detail)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    if not isinstance(facts, dict):
        return False
    return facts.get("job") == job or _in_ranges(facts.get("jobs"), job)


def _in_ranges(ranges: object, job: int) -> bool:
    if not isinstance(ranges, str):
        return False
    for part in ranges.split(","):
        low, _, high = part.partition("-")
        if low.isdecimal() and int(low) <= job <= (int(high) if high.isdecimal() else int(low)):
            return True
    return False


class _Sized(Protocol):
    @property
    def identity(self) -> str: ...

    @property
    def client(self) -> str: ...

    @property
    def detail(self) -> str | bytes: ...


R = TypeVar("R", bound=_Sized)


def _bounded(rows: Sequence[R]) -> Sequence[R]:
    """As many as one answer holds; at least one."""
    total = 0
    for index, row in enumerate(rows):
        total += len(row.detail) + len(row.identity) + len(row.client) + 300
        if total > PAGE_BYTES and index:
            return rows[:index]
    return rows


def _shown(row: AuditRow) -> AuditEntry:
    detail = row.detail.decode("utf-8", "replace")
    return AuditEntry(
        id=row.id, time=row.time, event=row.event, identity=row.identity, client=row.client, detail=detail,
        place=row.place or 0, hash=row.hash or "",
    )  # fmt: skip
