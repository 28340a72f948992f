"""Facts that services publish. They go to the ``monitoring`` stream and to consumers that want hints."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..job import JobStatus
from ..registry import DAY, HOUR, Kind, Message, register
from .common import Attempt, Epoch, JobId, Name, Text, Value

EVENTS = "events"
"""Audience of every event: facts have many readers."""

MAX_ENDED = 1000
"""Leases in one event: 40 bytes each."""


class JobChange(Value, frozen=True, kw_only=True):
    """One change of one job.

    Attributes:
        source: who decided it (a service's name).
        cause: why, for people.
    """

    job: JobId
    status: JobStatus
    minor: str = ""
    attempt: int = 0
    time: Epoch
    owner: str = ""
    group: str = ""
    site: str = ""
    pilot: str = ""
    source: str = ""
    cause: Text = ""


@register("job.changed.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY, max_bytes=4 << 20)
class JobsChanged(Message, frozen=True, kw_only=True):
    """Jobs changed their state: all changes of one transaction."""

    changes: tuple[JobChange, ...]


@register("work.waiting.v1", Kind.EVENT, EVENTS, lifetime=HOUR)
class WorkWaiting(Message, frozen=True, kw_only=True):
    """These task queues have new waiting jobs: a hint to the matcher; the store is the truth."""

    queues: tuple[int, ...]


class EndedLease(Value, frozen=True, kw_only=True):
    """One lease that is over."""

    job: JobId
    attempt: Attempt


@register("lease.ended.v1", Kind.EVENT, EVENTS, lifetime=HOUR)
class LeasesEnded(Message, frozen=True, kw_only=True):
    """These jobs run no more: a hint to the matcher where there are limits; the store is the truth."""

    leases: Annotated[tuple[EndedLease, ...], Meta(max_length=MAX_ENDED)]


@register("jobs.received.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class JobsReceived(Message, frozen=True, kw_only=True):
    """A submission was accepted and these ids of it still want the optimizer."""

    submission: int
    first: JobId
    count: int


@register("proxy.wanted.v1", Kind.EVENT, EVENTS, lifetime=HOUR)
class ProxyWanted(Message, frozen=True, kw_only=True):
    """A pilot was matched with a job whose owner's proxy it does not hold."""

    client: Name
    reply_to: Name
    job: JobId
    attempt: Attempt
    owner: Name
    group: Name
    csr: Annotated[bytes, Meta(max_length=4096)]


@register("pilot.changed.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class PilotChanged(Message, frozen=True, kw_only=True):
    """A pilot came, went, or was lost; ``alarm``: somebody came with its used enrolment secret."""

    client: Name
    identity: Name
    status: str
    site: str = ""
    time: Epoch
    cause: Text = ""


@register("message.refused.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class MessageRefused(Message, frozen=True, kw_only=True):
    """A message was refused for its signature, its sender's rights or its times (sampled within a quota)."""

    time: Epoch
    service: str
    queue: str
    type: str = ""
    client: str = ""
    issuer: str = ""
    code: str
    reason: Text = ""
