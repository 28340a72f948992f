"""What can happen to a job, each as one value: the message's content with its proven sender, or the sweeper's question.

``pilot`` is always the client id proven by the envelope, never a word of the payload.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from schemas.job import ACCEPT_LEASE, HEARTBEAT_SECONDS, MISSED_HEARTBEATS
from schemas.messages.common import JobRef
from schemas.messages.pilot import Report


@dataclass(frozen=True, slots=True)
class Matched:
    """The matcher gives the job to this pilot."""

    pilot: str
    accept_lease: float = ACCEPT_LEASE


@dataclass(frozen=True, slots=True)
class Unroutable:
    """The match reply came back: nobody reads that queue."""

    attempt: int
    pilot: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """``job.accept.v1`` named it."""

    ref: JobRef
    pilot: str


@dataclass(frozen=True, slots=True)
class Reported:
    """``job.report.v1`` told about it."""

    report: Report
    pilot: str


@dataclass(frozen=True, slots=True)
class Beat:
    """``pilot.heartbeat.v1`` named it."""

    ref: JobRef
    pilot: str


@dataclass(frozen=True, slots=True)
class SaidGoodbye:
    """``pilot.goodbye.v1`` of the pilot that holds it."""

    pilot: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Died:
    """Proof from elsewhere that the pilot of this attempt is gone."""

    attempt: int
    pilot: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseWatch:
    """The sweeper asks whether its lease is over."""

    margin: float | None = None
    grace: float = 0.0


@dataclass(frozen=True, slots=True)
class SilenceWatch:
    """The sweeper asks for signs of life."""

    silent_after: float = MISSED_HEARTBEATS * HEARTBEAT_SECONDS
    grace: float = 0.0


@dataclass(frozen=True, slots=True)
class KillAsked:
    """An authorized kill."""

    by: str


@dataclass(frozen=True, slots=True)
class DeleteAsked:
    """An authorized deletion."""

    by: str


@dataclass(frozen=True, slots=True)
class RescheduleAsked:
    """An authorized wish to run it again."""

    by: str


@dataclass(frozen=True, slots=True)
class CheckNeeded:
    """The optimizers need facts from elsewhere."""


@dataclass(frozen=True, slots=True)
class FoundReady:
    """The optimizers found its requirements."""


@dataclass(frozen=True, slots=True)
class FoundRefused:
    """The optimizers found that it cannot run."""

    minor: str
    reason: str


Fact: TypeAlias = (
    Matched
    | Unroutable
    | Accepted
    | Reported
    | Beat
    | SaidGoodbye
    | Died
    | LeaseWatch
    | SilenceWatch
    | KillAsked
    | DeleteAsked
    | RescheduleAsked
    | CheckNeeded
    | FoundReady
    | FoundRefused
)
