"""One matched job on this node: what is known of it, what is to be reported. Pure bookkeeping; times are arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import msgspec

from broker.identity import Credential
from schemas.jdl import JobDescription
from schemas.job import JobStatus
from schemas.messages.common import JobRef, SandboxFile, Usage
from schemas.messages.pilot import Report, Step
from schemas.messages.service import Match

from .limits import Limits
from .payload import Outcome
from .proxies import Slot
from .running import Payload
from .shares import Share

MAX_STEPS = 60
"""Steps told of one attempt; below the message's bound of 64."""

Key = tuple[int, int]
"""(job, attempt)"""


class Stage(Enum):
    """Where the attempt is on this node."""

    WAITING = "waiting for a free processor"
    STAGING = "input is being fetched"
    PROXY = "waiting for the owner's proxy"
    RUNNING = "the payload runs"
    UPLOADING = "output is being sent"
    OVER = "reported"


@dataclass(slots=True)
class Task:
    """One attempt.

    Attributes:
        lease_end: server time at which the lease ends.
        lease_seconds: length of the lease in force: it says how large the margin is.
        killed: why it was ordered to stop; empty if it was not.
        abandoned: nothing of it is to be reported any more.
        request: id of the match request that brought it.
        share: what it has of the slot, from staging on.
        staged: when its input began to be fetched; a proxy of its own is asked for from then on.
        proxy: what its proxy file holds.
        place_after: not before then is another one put there.
    """

    match: Match
    description: JobDescription
    request: str
    lease_end: float
    lease_seconds: float
    received: float
    stage: Stage = Stage.WAITING
    directory: Path | None = None
    payload: Payload | None = None
    limits: Limits | None = None
    killed: str = ""
    abandoned: bool = False
    proxy_refused: str = ""
    proxy: Credential | None = None
    place_after: float = 0.0
    missing: set[str] = field(default_factory=set)
    staging_data: bool = False
    staged: float | None = None
    started: float | None = None
    told_running: bool = False
    sequence: int = 0
    steps: list[Step] = field(default_factory=list)
    outputs: tuple[SandboxFile, ...] = ()
    uploading: set[str] = field(default_factory=set)
    final: tuple[JobStatus, str, bool] | None = None
    outcome: Outcome | None = None
    share: Share | None = None

    @classmethod
    def of(cls, match: Match, request: str, accept_lease: float, now: float) -> Task:
        """A match that just came."""
        description = msgspec.json.decode(match.description, type=JobDescription)
        return cls(match, description, request, match.lease_until, accept_lease, now)

    @property
    def key(self) -> Key:
        """Which attempt this is."""
        return self.match.job, self.match.attempt

    @property
    def ref(self) -> JobRef:
        """The same as a message has it."""
        return JobRef(job=self.match.job, attempt=self.match.attempt)

    @property
    def slot(self) -> Slot:
        """Which proxy serves it."""
        match = self.match
        return Slot(match.owner, match.group, match.job if match.own_proxy else 0)

    @property
    def processors(self) -> int:
        """What it has of the pilot's processors, or will have at least."""
        return self.share.processors if self.share is not None else self.description.min_processors

    @property
    def stops_by_lease(self) -> bool:
        """Whether its payload was stopped because the lease ended."""
        return self.outcome is not None and (self.outcome.reason or "").startswith("the lease ends")

    def step(self, status: JobStatus, minor: str, now: float) -> None:
        """Note what happened."""
        if len(self.steps) < MAX_STEPS:
            self.steps.append(Step(status=status, minor=minor[:4096], time=now))

    def report(self, status: JobStatus, *, reason: str = "", infrastructure: bool = False) -> Report:
        """What is to be said now, cumulative."""
        self.sequence += 1
        outcome = self.outcome
        return Report(
            job=self.match.job,
            attempt=self.match.attempt,
            sequence=self.sequence,
            status=status,
            steps=tuple(self.steps),
            reason=reason[:4096],
            infrastructure=infrastructure,
            exit_code=outcome.exit_code if outcome is not None else None,
            signal=outcome.signal_number if outcome is not None else None,
            usage=self.usage(),
            outputs=self.outputs,
        )

    def usage(self) -> Usage:
        """What it used so far."""
        if self.outcome is None:
            return Usage(processors=self.processors)
        used = self.outcome.usage
        return Usage(
            cpu_seconds=used.cpu_seconds,
            wall_seconds=used.wall_seconds,
            memory_mb=used.memory_peak_mb,
            disk_mb=used.disk_mb,
            processors=self.processors,
        )
