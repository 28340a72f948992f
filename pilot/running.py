"""The handle of one running payload: stop it, ask what it uses, be told when it ends.

Promises: every method may be called from any thread, returns at once (except `wait`), and is harmless after the
payload's end. The first reason to stop it is the one that is reported.
Lies elsewhere: what stopping means (:mod:`pilot.runner`).
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .outputs import bound_output
from .payload import Outcome, PayloadSpec, Usage
from .processes import Process, proportional_memory_mb, read_process
from .strays import Household, Survey
from .workdir import disk_usage_mb

# TERM, one second to write what matters, then KILL: a kill is obeyed within two seconds.
DEFAULT_GRACE = 1.0

ExitCallback = Callable[["Payload", Outcome], None]


@dataclass(slots=True)
class Stop:
    """An order to stop: why, with which signal, and when patience ends (on the runner's clock)."""

    reason: str
    number: int
    kill_at: float
    delivered: bool = False


@dataclass(slots=True)
class Progress:
    """What the runner notes about a payload; only its own thread writes it (figures under the payload's lock)."""

    leader_gone: bool = False
    next_look: float = 0.0
    killing_since: float = math.inf
    reaped_cpu: float = 0.0
    cpu_high: float = 0.0
    memory_high: float = 0.0
    disk_high: float = 0.0
    killed: set[tuple[int, int]] = field(default_factory=set)


class Supervisor(Protocol):
    """What a handle needs from the runner."""

    def now(self) -> float:
        """The runner's clock."""

    def look(self) -> Survey:
        """Survey the processes of all payloads."""

    def wake(self) -> None:
        """Have the runner look at its payloads now."""

    def expect(self, when: float) -> None:
        """Have the runner awake at that moment."""

    def guard(self) -> None:
        """Tell the keeper that a last moment moved."""

    def report(self, payload: Payload, callback: ExitCallback, outcome: Outcome) -> None:
        """Call back, keeping errors of the callback away from everything else."""


class Payload:
    """One payload that was started; made by `PayloadRunner.start` only."""

    def __init__(self, supervisor: Supervisor, spec: PayloadSpec, pid: int, started: float) -> None:
        self.spec = spec
        self.pid = pid
        self.started = started
        marks = (f"PILOTAGE_JOB_ID={spec.job_id}".encode(), f"PILOTAGE_ATTEMPT={spec.attempt}".encode())
        self.household = Household(pid, marks, str(spec.directory))
        self.progress = Progress()
        self.last_moment = math.inf
        self._supervisor = supervisor
        self._lock = threading.Lock()
        self._callbacks: list[ExitCallback] = []
        self._ended = threading.Event()
        self._outcome: Outcome | None = None
        self._stop: Stop | None = None
        self._deadline: tuple[float, str, float] | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, or None while it runs."""
        return self._outcome

    @property
    def stop_order(self) -> Stop | None:
        """The order to stop, if there is one."""
        return self._stop

    def stop(self, reason: str, grace: float = DEFAULT_GRACE, number: int = signal.SIGTERM) -> None:
        """End the payload: `number` to all its processes, `grace` seconds later KILL to what is left."""
        kill_at = self._supervisor.now() + max(0.0, grace)
        with self._lock:
            if self.progress.leader_gone and self._stop is None:
                return  # it ended by itself, and what it left behind is being killed already
            if self._stop is None:
                self._stop = Stop(reason, number, kill_at)
            else:
                self._stop.kill_at = min(self._stop.kill_at, kill_at)
        self._supervisor.wake()

    def stop_at(self, when: float, reason: str, grace: float = DEFAULT_GRACE) -> None:
        """Stop it so that nothing is left at `when` (runner's clock); a later call moves the moment.

        The runner keeps this appointment itself, so a slow sampler or file system cannot delay the end of a lease.
        """
        self._deadline = (when - grace, reason, grace)
        self._supervisor.expect(when - grace)

    def must_end_by(self, moment: float) -> None:
        """The end of its lease (runner's clock): if it lives on then, the keeper ends the pilot and all payloads."""
        self.last_moment = moment
        self._supervisor.guard()

    def due(self, now: float) -> float | None:
        """Seconds until the appointed stop; stops the payload (and gives None) when it has come."""
        deadline = self._deadline
        if deadline is None or self._stop is not None:
            return None
        if now < deadline[0]:
            return deadline[0] - now
        self.stop(deadline[1], deadline[2])
        return None

    def on_exit(self, callback: ExitCallback) -> None:
        """Have `callback(payload, outcome)` called once, on the runner's thread; at once if it has ended already."""
        with self._lock:
            if self._outcome is None:
                self._callbacks.append(callback)
                return
        self._supervisor.report(self, callback, self._outcome)

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Wait for the end; None when it still runs after `timeout` seconds."""
        self._ended.wait(timeout)
        return self._outcome

    def bound_outputs(self) -> int:
        """Cut StdOutput and StdError where they grew too long; bytes removed now."""
        names = dict.fromkeys((self.spec.stdout, self.spec.stderr))
        return sum(bound_output(self.spec.directory, name, self.spec.output_bytes) for name in names)

    def usage(self, seen: Survey | None = None, *, disk_mb: float | None = None) -> Usage:
        """What it uses now; one survey may serve several payloads, a known disk figure spares the walk."""
        if self._outcome is not None:
            return self._outcome.usage
        members = (seen or self._supervisor.look()).members.get(self.pid, ())
        disk = disk_usage_mb(self.spec.directory) if disk_mb is None else disk_mb
        living = [process for process in members if not process.is_zombie]
        memory = sum(process.memory_mb for process in living)
        if self.spec.memory_mb is not None and memory > 0.8 * self.spec.memory_mb:
            memory = _without_double_count(living)
            if memory > self.spec.memory_mb:
                # Processes that ended between two reads left their share of common pages to the others: look once more.
                memory = min(memory, _without_double_count(living))
        return self.note(memory, disk, members, len(living))

    def note(self, memory: float, disk: float, members: Sequence[Process], living: int) -> Usage:
        """Fold one look into the high-water marks."""
        progress = self.progress
        with self._lock:
            cpu = progress.reaped_cpu + sum(process.cpu_seconds for process in members)
            progress.cpu_high = max(progress.cpu_high, cpu)
            progress.memory_high = max(progress.memory_high, memory)
            progress.disk_high = max(progress.disk_high, disk)
            wall = self._supervisor.now() - self.started
            return Usage(progress.cpu_high, wall, memory, progress.memory_high, disk, living)

    def finish(self, outcome: Outcome) -> None:
        """Record the end and tell everybody who asked (the runner calls this once)."""
        with self._lock:
            self._outcome = outcome
            callbacks, self._callbacks = self._callbacks, []
        self._ended.set()
        for callback in callbacks:
            self._supervisor.report(self, callback, outcome)


def _without_double_count(living: list[Process]) -> float:
    """Memory with shared pages counted once (PSS); costs a page-table walk, so only asked near a limit."""
    shares: Mapping[int, float | None] = {process.pid: proportional_memory_mb(process.pid) for process in living}
    return sum(_memory_now(pid) if share is None else share for pid, share in shares.items())


def _memory_now(pid: int) -> float:
    """Memory of a process whose share is not told: it has ended meanwhile, or the kernel tells of no shares."""
    process = read_process(pid)
    return 0.0 if process is None or process.is_zombie else process.memory_mb
