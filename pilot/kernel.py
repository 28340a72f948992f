"""The few kernel services that Python does not offer: prctl(2), one steady clock, the newest process id.

Promises: each function does one system call and raises :class:`OSError` when the kernel refuses.
Refuses: to decide anything; callers know why they ask. Linux only, as the pilot is.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36

_LOADAVG = Path("/proc/loadavg")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    if libc.prctl(ctypes.c_int(option), *arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def become_subreaper() -> None:
    """Make orphans of our descendants our children (daemons cannot leave the pilot's sight)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def cease_subreaper() -> None:
    """Leave orphans of our descendants to init again."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 0)


def signal_at_parent_death(signal_number: int) -> None:
    """Ask for a signal when the thread that forked us ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def forbid_memory_access() -> None:
    """Keep processes of the same user from reading our memory, environment and open files; leave no core dump.

    It counts for this process and for those that it forks, until they execute another program. To be done before a
    secret is read or made. (The super-user and who has CAP_SYS_PTRACE are not kept out: prctl(2), ptrace(2).)

    Raises:
        OSError: the kernel refuses, and then no secret must be made.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)
    if is_readable():
        raise OSError(errno.EPERM, "the kernel keeps our memory readable")


def is_readable() -> bool:
    """Whether processes of the same user may read our memory (prctl(2), PR_GET_DUMPABLE)."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(ctypes.c_int(_PR_GET_DUMPABLE), *(ctypes.c_ulong(0) for _ in range(4))))


def steady_now() -> float:
    """Seconds on a clock that never jumps and goes on while the machine sleeps.

    Leases are measured with it: `time.monotonic` stands still during a suspend, and a payload that wakes
    after its lease must know that the lease is over.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def newest_pid() -> int:
    """The process (or thread) id that the kernel gave out last in our pid namespace (proc(5), loadavg)."""
    return int(_LOADAVG.read_text(encoding="ascii").split()[4])
