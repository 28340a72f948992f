"""The watchdog stops real payloads that break a limit, and leaves the others alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from pilot.limits import Limits, Ruling, Verdict
from pilot.payload import PayloadSpec
from pilot.runner import PayloadRunner
from pilot.running import Payload
from pilot.watchdog import Watchdog
from tests.support.wait import wait_until

Shell = Callable[..., PayloadSpec]
Told = list[tuple[str, Verdict]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def watchdog(runner: PayloadRunner, told: Told) -> Iterator[Watchdog]:
    def note(payload: Payload, verdict: Verdict) -> None:
        told.append((payload.spec.job_id, verdict))

    with Watchdog(runner, shortest=0.05, longest=0.2, grace=0.2, on_verdict=note) as made:
        yield made


def python(shell: Shell, code: str, **fields: object) -> PayloadSpec:
    return shell(f"exec {sys.executable} -S -c '{code}'", **fields)


def reason_of(payload: Payload) -> str:
    outcome = payload.wait(20)
    assert outcome is not None, "the payload still runs"
    return outcome.reason or ""


def test_memory_hog_is_stopped(runner: PayloadRunner, watchdog: Watchdog, shell: Shell, told: Told) -> None:
    code = "import time\nx = []\nfor i in range(300): x.append(bytearray(1_000_000)); time.sleep(0.01)\ntime.sleep(60)"
    modest = runner.start(shell("sleep 60", memory_mb=100))
    hog = runner.start(python(shell, code, memory_mb=100))
    for payload in (modest, hog):
        watchdog.watch(payload, Limits(memory_mb=100))
    assert reason_of(hog).startswith("memory limit exceeded: ")
    assert told[-1][1].ruling is Ruling.STOP
    assert hog.outcome is not None
    assert 100 < hog.outcome.usage.memory_peak_mb < 250
    assert modest.outcome is None


def test_memory_of_forked_children_is_not_counted_twice(
    runner: PayloadRunner, watchdog: Watchdog, shell: Shell
) -> None:
    code = (
        'import os, time\nx = b"x" * 60_000_000\n'
        "for _ in range(3):\n    if os.fork() == 0: time.sleep(1.0); os._exit(0)\n"
        "for _ in range(3): os.wait()"
    )
    payload = runner.start(python(shell, code, memory_mb=120))
    watchdog.watch(payload, Limits(memory_mb=120))
    assert reason_of(payload) == ""


def test_disk_filler_is_stopped(runner: PayloadRunner, watchdog: Watchdog, shell: Shell) -> None:
    payload = runner.start(shell("while :; do head -c 1000000 /dev/zero >> file; sleep 0.01; done"))
    watchdog.watch(payload, Limits(disk_mb=20))
    assert reason_of(payload).startswith("disk limit exceeded: ")
    assert (payload.spec.directory / "file").stat().st_size < 100_000_000


def test_chatty_payload_is_cut_but_goes_on(runner: PayloadRunner, watchdog: Watchdog, shell: Shell) -> None:
    spec = shell("while :; do head -c 1000000 /dev/zero; sleep 0.01; done", output_bytes=500_000)
    payload = runner.start(spec)
    watchdog.watch(payload, Limits(disk_mb=60))
    out = spec.directory / "std.out"
    wait_until(lambda: b"were cut out" in out.read_bytes(), 10, "the cut")
    assert payload.outcome is None
    payload.stop("seen enough", grace=0)
    assert reason_of(payload) == "seen enough"
    assert out.stat().st_size <= 500_000


def test_too_many_processes_are_stopped(runner: PayloadRunner, watchdog: Watchdog, shell: Shell) -> None:
    payload = runner.start(shell("i=0; while [ $i -lt 30 ]; do setsid sleep 60 & i=$((i+1)); done; wait"))
    watchdog.watch(payload, Limits(processes=20))
    assert reason_of(payload).startswith("process limit exceeded: ")


def test_cpu_limit(runner: PayloadRunner, watchdog: Watchdog, shell: Shell) -> None:
    payload = runner.start(shell("(while :; do :; done)"))
    watchdog.watch(payload, Limits(cpu_seconds=0.5))
    assert reason_of(payload).startswith("CPU time limit exceeded: ")


def test_idle_payload_is_stalled(runner: PayloadRunner, watchdog: Watchdog, shell: Shell) -> None:
    payload = runner.start(shell("sleep 60"))
    watchdog.watch(payload, Limits(stalled_window_seconds=0.2, stalled_windows=3))
    assert reason_of(payload).startswith("stalled: ")


def test_lease_end_holds_and_renewal_moves_it(runner: PayloadRunner, watchdog: Watchdog, shell: Shell) -> None:
    begun = runner.now()
    left, renewed = runner.start(shell("sleep 60")), runner.start(shell("sleep 60"))
    for payload in (left, renewed):
        watchdog.watch(payload, Limits(lease_end=begun + 0.8, margin_seconds=0.1))
    watchdog.set_limits(renewed, Limits(lease_end=begun + 60, margin_seconds=0.1))
    assert "lease" in reason_of(left)
    assert runner.now() < begun + 0.8
    assert renewed.outcome is None


def test_figures_for_the_heartbeat(runner: PayloadRunner, watchdog: Watchdog, shell: Shell) -> None:
    payload = runner.start(shell("sleep 60"))
    watchdog.watch(payload, Limits())
    wait_until(lambda: watchdog.latest(payload).memory_mb > 0, 5, "a sample")
    payload.stop("enough", grace=0)
    payload.wait(5)
    wait_until(lambda: watchdog.latest(payload).memory_mb == 0, 5, "forgetting")
    watchdog.set_limits(payload, Limits(memory_mb=1))
