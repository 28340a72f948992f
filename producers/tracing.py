"""What did a credential do? The audit and what other tables know, as one time line of one identity, client or proxy.

Promises: nothing is left out silently (``more`` tells of it); what is shown of a proxy or a client alone is what it did
itself, and what was done with the proxies that were delegated by it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from schemas.identity import canonical_dn, client_id_prefix
from schemas.messages.audit import TRACE_CLIENTS, AuditEntry, AuditTrail, QueryAudit, TraceAudit

from .errors import NotFoundError

if TYPE_CHECKING:
    from .auditing import Audit, Told

MAX_ENTRIES = 100_000
"""Entries of one time line; the newest are kept."""

DELEGATED = frozenset({"proxy.stored", "proxy.renewed", "proxy.attributed"})
"""Events after which the repository has another proxy."""

HEX = re.compile(r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}")
"""A SHA-256 as `openssl x509 -fingerprint -sha256` prints it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the time line.

    Attributes:
        what: event of the audit, ``job.submitted`` or ``job.matched``.
        entry: number in the audit; 0 if it is told by another table.
    """

    time: float
    what: str
    identity: str
    client: str
    detail: Mapping[str, object]
    entry: int = 0


@dataclass(frozen=True, slots=True)
class Issued:
    """A limited proxy that was given to a pilot.

    Attributes:
        until: its end; how long whoever has it can use it.
    """

    owner: str
    group: str
    pilot: str
    site: str
    job: int
    time: float
    until: float
    serial: str
    thumbprint: str


@dataclass(frozen=True, slots=True)
class Trace:
    """What was found.

    Attributes:
        subject: what was asked for.
        identity: canonical DN.
        clients: logins that are meant; empty: all of the identity.
        steps: by time.
        given: proxies of the identity that pilots got.
        got: proxies of others that the identity's pilots got.
        trail: what other tables know.
        more: something older was left out.
    """

    subject: str
    identity: str
    clients: frozenset[str]
    steps: tuple[Step, ...]
    given: tuple[Issued, ...]
    got: tuple[Issued, ...]
    trail: AuditTrail
    more: bool


def trace(audit: Audit, subject: str, *, since: float = 0.0, until: float = 0.0, told: Told) -> Trace:
    """Find what an identity, a client or a proxy did.

    Args:
        audit: the deployment's.
        subject: a DN, a client id, or a thumbprint or serial number of a certificate.
        since: not before.
        until: before; 0 for up to now.
        told: of progress.

    Raises:
        NotFoundError: the audit does not know it.
    """
    subject = _canonical(subject)
    identity, clients = (subject, frozenset[str]()) if subject.startswith("/") else _owner(audit, subject)
    query = QueryAudit(about=identity, since=since, until=until)
    found = list(audit.entries(query, MAX_ENTRIES, told))[::-1]
    entries = list(_narrowed(found, identity, subject, clients)) if clients else found
    pilots = {entry.client for entry in entries if entry.event == "proxy.issued"}
    own = clients or {entry.client for entry in entries if _is_of(entry.client, identity)}
    trail = _trail(audit, identity, own | pilots, since, until)
    submissions = [one for one in trail.submissions if not clients or one.client in clients]
    attempts = [one for one in trail.attempts if one.client in own]
    trail = msgspec.structs.replace(trail, submissions=tuple(submissions), attempts=tuple(attempts))
    sites = {pilot.client: pilot.site for pilot in trail.pilots}
    issued = [_issued(entry, sites) for entry in entries if entry.event == "proxy.issued"]
    steps = [*(_step(entry) for entry in entries), *_told_elsewhere(trail, identity)]
    return Trace(
        subject=subject,
        identity=identity,
        clients=clients,
        steps=tuple(sorted(steps, key=lambda step: step.time)),
        given=tuple(one for one in issued if one.owner == identity),
        got=tuple(one for one in issued if one.owner != identity),
        trail=trail,
        more=trail.more or len(found) == MAX_ENTRIES,
    )


def _canonical(subject: str) -> str:
    subject = subject.strip()
    if subject.startswith("/"):
        return canonical_dn(subject)
    if HEX.fullmatch(subject):
        try:
            digest = binascii.unhexlify(subject.replace(":", ""))
        except binascii.Error:
            return subject
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return subject


def _owner(audit: Audit, subject: str) -> tuple[str, frozenset[str]]:
    """Whose client or certificate it is, and which clients logged in with it."""
    identity = ""
    clients: set[str] = set()
    for entry in audit.entries(QueryAudit(about=subject), MAX_ENTRIES):
        facts = facts_of(entry)
        mine = entry.client == subject or subject in {facts.get("thumbprint"), facts.get("serial")}
        if mine and entry.identity and (entry.event != "proxy.issued" or entry.client != subject):
            identity = entry.identity
            clients.add(entry.client)
    if not identity:
        raise NotFoundError(f"the audit knows no login, client or proxy {subject[:100]!r}")
    return identity, frozenset(clients)


def _narrowed(
    entries: Iterable[AuditEntry], identity: str, subject: str, clients: Collection[str]
) -> Iterator[AuditEntry]:
    """What these clients did, and what was done with the proxies that they delegated, whatever became of those."""
    marks = {subject}
    delegated = False
    for entry in entries:
        facts = facts_of(entry)
        mine = entry.client in clients or subject in facts.values()
        if not mine and entry.identity == identity and entry.event.startswith("proxy."):
            origin = facts.get("parent") or facts.get("previous")
            # What releases before this one wrote names no origin: after a delegation it may be of it.
            mine = origin in marks if origin else delegated
        if not mine:
            continue
        if entry.event in DELEGATED:
            delegated = True
            marks.add(str(facts.get("thumbprint", "")))
        yield entry


def _is_of(client: str, identity: str) -> bool:
    return client.startswith(f"{client_id_prefix(identity)}.")


def _trail(audit: Audit, identity: str, clients: Collection[str], since: float, until: float) -> AuditTrail:
    """All parts of what other tables know; the first has all that is the identity's, each its clients'."""
    wanted = sorted(clients)
    whole = AuditTrail()
    for start in range(0, max(1, len(wanted)), TRACE_CLIENTS):
        some = tuple(wanted[start : start + TRACE_CLIENTS])
        part = audit.trail(TraceAudit(identity=identity, clients=some, since=since, until=until))
        whole = msgspec.structs.replace(
            part if not start else whole,
            attempts=tuple({(one.job, one.attempt): one for one in (*whole.attempts, *part.attempts)}.values()),
            pilots=tuple({one.client: one for one in (*whole.pilots, *part.pilots)}.values()),
            more=whole.more or part.more,
        )
    return whole


def facts_of(entry: AuditEntry) -> Mapping[str, object]:
    """An entry's detail."""
    try:
        facts = msgspec.json.decode(entry.detail)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _step(entry: AuditEntry) -> Step:
    return Step(entry.time, entry.event, entry.identity, entry.client, facts_of(entry), entry.id)


def _told_elsewhere(trail: AuditTrail, identity: str) -> Iterator[Step]:
    for one in trail.submissions:
        jobs = str(one.first) if one.count == 1 else f"{one.first}-{one.first + one.count - 1}"
        yield Step(one.time, "job.submitted", identity, one.client, {"group": one.group, "jobs": jobs})
    for run in trail.attempts:
        facts = {"job": run.job, "attempt": run.attempt, "owner": run.owner, "site": run.site, "outcome": run.outcome}
        yield Step(run.matched, "job.matched", identity, run.client, facts)


def _issued(entry: AuditEntry, sites: Mapping[str, str]) -> Issued:
    facts = facts_of(entry)
    until, job = facts.get("not_after"), facts.get("job")
    return Issued(
        owner=entry.identity,
        group=str(facts.get("group", "")),
        pilot=entry.client,
        site=sites.get(entry.client, ""),
        job=job if isinstance(job, int) else 0,
        time=entry.time,
        until=float(until) if isinstance(until, int | float) else 0.0,
        serial=str(facts.get("serial", "")),
        thumbprint=str(facts.get("thumbprint", "")),
    )
