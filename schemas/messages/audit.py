"""The audit: questions of operators and auditors, the answers, and the seals that go out as events."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..registry import DAY, HOUR, MINUTE, Kind, Message, register
from .common import Count, Epoch, Value
from .event import EVENTS
from .service import CLIENT

PAGE_ENTRIES = 500
"""Entries of one answer."""

Hash = Annotated[str, Meta(max_length=64)]
Word = Annotated[str, Meta(max_length=1024)]


class AuditEntry(Value, frozen=True, kw_only=True):
    """One entry of the audit.

    Attributes:
        id: number in the database.
        event: what happened.
        identity: canonical DN of whose doing it was; empty if that was not proven.
        client: his client.
        detail: facts, JSON text exactly as it is kept.
        place: in the chain; 0 while it is not sealed.
        hash: at that place.
        gone: the chain has the place, and the entry is not there.
    """

    id: int
    time: Epoch = 0.0
    event: str = ""
    identity: str = ""
    client: str = ""
    detail: str = ""
    place: int = 0
    hash: str = ""
    gone: bool = False


@register("audit.query.v1", Kind.QUERY, "auditor", lifetime=5 * MINUTE)
class QueryAudit(Message, frozen=True, kw_only=True):
    """What happened? Newest first; all that is given must hold. Answer: ``audit.page.v1``.

    Attributes:
        since: not before; 0 for from the beginning.
        until: before; 0 for up to now.
        event: a name, or the beginning of names with ``*`` at its end.
        identity: a canonical DN.
        client: a client id.
        about: a canonical DN, a client id or a thumbprint: whatever he did, or is named in.
        job: told by the detail.
        text: somewhere in the detail.
        before: only entries with smaller numbers: the next page.
    """

    since: Epoch = 0.0
    until: Epoch = 0.0
    event: Annotated[str, Meta(max_length=64)] = ""
    identity: Word = ""
    client: Annotated[str, Meta(max_length=128)] = ""
    about: Word = ""
    job: Count = 0
    text: Annotated[str, Meta(max_length=256)] = ""
    before: Count = 0
    limit: Annotated[int, Meta(ge=1, le=PAGE_ENTRIES)] = 100


@register("audit.page.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=4 << 20)
class AuditPage(Message, frozen=True, kw_only=True):
    """Entries, newest first.

    Attributes:
        next: ask with ``before`` set to it for what is older; 0 if there is nothing older. A page may be short or empty
            and have a next one: one answer looks at a bounded part of the audit.
    """

    entries: tuple[AuditEntry, ...]
    next: Count = 0


@register("audit.walk.v1", Kind.QUERY, "auditor", lifetime=5 * MINUTE)
class WalkAudit(Message, frozen=True, kw_only=True):
    """The chain as it is kept, after a place, so that the sender checks it himself. Answer: ``audit.links.v1``."""

    after: Count = 0
    limit: Annotated[int, Meta(ge=1, le=PAGE_ENTRIES)] = PAGE_ENTRIES


@register("audit.sealed.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class AuditSealed(Message, frozen=True, kw_only=True):
    """The auditor has sealed the entries up to a place: ``head`` binds them all. Kept with its signature as a seal.

    Attributes:
        first: first place of this batch.
        last: last place.
        previous: hash at the place before the first one.
        head: hash at the last place.
        time: when it was sealed.
        epoch: of the auditor's leadership.
    """

    first: Count
    last: Count
    previous: Hash
    head: Hash
    time: Epoch
    epoch: Count


class AuditSeal(Value, frozen=True, kw_only=True):
    """One seal as it is kept.

    Attributes:
        last: the last place that it seals.
        payload: an ``audit.sealed.v1``.
        jws: its signed header.
    """

    last: int
    payload: bytes
    jws: str


class AuditSigner(Value, frozen=True, kw_only=True):
    """With whom seals were signed: check it against your own trust directory."""

    thumbprint: Annotated[str, Meta(max_length=64)]
    chain: str


@register("audit.links.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=8 << 20)
class AuditLinks(Message, frozen=True, kw_only=True):
    """A part of the chain.

    Attributes:
        entries: by place; a place that is not there is not in the database.
        seals: those of the places up to ``until``.
        signers: chains of the seals' signatures.
        until: the last place that this answer speaks of.
        last: the last place that is sealed.
        beyond: the last place that is there without a seal; 0 if there is none, as it should be.
        unsealed: entries that wait for their place.
        oldest_unsealed: time of the oldest of them; 0 if there is none.
        time: server time.
    """

    entries: tuple[AuditEntry, ...]
    seals: tuple[AuditSeal, ...] = ()
    signers: tuple[AuditSigner, ...] = ()
    until: int
    last: int
    beyond: int = 0
    unsealed: int = 0
    oldest_unsealed: Epoch = 0.0
    time: Epoch


TRACE_CLIENTS = 1000
"""Clients of one question."""


@register("audit.trace.v1", Kind.QUERY, "auditor", lifetime=5 * MINUTE)
class TraceAudit(Message, frozen=True, kw_only=True):
    """What is known of somebody beside the audit? Answer: ``audit.trail.v1``.

    Attributes:
        identity: canonical DN.
        clients: of his and of pilots that got his proxies: as logins and issues of the audit tell them.
        since: not before; 0 for from the beginning.
        until: before; 0 for up to now.
    """

    identity: Word
    clients: Annotated[tuple[Annotated[str, Meta(max_length=128)], ...], Meta(max_length=TRACE_CLIENTS)] = ()
    since: Epoch = 0.0
    until: Epoch = 0.0


class TrailSession(Value, frozen=True, kw_only=True):
    """A login that is known still; a later one of the same client takes its place."""

    client: str
    group: str
    thumbprint: str
    kind: str
    created: Epoch
    seen: Epoch


class TrailSubmission(Value, frozen=True, kw_only=True):
    """Jobs ``first`` … ``first + count - 1`` that he submitted."""

    submission: int
    time: Epoch
    client: str
    group: str
    first: int
    count: int


class TrailAttempt(Value, frozen=True, kw_only=True):
    """An execution of a job by one of the clients, a pilot."""

    client: str
    job: int
    attempt: int
    owner: str
    group: str
    site: str
    matched: Epoch
    ended: Epoch | None = None
    outcome: str = ""


class TrailProxy(Value, frozen=True, kw_only=True):
    """A proxy that the repository holds."""

    group: str
    not_after: Epoch
    stored: Epoch


class TrailPilot(Value, frozen=True, kw_only=True):
    """Where one of the clients runs, a pilot."""

    client: str
    identity: str
    site: str
    status: str
    last_seen: Epoch


@register("audit.trail.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=4 << 20)
class AuditTrail(Message, frozen=True, kw_only=True):
    """What is known of somebody, the newest first and bounded; ``more``: something older was left out."""

    sessions: tuple[TrailSession, ...] = ()
    submissions: tuple[TrailSubmission, ...] = ()
    attempts: tuple[TrailAttempt, ...] = ()
    proxies: tuple[TrailProxy, ...] = ()
    pilots: tuple[TrailPilot, ...] = ()
    more: bool = False
