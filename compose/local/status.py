"""How a private stack is: its processes, its jobs, its logs. Looks only; changes nothing, asks for no lock."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import psutil

from producers.commands.printing import Column, age, print_table
from schemas.errors import PilotageError

from .own_user import own_client
from .processes import ManagedProcess

if TYPE_CHECKING:
    from .stack import Stack

JOBS_COUNTED = 1000
"""The newest jobs, which are counted by status: one page of a listing."""


class ProcessStatus(msgspec.Struct, frozen=True):
    """One process.

    Attributes:
        pid: None if it does not run.
        since: seconds since the epoch.
        memory_mb: of it and its children, shared pages counted by shares (PSS); where that is not to be seen, in full.
        port: where it listens, if that is of interest.
        log: its log file.
    """

    name: str
    pid: int | None
    since: float | None
    memory_mb: float | None
    port: int | None
    log: str


class StackStatus(msgspec.Struct, frozen=True):
    """The whole.

    Attributes:
        up: everything that should run does, and answers.
        jobs: how many of the newest jobs are in each status; None if nobody could be asked.
        note: why nobody could be asked.
    """

    up: bool
    data_dir: str
    store: str
    processes: tuple[ProcessStatus, ...]
    jobs: dict[str, int] | None
    note: str = ""


def describe(stack: Stack) -> StackStatus:
    """Look at everything."""
    root = str(stack.layout.root)
    if not stack.made:
        return StackStatus(up=False, data_dir=root, store="", processes=(), jobs=None, note="it was never up")
    processes = tuple(_describe(stack, process) for process in stack.processes())
    up = all(process.pid is not None for process in processes)
    by_name = {process.name: process.pid for process in processes}
    jobs, note = None, "services are down"
    if by_name["rabbitmq"] and by_name["services"]:
        jobs, note = _jobs(stack)
    return StackStatus(up and jobs is not None, root, stack.choices.store, processes, jobs, note)


def print_status(status: StackStatus) -> None:
    """For people."""
    now = time.time()
    if status.processes:
        columns = [Column("PROCESS"), Column("PID", right=True), Column("UP", right=True), Column("MB", right=True),
                   Column("PORT", right=True)]  # fmt: skip
        print_table(columns, [_row(process, now) for process in status.processes])
    if status.jobs is not None:
        counts = ", ".join(f"{number} {name}" for name, number in sorted(status.jobs.items()))
        page = " (the newest)" if sum(status.jobs.values()) >= JOBS_COUNTED else ""
        print(f"Jobs: {counts or 'none yet'}{page}")
    elif status.note:
        print(f"Jobs: not known, {status.note}")
    print(f"Data: {status.data_dir}{f' (store: {status.store})' if status.store else ''}")
    if status.processes:
        print(f"Logs: {status.data_dir}/log, {status.data_dir}/broker/log")
    print("All up" if status.up else "Not all up: `pilotage up` starts what is missing")


def _row(process: ProcessStatus, now: float) -> list[str]:
    if process.pid is None:
        return [process.name, "-", "down", "", ""]
    return [
        process.name,
        str(process.pid),
        age(now - process.since) if process.since else "",
        f"{process.memory_mb:.0f}" if process.memory_mb is not None else "",
        str(process.port or ""),
    ]


def _describe(stack: Stack, process: ManagedProcess) -> ProcessStatus:
    pid, since, memory, port = process.pid, None, None, None
    if pid is not None:
        try:
            found = psutil.Process(pid)
            since, memory = found.create_time(), _memory_mb(found)
        except psutil.Error:
            pid = None  # it ended while we looked
    if pid is not None and process.name == "rabbitmq":
        port = stack.broker_port()
    return ProcessStatus(process.name, pid, since, memory, port, str(process.log_file))


def _memory_mb(process: psutil.Process) -> float:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            try:
                total += member.memory_full_info().pss
            except psutil.AccessDenied:  # services and pilots keep their memory to themselves; another's process
                total += member.memory_info().rss
    return round(total / 1e6, 1)


def _jobs(stack: Stack) -> tuple[dict[str, int] | None, str]:
    try:
        with own_client(stack.layout) as client:
            jobs = client.jobs(owner="*", limit=JOBS_COUNTED)
    except PilotageError as error:
        return None, str(error)
    return dict(Counter(job.status.value for job in jobs)), ""
