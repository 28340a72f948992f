"""What services answer, through each client's own reply queue."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ..access import AccessRule
from ..job import JobStatus
from ..registry import DAY, HOUR, MINUTE, Kind, Message, register
from .common import (
    CHUNK_BYTES,
    Attempt,
    Epoch,
    InputFile,
    JobId,
    JobRef,
    Name,
    SandboxFile,
    Sha256,
    Text,
    Usage,
    Value,
)
from .event import JobChange

CLIENT = "client"


class ServiceInfo(Value, frozen=True, kw_only=True):
    """A service that may answer: its DN, its chain (PEM) and the message types that it may send."""

    name: Name
    dn: Name
    chain: str
    sends: tuple[str, ...]


@register("session.welcome.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class Welcome(Message, frozen=True, kw_only=True):
    """First message of a login, written by the gatekeeper. Its header carries the gatekeeper's chain (``x5c``).

    Attributes:
        server_time: when the login was accepted; the client signs with the learned offset.
        group: the group this session acts for.
        properties: what the group may do.
        rules: operators' rules that concern this client.
        delegated_until: end of the proxy that the repository holds for (DN, group); absent if none.
    """

    server_time: Epoch
    client: Name
    identity: Name
    group: str
    nickname: str = ""
    properties: tuple[str, ...] = ()
    services: tuple[ServiceInfo, ...]
    delegated_until: Epoch | None = None
    rules: tuple[AccessRule, ...] = ()


@register("chain.unknown.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class ChainUnknown(Message, frozen=True, kw_only=True):
    """Your chain is not known here (any more): log in anew and send message ``cid`` again."""


class RefusalDetail(Value, frozen=True, kw_only=True):
    """One of the errors of a refused request, with its place in the text."""

    message: Text
    line: int = 0
    column: int = 0
    attribute: str = ""


@register("request.refused.v1", Kind.REPLY, CLIENT, lifetime=DAY)
class Refused(Message, frozen=True, kw_only=True):
    """The request ``cid`` was not carried out, and why.

    Attributes:
        code: stable word for programs: ``invalid``, ``denied``, ``expired``, ``conflict``, ``limit``, ``not-found``,
            ``no-proxy``, ``failed``.
        reason: for people.
        errors: all errors at once.
    """

    code: Annotated[str, Meta(max_length=32)]
    reason: Text
    type: str = ""
    errors: tuple[RefusalDetail, ...] = ()


@register("job.submitted.v1", Kind.REPLY, CLIENT, lifetime=7 * DAY)
class JobsSubmitted(Message, frozen=True, kw_only=True):
    """Accepted: ids ``first`` … ``first + count - 1``, in the order of the descriptions."""

    first: JobId
    count: int
    warnings: tuple[RefusalDetail, ...] = ()


class CommandOutcome(Value, frozen=True, kw_only=True):
    """What a command did to one job."""

    job: JobId
    ok: bool
    status: JobStatus | None = None
    reason: Text = ""


@register("job.commanded.v1", Kind.REPLY, CLIENT, lifetime=DAY)
class JobsCommanded(Message, frozen=True, kw_only=True):
    """What a kill, delete or reschedule did to each job."""

    outcomes: tuple[CommandOutcome, ...]


class JobSummary(Value, frozen=True, kw_only=True):
    """A job in a list. Times in seconds since the epoch, absent if it has not happened."""

    job: JobId
    status: JobStatus
    minor: str = ""
    name: str = ""
    job_group: str = ""
    job_type: str = ""
    owner: str
    group: str
    site: str = ""
    pilot: str = ""
    attempt: int = 0
    submitted: Epoch
    started: Epoch | None = None
    ended: Epoch | None = None
    updated: Epoch
    heartbeat: Epoch | None = None
    exit_code: int | None = None
    usage: Usage = Usage()


@register("job.listing.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=4 << 20)
class JobListing(Message, frozen=True, kw_only=True):
    """Jobs by descending id; ``more`` if another page follows."""

    jobs: tuple[JobSummary, ...]
    more: bool = False


class HistoryLine(Value, frozen=True, kw_only=True):
    """One change in a job's life, with its cause."""

    time: Epoch
    status: JobStatus
    minor: str = ""
    attempt: int = 0
    source: str = ""
    cause: str = ""


class AttemptInfo(Value, frozen=True, kw_only=True):
    """One execution."""

    attempt: Attempt
    pilot: str
    site: str = ""
    matched: Epoch
    started: Epoch | None = None
    ended: Epoch | None = None
    outcome: str = ""
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    usage: Usage = Usage()


