"""`make bench-matcher`: the matcher's core, an SQL matcher on the same data, and the whole way of a request.

    python -m tests.benchmarks.bench_matcher [--quick] [--only core|end-to-end] [--shape production|large|demanding]
        [--no-baseline] [--amounts 10000,871973,10000000] [--seconds 20] [--profile]

*Core*: ``reserve`` (choose a job and take it) and ``choose`` of ``consumers.domain.choose`` for offers drawn like the
pilots of the shape's sites, each offer once; one core, no store, no messages. Every taken job is replaced by a new one
outside the clock, so that the amount waiting stays. *Kinds new*: the remembered answers are forgotten before each
offer; *classes change*: one comes and goes, inside the clock, before every hundredth. Rates count all offers;
those without a match cost their reasons.

*Baseline*: :mod:`tests.benchmarks.sql_matcher`, on PostgreSQL with fsync on, with as many clients as said. Its *choice*
is the query alone, its *match* takes the job durably, which the core alone does not; so the fair ratio of the core is
that of choices. That both find the same queues is checked before anything is measured.

*End to end*: :mod:`tests.benchmarks.end_to_end`, on the shape of production, once for each amount waiting. Ten million
jobs need some 20 GB of disk and ten minutes to load.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import pstats
import statistics
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consumers.domain.choose import Choice, NoMatch, choose, reserve
from consumers.domain.index import Index
from consumers.domain.requirements import Requirements, canonical
from schemas.messages.pilot import Offer
from tests.benchmarks import end_to_end
from tests.benchmarks.demanding import demanding
from tests.benchmarks.large import large
from tests.benchmarks.production import production
from tests.benchmarks.report import Facts, _table
from tests.benchmarks.sql_matcher import SqlMatcher, fill
from tests.benchmarks.workload import NOW, Workload
from tests.support.servers import postgres_cluster

SHAPES: dict[str, tuple[Callable[[], Workload], float, tuple[int, ...]]] = {
    "production": (production, 20_000.0, (10_000, 100_000, 871_973, 10_000_000)),
    "large": (large, 10_000.0, (10_000, 100_000, 1_000_000, 10_000_000)),
    "demanding": (demanding, 10_000.0, (10_000, 10_000_000)),
}
"""Shape → maker, the goal in choices per second, and the amounts waiting that are compared."""

ALONE = {"demanding"}
"""The baseline cannot say what these want."""

OFFERS = 50_000
BASELINE_SECONDS = 8.0
CLIENTS = (1, 4)
QUICK = 10
"""With --quick there are fewer offers, and less time for the baseline, by this factor."""
CHANGE = 100
"""In the row with changing classes one comes and goes before every so many offers."""
AMOUNTS = (10_000, 871_973, 10_000_000)
"""Jobs waiting in the measurements from end to end."""
SECONDS = 20.0
"""Of each of those measurements, or until an eighth of the jobs is taken."""
ALIKE = 40
"""Offers for which core and baseline must find the same queues."""


@dataclass(frozen=True)
class Figures:
    """One measurement: offers per second, microseconds of one at the median and at 99 %, share without a match."""

    name: str
    waiting: int
    rate: float
    p50: float
    p99: float
    missed: float

    def cells(self, goal: float | None = None) -> list[str]:
        against = f"{self.rate / goal:.1f}" if goal else ""
        return [
            self.name,
            f"{self.waiting:,}",
            f"{self.rate:,.0f}",
            against,
            f"{self.p50:,.1f}",
            f"{self.p99:,.1f}",
            f"{100 * self.missed:.1f}",
        ]


HEAD = ["", "waiting", "per second", "of goal", "p50 µs", "p99 µs", "no match %"]


def _figures(name: str, waiting: int, nanos: list[int], missed: int, seconds: float | None = None) -> Figures:
    cuts = statistics.quantiles(nanos, n=100)
    rate = len(nanos) / (seconds or sum(nanos) / 1e9)
    return Figures(name, waiting, rate, cuts[49] / 1e3, cuts[98] / 1e3, missed / len(nanos))


def core(
    name: str, index: Index, offers: Sequence[Offer], *, take: bool = True, forget: bool = False, change: int = 0
) -> Figures:
    """Time each offer by itself."""
    ask = reserve if take else choose
    waiting, nanos, missed, clock = index.waiting(), [], 0, time.perf_counter_ns
    for number, offer in enumerate(offers):
        if forget:
            index.classes.forget()
        start = clock()
        if change and number % change == 0:
            _come_and_go(index, offer.site)
        found = ask(offer, index, NOW)
        nanos.append(clock() - start)
        if isinstance(found, NoMatch):
            missed += 1
        elif take:
            _submit(index, found[0])
    return _figures(name, waiting, nanos, missed)


def _come_and_go(index: Index, site: str) -> None:
    """A queue of a class of its own gets its only job and loses it."""
    index.add_queue(-1, canonical(sites=[site], job_type="Passing"), "passing", "passing")
    index.add(-1, 5, 1, NOW)
    index.drop_queue(-1)


def _submit(index: Index, taken: Choice) -> None:
    """One more job like the one that is gone, so that as many wait."""
    index.add(taken.queue_id, taken.priority, 1, taken.oldest + 1.0)


def build(workload: Workload) -> tuple[float, float]:
    """Seconds to build the index from the classes' stored form, and MB that it then holds (its classes included)."""
    stored = [queue.requirements.to_json() for queue in workload.queues]

    def made() -> Index:
        index = Index()
        for queue, data in zip(workload.queues, stored, strict=True):
            index.add_queue(queue.id, Requirements.from_json(data), queue.group, queue.owner)
            index.set_counts(queue.id, {priority: (jobs, oldest) for priority, jobs, oldest in queue.levels})
        return index

    start = time.perf_counter()
    made()
    seconds = time.perf_counter() - start
    gc.collect()
    tracemalloc.start()
    kept = made()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if kept.waiting() != workload.jobs:
        raise AssertionError("the index lost jobs")
    return seconds, held / 1e6


