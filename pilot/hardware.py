"""What kind of processors and which GPUs the node has.

Promises: never more than the node is known to have. The weakest processor says the level; a GPU that the batch system
did not give to this slot is not there; a tool that is missing, hangs or talks nonsense means no GPUs. Parsers are pure
functions over recorded texts; :func:`find_gpus` is the thin reader.
Sources: x86-64 psABI, "Micro-architecture levels"; proc(5); ``nvidia-smi --help-query-gpu``; CUDA C++ Programming
Guide, "CUDA Environment Variables".
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MB_PER_MIB = 1.048576

X86_LEVELS: tuple[frozenset[str], ...] = (
    frozenset(["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"]),
    frozenset(["abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"]),
    frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]),
)
"""What each level from v2 on has beyond the one before, in the kernel's names (``pni`` is SSE3, ``abm`` has LZCNT)."""

QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")

QUERY_SECONDS = 15.0
"""A cold driver takes some seconds; one that hangs must not cost the slot."""

MAX_GPUS = 64
"""As many as an offer has room for."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""By which a batch system gives some of the node's GPUs to a slot, and we some of ours to a payload."""


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One GPU.

    Attributes:
        device: by which a payload is given it (index or UUID).
        model: as the driver names it.
        memory_mb: MB (10**6 bytes).
        index: the driver's number, where it was asked.
    """

    device: str
    model: str
    memory_mb: float
    index: str = ""


def parse_architecture(machine: str, cpuinfo: str) -> str:
    """Family and level, such as ``x86_64-v3``; of other families than x86_64 the family alone.

    Args:
        machine: as ``uname -m`` says it.
        cpuinfo: text of ``/proc/cpuinfo``, perhaps cut off.
    """
    if machine != "x86_64":
        return machine
    whole, newline, _ = cpuinfo.rpartition("\n")  # a last line that was cut off tells less than is there
    common: set[str] | None = None
    for line in (whole + newline).splitlines():
        name, separator, value = line.partition(":")
        if separator and name.strip() == "flags":
            flags = set(value.split())
            common = flags if common is None else common & flags
    level = 1
    for needed in X86_LEVELS:
        if not needed <= (common or set()):
            break
        level += 1
    return machine if level == 1 else f"{machine}-v{level}"


def parse_gpus(text: str) -> tuple[GpuDevice, ...]:
    """What :data:`QUERY` printed; lines that are no GPU (messages, devices in error) are left out."""
    found: dict[str, GpuDevice] = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) < 4 or not fields[0].isdecimal() or not fields[1].startswith("GPU-"):
            continue
        index, uuid, name, memory = fields[0], fields[1], ", ".join(fields[2:-1]), fields[-1]
        if not memory.isdecimal() or not int(memory) or not name or name.startswith("["):
            continue  # "[N/A]", "[GPU is lost]", "[Unknown Error]"
        found[uuid] = GpuDevice(uuid, name[:256], round(int(memory) * _MB_PER_MIB), index)
    return tuple(found.values())[:MAX_GPUS]


def visible(gpus: Sequence[GpuDevice], given: str | None) -> tuple[GpuDevice, ...]:
    """Those that this slot may use.

    Args:
        gpus: of the node.
        given: value of ``CUDA_VISIBLE_DEVICES``; None if it is not set. As CUDA does it, the first name that is not
            known ends the list.
    """
    if given is None:
        return tuple(gpus)
    chosen: dict[str, GpuDevice] = {}
    for name in (part.strip() for part in given.split(",")):
        matching = [one for one in gpus if name and (one.index == name or one.device == name)]
        if not matching and name.startswith("GPU-"):
            matching = [one for one in gpus if one.device.startswith(name)]
        if len(matching) != 1:
            break
        chosen[matching[0].device] = matching[0]
    return tuple(chosen.values())


def find_gpus(run: Callable[[], str] | None = None, given: str | None = None) -> tuple[GpuDevice, ...]:
    """The GPUs of this slot.

    Args:
        run: runs the query; None for the real one.
        given: see :func:`visible`.
    """
    return visible(parse_gpus((run or _query)()), given)


def _query() -> str:
    tool = shutil.which(QUERY[0])
    if tool is None:
        return ""
    try:
        done = subprocess.run(
            [tool, *QUERY[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=QUERY_SECONDS,
            check=False,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout[:65_536].decode("utf-8", "replace")
