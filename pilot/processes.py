"""Seeing processes: `/proc` read in one pass, and signals that cannot hit a recycled process id.

Promises: parsers are pure functions over recorded text; readers skip processes that vanish meanwhile.
Lies elsewhere: which process belongs to which payload (:mod:`pilot.strays`), limits (:mod:`pilot.watchdog`).
Formats: proc(5).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MB = 1_000_000
# An environment is at most 128 KiB per string and usually a few KiB; our marks come first in it.
_ENVIRON_BYTES = 64 * 1024
# `stat` is one line of some 350 bytes; the name in it is at most 64 bytes.
_STAT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Process:
    """One process as `/proc/<pid>/stat` shows it; `cpu_seconds` includes children that it waited for."""

    pid: int
    parent: int
    group: int
    session: int
    state: str
    cpu_seconds: float
    started: int
    memory_mb: float

    @property
    def started_seconds(self) -> float:
        """When it was started, in seconds since boot."""
        return self.started / _TICKS

    @property
    def is_zombie(self) -> bool:
        """Whether it has ended and only waits to be reaped."""
        return self.state in "ZX"


def parse_stat(text: str) -> Process:
    """Read one `/proc/<pid>/stat` line; the command name may hold spaces and parentheses.

    Raises:
        ValueError: if the line is not of that form.
    """
    head, closing, tail = text.rpartition(")")
    if not closing:
        raise ValueError("no command name in the stat line")
    fields = tail.split()
    ticks = sum(int(field) for field in fields[11:15])
    return Process(
        pid=int(head.split(" ", 1)[0]),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        state=fields[0],
        cpu_seconds=ticks / _TICKS,
        started=int(fields[19]),
        memory_mb=int(fields[21]) * _PAGE / _MB,
    )


def _read(path: str, limit: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


def read_process(pid: int) -> Process | None:
    """The process with that id, or None when there is none (any more)."""
    try:
        return parse_stat(_read(f"/proc/{pid}/stat", _STAT_BYTES).decode("utf-8", "replace"))
    except (OSError, ValueError, IndexError):
        return None


def _all_pids() -> list[int]:
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdigit()]


def read_processes(pids: Iterable[int] | None = None) -> dict[int, Process]:
    """All processes that we may see, or those of the given ids that exist."""
    wanted = pids if pids is not None else _all_pids()
    found = (read_process(pid) for pid in wanted)
    return {process.pid: process for process in found if process is not None}


def tree(table: Mapping[int, Process], roots: Iterable[int]) -> list[Process]:
    """The given processes and all their descendants, parents first."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: dict[int, Process] = {}
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        member = table.get(pid)
        if member is not None and pid not in found:
            found[pid] = member
            waiting.extend(children.get(pid, ()))
    return list(found.values())


def proportional_memory_mb(pid: int) -> float | None:
    """Memory with shared pages divided among their users (PSS), or None if the kernel does not tell."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return parse_pss(text)


def parse_pss(text: str) -> float | None:
    """The `Pss:` figure of a `smaps_rollup` text in MB (10**6 bytes)."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / _MB
    return None


def has_environment(pid: int, marks: Iterable[bytes]) -> bool:
    """Whether every given `NAME=value` stands in the environment that the process was started with."""
    try:
        present = set(_read(f"/proc/{pid}/environ", _ENVIRON_BYTES).split(b"\0"))
    except OSError:
        return False
    return all(mark in present for mark in marks)


def working_directory(pid: int) -> str | None:
    """Where the process stands, or None if unknown."""
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return None


def send_signal(process: Process, number: int) -> bool:
    """Signal exactly this process, never another that got its id meanwhile; tells whether it was reached."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        current = read_process(process.pid)
        if current is None or current.started != process.started:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
