"""Whatever is chosen for an offer has a schedule in which nothing is ever given out twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.domain.conditions import has_gpus
from consumers.domain.packing import Packing, Placed, duration
from consumers.domain.requirements import Requirements, canonical, in_the_way, memory_needed
from schemas.messages.pilot import Gpu, Offer

GPUS = tuple(Gpu(model=model, memory_mb=memory) for model, memory in (("T4", 16e3), ("A100", 40e3), ("A100", 80e3)))
jobs = st.builds(
    canonical,
    cpu_seconds=st.sampled_from((300, 3600, 80_000)),
    wall_seconds=st.sampled_from((0, 0, 360, 40_000)),
    min_processors=st.integers(1, 6),
    max_processors=st.none(),
    whole_node=st.sampled_from((False, False, False, True)),
    memory_mb=st.sampled_from((0, 1000, 5000)),
    memory_per_processor_mb=st.sampled_from((0, 700)),
    disk_mb=st.sampled_from((0, 400, 3000)),
    gpus=st.sampled_from((0, 0, 1, 2)),
    gpu_memory_mb=st.sampled_from((0, 20_000)),
)
nodes = st.builds(
    Offer,
    site=st.just("A"),
    wall_seconds=st.sampled_from((1000, 50_000, 200_000)),
    cpu_seconds=st.sampled_from((4000, 500_000, 3_000_000)),
    processors=st.integers(1, 16),
    memory_mb=st.integers(0, 30_000).map(float),
    disk_mb=st.integers(0, 10_000).map(float),
    gpus=st.sampled_from((GPUS, GPUS[:1], ())),
    whole_node=st.booleans(),
)


@given(nodes, st.lists(jobs, min_size=1, max_size=12), st.lists(st.booleans(), min_size=12, max_size=12))
@settings(max_examples=300, deadline=None)
def test_there_is_a_schedule(offer: Offer, wanted: list[Requirements], missed: list[bool]) -> None:
    packing, got = Packing(offer), list[Placed]()
    for want, gone in zip(wanted, missed, strict=False):
        while in_the_way(want, packing.left, None) is not None:
            if not packing.next_round():
                break
        else:
            one = packing.place(want)
            if gone:
                packing.give_back(one)
            else:
                got.append(one)
    begin = 0.0
    for number in range(packing.round + 1):
        beside = [one for one in got if one.round == number]
        assert_side_by_side(offer, beside)
        for one in beside:
            assert begin + duration(one.want, offer) <= offer.wall_seconds * (1 + 1e-9)
        begin += max((duration(one.want, offer) for one in beside), default=0.0)


def assert_side_by_side(offer: Offer, beside: list[Placed]) -> None:
    wants = [one.want for one in beside]
    assert sum(offer.processors if want.whole_node else want.min_processors for want in wants) <= offer.processors
    assert sum(memory_needed(want, offer.processors) for want in wants) <= offer.memory_mb
    assert sum(want.disk_mb for want in wants) <= offer.disk_mb
    assert not any(want.whole_node for want in wants) or (len(wants) == 1 and offer.whole_node)
    free = list(offer.gpus)
    for one in beside:
        for gpu in one.gpus:
            free.remove(gpu)  # fails if it was given out twice
        assert has_gpus(one.gpus, one.want.gpus, one.want.gpu_memory_mb, one.want.gpu_models)