@register("job.detail.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=4 << 20)
class JobDetail(Message, frozen=True, kw_only=True):
    """Everything about one job; outputs without their contents unless they are small."""

    summary: JobSummary
    description: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    """The job description as canonical JSON (JDL attribute names)."""
    history: tuple[HistoryLine, ...] = ()
    attempts: tuple[AttemptInfo, ...] = ()
    outputs: tuple[SandboxFile, ...] = ()


@register("job.progress.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=4 << 20)
class JobProgress(Message, frozen=True, kw_only=True):
    """Changes of the jobs that this client follows (the first one: their present states)."""

    changes: tuple[JobChange, ...]


@register("delegation.csr.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class DelegationCsr(Message, frozen=True, kw_only=True):
    """Sign this certificate request (DER) with your proxy."""

    delegation: str
    csr: bytes


@register("delegation.stored.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class DelegationStored(Message, frozen=True, kw_only=True):
    """The repository holds your proxy until then."""

    not_after: Epoch


@register("sandbox.stored.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class SandboxStored(Message, frozen=True, kw_only=True):
    """A chunk was stored; ``complete`` when the whole file is here and its hash is right."""

    sha256: Sha256
    index: int
    complete: bool


@register("sandbox.chunk.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class SandboxChunk(Message, frozen=True, kw_only=True):
    """One chunk of a file."""

    sha256: Sha256
    size: int
    index: int
    count: int
    data: Annotated[bytes, Meta(max_length=CHUNK_BYTES)]


@register("replica.listing.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class ReplicaListing(Message, frozen=True, kw_only=True):
    """Files and their copies; an unknown file is absent."""

    files: tuple[InputFile, ...]


class Match(Value, frozen=True, kw_only=True):
    """A lease of one attempt to a pilot, with all it needs to run.

    Attributes:
        lease_until: end of the acceptance lease (server time).
        run_lease: seconds of each lease after acceptance.
        description: the job description as canonical JSON.
        files: input sandbox.
        data: input data with replicas, nearest first.
        proxy: the owner's proxy is on its way; otherwise the pilot holds it already.
        csr: which of the request's certificate requests it will answer; -1 if none.
        own_proxy: the job has a proxy of its own submission's: ask for it (``proxy.request``); no other will do, and it
            serves no other job.
    """

    job: JobId
    attempt: Attempt
    owner: Name
    group: Name
    lease_until: Epoch
    run_lease: float
    description: msgspec.Raw
    files: tuple[SandboxFile, ...] = ()
    data: tuple[InputFile, ...] = ()
    csr: int = -1
    own_proxy: bool = False


@register("match.response.v1", Kind.REPLY, CLIENT, lifetime=10 * MINUTE, max_bytes=8 << 20)
class MatchResponse(Message, frozen=True, kw_only=True):
    """Work, or the reasons why there is none. ``slot`` as in the request."""

    slot: str
    matches: tuple[Match, ...] = ()
    reasons: tuple[str, ...] = ()


@register("proxy.issued.v1", Kind.REPLY, CLIENT, lifetime=10 * MINUTE)
class ProxyIssued(Message, frozen=True, kw_only=True):
    """The limited proxy of (owner, group), for the certificate request that the match named; or why there is none.

    Attributes:
        csr_sha256: hash of the certificate request (DER) it answers.
        chain: PEM, leaf first; empty if refused.
        reason: why it was refused.
    """

    owner: Name
    group: Name
    csr_sha256: Sha256
    chain: str = ""
    not_after: Epoch = 0.0
    reason: Text = ""


class Lease(Value, frozen=True, kw_only=True):
    """Until when (server time) an attempt may run."""

    job: JobId
    attempt: Attempt
    until: Epoch


@register("lease.renewed.v1", Kind.REPLY, CLIENT, lifetime=10 * MINUTE)
class LeasesRenewed(Message, frozen=True, kw_only=True):
    """Leases that were renewed, and attempts that are not this pilot's any more (stop them)."""

    leases: tuple[Lease, ...] = ()
    lost: tuple[JobRef, ...] = ()


class Order(Value, frozen=True, kw_only=True):
    """One control order: ``kill`` (report Killed), or ``abandon`` (stop it and report nothing)."""

    job: JobId
    attempt: Attempt
    action: Annotated[str, Meta(pattern="^(kill|abandon)$")]
    reason: Text = ""


@register("job.control.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class ControlJobs(Message, frozen=True, kw_only=True):
    """Control orders to the pilot that holds these attempts; answered by ``control.done.v1``, repeated until then."""

    orders: tuple[Order, ...]


class DeadLetter(Value, frozen=True, kw_only=True):
    """A message that could not be handled."""

    id: int
    time: Epoch
    queue: str
    type: str = ""
    issuer: str = ""
    reason: str
    size: int = 0
    state: str = "dead"
    body: Annotated[bytes, Meta(max_length=1 << 20)] | None = None


@register("dead.listing.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=4 << 20)
class DeadListing(Message, frozen=True, kw_only=True):
    """Dead letters, newest first; for replay and discard: those that were dealt with."""

    letters: tuple[DeadLetter, ...]
    more: bool = False
