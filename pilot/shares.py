"""Who has what of the slot: processors, memory, GPUs. Pure bookkeeping.

Promises: what is given out together is never more than there is, whatever order things come in; a payload gets what its
job was matched for, with the numbers that the matcher reckons with (:meth:`Ledger.take`). A job that says nothing of
memory gets the part of the slot's that belongs to its processors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from schemas.jdl import JobDescription
from schemas.jdl.gpu import is_model

from .hardware import GpuDevice

Key: TypeAlias = tuple[int, int]
"""(job, attempt)"""

LEAST_PART = 0.5
"""Of the memory that belongs to its processors a job that asks for none gets at least so much; else it waits."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one payload has, or would need; memory in MB."""

    processors: int
    memory_mb: float
    gpus: tuple[GpuDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class Free:
    """What may be offered.

    Attributes:
        disk_promised_mb: disk that the jobs here were matched for.
    """

    processors: int
    memory_mb: float
    gpus: tuple[GpuDevice, ...] = ()
    disk_promised_mb: float = 0.0


class Ledger:
    """The slot and who holds what of it.

    Args:
        processors: of the slot.
        memory_mb: of the slot.
        gpus: of the slot.
    """

    def __init__(self, processors: int, memory_mb: float, gpus: tuple[GpuDevice, ...] = ()) -> None:
        self.processors = processors
        self.memory_mb = memory_mb
        self.gpus = gpus
        self._given: dict[Key, Share] = {}

    @property
    def free_processors(self) -> int:
        """Processors that nobody has."""
        return self.processors - sum(one.processors for one in self._given.values())

    @property
    def free_memory_mb(self) -> float:
        """Memory that nobody was given, MB."""
        return max(0.0, self.memory_mb - sum(one.memory_mb for one in self._given.values()))

    @property
    def free_gpus(self) -> tuple[GpuDevice, ...]:
        """GPUs that nobody has."""
        taken = {gpu.device for one in self._given.values() for gpu in one.gpus}
        return tuple(gpu for gpu in self.gpus if gpu.device not in taken)

    @property
    def is_idle(self) -> bool:
        """Whether nobody has anything."""
        return not self._given

    def processors_of(self, job: JobDescription) -> int:
        """Processors that a job takes: all for a whole-node job, else the least that it asks for."""
        return max(self.processors, job.min_processors) if job.whole_node else job.min_processors

    def why_never(self, job: JobDescription) -> str:
        """Why a job can never run here; empty if it can, once enough is free."""
        processors = self.processors_of(job)
        if processors > self.processors:
            return f"it needs {processors} processors, the pilot has {self.processors}"
        memory = job.memory_mb(processors)
        if memory > self.memory_mb:
            return f"it needs {memory} MB of memory, the pilot has {self.memory_mb:.0f} MB"
        fitting = _fitting(self.gpus, job)
        if len(fitting) < job.gpus:
            return f"it needs {job.gpus} GPUs such as it asks for, the pilot has {len(fitting)}"
        return ""

    def take(self, key: Key, job: JobDescription) -> Share | None:
        """Give a job its share; None as long as it is not free."""
        share = self._share(job)
        if share is not None:
            self._given[key] = share
        return share

    def give_back(self, key: Key) -> None:
        """The payload is over (or never was)."""
        self._given.pop(key, None)

    def _share(self, job: JobDescription) -> Share | None:
        processors = self.processors_of(job)
        if processors > self.free_processors:
            return None
        if job.whole_node:
            return Share(processors, self.memory_mb, self.gpus) if not self.why_never(job) else None
        memory = float(job.memory_mb(processors))
        if not memory:
            part = self.memory_mb * processors / self.processors
            memory = min(part, self.free_memory_mb)
            if memory < LEAST_PART * part:
                return None
        if memory > self.free_memory_mb:
            return None
        gpus = _fitting(self.free_gpus, job)
        if len(gpus) < job.gpus:
            return None
        return Share(processors, memory, gpus[: job.gpus])


def _fitting(gpus: tuple[GpuDevice, ...], job: JobDescription) -> tuple[GpuDevice, ...]:
    """Those that a job can use, the smallest first: larger ones stay for who needs them."""
    wanted = job.gpu_models
    found = [
        gpu
        for gpu in gpus
        if gpu.memory_mb >= (job.gpu_memory or 0) and (not wanted or any(is_model(gpu.model, one) for one in wanted))
    ]
    return tuple(sorted(found, key=lambda gpu: gpu.memory_mb))
