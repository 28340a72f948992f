"""A deployment of real processes on this machine, for measuring: broker, store, services, pilots; and what each costs.

Everything is private, on free ports, and gone at the end. Durability is that of a real deployment: fsync stays on.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from broker.identity import Credential, save_credential
from compose.settings import load_user_settings
from producers.settings import UserSettings
from tests.support import servers
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

PILOTS = 2
SLOTS = 2
START_SECONDS = 60.0
STOP_SECONDS = 30.0
# The first group is the path of every job; in the second are those that only listen or work at the edges.
SPLIT = (
    ("gatekeeper", "job-manager", "matcher", "job-monitor"),
    ("job-state", "relay", "proxy-manager", "optimizer", "dead-letters", "replica-catalog", "sandbox-store"),
)

Cpu = dict[str, float]


@dataclass(frozen=True)
class Memory:
    """Memory of one part: how many processes, resident, and with shared pages counted once; MB (10**6 bytes)."""

    processes: int
    resident: float
    proportional: float


@dataclass
class Stack:
    """What runs.

    Attributes:
        store: ``PostgreSQL 15, fsync on`` or the like, for the tables.
        parts: name → pids of the first processes of each part.
        environment: in which the command line reaches this deployment.
        serving: how many processes the services have.
    """

    deployed: Deployment
    store: str
    settings: UserSettings
    credential: Credential
    parts: Mapping[str, Sequence[int]]
    environment: Mapping[str, str]
    serving: int

    def cpu(self) -> Cpu:
        """CPU seconds so far of each part; of the pilots without, and apart from, the payloads that they waited for."""
        used: Cpu = {}
        for name, pids in self.parts.items():
            used[name] = sum(_own_cpu(process) for process in _family(pids))
        pilots = [process for name, pids in self.parts.items() if name.startswith("pilot") for process in _family(pids)]
        used["payloads"] = sum(_waited_cpu(process) for process in pilots)
        if "database" in used:  # server processes that have ended meanwhile
            used["database"] += sum(_waited_cpu(psutil.Process(pid)) for pid in self.parts["database"])
        return used

    def memory(self) -> dict[str, Memory]:
        """Memory of each part."""
        found: dict[str, Memory] = {}
        for name, pids in self.parts.items():
            family = _family(pids)
            resident = sum(process.memory_info().rss for process in family)
            found[name] = Memory(len(family), resident / 1e6, sum(map(_proportional, family)) / 1e6)
        return found


def _family(pids: Sequence[int]) -> list[psutil.Process]:
    firsts = [psutil.Process(pid) for pid in pids]
    if os.getpid() in pids:
        return firsts  # this process measures: what it started is counted elsewhere
    return [process for first in firsts for process in (first, *first.children(recursive=True))]


def _proportional(process: psutil.Process) -> float:
    """Memory with shared pages counted once; not a number where only the super-user may look (prctl(2))."""
    try:
        return float(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return math.nan


def _own_cpu(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _waited_cpu(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.children_user + times.children_system)
    return 0.0


@contextlib.contextmanager
def running(store: str, *, split: bool) -> Iterator[Stack]:
    """Start everything; ``store`` is ``postgresql`` or ``sqlite``."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotage-bench-")))
        parts: dict[str, Sequence[int]] = {}
        url = None
        label = "SQLite, fsync on"
        if store == "postgresql":
            cluster = stack.enter_context(servers.postgres_cluster())
            url = cluster.create_database("bench")
            label = "PostgreSQL, fsync on"
            parts["database"] = [cluster.pid or 0]
        deployed = stack.enter_context(deployment(folder / "d", services=[], store_url=url, pilots=PILOTS))
        parts["broker"] = [deployed.node.pid or 0]
        groups: Sequence[Sequence[str]] = SPLIT if split else (("all",),)
        serving = [_serve(stack, folder, deployed, number, names) for number, names in enumerate(groups)]
        parts["services"] = [process.pid for process in serving]
        for number in range(1, PILOTS + 1):
            parts[f"pilot {number}"] = [_pilot(stack, folder, deployed, number).pid]
        parts["submitter"] = [os.getpid()]
        proxy = folder / "proxy.pem"
        credential = deployed.user()
        save_credential(credential, proxy)
        environment = {
            **os.environ,
            "HOME": str(folder),
            "PILOTAGE_CONFIG": str(deployed.layout.client_config),
            "X509_USER_PROXY": str(proxy),
        }
        settings = load_user_settings(environment)
        yield Stack(deployed, label, settings, credential, parts, environment, len(serving))


def _serve(
    stack: contextlib.ExitStack, folder: Path, deployed: Deployment, number: int, names: Sequence[str]
) -> subprocess.Popen[bytes]:
    ready = folder / f"services-{number}.ready"
    config = str(deployed.layout.server_config)
    command = [sys.executable, "-P", "-m", "compose.serve", *names, "--config", config, "--ready-file", str(ready)]
    return _start(stack, command, folder / f"services-{number}", ready)


def _pilot(stack: contextlib.ExitStack, folder: Path, deployed: Deployment, number: int) -> subprocess.Popen[bytes]:
    ready = folder / f"pilot-{number}.ready"
    config = str(deployed.layout.pilot_config(number))
    command = [sys.executable, "-P", "-m", "compose.pilot", "--config", config, "--ready-file", str(ready)]
    return _start(stack, command, folder / f"pilot-{number}", ready)


def _start(stack: contextlib.ExitStack, command: list[str], name: Path, ready: Path) -> subprocess.Popen[bytes]:
    log = name.with_suffix(".log")
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=name.parent, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    stack.callback(_stop, process)

    def is_ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{name.name} has ended: {log.read_text(errors='replace')[-2000:]}")
        return ready.exists()

    wait_until(is_ready, START_SECONDS, f"{name.name} to be ready")
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
