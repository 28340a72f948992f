"""Payloads per second of `/bin/true`: fresh work directory, captured output, watchdog on, wiped afterwards.

python tests/benchmarks/bench_runner.py [COUNT]
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

from pilot.limits import Limits
from pilot.payload import PayloadSpec
from pilot.runner import PayloadRunner
from pilot.watchdog import Watchdog
from pilot.workdir import WorkArea, wipe


def one_after_the_other(runner: PayloadRunner, dog: Watchdog, area: WorkArea, count: int, name: str) -> None:
    for number in range(count):
        directory = area.fresh(f"{name}-{number}", 1)
        payload = runner.start(PayloadSpec(f"{name}-{number}", 1, directory, "/bin/true"))
        dog.watch(payload, Limits(memory_mb=1000, lease_end=runner.now() + 600))
        payload.wait()
        wipe(directory)


def measure(slots: int, count: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        PayloadRunner() as runner,
        Watchdog(runner) as dog,
        WorkArea(Path(folder) / "area", "bench") as area,
    ):
        threads = [
            threading.Thread(target=one_after_the_other, args=(runner, dog, area, count // slots, str(slot)))
            for slot in range(slots)
        ]
        wall, cpu = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    each = wall / count * 1e3 * slots
    print(f"{slots} slots: {count / wall:6.0f} payloads/s, {each:5.2f} ms each, pilot CPU {cpu / count * 1e3:5.2f} ms")


if __name__ == "__main__":
    for slots in (1, 2):
        measure(slots, int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