@dataclass
class Client:
    """One client of the baseline, and what it saw."""

    matcher: SqlMatcher
    offers: Sequence[Offer]
    what: str
    nanos: list[int]
    missed: int = 0

    def work(self, until: float) -> None:
        """Ask with one offer after the other until then."""
        ask: Callable[[Offer], object] = self.matcher.choose if self.what == "choice" else self.matcher.match
        for offer in self.offers:
            start = time.perf_counter_ns()
            found = ask(offer)
            self.nanos.append(time.perf_counter_ns() - start)
            self.missed += found in (None, [])
            if time.perf_counter() > until:
                break


def baseline(url: str, workload: Workload, offers: Sequence[Offer], seconds: float) -> list[Figures]:
    """The SQL matcher: choices of one client, then matches of one and of several clients."""
    rows = []
    for what, number in (("choice", 1), *(("match", number) for number in CLIENTS)):
        clients = [Client(SqlMatcher(url, seed), offers[seed::number], what, []) for seed in range(number)]
        start = time.perf_counter()
        threads = [threading.Thread(target=client.work, args=(start + seconds,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - start
        for client in clients:
            client.matcher.close()
        nanos = [one for client in clients for one in client.nanos]
        label = f"SQL {what}, {number} client{'s' if number > 1 else ''}"
        rows.append(_figures(label, workload.jobs, nanos, sum(client.missed for client in clients), took))
    return rows


def check_alike(url: str, workload: Workload, offers: Sequence[Offer]) -> None:
    """Core and baseline find the same queues for the same offers."""
    index, matcher = workload.index(), SqlMatcher(url)
    for offer in offers:
        bits = index.classes.fitting(offer)
        ours = {queue for queue in index if index.queue(queue).levels and bits >> index.queue(queue).place & 1}
        theirs = matcher.fitting(offer)
        if ours != theirs:
            raise AssertionError(f"core and baseline differ for {offer}: {sorted(ours ^ theirs)[:10]}")
    matcher.close()


def measure(shape: str, *, quick: bool, with_baseline: bool) -> tuple[str, float]:
    """All tables of one shape, and the most matches per second of the baseline, if it ran."""
    make, goal, amounts = SHAPES[shape]
    scale = QUICK if quick else 1
    _say(f"{shape}: drawing …")
    workload = make()
    offers = workload.offers(OFFERS // scale)
    seconds, held = build(workload)
    _say("  the core …")
    index = workload.index()
    core("warm", index, offers[: len(offers) // 5])
    rows = [core("reserve", index, offers), core("choose", index, offers, take=False)]
    rows.append(core("reserve, kinds new", index, offers[: len(offers) // 5], forget=True))
    rows.append(core(f"reserve, classes change every {CHANGE}", index, offers[: len(offers) // 5], change=CHANGE))
    flat = [core("reserve", workload.scaled(amount).index(), offers) for amount in amounts]
    kinds = len(set(offers))
    head = (
        f"Shape “{shape}”: {workload.jobs:,} jobs in {len(workload.queues):,} task queues of {len(index.classes):,} "
        f"classes; {len(workload.sites):,} sites; {len(offers):,} offers of {kinds:,} kinds\n"
        f"Index built in {seconds:.2f} s, holds {held:.1f} MB (classes, values and counts)"
    )
    parts = [
        head,
        _table(f"The core alone, goal {goal:,.0f}/s", HEAD, [row.cells(goal) for row in rows], text=1),
        _table(
            "The core by amount waiting (same queues, same offers)",
            [*HEAD, "cost"],
            [[*row.cells(goal), f"{flat[0].rate / row.rate:.2f}"] for row in flat],
            text=1,
        ),
    ]
    best = 0.0
    if with_baseline:
        text, best = _baseline_table(workload, offers, rows[0], BASELINE_SECONDS / scale)
        parts.append(text)
    return "\n\n".join(parts), best


def _baseline_table(workload: Workload, offers: Sequence[Offer], ours: Figures, seconds: float) -> tuple[str, float]:
    amounts = sorted({100_000, min(workload.jobs, 871_973), workload.jobs})
    rows = []
    for amount in amounts:
        _say(f"  the baseline, {amount:,} jobs …")
        some = workload if amount == workload.jobs else workload.scaled(amount)
        with postgres_cluster({"shared_buffers": "2GB", "work_mem": "64MB", "jit": "off"}) as cluster:
            url = cluster.create_database("baseline").replace("+psycopg", "")
            fill(url, some)
            check_alike(url, some, offers[:ALIKE])
            rows += baseline(url, some, offers, seconds)
    lines = [[*row.cells(), f"{ours.rate / row.rate:,.0f}"] for row in rows]
    best = max(row.rate for row in rows if "match" in row.name and row.waiting == workload.jobs)
    return _table("Baseline in the same run", [*HEAD, "core reserve ÷ it"], lines, text=1), best


def whole_way(amounts: Sequence[int], seconds: float, sql: float) -> str:
    """All tables from end to end."""
    workload = production()
    found = []
    for amount in amounts:
        _say(f"  end to end, {amount:,} jobs …")
        some = workload if amount == workload.jobs else workload.scaled(amount)
        found.append(end_to_end.measure(some, seconds=seconds))
    return end_to_end.report(found, sql)


def profile(shape: str) -> None:
    """Where the time goes."""
    workload = SHAPES[shape][0]()
    index, offers = workload.index(), workload.offers(OFFERS // 2)
    for forget in (False, True):
        some = offers[: len(offers) // (5 if forget else 1)]
        with cProfile.Profile() as taken:
            core("", index, some, forget=forget)
        sys.stdout.write(f"\n{shape}, {'kinds new' if forget else 'kinds remembered'}\n")
        pstats.Stats(taken, stream=sys.stdout).strip_dirs().sort_stats("tottime").print_stats(14)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-matcher", description="Measure the matcher on this machine.")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: rough figures")
    parser.add_argument("--shape", choices=list(SHAPES), help="only this one")
    parser.add_argument("--no-baseline", action="store_true", help="without PostgreSQL and the SQL matcher")
    parser.add_argument("--only", choices=["core", "end-to-end"], help="only this part")
    parser.add_argument("--amounts", type=_numbers, help="jobs waiting from end to end, such as 10000,871973")
    parser.add_argument("--seconds", type=float, help="of each measurement from end to end")
    parser.add_argument("--profile", action="store_true", help="show where the core's time goes instead")
    options = parser.parse_args(arguments)
    shapes = [options.shape] if options.shape else list(SHAPES)
    if options.profile:
        for shape in shapes:
            profile(shape)
        return 0
    begun, load = time.monotonic(), os.getloadavg()[0]
    parts, sql = [], 0.0
    for shape in shapes if options.only != "end-to-end" else []:
        compared = not options.no_baseline and shape not in ALONE
        text, best = measure(shape, quick=options.quick, with_baseline=compared)
        parts.append(text)
        sql = best if shape == "production" else sql
    if options.only != "core":
        amounts = options.amounts or (AMOUNTS[:2] if options.quick else AMOUNTS)
        seconds = options.seconds or SECONDS / (QUICK if options.quick else 1)
        parts.append(whole_way(amounts, seconds, sql))
    facts = Facts.of(load, time.monotonic() - begun, ())
    sys.stdout.write(
        f"The matcher, measured {facts.time} in {facts.seconds:.0f} s on {facts.cpus} × {facts.machine}, "
        f"load before {load:.2f}, after {os.getloadavg()[0]:.2f}\n"
        f"Python {facts.python}, PostgreSQL {facts.postgresql}, fsync on; the core is pure Python on one core\n\n"
        + "\n\n\n".join(parts)
        + "\n"
    )
    return 0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
