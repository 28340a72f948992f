"""Figures as tables and as JSON; and what others reach, for comparison."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from compose.local.installed import find_postgres, find_rabbitmq
from tests.benchmarks.bench_verify import table as verify_table
from tests.benchmarks.measure import STAGES, Results, Row

ISOLATION = "own process group, same account"
KEYS = "P-256 proxies"
GOAL_RATE = 230.0
GOAL_START = 0.040
GOALS = {"pilotage --help": 0.150, "pilotage job list": 0.300}

# Measured elsewhere, on 2 cores with the same payload (/bin/true, fresh directory, captured output), not by this run.
RATES = (
    ("spawning such payloads without any queue (one core)", 949.0),
    ("Dramatiq, TLS, with confirms", 729.0),
    ("Parsl HTEX, encrypted (memory only)", 608.0),
    ("HyperQueue, as packaged on PyPI", 465.0),
    ("Celery, durable", 423.0),
    ("Celery, durable, TLS", 338.0),
    ("Dask, TLS", 252.0),
    ("Celery, durable, TLS, message signing", 227.0),
    ("DIRAC's task queue alone, 872 k jobs: matches (110–240)", 240.0),
    ("DIRAC's task queue alone, 872 k jobs: inserts (97–177)", 177.0),
)
STARTS = (
    ("Dramatiq, TLS", 2.8),
    ("Parsl HTEX", 3.4),
    ("HyperQueue", 4.5),
    ("Celery, TLS, signed", 7.5),
    ("Slurm, srun", 22.0),
)


@dataclass(frozen=True)
class Facts:
    """Under what circumstances it was measured."""

    time: str
    machine: str
    cpus: int
    python: str
    rabbitmq: str
    postgresql: str
    load: float
    seconds: float
    bare: tuple[float, ...]

    @classmethod
    def of(cls, load: float, seconds: float, bare: Sequence[float]) -> Facts:
        """Those of now; ``load`` as it was before, ``bare`` payloads per second before and after."""
        return cls(
            time=time.strftime("%Y-%m-%d %H:%M:%S%z"),
            machine=_processor(),
            cpus=len(os.sched_getaffinity(0)),
            python=platform.python_version(),
            rabbitmq=_dotted(find_rabbitmq().version),
            postgresql=_dotted(find_postgres().version),
            load=load,
            seconds=seconds,
            bare=tuple(bare),
        )


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def _processor() -> str:
    found = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    names = [line.partition(":")[2].strip() for line in found.splitlines() if line.startswith("Model name")]
    return names[0] if names else platform.machine()


def text(results: Results, facts: Facts) -> str:
    """All tables."""
    parts = [_head(facts), _verify(results), _throughput(results), _cpu(results), _stages(results), _idle(results)]
    parts.append(_memory(results))
    return "\n\n".join([*parts, _commands(results), _field(results)]) + "\n"


def as_json(results: Results, facts: Facts) -> str:
    """All figures, those of every run included."""
    return (
        json.dumps({"facts": asdict(facts), "isolation": ISOLATION, "keys": KEYS, **asdict(results)}, indent=2) + "\n"
    )


def _head(facts: Facts) -> str:
    return (
        f"Pilotage, measured {facts.time} in {facts.seconds:.0f} s on {facts.cpus} × {facts.machine}, "
        f"load before {facts.load:.2f}\n"
        f"Python {facts.python}, RabbitMQ {facts.rabbitmq} (TLS, quorum queues, confirms), "
        f"PostgreSQL {facts.postgresql}\n"
        f"Such payloads without any queue, one after the other: {' and '.join(f'{rate:.0f}' for rate in facts.bare)}/s "
        "here before and after (949/s where the field was measured, with nothing else running)\n"
        "Payload: /bin/true in a fresh work directory with captured output. Two pilots of two slots each. Every part a "
        "process of its own.\nOf repeated runs: the one with the median rate. CPU is of the same run."
    )


def _label(row: Row) -> list[str]:
    return [row.store, KEYS, ISOLATION, row.submission]


def _throughput(results: Results) -> str:
    lines = []
    for row in results.rows:
        run = row.typical
        rates = sorted(one.rate for one in row.runs)
        spread = f"{rates[0]:.0f}–{rates[-1]:.0f}" if len(rates) > 1 else ""
        lines.append([*_label(row), str(row.serving), str(run.jobs), f"{run.wall:.2f}", f"{run.rate:.0f}", spread])
    head = ["store", "keys", "isolation", "submission", "services in", "jobs", "s", "jobs/s", "all runs"]
    return _table("Throughput: first submit call → Done of the last job seen by the submitter", head, lines, text=4)


def _cpu(results: Results) -> str:
    names = list(dict.fromkeys(name for row in results.rows for name in row.typical.cpu))
    lines = []
    for row in results.rows:
        cpu = row.typical.cpu
        used = [f"{cpu[name]:.2f}" if name in cpu else "" for name in names]
        lines.append([row.store, row.submission, *used, f"{sum(cpu.values()):.2f}"])
    head = ["store", "submission", *names, "all"]
    return _table("CPU of each part, ms per job (payloads: what the pilots waited for)", head, lines, text=2)


def _verify(results: Results) -> str:
    title, head, lines = verify_table(results.verify)
    return _table(title, head, lines, text=1)


def _stages(results: Results) -> str:
    lines = []
    for row in results.rows:
        figures = [f"{row.stages[name]:.1f}" if name in row.stages else "" for name, _ in STAGES]
        lines.append([row.store, row.submission, *figures])
    head = ["store", "submission", *(name for name, _ in STAGES)]
    legend = "\n".join(f"  {name + ':':9}{what}" for name, what in STAGES)
    return (
        _table(
            "Time of each stage, ms, median over jobs (one more run, a quarter as long, whose payload tells the time)",
            head,
            lines,
            text=2,
        )
        + "\n"
        + legend
    )


def _idle(results: Results) -> str:
    lines = []
    for idle in results.idle:
        start, done = sorted(idle.seconds), sorted(idle.done)
        figures = [f"{value * 1000:.1f}" for value in (_at(start, 0.5), _at(start, 0.99), _at(done, 0.5))]
        lines.append([idle.store, KEYS, ISOLATION, "single, pilots idle", str(len(start)), *figures])
    head = ["store", "keys", "isolation", "submission", "jobs", "start p50", "start p99", "Done seen p50"]
    title = "Submit call → payload runs (its own reading of the clock), ms"
    return _table(title, head, lines, text=4)


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _memory(results: Results) -> str:
    lines = [
        [store, part, str(memory.processes), f"{memory.resident:.0f}", f"{memory.proportional:.0f}"]
        for store, parts in results.memory.items()
        for part, memory in parts.items()
    ]
    head = ["store", "part", "processes", "resident", "shared pages once"]
    return _table("Memory of each part after all that, MB", head, lines, text=2)


def _commands(results: Results) -> str:
    lines = [
        [name, f"{statistics.median(times) * 1000:.0f}", f"{max(times) * 1000:.0f}", f"{GOALS[name] * 1000:.0f}"]
        for name, times in results.commands.items()
    ]
    return _table("Command line, start to exit, ms", ["command", "median", "slowest", "goal"], lines, text=1)


def _field(results: Results) -> str:
    rows = [row for row in results.rows if row.submission.startswith("bulk")]
    ours = rows[0].typical.rate
    start = _at(sorted(results.idle[0].seconds), 0.5) * 1000
    rates = [[f"Pilotage, {rows[0].store}, {rows[0].submission}", f"{ours:.0f}", "1.00", "this run"]]
    rates.append(["goal", f"{GOAL_RATE:.0f}", f"{ours / GOAL_RATE:.2f}", ""])
    rates += [[name, f"{rate:.0f}", f"{ours / rate:.2f}", "measured elsewhere"] for name, rate in RATES]
    starts = [[f"Pilotage, {results.idle[0].store}", f"{start:.1f}", "1.00", "this run"]]
    starts.append(["goal", f"{GOAL_START * 1000:.0f}", f"{start / GOAL_START / 1000:.2f}", ""])
    starts += [[name, f"{value:.1f}", f"{start / value:.2f}", "measured elsewhere"] for name, value in STARTS]
    note = (
        "\n(measured elsewhere: on 2 cores with the same payload, not by this run, perhaps on faster or slower cores)"
    )
    return (
        _table("The field, jobs/s", ["", "jobs/s", "ours / theirs", ""], rates, text=1, last_text=True)
        + "\n\n"
        + _table("The field, idle to start p50, ms", ["", "ms", "ours / theirs", ""], starts, text=1, last_text=True)
        + note
    )


def _table(title: str, head: list[str], lines: list[list[str]], *, text: int, last_text: bool = False) -> str:
    """Aligned columns: the first ``text`` ones to the left, figures to the right."""
    widths = [max(len(line[place]) for line in [head, *lines]) for place in range(len(head))]
    left = {*range(text), *([len(head) - 1] if last_text else [])}

    def shown(line: list[str]) -> str:
        cells = [
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([title, shown(head), "  ".join("─" * width for width in widths), *map(shown, lines)])
