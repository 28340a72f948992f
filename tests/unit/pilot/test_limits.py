"""Each limit stops with its name and figures, and none stops early."""

from __future__ import annotations

import pytest

from pilot.limits import History, Limits, Ruling, Sample, judge, last_moment, next_interval, remember

LIMITS = Limits(
    cpu_seconds=100, wall_seconds=1000, memory_mb=500, disk_mb=200, processes=50, lease_end=5000, slot_end=9000
)


@pytest.mark.parametrize(
    ("sample", "now", "reason"),
    [
        (Sample(cpu_seconds=101, wall_seconds=500), 500, "CPU time limit exceeded: 101 s used of 100 s"),
        (Sample(memory_mb=600), 500, "memory limit exceeded: 600 MB used of 500 MB"),
        (Sample(disk_mb=201), 500, "disk limit exceeded: 201 MB used of 200 MB"),
        (Sample(processes=51), 500, "process limit exceeded: 51 processes used of 50 processes"),
        (Sample(wall_seconds=1000), 1500, "wall time limit exceeded: 1000 s"),
        (Sample(wall_seconds=1), 4998, "the lease ends and was not renewed in time"),
        (Sample(free_disk_mb=3, disk_mb=90), 500, "the node's disk is full: 3 MB left, 10 MB needed"),
    ],
)
def test_stop(sample: Sample, now: float, reason: str) -> None:
    verdict = judge(sample, LIMITS, History(), now)
    assert verdict.ruling is Ruling.STOP
    assert verdict.reason.startswith(reason)


def test_warning_comes_before_the_stop() -> None:
    verdict = judge(Sample(memory_mb=460), LIMITS, History(), 1)
    assert (verdict.ruling, verdict.reason) == (Ruling.WARN, "memory limit is near: 460 MB used of 500 MB")
    assert judge(Sample(memory_mb=450), LIMITS, History(), 1).ruling is Ruling.OK


def test_no_limits_never_stop() -> None:
    greedy = Sample(cpu_seconds=1e9, wall_seconds=1e9, memory_mb=1e9, disk_mb=1e9, processes=10**6)
    assert judge(greedy, Limits(), History(), 1e9).ruling is Ruling.OK


def test_earliest_end_counts() -> None:
    assert last_moment(Limits(), 0) is None
    end = last_moment(Limits(lease_end=50, slot_end=40, wall_seconds=45, margin_seconds=2), 1)
    assert end == (38, "the node's slot ends")


def run(idle_minutes: int, *, cpu_share: float = 0.01) -> History:
    history, limits = History(), Limits()
    for minute in range(idle_minutes + 1):
        sample = Sample(cpu_seconds=60 * minute * cpu_share, wall_seconds=60 * minute)
        history = remember(history, sample, limits)
    return history


def test_stalled_after_five_idle_half_hours() -> None:
    assert judge(Sample(), Limits(), run(149), 0).ruling is Ruling.OK
    verdict = judge(Sample(), Limits(), run(150), 0)
    assert verdict.ruling is Ruling.STOP
    assert verdict.reason == "stalled: less than 5% CPU per wall time for 150 minutes"
    assert judge(Sample(), Limits(), run(600, cpu_share=0.06), 0).ruling is Ruling.OK


def test_one_busy_window_forgives() -> None:
    history = run(149)
    history = remember(history, Sample(cpu_seconds=2000, wall_seconds=9000), Limits())
    assert history.idle_windows == 0


def test_looks_are_soon_in_youth_seldom_in_age_and_soon_again_near_a_limit() -> None:
    def interval(sample: Sample, previous: Sample) -> float:
        return next_interval(sample, previous, LIMITS, shortest=0.2, longest=10)

    assert interval(Sample(wall_seconds=0.2), Sample()) == 0.2
    assert interval(Sample(wall_seconds=4), Sample(wall_seconds=2)) == 2
    assert interval(Sample(wall_seconds=400), Sample(wall_seconds=390)) == 10
    growing = Sample(wall_seconds=400, memory_mb=400), Sample(wall_seconds=390, memory_mb=200)
    assert interval(*growing) == 2.5  # 100 MB left at 20 MB/s, and half of that
