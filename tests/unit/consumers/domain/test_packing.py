from __future__ import annotations

from consumers.domain.packing import Packing
from consumers.domain.requirements import canonical
from schemas.messages.pilot import Gpu, Offer

NODE = Offer(
    site="A",
    cpu_seconds=1_000_000,
    wall_seconds=100_000,
    processors=8,
    memory_mb=16_000,
    disk_mb=10_000,
    whole_node=True,
    gpus=(Gpu(model="T4", memory_mb=16_000), Gpu(model="A100", memory_mb=40_000)),
)


def test_each_job_leaves_less_for_those_beside_it() -> None:
    packing = Packing(NODE)
    packing.place(
        canonical(min_processors=3, max_processors=None, memory_mb=1000, memory_per_processor_mb=500, disk_mb=99)
    )
    left = packing.left
    assert (left.processors, left.memory_mb, left.disk_mb, left.whole_node) == (5, 13_500, 9_901, False)
    assert (left.wall_seconds, left.cpu_seconds) == (100_000, 1_000_000)
    packing.place(canonical(gpus=1))
    assert packing.left.gpus == NODE.gpus[1:], "the smallest that serves"


def test_a_whole_node_job_leaves_nothing() -> None:
    packing = Packing(NODE)
    packing.place(canonical(whole_node=True, memory_per_processor_mb=100))
    assert (packing.left.processors, packing.left.memory_mb, packing.left.gpus) == (0, 0.0, ())


def test_what_follows_begins_behind_the_longest() -> None:
    packing = Packing(NODE)
    assert not packing.next_round(), "nothing is before it"
    packing.place(canonical(cpu_seconds=86_400))  # 8,640 s at 10 HS06
    packing.place(canonical(cpu_seconds=360, wall_seconds=21_600))
    assert packing.next_round()
    assert packing.left.wall_seconds == 100_000 - 21_600
    assert packing.left.cpu_seconds == 10 * (100_000 - 21_600)
    assert (packing.left.processors, packing.left.whole_node, packing.left.gpus) == (8, True, NODE.gpus)
    packing.place(canonical(wall_seconds=86_400))
    assert not packing.next_round(), "no time is left"


def test_what_was_not_to_be_had_is_free_again() -> None:
    packing = Packing(NODE)
    one = packing.place(canonical(min_processors=8))
    packing.give_back(one)
    assert packing.left == NODE
    first = packing.place(canonical(min_processors=8, cpu_seconds=3600))
    packing.next_round()
    later = packing.left
    packing.give_back(first)
    assert packing.left == later, "others stand behind it"
