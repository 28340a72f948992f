"""The watchdog: one thread that looks at all running payloads and stops those that break a limit.

Promises: a young payload is looked at after 0.2 s, an old quiet one every 10 s (configurable), a growing one in time;
a payload that ends before the first look costs nothing. The end of a lease does not depend on this thread: it is an
appointment that the runner keeps (:meth:`pilot.running.Payload.stop_at`).
Lies elsewhere: the thinking (:mod:`pilot.limits`), the killing (:mod:`pilot.runner`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import structlog

from .limits import History, Limits, Ruling, Sample, Verdict, judge, last_moment, next_interval, remember
from .payload import Outcome
from .runner import PayloadRunner
from .running import DEFAULT_GRACE, Payload
from .workdir import disk_usage_mb, free_disk_mb

DEFAULT_SHORTEST = 0.2
DEFAULT_LONGEST = 10.0
# A walk over a work directory with very many files may take at most this share of the time.
_DISK_SHARE = 0.05

_logger = structlog.get_logger(__name__)

VerdictCallback = Callable[[Payload, Verdict], None]


@dataclass(slots=True)
class _Watch:
    payload: Payload
    limits: Limits
    due: float
    sample: Sample = field(default_factory=Sample)
    history: History = field(default_factory=History)
    disk_due: float = 0.0
    warned: set[str] = field(default_factory=set)


class Watchdog:
    """Watches payloads for one pilot; use as a context manager or call :meth:`close`."""

    def __init__(
        self,
        runner: PayloadRunner,
        *,
        shortest: float = DEFAULT_SHORTEST,
        longest: float = DEFAULT_LONGEST,
        grace: float = DEFAULT_GRACE,
        on_verdict: VerdictCallback | None = None,
    ) -> None:
        self._runner = runner
        self._shortest = shortest
        self._longest = longest
        self._grace = grace
        self._on_verdict = on_verdict
        self._watches: dict[int, _Watch] = {}
        self._changed = threading.Condition()
        self._awake_at = math.inf
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="payload-watchdog", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def watch(self, payload: Payload, limits: Limits) -> None:
        """Watch a payload until it ends."""
        due = self._runner.now() + self._shortest
        with self._changed:
            self._watches[payload.pid] = _Watch(payload, limits, due)
            if due < self._awake_at:
                self._changed.notify()
        self._appoint(payload, limits)
        payload.on_exit(self._forget)

    def set_limits(self, payload: Payload, limits: Limits) -> None:
        """Replace the limits, as when its lease was renewed; nothing happens if the payload has ended."""
        with self._changed:
            watch = self._watches.get(payload.pid)
            if watch is None or watch.payload is not payload:
                return
            watch.limits = limits
        self._appoint(payload, limits)

    def latest(self, payload: Payload) -> Sample:
        """The last sample (all zero before the first look): the figures for a heartbeat."""
        with self._changed:
            watch = self._watches.get(payload.pid)
            return watch.sample if watch is not None and watch.payload is payload else Sample()

    def close(self) -> None:
        """End the thread; payloads go on."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _appoint(self, payload: Payload, limits: Limits) -> None:
        end = last_moment(limits, payload.started)
        if end is not None:
            payload.stop_at(end[0], end[1], self._grace)
        if limits.lease_end is not None:
            payload.must_end_by(limits.lease_end)

    def _forget(self, payload: Payload, outcome: Outcome) -> None:
        del outcome
        with self._changed:
            watch = self._watches.get(payload.pid)
            if watch is not None and watch.payload is payload:
                del self._watches[payload.pid]

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._awake_at = min((watch.due for watch in self._watches.values()), default=math.inf)
                patience = self._awake_at - self._runner.now()
                if self._closing:
                    return
                if patience > 0:
                    self._changed.wait(None if patience == math.inf else patience)
                now = self._runner.now()
                due = [watch for watch in self._watches.values() if watch.due <= now]
            if due:
                try:
                    self._round(due)
                except Exception:  # a watchdog that dies silently would leave everybody unguarded
                    _logger.exception("the watchdog failed to look at its payloads")
                    for watch in due:
                        watch.due = self._runner.now() + self._longest

    def _round(self, due: list[_Watch]) -> None:
        seen = self._runner.look()
        for watch in due:
            payload, previous = watch.payload, watch.sample
            payload.bound_outputs()
            usage = payload.usage(seen, disk_mb=self._disk(watch))
            if payload.outcome is not None:
                continue
            watch.sample = Sample(
                cpu_seconds=usage.cpu_seconds,
                wall_seconds=usage.wall_seconds,
                memory_mb=usage.memory_mb,
                disk_mb=usage.disk_mb,
                processes=usage.processes,
                free_disk_mb=self._free_disk(watch, usage.disk_mb),
            )
            watch.history = remember(watch.history, watch.sample, watch.limits)
            now = self._runner.now()
            self._rule(watch, judge(watch.sample, watch.limits, watch.history, now))
            watch.due = now + next_interval(
                watch.sample, previous, watch.limits, shortest=self._shortest, longest=self._longest
            )

    def _disk(self, watch: _Watch) -> float:
        now = self._runner.now()
        if now < watch.disk_due:
            return watch.sample.disk_mb
        begun = time.perf_counter()
        used = disk_usage_mb(watch.payload.spec.directory)
        watch.disk_due = now + (time.perf_counter() - begun) / _DISK_SHARE
        return used

    def _free_disk(self, watch: _Watch, used: float) -> float | None:
        """Free disk, told only to the payload that uses most of it: the others are not to blame when it is full."""
        with self._changed:
            most = max((other.sample.disk_mb for other in self._watches.values() if other is not watch), default=0.0)
        try:
            return free_disk_mb(watch.payload.spec.directory) if used >= most else None
        except OSError:
            return None

    def _rule(self, watch: _Watch, verdict: Verdict) -> None:
        if verdict.ruling is Ruling.OK:
            return
        topic = verdict.reason.split(":", 1)[0]
        if verdict.ruling is Ruling.STOP:
            watch.payload.stop(verdict.reason, self._grace)
        if topic in watch.warned:
            return
        watch.warned.add(topic)
        spec = watch.payload.spec
        _logger.warning(
            "payload limit", job=spec.job_id, attempt=spec.attempt, ruling=verdict.ruling, why=verdict.reason
        )
        if self._on_verdict is not None:
            self._on_verdict(watch.payload, verdict)
