"""Job states and the one table of legal transitions.

Every change of state anywhere is one of :data:`TRANSITIONS`; who may cause it is decided in
``consumers.domain.lifecycle``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job is in its life (DIRAC's words where the meaning is the same)."""

    RECEIVED = "Received"
    """Accepted and stored; not looked at yet."""
    CHECKING = "Checking"
    """The optimizers look at it."""
    STAGING = "Staging"
    """Its input data is being brought online."""
    WAITING = "Waiting"
    """In a task queue."""
    MATCHED = "Matched"
    """Leased to a pilot; its payload has not started."""
    RUNNING = "Running"
    """Its payload runs (or is being prepared on the node)."""
    COMPLETING = "Completing"
    """The payload ended; outputs are on their way."""
    DONE = "Done"
    FAILED = "Failed"
    KILLED = "Killed"
    STALLED = "Stalled"
    """Heartbeats are missing: a sign, not a verdict; the lease decides."""
    RESCHEDULED = "Rescheduled"
    """Given back; a new attempt is being prepared."""
    DELETED = "Deleted"
    """Hidden from its owner; its sandboxes go with the next clean-up."""


_S = JobStatus

FINAL: frozenset[JobStatus] = frozenset({_S.DONE, _S.FAILED, _S.KILLED, _S.DELETED})
"""States in which no payload can run any more."""

LEASED: frozenset[JobStatus] = frozenset({_S.MATCHED, _S.RUNNING, _S.COMPLETING, _S.STALLED})
"""States in which a pilot holds the job's live lease."""

TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    _S.RECEIVED: frozenset({_S.CHECKING, _S.WAITING, _S.FAILED, _S.KILLED}),
    _S.CHECKING: frozenset({_S.STAGING, _S.WAITING, _S.FAILED, _S.KILLED}),
    _S.STAGING: frozenset({_S.CHECKING, _S.WAITING, _S.FAILED, _S.KILLED}),
    _S.WAITING: frozenset({_S.MATCHED, _S.CHECKING, _S.FAILED, _S.KILLED}),
    _S.MATCHED: frozenset(
        {_S.RUNNING, _S.COMPLETING, _S.DONE, _S.FAILED, _S.KILLED, _S.STALLED, _S.RESCHEDULED, _S.WAITING}
    ),
    _S.RUNNING: frozenset({_S.COMPLETING, _S.DONE, _S.FAILED, _S.KILLED, _S.STALLED, _S.RESCHEDULED}),
    _S.COMPLETING: frozenset({_S.DONE, _S.FAILED, _S.KILLED, _S.STALLED, _S.RESCHEDULED}),
    _S.STALLED: frozenset({_S.MATCHED, _S.RUNNING, _S.COMPLETING, _S.DONE, _S.FAILED, _S.KILLED, _S.RESCHEDULED}),
    _S.RESCHEDULED: frozenset({_S.CHECKING, _S.WAITING, _S.FAILED, _S.KILLED}),
    _S.DONE: frozenset({_S.DELETED, _S.RESCHEDULED}),
    _S.FAILED: frozenset({_S.DELETED, _S.RESCHEDULED}),
    _S.KILLED: frozenset({_S.DELETED, _S.RESCHEDULED}),
    _S.DELETED: frozenset(),
}
"""From each state the states that may follow. Matched → Waiting is a match that never reached its pilot (uncharged)."""

MAX_RESCHEDULES = 3
"""How often a job is tried again on its owner's account (DIRAC's MaxRescheduling). Failures of the infrastructure are
counted apart and not charged."""

MAX_INFRASTRUCTURE_RETRIES = 20
"""A job that lost its pilot that often is a danger to pilots; it fails with its history."""

ACCEPT_LEASE = 20.0
"""Seconds from the claim in which the pilot must accept."""

DEFAULT_RUN_LEASE = 7200.0
"""Seconds a run lease lives without a heartbeat (JDL ``LeaseDuration``)."""

LEASE_MARGIN = 10.0
"""Seconds between the moment a pilot stops a payload for its lease's end and the moment the server gives the job away;
covers the 2 s TERM grace, the scheduling of a loaded node and clock drift. For leases shorter than five margins a
fifth of the lease is used, see :func:`lease_margin`."""

HEARTBEAT_SECONDS = 30.0
"""How often a pilot sends its heartbeat."""

MISSED_HEARTBEATS = 3
"""After so many missed heartbeats a job is shown as Stalled."""


def lease_margin(lease_seconds: float) -> float:
    """Seconds of safety at each side of a lease's end."""
    return min(LEASE_MARGIN, lease_seconds / 5)


def is_legal(before: JobStatus, after: JobStatus) -> bool:
    """Whether the table allows this change."""
    return after in TRANSITIONS[before]
