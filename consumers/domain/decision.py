"""The values of every decision about a job: what is looked at, what comes out.

A decision takes a :class:`JobView` and gives one :data:`Outcome`. The shell reads the view, asks, and carries the
outcome out in one transaction: the changed fields by a conditional UPDATE (``WHERE status, attempt and sequence are
still those of the view``), the history lines, the effects. No outcome is an exception, so one odd message never
spoils a batch:

* :class:`Decision`: do this (perhaps nothing but renew a lease);
* :class:`Ignored`: nothing to do, and that is in order (a duplicate, a wish that is fulfilled already);
* :class:`Stale`: the sender does not hold this job's live attempt; nothing may change, count it;
* :class:`Illegal`: a change that the table of transitions forbids; log it and count it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

from schemas.job import DEFAULT_RUN_LEASE, FINAL, LEASED, JobStatus, is_legal
from schemas.messages.common import SandboxFile, Usage

NO_USAGE = Usage()
"""Of an attempt whose pilot told nothing."""


@dataclass(frozen=True, slots=True)
class JobView:
    """What decisions need to know about one job. Times are seconds since the epoch, by the server's clock.

    Attributes:
        minor: text beside the status.
        attempt: number of the latest attempt; 0 before the first match. Numbers are never used twice.
        pilot: client id of the latest attempt's pilot; kept when the job is final, empty while it waits.
        matched: when the latest attempt was given to its pilot.
        lease_until: end of the live lease; absent without one.
        lease_seconds: length of each run lease (JDL ``LeaseDuration``).
        accepted: the pilot said that it has the match (or showed it by a report).
        sequence: highest report sequence of the latest attempt.
        steps: how many steps of the latest attempt's reports are in the history.
        heartbeat: last sign of life of the latest attempt.
        stalled_from: the state in which it fell silent, while Stalled.
        kill_requested: who wants the leased job stopped; empty if nobody.
        delete_requested: it goes to Deleted as soon as it is final.
        reschedules: how often it was run again on a user's wish.
        infra_failures: attempts lost through no fault of the job.
        changed: time of the last history line; later lines are never earlier.
    """

    id: int
    status: JobStatus
    minor: str = ""
    attempt: int = 0
    pilot: str = ""
    matched: float | None = None
    lease_until: float | None = None
    lease_seconds: float = DEFAULT_RUN_LEASE
    accepted: bool = False
    sequence: int = 0
    steps: int = 0
    heartbeat: float | None = None
    stalled_from: JobStatus | None = None
    kill_requested: str = ""
    delete_requested: bool = False
    reschedules: int = 0
    infra_failures: int = 0
    changed: float = 0.0

    @property
    def leased(self) -> bool:
        """Whether a pilot holds a live attempt of it."""
        return self.status in LEASED

    @property
    def final(self) -> bool:
        """Whether no payload of it can run any more (unless its owner reschedules it)."""
        return self.status in FINAL


_FIELDS = tuple(field.name for field in fields(JobView))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the history: the state from then on (or only another minor text)."""

    status: JobStatus
    minor: str
    time: float
    cause: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ReleaseToQueue:
    """The job waits (again): its task queue has one more."""


@dataclass(frozen=True, slots=True)
class LeaveQueue:
    """The job waited and does not any more (not by a match): its task queue has one less."""


@dataclass(frozen=True, slots=True)
class Optimize:
    """The job wants the optimizers (again): its requirements are to be found anew."""


@dataclass(frozen=True, slots=True)
class SendControl:
    """Order the pilot: ``kill`` or ``abandon`` this attempt. Sent again until it has its effect."""

    pilot: str
    attempt: int
    action: str
    reason: str


@dataclass(frozen=True, slots=True)
class BindOutputs:
    """These files are the job's output sandbox (only ever by an accepted report of the live attempt)."""

    attempt: int
    outputs: tuple[SandboxFile, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """An attempt has ended: exactly one for each attempt that was matched.

    Attributes:
        outcome: the attempt's end (Done, Failed, Killed, or Rescheduled when it was lost or given back).
        reported: its pilot told the end; otherwise usage is unknown.
    """

    attempt: int
    pilot: str
    outcome: JobStatus
    reason: str
    time: float
    reported: bool = False
    usage: Usage = NO_USAGE
    exit_code: int | None = None
    signal: int | None = None


Effect: TypeAlias = ReleaseToQueue | LeaveQueue | Optimize | SendControl | BindOutputs | Account


@dataclass(frozen=True, slots=True)
class Decision:
    """Do this: bring the job from ``before`` to ``after``, write ``lines``, carry out ``effects``."""

    before: JobView
    after: JobView
    lines: tuple[Line, ...] = ()
    effects: tuple[Effect, ...] = ()

    def changes(self) -> Mapping[str, object]:
        """The fields of the view that change, with their new values."""
        before, after = self.before, self.after
        return {name: value for name in _FIELDS if (value := getattr(after, name)) != getattr(before, name)}


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing to do, and that is in order."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stale:
    """The sender does not hold the live attempt: nothing changes; tell it to abandon, and count it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Illegal:
    """The table of transitions forbids this change: nothing changes; log it and count it."""

    before: JobStatus
    after: JobStatus
    reason: str


Outcome: TypeAlias = Decision | Ignored | Stale | Illegal


class Draft:
    """Collects one decision; the first illegal step turns the whole of it into :class:`Illegal`.

    Times never go back: a line's time is lifted to that of the line before it.
    """

    __slots__ = ("_before", "_effects", "_fields", "_illegal", "_lines", "changed", "status")

    def __init__(self, job: JobView, **values: object) -> None:
        self._before = job
        self._fields: dict[str, object] = dict(values)
        self._lines: list[Line] = []
        self._effects: list[Effect] = []
        self._illegal: Illegal | None = None
        self.status = job.status
        self.changed = job.changed

    def note(self, status: JobStatus, minor: str, time: float, cause: str = "") -> None:
        """A history line that changes no state."""
        self.changed = max(self.changed, time)
        attempt = self._fields.get("attempt", self._before.attempt)
        self._lines.append(Line(status, minor, self.changed, cause, attempt if isinstance(attempt, int) else 0))

    def step(self, status: JobStatus, minor: str, time: float, cause: str = "") -> None:
        """The job comes into this state (the same state with another minor text is legal)."""
        if self._illegal is not None:
            return
        if status is not self.status and not is_legal(self.status, status):
            self._illegal = Illegal(self.status, status, cause or minor or f"{self.status} to {status}")
            return
        self.status = status
        self._fields["minor"] = minor
        self.note(status, minor, time, cause)

    def set(self, **values: object) -> None:
        """Change fields of the view."""
        self._fields.update(values)

    def effect(self, effect: Effect) -> None:
        """Add an effect."""
        self._effects.append(effect)

    def outcome(self) -> Decision | Illegal:
        """What was collected."""
        if self._illegal is not None:
            return self._illegal
        self._fields.update(status=self.status, changed=self.changed)
        after = replace(self._before, **self._fields)  # type: ignore[arg-type]  # names are JobView's own, tests compare
        return Decision(self._before, after, tuple(self._lines), tuple(self._effects))
