"""How long the command line takes: ``python tests/benchmarks/bench_cli.py`` (with PILOTAGE_CONFIG also ``job list``).

Goals: ``--help`` below 150 ms, a command that talks to the broker below 300 ms.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = 9


def measure(words: list[str]) -> tuple[float, float]:
    """Median and best wall time of a command line, milliseconds."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "compose.main", *words], capture_output=True, env=environment, check=True)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times), min(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        jdl = Path(folder) / "true.jdl"
        jdl.write_text('[ Executable = "/bin/true"; ]')
        commands = [["--version"], ["--help"], ["job", "--help"], ["submit", "--check", str(jdl)]]
        if "PILOTAGE_CONFIG" in os.environ:
            commands += [["job", "list"], ["submit", str(jdl)]]
        print(f"{'command':<24} {'median ms':>10} {'best ms':>8}")
        for words in commands:
            median, best = measure(words)
            print(f"{' '.join(words)[:24]:<24} {median:>10.0f} {best:>8.0f}")


if __name__ == "__main__":
    main()
