"""Several jobs for one offer: what is left of it after each, so that together they never need more than there is.

Jobs are reckoned with what pilots give them: a whole-node job everything, any other its least number of processors,
whether or not it could use more (a job that takes whatever is free would keep out others that wait; the pilot's payload
sees how many it has). Memory, disk and GPUs likewise.

Jobs stand in *rounds*. Those of a round run side by side. When nothing more fits beside them, the next round begins
behind the longest of them: everything is free again, and less time is left. So there is a schedule in which all chosen
jobs have what they need within the time of the offer. A pilot may start a job earlier than that; never later.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from schemas.messages.pilot import Gpu, Offer

from .conditions import has_gpus
from .offers import ASSUMED_POWER, bounded
from .requirements import Requirements, memory_needed


@dataclass(frozen=True, slots=True)
class Placed:
    """A job in its round, and what it takes there; memory and disk in MB."""

    want: Requirements
    round: int
    processors: int
    memory_mb: int
    disk_mb: int
    gpus: tuple[Gpu, ...]


class Packing:
    """An offer that is filled.

    Args:
        offer: what the pilot has, now.

    Attributes:
        left: what may be offered to the next job.
        round: the present one.
    """

    __slots__ = ("_begun", "_offer", "_placed", "left", "round")

    def __init__(self, offer: Offer) -> None:
        self._offer = self.left = offer
        self._placed: list[Placed] = []
        self._begun = 0.0
        self.round = 0

    def place(self, want: Requirements) -> Placed:
        """A job of a class that fits :attr:`left` is given to the pilot."""
        left = self.left
        one = Placed(
            want=want,
            round=self.round,
            processors=left.processors if want.whole_node else want.min_processors,
            memory_mb=memory_needed(want, left.processors),
            disk_mb=want.disk_mb,
            gpus=left.gpus if want.whole_node else _picked(want, left.gpus),
        )
        self._placed.append(one)
        self._reckon()
        return one

    def give_back(self, one: Placed) -> None:
        """It was not to be had. What it had in an earlier round stays empty: others were placed behind it."""
        if one.round == self.round and one in self._placed:
            self._placed.remove(one)
            self._reckon()

    def next_round(self) -> bool:
        """Let what follows run after all that is placed; whether that is different from now, and any time is left."""
        if not self._placed:
            return False
        self._begun += max(duration(one.want, self._offer) for one in self._placed)
        self._placed.clear()
        self.round += 1
        self._reckon()
        return self.left.cpu_seconds > 0

    def _reckon(self) -> None:
        now = bounded(self._offer, age=self._begun)
        taken = self._placed
        if taken:
            free = list(now.gpus)
            for gpu in (gpu for one in taken for gpu in one.gpus):
                free.remove(gpu)
            whole = any(one.want.whole_node for one in taken)
            now = replace(
                now,
                processors=max(0, now.processors - sum(one.processors for one in taken)),
                memory_mb=0.0 if whole else max(0.0, now.memory_mb - sum(one.memory_mb for one in taken)),
                disk_mb=max(0.0, now.disk_mb - sum(one.disk_mb for one in taken)),
                gpus=tuple(free),
                whole_node=False,
            )
        self.left = now


def duration(want: Requirements, offer: Offer) -> float:
    """Wall seconds after which a job of a class is over on a node: what it said, or what its CPU work takes there."""
    power = offer.cpu_seconds / offer.wall_seconds if offer.wall_seconds else ASSUMED_POWER
    return max(float(want.wall_class), want.cpu_class / power if power else float("inf"))


def _picked(want: Requirements, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """The smallest that serve, so that larger ones stay for others."""
    good = (gpu for gpu in gpus if has_gpus((gpu,), 1, want.gpu_memory_mb, want.gpu_models))
    return tuple(sorted(good, key=lambda gpu: (gpu.memory_mb, gpu.model))[: want.gpus]) if want.gpus else ()
