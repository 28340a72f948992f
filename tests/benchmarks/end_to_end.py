"""The matcher from a pilot's request to its verified answer: through RabbitMQ over TLS, on PostgreSQL with fsync on.

The jobs are rows of the real store (:mod:`tests.benchmarks.filling`); the matcher is a process of its own, started as
in a deployment; eight requesters (:mod:`tests.benchmarks.requesters`) sign each request and verify each answer. A match
is one job leased, as the store counts them at the end. Leased jobs stay so: nothing accepts, runs or reports them.
Everything, load included, shares this machine's cores.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from broker.identity import Authority
from compose.local.configs import DEPLOYMENT, PILOTS
from compose.local.files import Section, toml_key, toml_text, write_private
from compose.local.identities import service_dn
from compose.local.layout import Layout
from consumers.domain.shares import DEFAULT_SHARE
from tests.benchmarks import stack
from tests.benchmarks.filling import SCRIPT_BYTES, fill, leased, owner_dn
from tests.benchmarks.report import _table
from tests.benchmarks.requesters import Requesters, Run, Seen, Where
from tests.benchmarks.workload import Workload
from tests.support.deployment import Deployment, deployment
from tests.support.servers import postgres_cluster

PROCESSES = 2
REQUESTERS = 8
OFFERS = 8_000
WARM_SECONDS = 2.0
SLOTS = 4
"""Of each requester in a row of its own: most pilots hold more than one slot and ask for each."""
WARM, FAST, PACED = "warm", "as fast as it goes", "at half the goal"
SHAPE_JOBS = 871_973
"""The shape's own amount, on which the SQL baseline is compared."""
START_SECONDS = 120.0

GOALS = {10: 1_700.0, 1: 700.0}
"""Jobs per request → matches per second."""
GOAL_P99 = 0.020
GOAL_FLAT = 1.5
GOAL_START = 10.0
GOAL_MEMORY = 500.0

SETTINGS = {"shared_buffers": "2GB", "max_wal_size": "4GB"}
"""Of PostgreSQL, all others as they come: fsync and synchronous_commit are on."""

PARTS = ("matcher", "database", "broker", "requesters")


@dataclass(frozen=True)
class Figures:
    """One measurement.

    Attributes:
        jobs: per request.
        rate: matches per second.
        times: seconds of each request.
        empty: share of answers without a job.
        cpu: CPU milliseconds of each part per match.
    """

    name: str
    jobs: int
    rate: float
    times: Sequence[float]
    empty: float
    cpu: dict[str, float]

    @property
    def p50(self) -> float:
        """Milliseconds."""
        return statistics.median(self.times) * 1e3

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return statistics.quantiles(self.times, n=100)[98] * 1e3

    @property
    def cost(self) -> float:
        """CPU milliseconds of matcher and database per match: what may grow with the amount waiting."""
        return self.cpu["matcher"] + self.cpu["database"]


