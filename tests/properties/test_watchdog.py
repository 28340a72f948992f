"""Laws of the watchdog's judgement."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from pilot.limits import History, Limits, Ruling, Sample, judge, last_moment, next_interval, remember

amounts = st.floats(0, 1e6, allow_nan=False)
limits = st.builds(
    Limits,
    cpu_seconds=st.none() | amounts,
    wall_seconds=st.none() | amounts,
    memory_mb=st.none() | amounts,
    disk_mb=st.none() | amounts,
    processes=st.none() | st.integers(1, 1000),
    lease_end=st.none() | amounts,
    slot_end=st.none() | amounts,
)
samples = st.builds(
    Sample,
    cpu_seconds=amounts,
    wall_seconds=amounts,
    memory_mb=amounts,
    disk_mb=amounts,
    processes=st.integers(0, 2000),
    free_disk_mb=st.none() | amounts,
)
SEVERITY = {Ruling.OK: 0, Ruling.WARN: 1, Ruling.STOP: 2}


def severity(sample: Sample, limit: Limits, now: float) -> int:
    return SEVERITY[judge(sample, limit, History(), now).ruling]


@given(samples, limits, amounts)
def test_a_ruling_has_a_reason_exactly_when_it_is_not_ok(sample: Sample, limit: Limits, now: float) -> None:
    verdict = judge(sample, limit, History(), now)
    assert bool(verdict.reason) == (verdict.ruling is not Ruling.OK)


@given(
    samples,
    limits,
    amounts,
    st.sampled_from(["cpu_seconds", "memory_mb", "disk_mb", "processes"]),
    st.integers(1, 10**6),
)
def test_using_more_is_never_judged_more_mildly(
    sample: Sample, limit: Limits, now: float, name: str, more: int
) -> None:
    greedier = replace(sample, **{name: getattr(sample, name) + more})
    assert severity(greedier, limit, now) >= severity(sample, limit, now)


@given(samples, limits, amounts, amounts)
def test_time_never_heals(sample: Sample, limit: Limits, now: float, later: float) -> None:
    aged = replace(sample, wall_seconds=sample.wall_seconds + later)
    assert severity(aged, limit, now + later) >= severity(sample, replace(limit, wall_seconds=None), now)


@given(samples, limits, amounts, st.sampled_from([f.name for f in fields(Limits) if f.default is None]))
def test_lifting_a_limit_is_never_harsher(sample: Sample, limit: Limits, now: float, name: str) -> None:
    assert severity(sample, replace(limit, **{name: None}), now) <= severity(sample, limit, now)


@given(limits, amounts)
def test_nothing_runs_beyond_its_lease(limit: Limits, started: float) -> None:
    end = last_moment(limit, started)
    if limit.lease_end is not None:
        assert end is not None
        assert end[0] <= limit.lease_end - limit.margin_seconds


@given(samples, samples, limits)
def test_looks_keep_their_bounds(sample: Sample, previous: Sample, limit: Limits) -> None:
    assert 0.2 <= next_interval(sample, previous, limit, shortest=0.2, longest=10) <= 10


@given(st.lists(st.tuples(st.floats(1, 4000), st.floats(0, 1)), max_size=40))
def test_idle_windows_count_only_idle_time(steps: list[tuple[float, float]]) -> None:
    limit, history, wall, cpu = Limits(), History(), 0.0, 0.0
    for seconds, share in steps:
        wall, cpu = wall + seconds, cpu + seconds * max(share, 0.06)
        history = remember(history, Sample(cpu_seconds=cpu, wall_seconds=wall), limit)
    assert history.idle_windows == 0
