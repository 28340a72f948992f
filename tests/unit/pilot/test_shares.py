"""Who has what of a slot: never more than there is, and what the job was matched for."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from consumers.domain.requirements import memory_needed, misfit, requirements_of
from pilot.hardware import GpuDevice
from pilot.shares import Key, Ledger
from schemas.jdl import JobDescription
from schemas.messages.pilot import Gpu, Offer

SMALL, LARGE = GpuDevice("0", "Tesla T4", 16_000.0), GpuDevice("1", "NVIDIA A100-SXM4-40GB", 40_000.0)


def job(**said: object) -> JobDescription:
    return JobDescription(executable="a", **said)  # type: ignore[arg-type]


def ledger(processors: int = 8, memory_mb: float = 16_000.0) -> Ledger:
    return Ledger(processors, memory_mb, (LARGE, SMALL))


def test_a_job_gets_what_it_was_matched_for() -> None:
    slot = ledger()
    share = slot.take((1, 1), job(min_number_of_processors=2, max_ram=1000, max_ram_per_processor=500))
    assert share is not None
    assert (share.processors, share.memory_mb, share.gpus) == (2, 2000.0, ())
    assert (slot.free_processors, slot.free_memory_mb, slot.free_gpus) == (6, 14_000.0, (LARGE, SMALL))


def test_who_says_nothing_of_memory_gets_what_belongs_to_its_processors() -> None:
    slot = ledger()
    share = slot.take((1, 1), job(number_of_processors=2))
    assert share is not None
    assert share.memory_mb == 4000.0
    assert slot.free_memory_mb == 12_000.0


def test_who_says_nothing_makes_do_with_half_and_waits_for_less() -> None:
    slot = ledger()
    assert slot.take((1, 1), job(max_ram=14_500))
    share = slot.take((2, 1), job())
    assert share is not None
    assert share.memory_mb == 1500.0
    assert slot.take((3, 1), job()) is None
    slot.give_back((1, 1))
    assert slot.take((3, 1), job())


def test_memory_is_not_given_twice() -> None:
    slot = ledger()
    assert slot.take((1, 1), job(max_ram=9000))
    assert slot.take((2, 1), job(max_ram=9000)) is None
    slot.give_back((1, 1))
    assert slot.take((2, 1), job(max_ram=9000))


def test_gpus_are_given_one_by_one_the_smallest_that_will_do_first() -> None:
    slot = ledger()
    first = slot.take((1, 1), job(number_of_gpus=1))
    second = slot.take((2, 1), job(number_of_gpus=1))
    assert first is not None
    assert second is not None
    assert (first.gpus, second.gpus) == ((SMALL,), (LARGE,))
    assert slot.take((3, 1), job(number_of_gpus=1)) is None
    assert slot.free_gpus == ()


def test_only_a_gpu_that_the_job_can_use_is_given() -> None:
    slot = ledger()
    share = slot.take((1, 1), job(gpu_models=("A100",)))
    assert share is not None
    assert share.gpus == (LARGE,)
    assert slot.take((2, 1), job(gpu_memory=20_000)) is None
    assert slot.why_never(job(gpu_memory=50_000)) == "it needs 1 GPUs such as it asks for, the pilot has 0"


def test_a_whole_node_job_has_everything_and_waits_for_it() -> None:
    slot = ledger()
    assert slot.take((1, 1), job())
    assert slot.take((2, 1), job(whole_node=True)) is None
    slot.give_back((1, 1))
    share = slot.take((2, 1), job(whole_node=True))
    assert share is not None
    assert (share.processors, share.memory_mb, share.gpus) == (8, 16_000.0, (LARGE, SMALL))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"number_of_processors": 9}, "it needs 9 processors, the pilot has 8"),
        ({"max_ram": 16_001}, "it needs 16001 MB of memory, the pilot has 16000 MB"),
        ({"whole_node": True, "max_ram_per_processor": 2001}, "it needs 16008 MB of memory, the pilot has 16000 MB"),
        ({"number_of_gpus": 3}, "it needs 3 GPUs such as it asks for, the pilot has 2"),
    ],
)
def test_what_never_fits_is_said(said: dict[str, object], why: str) -> None:
    assert ledger().why_never(job(**said)) == why


jobs = st.builds(
    job,
    number_of_processors=st.none() | st.integers(1, 9),
    max_ram=st.none() | st.integers(1, 20_000),
    max_ram_per_processor=st.none() | st.integers(1, 3000),
    number_of_gpus=st.none() | st.integers(0, 3),
    gpu_memory=st.none() | st.sampled_from([10_000, 30_000]),
    gpu_models=st.sampled_from([(), ("A100",), ("T4", "V100")]),
    whole_node=st.booleans(),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(jobs, st.booleans()), max_size=12))
def test_never_more_is_given_than_there_is(steps: list[tuple[JobDescription, bool]]) -> None:
    slot = ledger()
    held: list[Key] = []
    for number, (one, ends) in enumerate(steps):
        if ends and held:
            slot.give_back(held.pop(0))
        share = slot.take((number, 1), one)
        if share is not None:
            held.append((number, 1))
            assert share.processors >= one.min_processors
            assert share.memory_mb >= one.memory_mb(share.processors)
            assert len(share.gpus) >= one.gpus
        assert 0 <= slot.free_processors <= 8
        given_out = [slot._given[key] for key in held]
        assert sum(each.memory_mb for each in given_out) <= slot.memory_mb + 1e-6
        devices = [gpu.device for each in given_out for gpu in each.gpus]
        assert len(set(devices)) == len(devices)
    for key in held:
        slot.give_back(key)
    assert slot.is_idle


@settings(max_examples=200)
@given(jobs)
def test_the_pilot_reckons_as_the_matcher_does(one: JobDescription) -> None:
    """What fits an idle node for the matcher starts there at once, with what the matcher counted."""
    assume(one.number_of_gpus != 0 or not (one.gpu_memory or one.gpu_models))  # refused at the submission
    slot = ledger()
    gpus = tuple(Gpu(model=gpu.model, memory_mb=gpu.memory_mb) for gpu in slot.free_gpus)
    offer = Offer(site="S", cpu_seconds=1e9, wall_seconds=1e9, processors=8, memory_mb=16_000.0, disk_mb=1e9,
                  whole_node=True, gpus=gpus)  # fmt: skip
    want = requirements_of(one)
    fits = misfit(want, offer) is None
    share = slot.take((1, 1), one)
    assert fits == (share is not None) == (not slot.why_never(one))
    if share is not None:
        assert share.processors == (8 if want.whole_node else want.min_processors)
        assert share.memory_mb >= memory_needed(want, 8)
        if one.memory_mb(share.processors) and not one.whole_node:
            assert share.memory_mb == memory_needed(want, 8)