@dataclass
class Bench:
    """A deployment with jobs waiting, and requesters."""

    folder: Path
    deployed: Deployment
    url: str
    jobs: int
    fill_seconds: float
    requesters: list[Requesters]
    pids: dict[str, Sequence[int]]
    stops: contextlib.ExitStack
    start_seconds: float = 0.0
    memory: float = 0.0
    matches: int = 0
    rows: list[Figures] = field(default_factory=list)

    def start_matcher(self) -> None:
        """Start it, requests waiting already: until the first match was answered."""
        for some in self.requesters:
            some.start(Run(START_SECONDS, matches=1))
        begun = time.time()
        process = stack._serve(self.stops, self.folder, self.deployed, 2, ["matcher"])
        self.pids["matcher"] = [process.pid]
        seen = [some.result() for some in self.requesters]
        self.matches += sum(one.matches for one in seen)
        self.start_seconds = min(one.first for one in seen if one.first) - begun

    def run(self, name: str, run: Run) -> Figures:
        """Measure."""
        some = replace_matches(run, run.matches // PROCESSES)
        before, begun = self._cpu(), time.monotonic()
        for one in self.requesters:
            one.start(some)
        seen = [one.result() for one in self.requesters]
        took = time.monotonic() - begun
        after = self._cpu()
        figures = _figures(name, run, seen, took, {part: after[part] - before[part] for part in after})
        self.matches += sum(one.matches for one in seen)
        self.memory = max(self.memory, _resident(self.pids["matcher"]))
        self.rows.append(figures)
        return figures

    def check(self) -> None:
        """The store says as many leases as the requesters were given."""
        found = leased(self.url)
        if found != self.matches:
            raise AssertionError(f"{self.matches} matches were answered, the store has {found} leases")

    def _cpu(self) -> dict[str, float]:
        used = {name: sum(map(stack._own_cpu, stack._family(pids))) for name, pids in self.pids.items()}
        used["database"] += sum(stack._waited_cpu(one) for one in stack._family(self.pids["database"])[:1])
        return used


def replace_matches(run: Run, matches: int) -> Run:
    """The same with another end."""
    return msgspec.structs.replace(run, matches=max(1, matches))


def _figures(name: str, run: Run, seen: Sequence[Seen], took: float, cpu: dict[str, float]) -> Figures:
    matches = sum(one.matches for one in seen)
    requests = sum(one.requests for one in seen)
    times = [seconds for one in seen for seconds in one.times]
    per = {part: 1e3 * seconds / max(1, matches) for part, seconds in cpu.items()}
    return Figures(name, run.jobs, matches / took, times, sum(one.empty for one in seen) / max(1, requests), per)


def _resident(pids: Sequence[int]) -> float:
    return sum(process.memory_info().rss for process in stack._family(pids)) / 1e6


@contextlib.contextmanager
def bench(workload: Workload) -> Iterator[Bench]:
    """Everything, running, with all jobs of a workload waiting; gone at the end."""
    with contextlib.ExitStack() as stops:
        folder = Path(stops.enter_context(tempfile.TemporaryDirectory(prefix="pilotage-bench-")))
        cluster = stops.enter_context(postgres_cluster(SETTINGS))
        url = cluster.create_database("bench")
        took = fill(url, workload)
        deployed = stops.enter_context(deployment(folder / "d", services=[], store_url=url, pilots=1))
        credentials = _enter(deployed.layout, workload)
        gatekeeper = stack._serve(stops, folder, deployed, 1, ["gatekeeper", "relay"])
        offers = folder / "offers.json"
        offers.write_bytes(msgspec.json.encode(workload.offers(OFFERS, seed=3)))
        owners = sorted({(owner_dn(queue.owner), queue.group) for queue in workload.queues if queue.jobs})
        some = []
        for number in range(PROCESSES):
            where = Where(
                deployed.node.port,
                str(deployed.layout.tls / "ca.pem"),
                DEPLOYMENT,
                str(deployed.layout.trust),
                service_dn("gatekeeper"),
                [str(path) for path in credentials[number::PROCESSES]],
                str(offers),
                owners[:64],
            )
            some.append(Requesters(where, folder, number))
            stops.callback(some[-1].close)
        for one in some:
            one.result()
        pids: dict[str, Sequence[int]] = {
            "database": [cluster.pid or 0],
            "broker": [deployed.node.pid or 0],
            "gatekeeper": [gatekeeper.pid],
            "requesters": [one.pid for one in some],
        }
        yield Bench(folder, deployed, url, workload.jobs, took, some, pids, stops)


def _enter(layout: Layout, workload: Workload) -> list[Path]:
    """Owners, groups, sites and requesters into the registry; the requesters' credentials."""
    authority, now = Authority.load(layout.authority), dt.datetime.now(dt.UTC)
    users: list[Section] = []
    paths = []
    for number in range(REQUESTERS):
        dn = f"/O=Pilotage/OU=Pilots/CN=requester-{number}"
        path = layout.pilots / f"requester-{number}.pem"
        write_private(path, authority.issue(dn, now=now).to_pem())
        paths.append(path)
        users.append({"dn": dn, "nickname": f"requester-{number}", "groups": [PILOTS]})
    of: dict[str, set[str]] = {}
    for queue in workload.queues:
        of.setdefault(queue.owner, set()).add(queue.group)
    users += [{"dn": owner_dn(owner), "nickname": owner, "groups": sorted(groups)} for owner, groups in of.items()]
    tables: dict[str, Section | list[Section]] = {
        f"groups.{toml_key(group)}": {
            "fqan": f"/vo/{group}",
            "properties": ["NormalUser"],
            "share": share / DEFAULT_SHARE,
        }
        for group, share in workload.shares.items()
    }
    tables |= {f"sites.{toml_key(site.name)}": {"usable": True} for site in workload.sites}
    with layout.registry.open("a", encoding="utf-8") as file:
        file.write("\n" + toml_text({**tables, "users": users}, "Of the benchmark."))
    return paths


def wide(workload: Workload) -> Workload:
    """Every pilot has sixteen processors or more, so that it can use ten jobs."""
    sites = tuple(
        replace(site, nodes=tuple(replace(node, processors=(16,)) for node in site.nodes)) for site in workload.sites
    )
    return replace(workload, sites=sites)


def measure(workload: Workload, *, seconds: float, csrs: bool = True) -> Bench:
    """All figures of one workload."""
    with bench(wide(workload)) as running:
        running.start_matcher()
        # A short queue must not be emptied: no measurement takes more than a part of what waits.
        most = max(500, workload.jobs // 8)
        for jobs in (10, 1):
            running.run(WARM, Run(WARM_SECONDS, jobs=jobs, matches=most // 8))
            running.run(FAST, Run(seconds, jobs=jobs, matches=most))
            rate = GOALS[jobs] / 2 / jobs / REQUESTERS
            running.run(PACED, Run(seconds, jobs=jobs, rate=rate, matches=most))
        running.run(f"{FAST}, {SLOTS} slots each", Run(seconds, jobs=1, slots=SLOTS, matches=most))
        if csrs:
            running.run(f"{FAST}, CSRs", Run(seconds, jobs=1, csrs=5))
        running.check()
        return running


HEAD = ["", "jobs/request", "matches/s", "of goal", "p50 ms", "p99 ms", "no match %", *(f"{p} ms" for p in PARTS)]


def report(found: Sequence[Bench], sql: float) -> str:
    """All figures; ``sql``: matches per second of the baseline on the shape's own amount, 0 if it did not run."""
    head = (
        f"End to end: {REQUESTERS} requesters in {PROCESSES} processes, RabbitMQ over TLS, PostgreSQL with fsync on "
        f"({', '.join(f'{name}={value}' for name, value in SETTINGS.items())}), all on the same cores.\n"
        "A match is a job leased in the store; it stays so, nothing runs. Each request is signed and each answer "
        "verified by its requester, as the matcher does.\n"
        "Pilots hold the owners' proxies; in the row with CSRs they do not, and each owner costs an order to the proxy "
        "manager (which does not run here).\n"
        f"An answer carries the job's description and its sandbox of {SCRIPT_BYTES:,} bytes. Pilots have 16 processors."
    )
    parts = [head]
    for running in found:
        with_sql = sql if running.jobs == SHAPE_JOBS else 0.0
        parts.append(_rows(running, with_sql))
    parts.append(_amounts(found))
    return "\n\n".join(parts)


def _rows(running: Bench, sql: float) -> str:
    head = [*HEAD, "÷ SQL"] if sql else HEAD
    lines = []
    for row in running.rows:
        if row.name == WARM:
            continue
        goal = GOALS[row.jobs] / (1 if row.name.startswith(FAST) else 2)
        line = [
            row.name,
            str(row.jobs),
            f"{row.rate:,.0f}",
            f"{row.rate / goal:.2f}",
            f"{row.p50:.1f}",
            f"{row.p99:.1f}",
            f"{100 * row.empty:.1f}",
            *(f"{row.cpu[part]:.2f}" for part in PARTS),
        ]
        lines.append([*line, f"{row.rate / sql:.1f}"] if sql else line)
    title = (
        f"{running.jobs:,} jobs waiting: goals {GOALS[10]:,.0f}/s and {GOALS[1]:,.0f}/s, p99 below "
        f"{1e3 * GOAL_P99:.0f} ms at half of them; CPU milliseconds per match of each part"
    )
    return _table(title, head, lines, text=1)


def _amounts(found: Sequence[Bench]) -> str:
    head = ["waiting", "load s", "start s", "matcher MB", "10/request", "1/request", "CPU ms", "CPU ms", "cost", "cost"]
    lines = []
    for running in found:
        rows = [_fastest(running, jobs) for jobs in GOALS]
        first = [_fastest(found[0], jobs) for jobs in GOALS]
        lines.append([
            f"{running.jobs:,}",
            f"{running.fill_seconds:.0f}",
            f"{running.start_seconds:.1f}",
            f"{running.memory:.0f}",
            *(f"{row.rate:,.0f}" for row in rows),
            *(f"{row.cost:.2f}" for row in rows),
            *(f"{row.cost / one.cost:.2f}" for row, one in zip(rows, first, strict=True)),
        ])  # fmt: skip
    title = (
        f"By amount waiting: goals {GOAL_START:.0f} s from the process's start to the first match, below "
        f"{GOAL_MEMORY:.0f} MB, cost within {GOAL_FLAT}; CPU of matcher and database per match; 10, then 1 per request"
    )
    return _table(title, head, lines, text=0)


def _fastest(running: Bench, jobs: int) -> Figures:
    return next(row for row in running.rows if row.jobs == jobs and row.name == FAST)
