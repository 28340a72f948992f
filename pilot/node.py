"""What the node offers, measured: processors, memory, disk, platform, time left.

Promises: the smallest of all limits that apply counts (affinity and cgroup quota; memory of the machine and of the
cgroup); what cannot be read is left out of the minimum, never guessed upward. Parsers are pure functions over
recorded texts; :func:`measure` is the thin reader.
Lies elsewhere: what of it is offered to whom (the agent).
Sources: cgroups(7), proc(5), Linux `Documentation/admin-guide/cgroup-v2.rst`.
"""

from __future__ import annotations

import math
import os
import platform
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .hardware import GpuDevice, parse_architecture
from .workdir import free_disk_mb

_MB = 1_000_000
# cgroup v1 says "no limit" with the largest multiple of a page below 2**63; anything near it is no limit.
_NO_LIMIT = 2**60
# Pseudo files are small; a bound keeps a strange mount from filling our memory.
_READ_CHARACTERS = 256 * 1024

Reader = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class NodeMeasure:
    """One measurement of the node; memory and disk in MB (10**6 bytes), `seconds_left` None when nobody set an end."""

    hostname: str
    platform: str
    system: str
    kernel: str
    libc: str
    cpu_model: str
    processors: int
    memory_mb: int
    disk_mb: int
    seconds_left: float | None
    architecture: str = ""
    gpus: tuple[GpuDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class CgroupPlace:
    """A folder of the cgroup file system that holds this process, and the folder where its hierarchy is mounted."""

    mount: PurePosixPath
    path: PurePosixPath

    def levels(self) -> Iterator[str]:
        """The folder itself and those above it: a limit anywhere on the way binds."""
        below = self.path.relative_to(self.mount)
        for depth in range(len(below.parts), -1, -1):
            yield str(self.mount.joinpath(*below.parts[:depth]))


def parse_cgroup_membership(text: str) -> dict[str, str]:
    """`/proc/self/cgroup`: controller (or "" for version 2) to path."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            found[""] = path
        for controller in filter(None, controllers.split(",")):
            found[controller] = path
    return found


def parse_cgroup_mounts(text: str) -> dict[str, tuple[str, str]]:
    """`/proc/self/mountinfo`: controller (or "" for version 2) to (root of the mount, mount point)."""
    found: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        head, separator, tail = line.partition(" - ")
        fields, kind = head.split(), tail.split()
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            found.setdefault("", (fields[3], fields[4]))
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                found.setdefault(option, (fields[3], fields[4]))
    return found


def locate_cgroup(
    controller: str, membership: Mapping[str, str], mounts: Mapping[str, tuple[str, str]]
) -> CgroupPlace | None:
    """Where the controller's files for this process lie ("" = version 2), or None if it is not mounted."""
    if controller not in membership or controller not in mounts:
        return None
    root, mount = mounts[controller]
    path = PurePosixPath(membership[controller])
    inside = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
    if ".." in inside.parts:  # the process lives outside of its cgroup namespace
        inside = PurePosixPath()
    return CgroupPlace(PurePosixPath(mount), PurePosixPath(mount) / inside)


def parse_quota(text: str) -> float | None:
    """Processors that `cpu.max` ("quota period") allows, None for "max"."""
    fields = text.split()
    if len(fields) != 2 or not all(field.lstrip("-").isdigit() for field in fields):
        return None
    quota, period = int(fields[0]), int(fields[1])
    return quota / period if quota > 0 and period > 0 else None


def parse_limit(text: str) -> int | None:
    """A memory limit in bytes, None for "max" or the huge figure that means none."""
    text = text.strip()
    if not text.isdigit() or int(text) >= _NO_LIMIT:
        return None
    return int(text)


def parse_memory_total(text: str) -> int | None:
    """`MemTotal` of `/proc/meminfo` in bytes."""
    for line in text.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def parse_cpu_model(text: str) -> str:
    """The model name from `/proc/cpuinfo` ("" if the architecture does not tell)."""
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if separator and name.strip() in {"model name", "cpu model", "cpu"}:
            return " ".join(value.split())
    return ""


def parse_os_release(text: str) -> str:
    """Name and version of the system from `os-release`, such as `debian-12` ("linux" if unknown)."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    name, version = (fields.get(key, "").strip("\"'") for key in ("ID", "VERSION_ID"))
    return "-".join(filter(None, (name or "linux", version)))


def count_processors(affinity: int, quotas: list[float]) -> int:
    """Whole processors: never less than one, a quota of 1.5 gives one."""
    return max(1, min([affinity, *(math.floor(quota + 1e-6) for quota in quotas)]))


def measure(
    work_area: Path,
    *,
    now: float,
    ends_at: float | None = None,
    reader: Reader | None = None,
    gpus: tuple[GpuDevice, ...] = (),
) -> NodeMeasure:
    """Measure this node; `now` and `ends_at` (the slot's end, from batch system or configuration) share one clock.

    GPUs are found by a program of the node's (:func:`.hardware.find_gpus`), which is run elsewhere.
    """
    read = reader or read_text
    cpuinfo = read("/proc/cpuinfo") or ""
    quotas, limits = _cgroup_limits(read)
    total = parse_memory_total(read("/proc/meminfo") or "")
    memory = min([*limits, *([total] if total is not None else [])], default=0)
    return NodeMeasure(
        hostname=socket.gethostname(),
        platform=f"{platform.machine()}-{platform.system().lower()}",
        system=parse_os_release(read("/etc/os-release") or ""),
        kernel=platform.release(),
        libc=_libc(),
        cpu_model=parse_cpu_model(cpuinfo),
        processors=count_processors(len(os.sched_getaffinity(0)), quotas),
        memory_mb=memory // _MB,
        disk_mb=int(free_disk_mb(_existing(work_area))),
        seconds_left=None if ends_at is None else max(0.0, ends_at - now),
        architecture=parse_architecture(platform.machine(), cpuinfo),
        gpus=gpus,
    )


def read_text(path: str) -> str | None:
    """The (bounded) text of a pseudo file, or None if it cannot be read."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_READ_CHARACTERS)
    except OSError:
        return None


def _cgroup_limits(read: Reader) -> tuple[list[float], list[int]]:
    """All processor quotas and memory limits (bytes) that bind this process, of both cgroup versions."""
    membership = parse_cgroup_membership(read("/proc/self/cgroup") or "")
    mounts = parse_cgroup_mounts(read("/proc/self/mountinfo") or "")
    quotas: list[float | None] = []
    limits: list[int | None] = []
    for level in _levels(locate_cgroup("", membership, mounts)):
        quotas.append(parse_quota(read(f"{level}/cpu.max") or ""))
        limits.extend(parse_limit(read(f"{level}/{name}") or "") for name in ("memory.max", "memory.high"))
    for level in _levels(locate_cgroup("cpu", membership, mounts)):
        texts = (read(f"{level}/cpu.cfs_quota_us") or "", read(f"{level}/cpu.cfs_period_us") or "")
        quotas.append(parse_quota(" ".join(texts)))
    levels = _levels(locate_cgroup("memory", membership, mounts))
    limits.extend(parse_limit(read(f"{level}/memory.limit_in_bytes") or "") for level in levels)
    return [quota for quota in quotas if quota is not None], [limit for limit in limits if limit is not None]


def _levels(place: CgroupPlace | None) -> Iterator[str]:
    return iter(()) if place is None else place.levels()


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):  # a C library that is not glibc does not know the question
        return ""


def _existing(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.is_dir()), Path("/"))
