"""The keeper: a parent process that outlives a pilot which dies suddenly, and ends its payloads then.

Promises: if the pilot is killed (even with KILL), everything that it started is killed within a second: orphans
become children of the keeper, a subreaper. If the keeper itself is killed, the pilot gets TERM and ends in order.
If a payload outlives its lease because the pilot is stopped or hangs, the pilot and all its payloads are killed.
TERM, INT and HUP to the keeper go on to the pilot; the exit code is the pilot's.
Refuses: to run when threads exist already (it forks).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from schemas.errors import ConfigurationError

from .guard import Guard
from .kernel import become_subreaper, signal_at_parent_death, steady_now
from .processes import read_processes, send_signal, tree

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Between two rounds of killing: the dead need a moment to die and their children to become ours.
_ROUND_SECONDS = 0.01
# Who has not died of KILL by then hangs in the kernel and can do no work; the node is the site's to mend.
_PATIENCE_SECONDS = 30.0
# How often the keeper looks at the guard: short against the smallest margins, and nothing against a payload.
_GUARD_SECONDS = 0.25


def keep(main: Callable[[], int], guard: Guard | None = None) -> int:
    """Run `main` in a child process, wait for it, kill whatever it left behind; returns its exit code.

    Args:
        main: the pilot.
        guard: shared with it; the pilot is killed when its moment passes.

    Raises:
        ConfigurationError: if this process has several threads.
    """
    if threading.active_count() > 1:
        raise ConfigurationError("the keeper must start before any thread")
    become_subreaper()
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        _be_the_pilot(main, keeper)
    for number in _FORWARDED:
        signal.signal(number, _forward(child))
    if guard is not None:
        _watch(child, guard)
    _, status = os.waitpid(child, 0)
    kill_all_children()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _watch(child: int, guard: Guard) -> None:
    """Return when the pilot ended, or was killed because a payload of its outlived its lease."""
    descriptor = os.pidfd_open(child)
    try:
        end = select.poll()
        end.register(descriptor, select.POLLIN)
        while not end.poll(_GUARD_SECONDS * 1000):
            if guard.moment() < steady_now():
                sys.stderr.write("error: the pilot hangs and a lease is over; it is killed\n")
                os.kill(child, signal.SIGKILL)
                return
    finally:
        os.close(descriptor)


def _forward(child: int) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, frame: FrameType | None) -> None:
        del frame
        os.kill(child, number)

    return handler


def _be_the_pilot(main: Callable[[], int], keeper: int) -> None:
    code = 70  # EX_SOFTWARE: replaced unless main fails in a way that it did not foresee
    try:
        signal_at_parent_death(signal.SIGTERM)
        if os.getppid() == keeper:
            code = main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001  (the child must never return into the parent's code)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def kill_all_children() -> int:
    """Kill and reap every descendant of this process; returns how many were killed."""
    killed: set[tuple[int, int]] = set()
    patience_ends = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < patience_ends:
        table = read_processes()
        mine = [process for process in tree(table, [os.getpid()]) if process.pid != os.getpid()]
        if not mine:
            return len(killed)
        for process in mine:
            if process.is_zombie and process.parent == os.getpid():
                os.waitpid(process.pid, os.WNOHANG)
            elif not process.is_zombie:
                killed.add((process.pid, process.started))
                send_signal(process, signal.SIGKILL)
        time.sleep(_ROUND_SECONDS)
    return len(killed)
