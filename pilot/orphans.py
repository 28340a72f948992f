"""The pilot as reaper: whatever a payload left behind is found, accounted, reaped or killed.

Promises: no dead orphan stays a zombie for long and its CPU time goes to its payload; a living process that no
payload owns (it hides from the accounts) is killed after a second look. Only children of ours in a foreign session
that are no payload's first process are touched, and none that was there before the runner; helpers that the pilot
starts in its own session are safe.
Lies elsewhere: attribution (:mod:`pilot.strays`), the end of payloads (:mod:`pilot.runner`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping

import structlog

from .kernel import newest_pid, steady_now
from .processes import Process, read_process, read_processes, send_signal
from .running import Payload
from .strays import Survey, survey

# Dead orphans are reaped and unclaimed ones noticed at least this often.
SWEEP_SECONDS = 10.0
# An orphan is unclaimed only if two looks this far apart agree: a process in the middle of execve shows no environment.
_SUSPECT_SECONDS = 0.2
# A younger payload cannot have outlived a round of the kernel's process ids (32768 at least): see left_nothing.
_YOUNG_SECONDS = 1.0
# More process ids than this are not looked at one by one; nor are more ancestors.
_FEW = 64
# At the very end: who has not died of KILL by then hangs in the kernel.
_LAST_PATIENCE_SECONDS = 2.0
_ROUND_SECONDS = 0.01

_logger = structlog.get_logger(__name__)


class Orphans:
    """All that became children of the pilot without being payloads; `payloads` and `lock` are the runner's."""

    def __init__(self, payloads: Mapping[int, Payload], lock: threading.Lock, now: float, sweep_seconds: float) -> None:
        self._payloads = payloads
        self._lock = lock  # held while a child is made, so that no look mistakes it for an orphan
        self._pilot = os.getpid()
        self._session = os.getsid(0)
        self._sweep_seconds = sweep_seconds
        self._next_sweep = now + sweep_seconds
        self._suspects: dict[tuple[int, int], float] = {}
        self._strangers = self._children_before_us()
        self.last_end = 0.0

    def _children_before_us(self) -> dict[int, int]:
        table = read_processes().values()
        return {process.pid: process.started for process in table if process.parent == self._pilot}

    def look(self) -> Survey:
        """Survey the processes of all payloads (one pass over /proc)."""
        table = read_processes()
        for pid, started in self._strangers.items():
            if pid in table and table[pid].started == started:
                del table[pid]
        with self._lock:
            households = [payload.household for payload in self._payloads.values()]
            return survey(table, households, self._pilot, self._session, self.last_end)

    def left_nothing(self, payload: Payload, now: float) -> bool:
        """Whether it is certain, without a look at all of /proc, that the first process has left no other behind.

        The kernel hands out process ids in a circle, so what a payload started has an id between its own and the
        newest; the payload must be too young for a whole round of the circle.
        """
        if now - payload.started >= _YOUNG_SECONDS:
            return False
        younger = range(payload.pid + 1, newest_pid() + 1)
        if len(younger) > _FEW or younger.stop <= payload.pid:
            return False
        return all(self._is_of_others(pid) for pid in younger)

    def _is_of_others(self, pid: int) -> bool:
        """Whether that process, if it exists, descends from another payload or is none of the pilot's affair."""
        process = read_process(pid)
        if process is None:
            return True
        for _ in range(_FEW):
            if process is None:  # an ancestor ended under our eyes
                return False
            if process.session == self._session:
                return True
            if process.parent == self._pilot:
                with self._lock:  # a child that is being made is known when the lock is free
                    return process.pid in self._payloads
            if process.parent <= 1:
                return True
            process = read_process(process.parent)
        return False

    def others_of(self, payload: Payload) -> list[Process]:
        """Living processes of the payload besides its first one; dead orphans are reaped on the way."""
        seen = self.look()
        for stray in seen.strays.get(payload.pid, ()):
            if stray.is_zombie:
                payload.progress.reaped_cpu += self.reap(stray)
        members = seen.members.get(payload.pid, ())
        return [process for process in members if process.pid != payload.pid and not process.is_zombie]

    def reap(self, process: Process) -> float:
        """Reap one dead orphan; its CPU seconds."""
        with self._lock:
            if process.pid in self._payloads:
                return 0.0
            try:
                pid, _, used = os.wait4(process.pid, os.WNOHANG)
            except ChildProcessError:
                return 0.0
        return used.ru_utime + used.ru_stime if pid else 0.0

    def sweep(self, now: float) -> float:
        """Reap dead orphans; kill living ones that no payload owns (they hide from the accounts).

        Returns in how many seconds to sweep again.
        """
        if now < self._next_sweep:
            return self._next_sweep - now
        seen = self.look()
        with self._lock:
            payloads = dict(self._payloads)
        for leader, strays in seen.strays.items():
            for stray in strays:
                if stray.is_zombie and leader in payloads:
                    payloads[leader].progress.reaped_cpu += self.reap(stray)
        self._suspects = self._judge_unclaimed(seen, now)
        pause = _SUSPECT_SECONDS if self._suspects else self._sweep_seconds
        self._next_sweep = now + pause
        return pause

    def _judge_unclaimed(self, seen: Survey, now: float) -> dict[tuple[int, int], float]:
        suspects: dict[tuple[int, int], float] = {}
        for process in seen.unclaimed:
            key = (process.pid, process.started)
            since = self._suspects.get(key, now)
            if process.is_zombie:
                self.reap(process)
            elif now - since >= _SUSPECT_SECONDS:
                _logger.warning("killing a process that belongs to no payload", pid=process.pid)
                send_signal(process, signal.SIGKILL)
                suspects[key] = since
            else:
                suspects[key] = since
        return suspects

    def kill_unclaimed(self) -> None:
        """Kill and reap what no payload owns, at once (at the pilot's end)."""
        patience_ends = steady_now() + _LAST_PATIENCE_SECONDS
        while (rest := self.look().unclaimed) and steady_now() < patience_ends:
            for process in rest:
                if process.is_zombie:
                    self.reap(process)
                else:
                    send_signal(process, signal.SIGKILL)
            time.sleep(_ROUND_SECONDS)
