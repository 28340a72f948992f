"""The watchdog's thinking: is this payload within its limits? Pure; times are arguments.

Promises: :func:`judge` names the limit and the figures in words a user understands. A limit that is set is
kept; None means no limit, never "unknown".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

# From this share of a limit on the user is warned: time enough to write a checkpoint.
_WARN_SHARE = 0.9
# A process that reserves memory or disk is caught early in its life, and seldom bothered later.
_AGE_SHARE = 0.5
# Look again when, at the present speed of growth, half of the way to a limit is left.
_GROWTH_SHARE = 0.5


class Ruling(StrEnum):
    """What to do about a payload."""

    OK = "ok"
    WARN = "warn"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a payload may use; None = no limit. Moments are on the runner's clock.

    `lease_end` moves with each renewal; the payload is gone `margin_seconds` before. Stalled: CPU below
    `stalled_ratio` of the wall time in `stalled_windows` windows of `stalled_window_seconds` one after the other
    (DIRAC's numbers: 5 % over 30 minutes, 5 times).
    """

    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    memory_mb: float | None = None
    disk_mb: float | None = None
    processes: int | None = None
    lease_end: float | None = None
    slot_end: float | None = None
    margin_seconds: float = 2.0
    free_disk_mb: float = 10.0
    stalled_ratio: float = 0.05
    stalled_window_seconds: float = 1800.0
    stalled_windows: int = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a payload; `free_disk_mb` is None when others of this node use the disk more."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_mb: float = 0.0
    disk_mb: float = 0.0
    processes: int = 1
    free_disk_mb: float | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What must be remembered between samples: the running window and how many windows in a row were idle."""

    window_wall: float = 0.0
    window_cpu: float = 0.0
    idle_windows: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A ruling with its reason ("" when all is well)."""

    ruling: Ruling
    reason: str = ""


_FINE = Verdict(Ruling.OK)


def remember(history: History, sample: Sample, limits: Limits) -> History:
    """Fold a sample into the history."""
    wall = sample.wall_seconds - history.window_wall
    if wall < limits.stalled_window_seconds:
        return history
    idle = sample.cpu_seconds - history.window_cpu < limits.stalled_ratio * wall
    return replace(
        history,
        window_wall=sample.wall_seconds,
        window_cpu=sample.cpu_seconds,
        idle_windows=history.idle_windows + 1 if idle else 0,
    )


def judge(sample: Sample, limits: Limits, history: History, now: float) -> Verdict:
    """Rule on one payload; the first limit that is broken is named, then the first that is near."""
    for reason in (_time_over(sample, limits, now), _idle(limits, history)):
        if reason:
            return Verdict(Ruling.STOP, reason)
    measures = _measures(sample, limits)
    for name, used, limit, unit in measures:
        if used > limit:
            return Verdict(Ruling.STOP, f"{name} limit exceeded: {used:.0f} {unit} used of {limit:.0f} {unit}")
    if sample.free_disk_mb is not None and sample.free_disk_mb < limits.free_disk_mb:
        free = f"{sample.free_disk_mb:.0f} MB left, {limits.free_disk_mb:.0f} MB needed"
        return Verdict(Ruling.STOP, f"the node's disk is full: {free}; this payload uses {sample.disk_mb:.0f} MB")
    for name, used, limit, unit in measures:
        if used > _WARN_SHARE * limit:
            return Verdict(Ruling.WARN, f"{name} limit is near: {used:.0f} {unit} used of {limit:.0f} {unit}")
    return _FINE


def _measures(sample: Sample, limits: Limits) -> list[tuple[str, float, float, str]]:
    """Name, use, limit and unit of everything that is measured and limited."""
    pairs: list[tuple[str, float, float | None, str]] = [
        ("memory", sample.memory_mb, limits.memory_mb, "MB"),
        ("disk", sample.disk_mb, limits.disk_mb, "MB"),
        ("CPU time", sample.cpu_seconds, limits.cpu_seconds, "s"),
        ("process", sample.processes, limits.processes, "processes"),
    ]
    return [(name, used, limit, unit) for name, used, limit, unit in pairs if limit is not None]


def _time_over(sample: Sample, limits: Limits, now: float) -> str:
    end = last_moment(limits, now - sample.wall_seconds)
    return end[1] if end is not None and now >= end[0] else ""


def last_moment(limits: Limits, started: float) -> tuple[float, str] | None:
    """When the payload must be gone for lack of time, and the reason to give then; None if never."""
    moments = []
    if limits.lease_end is not None:
        moments.append((limits.lease_end - limits.margin_seconds, "the lease ends and was not renewed in time"))
    if limits.slot_end is not None:
        moments.append((limits.slot_end - limits.margin_seconds, "the node's slot ends"))
    if limits.wall_seconds is not None:
        reason = f"wall time limit exceeded: {limits.wall_seconds:.0f} s"
        moments.append((started + limits.wall_seconds, reason))
    return min(moments, default=None)


def _idle(limits: Limits, history: History) -> str:
    if history.idle_windows < limits.stalled_windows:
        return ""
    minutes = limits.stalled_windows * limits.stalled_window_seconds / 60
    return f"stalled: less than {limits.stalled_ratio:.0%} CPU per wall time for {minutes:.0f} minutes"


def next_interval(sample: Sample, previous: Sample, limits: Limits, *, shortest: float, longest: float) -> float:
    """Seconds until the next look: soon in youth and when a limit comes near at the present growth, else seldom."""
    interval = min(longest, max(shortest, _AGE_SHARE * sample.wall_seconds))
    elapsed = sample.wall_seconds - previous.wall_seconds
    if elapsed <= 0:
        return interval
    for (_, used, limit, _), (_, before, _, _) in zip(
        _measures(sample, limits), _measures(previous, limits), strict=True
    ):
        speed = (used - before) / elapsed
        left = (limit - used) / speed if speed > 0 else math.inf
        interval = min(interval, max(shortest, _GROWTH_SHARE * left))
    return interval
