"""What pilots send: offers, acceptance, reports, heartbeats; sandbox messages are the users' (:mod:`.user`)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..job import JobStatus
from ..registry import DAY, HOUR, MINUTE, Kind, Message, register
from .common import Attempt, Count, Epoch, ExitCode, JobId, JobRef, Name, SandboxFile, Text, Usage, Value

MAX_JOBS_PER_REQUEST = 64
"""Jobs that one request may ask for; bounds a match response to below 6 MiB even with full inline sandboxes."""

MAX_PARK_SECONDS = 3600.0
"""Longest time a request may stay parked; the pilot then asks again and so shows that it lives."""


class Gpu(Value, frozen=True, kw_only=True):
    """One free GPU of a node.

    Attributes:
        model: as its driver names it, such as ``NVIDIA A100-SXM4-40GB``.
        memory_mb: its memory, MB.
    """

    model: Annotated[str, Meta(max_length=256)] = ""
    memory_mb: Annotated[float, Meta(ge=0)] = 0.0


class Offer(Value, frozen=True, kw_only=True):
    """What a pilot says its node has.

    Attributes:
        site: where.
        ce: computing element, empty if none.
        platforms: platform names that run here, best first.
        cpu_seconds: CPU work that still fits, per processor, in normalised seconds (HS06·s).
        wall_seconds: wall time left in the slot.
        processors: free processors.
        memory_mb: free memory, MB.
        disk_mb: free disk in the work area, MB.
        tags: what the node has besides.
        required_tags: the pilot takes only jobs that carry all of these.
        whole_node: the whole node is the pilot's.
        owners: if not empty, only jobs of these owners (a private pilot).
        groups: if not empty, only jobs of these groups.
        architecture: family and level of the processors, such as ``x86_64-v3``; empty: not known.
        gpus: the free GPUs, one each.
        job_types: if not empty, only jobs of these types.
        pool: if not empty, only jobs that name it; a pilot without takes only jobs that name none.
        total_processors: what the slot would have if all its payloads ended; 0: the same as is free.
        total_memory_mb: likewise, MB.
    """

    site: Name
    ce: Annotated[str, Meta(max_length=256)] = ""
    platforms: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    cpu_seconds: Annotated[float, Meta(ge=0)] = 0.0
    wall_seconds: Annotated[float, Meta(ge=0)] = 0.0
    processors: Annotated[int, Meta(ge=0, le=4096)] = 1
    memory_mb: Annotated[float, Meta(ge=0)] = 0.0
    disk_mb: Annotated[float, Meta(ge=0)] = 0.0
    tags: Annotated[tuple[Name, ...], Meta(max_length=256)] = ()
    required_tags: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    whole_node: bool = False
    owners: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    groups: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    architecture: Annotated[str, Meta(max_length=64)] = ""
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=64)] = ()
    job_types: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    pool: Annotated[str, Meta(max_length=255)] = ""
    total_processors: Annotated[int, Meta(ge=0, le=4096)] = 0
    total_memory_mb: Annotated[float, Meta(ge=0)] = 0.0


class HeldProxy(Value, frozen=True, kw_only=True):
    """A payload proxy that the pilot still has."""

    owner: Name
    group: Name
    not_after: Epoch


@register("match.request.v1", Kind.COMMAND, "matcher", lifetime=10 * MINUTE)
class RequestMatch(Message, frozen=True, kw_only=True):
    """Give me work that fits. Answer: ``match.response.v1``, at once or when a fitting job arrives (parked).

    Attributes:
        slot: the pilot's name for what it offers; a newer request of the same slot replaces the older.
        jobs: how many jobs at most; those beyond the free processors run one after the other.
        wait_seconds: how long the request may be parked; then an empty response with reasons comes.
        csrs: certificate requests (DER), one for each new owner that may be matched; a key is never shared by owners.
        holds: proxies that need no new issue.
    """

    slot: Annotated[str, Meta(min_length=1, max_length=64)]
    offer: Offer
    jobs: Annotated[int, Meta(ge=1, le=MAX_JOBS_PER_REQUEST)] = 1
    wait_seconds: Annotated[float, Meta(ge=0, le=MAX_PARK_SECONDS)] = 0.0
    csrs: Annotated[tuple[Annotated[bytes, Meta(max_length=4096)], ...], Meta(max_length=8)] = ()
    holds: Annotated[tuple[HeldProxy, ...], Meta(max_length=64)] = ()


@register("job.accept.v1", Kind.COMMAND, "job-state", lifetime=HOUR)
class AcceptJobs(Message, frozen=True, kw_only=True):
    """I have these matches and start on them. Answer: ``lease.renewed.v1`` with their run leases."""

    jobs: Annotated[tuple[JobRef, ...], Meta(min_length=1, max_length=256)]


class Step(Value, frozen=True, kw_only=True):
    """One line of what happened on the node."""

    status: JobStatus
    minor: Text = ""
    time: Epoch


class Report(Value, frozen=True, kw_only=True):
    """Where one attempt stands: cumulative, so that the highest sequence alone tells everything.

    Attributes:
        sequence: grows with each report of the attempt; the highest wins, older ones only fill the history.
        status: Running, Completing, Done, Failed, Killed, or Rescheduled (given back, not the payload's fault).
        steps: all steps so far, in order.
        reason: why it failed or was given back; for people.
        infrastructure: the failure is the node's or ours; not charged to the user's retries.
        exit_code: of the payload; absent while it runs or if it never started.
        signal: that ended the payload.
        outputs: the output sandbox (final reports).
    """

    job: JobId
    attempt: Attempt
    sequence: Annotated[int, Meta(ge=1, le=2**53)]
    status: JobStatus
    steps: Annotated[tuple[Step, ...], Meta(max_length=64)] = ()
    reason: Text = ""
    infrastructure: bool = False
    exit_code: ExitCode | None = None
    signal: ExitCode | None = None
    usage: Usage = Usage()
    outputs: Annotated[tuple[SandboxFile, ...], Meta(max_length=1000)] = ()


@register("job.report.v1", Kind.COMMAND, "job-state", lifetime=DAY)
class ReportJobs(Message, frozen=True, kw_only=True):
    """Where these attempts stand. A stale attempt changes nothing and is answered by ``job.control.v1`` (abandon)."""

    reports: Annotated[tuple[Report, ...], Meta(min_length=1, max_length=256)]


class PayloadBeat(Value, frozen=True, kw_only=True):
    """Figures of one payload (or of a match that still waits on the pilot)."""

    job: JobId
    attempt: Attempt
    usage: Usage = Usage()


@register("pilot.heartbeat.v1", Kind.COMMAND, "job-state", lifetime=10 * MINUTE)
class Heartbeat(Message, frozen=True, kw_only=True):
    """I live, and these payloads with me. Renews leases and carries figures, nothing else (``lease.renewed.v1``)."""

    site: Name
    payloads: Annotated[tuple[PayloadBeat, ...], Meta(max_length=1024)] = ()
    load: float = 0.0
    memory_mb: float = 0.0
    disk_mb: float = 0.0
    processors: Count = 0


@register("pilot.goodbye.v1", Kind.COMMAND, "job-state", lifetime=DAY)
class Goodbye(Message, frozen=True, kw_only=True):
    """I end now; whatever I still held may go to another at once: no payload of mine runs any more."""

    reason: Text
    site: Annotated[str, Meta(max_length=256)] = ""


@register("control.done.v1", Kind.COMMAND, "job-state", lifetime=DAY)
class ControlDone(Message, frozen=True, kw_only=True):
    """A control order was carried out (or there was nothing to do it to)."""

    job: JobId
    attempt: Attempt
    action: Annotated[str, Meta(max_length=32)]
    outcome: Text = ""
