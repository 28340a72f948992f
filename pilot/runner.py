"""Starting payloads and ending them: the one place of the pilot that makes and kills the user's processes.

Promises:
* A payload runs in a session and process group of its own, in its work directory, with an environment built from
  nothing, no open files of ours, and its output in files there.
* Its end is reported once, with the exit code or signal, and CPU time of all its processes.
* At its end nothing of it is left: group, descendants, and daemons that left the group are killed and reaped.
* Stopping means the signal asked for to all its processes, then KILL when the grace is over.
* One thread serves all payloads; a payload that is not stopped costs no polling.

Refuses: an executable that cannot be found (:class:`~pilot.payload.PayloadStartError` says why).
Lies elsewhere: limits (:mod:`pilot.watchdog`), making the child (:mod:`pilot.spawn`), whose process one is
(:mod:`pilot.strays`), files (:mod:`pilot.sandbox`, :mod:`pilot.workdir`).
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from .guard import Guard
from .kernel import become_subreaper, cease_subreaper, steady_now
from .orphans import SWEEP_SECONDS, Orphans
from .payload import Outcome, PayloadSpec, Usage, build_command, build_environment
from .processes import Process, send_signal
from .running import DEFAULT_GRACE, ExitCallback, Payload
from .spawn import NodeTroubleError, spawn, user_name
from .strays import Survey

# How often a payload that is being ended is looked at: short against the grace, long against one look at /proc.
_LOOK_SECONDS = 0.01
# Who does not die of KILL hangs in the kernel: look more and more seldom, up to this.
_LONGEST_LOOK_SECONDS = 10.0
# After an error of the runner itself (such as no descriptors left), before it goes on.
_ERROR_SECONDS = 0.1

_logger = structlog.get_logger(__name__)


class PayloadRunner:
    """Runs payloads for one pilot process (make only one: it becomes the reaper of all orphans).

    Use as a context manager, or call :meth:`close`.
    """

    def __init__(
        self, clock: Callable[[], float] = steady_now, sweep_seconds: float = SWEEP_SECONDS, guard: Guard | None = None
    ) -> None:
        become_subreaper()
        self.now = clock
        self._user = user_name()
        self._guard = guard or Guard()
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake_lock = threading.Lock()  # nobody may write to the number of a descriptor that was closed
        self._epoll = select.epoll()
        self._epoll.register(self._wakeup, select.EPOLLIN)
        self._lock = threading.Lock()  # held while a child is made, so that no look mistakes it for an orphan
        self._payloads: dict[int, Payload] = {}
        self._by_descriptor: dict[int, Payload] = {}
        self._busy: set[Payload] = set()
        self._orphans = Orphans(self._payloads, self._lock, clock(), sweep_seconds)
        self._awake_at = math.inf
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="payload-runner", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for the agent

    def start(self, spec: PayloadSpec, on_exit: ExitCallback | None = None) -> Payload:
        """Start a payload.

        Raises:
            PayloadStartError: if it cannot be started; nothing is left running then.
            NodeTroubleError: if the node lacks the means now.
        """
        environment = build_environment(spec, self._user)
        command = build_command(spec, environment["PATH"])
        with self._lock:
            started = self.now()
            payload = Payload(self, spec, spawn(spec, command, environment, self._null), started)
            self._payloads[payload.pid] = payload
        if on_exit is not None:
            payload.on_exit(on_exit)
        self._attend(payload)
        return payload

    def _attend(self, payload: Payload) -> None:
        try:
            descriptor = os.pidfd_open(payload.pid)
        except OSError as error:
            os.killpg(payload.pid, signal.SIGKILL)
            with self._lock:
                os.waitpid(payload.pid, 0)
                del self._payloads[payload.pid]
            raise NodeTroubleError(f"this node cannot watch processes now: {error.strerror}") from error
        self._by_descriptor[descriptor] = payload
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLONESHOT)

    def payloads(self) -> tuple[Payload, ...]:
        """The payloads that run now."""
        with self._lock:
            return tuple(self._payloads.values())

    def look(self) -> Survey:
        """Survey the processes of all payloads (one pass over /proc)."""
        return self._orphans.look()

    def wake(self) -> None:
        """Have the runner's thread look at its payloads now."""
        with self._wake_lock:
            if self._wakeup >= 0:
                os.eventfd_write(self._wakeup, 1)

    def expect(self, when: float) -> None:
        """Have the runner's thread awake at `when`, if it would sleep longer."""
        if when < self._awake_at:
            self.wake()

    def close(self, reason: str = "the pilot ends", grace: float = DEFAULT_GRACE) -> None:
        """Stop all payloads, wait for their end, release everything; harmless when done twice.

        Not from an exit callback: those run on the thread that this waits for.
        """
        if self._closing:
            return
        for payload in self.payloads():
            payload.stop(reason, grace)
        for payload in self.payloads():
            payload.wait(grace + 10.0)
        self._closing = True
        self.wake()
        self._orphans.kill_unclaimed()
        if threading.current_thread() is not self._thread:
            self._thread.join()
            cease_subreaper()
            self._epoll.close()
            with self._wake_lock:
                os.close(self._wakeup)
                self._wakeup = -1
            for descriptor in (self._null, *self._by_descriptor):
                os.close(descriptor)

    def guard(self) -> None:
        """Tell the keeper until when to leave us alone: leases moved, or a payload ended or is being killed."""
        with self._lock:
            self._tell_guard()

    def _tell_guard(self) -> None:
        # Who does not die of KILL hangs in the kernel: that is not the pilot's doing, and the keeper could do no more.
        moments = [one.last_moment for one in self._payloads.values() if one.progress.killing_since == math.inf]
        self._guard.set(min(moments, default=math.inf))

    def report(self, payload: Payload, callback: ExitCallback, outcome: Outcome) -> None:
        """Call back, keeping errors of the callback away from the runner."""
        try:
            callback(payload, outcome)
        except Exception:  # whatever it raises, the other payloads must go on
            _logger.exception("an exit callback failed", job=payload.spec.job_id, attempt=payload.spec.attempt)

    # -- the runner's own thread

    def _loop(self) -> None:
        while not self._closing:
            try:
                self._turn()
            except Exception:  # a runner that dies silently would let payloads live beyond their leases
                _logger.exception("the payload runner failed")
                time.sleep(_ERROR_SECONDS)

    def _turn(self) -> None:
        events = self._epoll.poll(self._patience())
        self._awake_at = math.inf  # awake: an appointment made from here on must wake us again
        now = self.now()
        for descriptor, _ in events:
            self._on_event(descriptor, now)
        for payload in self.payloads():
            payload.due(now)
            if payload.stop_order is not None:
                self._busy.add(payload)
        for payload in tuple(self._busy):
            if (payload.progress.next_look <= now or _ripe(payload, now)) and self._advance(payload, now):
                self._busy.discard(payload)

    def _on_event(self, descriptor: int, now: float) -> None:
        if descriptor == self._wakeup:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)
            return
        payload = self._by_descriptor.pop(descriptor)
        os.close(descriptor)
        payload.progress.leader_gone = True
        payload.progress.next_look = now
        self._busy.add(payload)

    def _patience(self) -> float:
        now = self.now()
        moments = [self._orphans.sweep(now)]
        moments += [payload.progress.next_look - now for payload in self._busy]
        moments += [due for payload in self.payloads() if (due := payload.due(now)) is not None]
        patience = max(0.0, min(moments))
        self._awake_at = now + patience
        return patience

    def _advance(self, payload: Payload, now: float) -> bool:
        """Bring a payload that ended or is to end one step further; True when it is over and reported."""
        order, progress = payload.stop_order, payload.progress
        if progress.leader_gone and self._orphans.left_nothing(payload, now):
            self._conclude(payload, now)
            return True
        others = self._orphans.others_of(payload)
        if progress.leader_gone and not others:
            self._conclude(payload, now)
            return True
        if order is not None and not order.delivered:
            order.delivered = True
            _signal_all(payload, others, order.number)
            _signal_all(payload, others, signal.SIGCONT)  # a stopped process handles nothing but KILL
        if progress.leader_gone if order is None else now >= order.kill_at:
            progress.killed.update((process.pid, process.started) for process in others)
            _signal_all(payload, others, signal.SIGKILL)
            progress.killing_since = min(progress.killing_since, now)
            self.guard()
            pause = max(_LOOK_SECONDS, (now - progress.killing_since) / 4)
            progress.next_look = now + min(pause, _LONGEST_LOOK_SECONDS)
        elif order is not None:
            progress.next_look = order.kill_at if not progress.leader_gone else now + _LOOK_SECONDS
        return False

    def _conclude(self, payload: Payload, now: float) -> None:
        progress, order = payload.progress, payload.stop_order
        reason = None if order is None else order.reason
        with self._lock:
            code, cpu, memory = _wait_for(payload.pid)
            del self._payloads[payload.pid]
            self._tell_guard()
            self._orphans.last_end = steady_now()
        payload.bound_outputs()
        if code is None and reason is None:
            reason = "the payload's exit status was lost on the node"
        usage = Usage(
            cpu_seconds=max(progress.cpu_high, progress.reaped_cpu + cpu),
            wall_seconds=now - payload.started,
            memory_mb=0.0,
            memory_peak_mb=max(progress.memory_high, memory),
            disk_mb=progress.disk_high,
            processes=0,
        )
        payload.finish(
            Outcome(
                exit_code=code if code is not None and code >= 0 else None,
                signal_number=-code if code is not None and code < 0 else None,
                reason=reason,
                usage=usage,
                leftovers=len(progress.killed) if order is None else 0,
            )
        )


def _ripe(payload: Payload, now: float) -> bool:
    """Whether an order to stop waits to be delivered, or its grace is over."""
    order = payload.stop_order
    return order is not None and (not order.delivered or now >= order.kill_at)


def _signal_all(payload: Payload, others: list[Process], number: int) -> None:
    """Signal the group at once (the first process is not reaped yet, so the id is ours), then who left it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(payload.pid, number)
    for process in others:
        if process.group != payload.pid:
            send_signal(process, number)


def _wait_for(pid: int) -> tuple[int | None, float, float]:
    """Reap a first process: exit code (None if somebody else has waited for it), CPU seconds, peak memory in MB."""
    try:
        _, status, used = os.wait4(pid, 0)
    except ChildProcessError:
        return None, 0.0, 0.0
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, _own_peak_mb(used)


def _own_peak_mb(used: resource.struct_rusage) -> float:
    """The largest process's peak memory, if it can be told from ours.

    After vfork(2) the kernel counts our own memory into the child's `ru_maxrss`; only a larger figure says something.
    """
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used.ru_maxrss * 1024 / 1e6 if used.ru_maxrss > ours else 0.0
