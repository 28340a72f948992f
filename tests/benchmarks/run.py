"""`make bench`: what the whole path costs, measured on this machine, as tables.

    python -m tests.benchmarks.run [--quick] [--store postgresql|sqlite] [--split] [--json FILE]

Every part is a real process, as in a deployment: RabbitMQ over TLS, the store with fsync on, the services, two pilots
of two slots each; this process is the submitter. The payload is `/bin/true` in a fresh work directory with its output
captured. The tables are in :mod:`tests.benchmarks.report`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from producers import Client
from tests.benchmarks import bench_verify, measure, report
from tests.benchmarks.measure import Results, Row
from tests.benchmarks.stack import Stack, running

REPEATS = 3
BULK = 1000
SINGLES = 200
IDLE = 30
COMMANDS = 10
BARE = 300
QUICK = 5
"""With --quick the numbers of jobs are smaller by this factor, and nothing is repeated."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    results, load, begun = Results(), os.getloadavg()[0], time.monotonic()
    bare = [measure.bare_rate(BARE)]
    _say("verifying messages …")
    results.verify = bench_verify.measure(quick=options.quick)
    for store in [options.store] if options.store else ["postgresql", "sqlite"]:
        _say(f"{store}: starting broker, store, services and pilots …")
        split = options.split and store == "postgresql"
        with running(store, split=split) as stack, Client(stack.settings, stack.credential) as client:
            _one_store(results, stack, client, options.quick)
    bare.append(measure.bare_rate(BARE))
    facts = report.Facts.of(load, time.monotonic() - begun, bare)
    sys.stdout.write(report.text(results, facts))
    if options.json is not None:
        options.json.write_text(report.as_json(results, facts), encoding="utf-8")
    return 0


def _one_store(results: Results, stack: Stack, client: Client, quick: bool) -> None:
    scale = QUICK if quick else 1
    repeats = 1 if quick else REPEATS
    measure.warm_up(client)
    for name, count, submit in (
        (f"bulk, 1 × {BULK // scale}", BULK // scale, measure.bulk),
        (f"single, {measure.WINDOW} at once", SINGLES // scale, measure.pipelined(stack)),
        ("single, one by one", SINGLES // scale, measure.one_by_one),
    ):
        row = Row(stack.store, name, stack.serving)
        for number in range(repeats):
            _say(f"  {name}: {number + 1} of {repeats} …")
            row.runs.append(measure.throughput(stack, client, count, submit))
        row.stages = measure.stages(client, max(count // 4, 20), submit)
        results.rows.append(row)
    _say("  idle to start …")
    results.idle.append(measure.idle_to_start(stack, client, max(10, IDLE // scale)))
    results.memory[stack.store] = stack.memory()
    if not results.commands:
        _say("  the command line …")
        results.commands.update(measure.command_line(stack, COMMANDS))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure the whole path of jobs on this machine.")
    parser.add_argument("--quick", action="store_true", help="fewer jobs, no repeats: rough figures in half a minute")
    parser.add_argument("--store", choices=["postgresql", "sqlite"], help="only this one")
    parser.add_argument("--split", action="store_true", help="services in two processes (PostgreSQL only)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
