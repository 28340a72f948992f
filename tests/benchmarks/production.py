"""The shape of a real queue: 871,973 waiting jobs in 501 task queues, 60 sites, 67 platforms, 11 job types.

Known are marginals only (:file:`shapes/production`). The joint distribution is chosen here, by a seed where the figures
leave a choice:

* Group, CPU time class, lottery weight and size come together, queue by queue. The counts of job types add up by group
  exactly, so types follow from group and weight; which simulation queues are fast simulation is the set of (CPU time,
  weight) that comes nearest to both counts.
* Platform counts are nested; read so, they are five lists: all CentOS 7 names with ``-any`` from level 2 on, the same
  for EL 9, EL 9 from level 3 on, SLC 6 with everything, ARM. One queue wants none. Queues are dealt out to the lists by
  seed, then exchanged until the jobs agree, too.
* All simulation queues want all sites (the counts say so) but one and fourteen; the others want a few sites, as input
  data makes them, dealt out by seed and exchanged until each site's jobs agree; users' queues want many. One wants any
  site and bans three. (A second one bans two beside a list of sites; in canonical form that is a list without bans.)
* Three queues are empty: they name the ten platforms that no job wants.
* Jobs that agree in all that fills two queues or more (the original splits queues at 5,000 jobs) are told apart by
  memory, about which the marginals say nothing, so that there are as many classes as queues. This is the harder case.
* User priorities and submission times are drawn; the files do not have them.
"""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from consumers.domain.requirements import Requirements, canonical
from tests.benchmarks.workload import Node, Site, Waiting, Workload, levels_of, memory_steps

SHAPE = Path(__file__).parent / "shapes" / "production"
SEED = 20260328
EXCHANGES = 150_000

TYPES = {  # (group, weight) → job type, for all but simulation; the counts agree exactly
    ("lhcb_data", 2764.98): "Sprucing",
    ("lhcb_data", 3686.64): "Merge",
    ("lhcb_data", 460.829): "APMerge",
    ("lhcb_data", 1382.49): "APPostProc",
    ("lhcb_mcproc", 18181.8): "MCMerge",
}
OTHERWISE = {
    "lhcb_data": "WGProduction",
    "lhcb_mcproc": "MCReconstruction",
    "lhcb_user": "User",
    "lhcb_mc": "MCSimulation",
}
SHARES = {"lhcb_mc": 1000, "lhcb_data": 5000, "lhcb_mcproc": 2000, "lhcb_user": 1000}
"""Not in the files either."""


@dataclass
class Draft:
    """A queue on the way to its class."""

    id: int
    group: str
    cpu: int
    weight: float
    jobs: int
    job_type: str = ""
    platforms: str = ""


@dataclass(frozen=True)
class Marginal:
    """One line of a file."""

    value: str
    queues: int
    jobs: int


def marginals(name: str) -> list[Marginal]:
    """One dimension of the shape: ``site``, ``platform``, ``jobtype``, ``banned``."""
    file = SHAPE / (f"{name}_sites.csv" if name == "banned" else f"{name}_distribution.csv")
    with file.open(encoding="utf-8") as stream:
        return [Marginal(value, int(queues), int(jobs)) for value, queues, jobs in list(csv.reader(stream))[1:]]


def overview() -> dict[str, int]:
    """The totals."""
    with (SHAPE / "scale_overview.csv").open(encoding="utf-8") as stream:
        return {key: int(value) for key, value in next(csv.DictReader(stream)).items()}


def production(seed: int = SEED) -> Workload:
    """The shape, with the choices of this seed."""
    random_ = random.Random(seed)
    drafts = _drafts()
    total = overview()
    # The files were written one after the other, so a few jobs are in the total only.
    drafts[0].jobs += total["waiting_jobs"] - sum(draft.jobs for draft in drafts)
    _set_types(drafts)
    lists = platform_lists()
    _set_platforms(drafts, lists, random_)
    wanted, banned = _sites(drafts, random_)
    queues = []
    seen: set[Requirements] = set()
    for draft in drafts:
        for memory in memory_steps():
            requirements = canonical(
                sites=wanted[draft.id],
                banned_sites=banned.get(draft.id, ()),
                platforms=lists.get(draft.platforms, ((), 0, 0))[0],
                job_type=draft.job_type,
                cpu_seconds=draft.cpu,
                memory_mb=memory,
            )
            if requirements not in seen:
                break
        seen.add(requirements)
        levels = levels_of(draft.jobs, random_)
        queues.append(Waiting(draft.id, requirements, draft.group, _owner(draft), draft.weight, levels))
    queues += _empty(len(queues), total["total_tqs"], drafts)
    return Workload("production", tuple(queues), SHARES, _real_sites(random_))


def _owner(draft: Draft) -> str:
    if draft.group != "lhcb_user":
        return "prods"
    return "user02" if draft.job_type == "LbAPI" else "user01"


def _drafts() -> list[Draft]:
    with (SHAPE / "jobs_per_tq.csv").open(encoding="utf-8") as stream:
        lines = list(csv.reader(stream))[1:]
    return [
        Draft(number, group, int(cpu), float(weight), int(jobs))
        for number, (_, cpu, group, weight, _, jobs) in enumerate(lines)
    ]


def _empty(number: int, total: int, drafts: Sequence[Draft]) -> list[Waiting]:
    stale = [platform.value for platform in marginals("platform") if not platform.jobs]
    return [
        Waiting(
            place,
            canonical(platforms=stale, job_type="WGProduction", cpu_seconds=drafts[0].cpu, memory_mb=place),
            "lhcb_data",
            "prods",
            1.0,
            (),
        )
        for place in range(number, total)
    ]


def _set_types(drafts: Sequence[Draft]) -> None:
    for draft in drafts:
        draft.job_type = TYPES.get((draft.group, draft.weight), OTHERWISE[draft.group])
        if draft.group == "lhcb_user" and draft.cpu < 1_080_000:
            draft.job_type = "LbAPI"
    fast = next(line for line in marginals("jobtype") if line.value == "MCFastSimulation")
    cells: dict[tuple[int, float], list[Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.group == "lhcb_mc":
            cells[draft.cpu, draft.weight].append(draft)
    sizes = {key: (len(some), sum(draft.jobs for draft in some)) for key, some in cells.items()}
    chosen = min(
        (some for number in range(1, len(cells)) for some in combinations(sorted(cells), number)),
        key=lambda some: (
            abs(sum(sizes[key][0] for key in some) - fast.queues),
            abs(sum(sizes[key][1] for key in some) - fast.jobs),
        ),
    )
    for key in chosen:
        for draft in cells[key]:
            draft.job_type = "MCFastSimulation"


def platform_lists() -> dict[str, tuple[tuple[str, ...], int, int]]:
    """The lists that the nested platform counts amount to: name → (platforms, queues, jobs)."""
    lines = [line for line in marginals("platform") if line.jobs]
    of = {
        "arm": [line for line in lines if line.value.startswith("arm")],
        "centos7": [line for line in lines if line.value.endswith("-centos7")],
        "slc6": [line for line in lines if line.value.endswith("-slc6")],
        "el9": [line for line in lines if line.value.endswith("-el9") and not line.value.startswith("arm")],
    }
    few = min(line.queues for line in of["el9"])
    of["el9-level3"] = [line for line in of["el9"] if line.queues > few]
    lists = {}
    for name, some in of.items():
        names = [line.value for line in some]
        anywhere = [value.rpartition("-")[0] + "-any" for value in names if name != "arm"]
        fewest = min(some, key=lambda line: line.queues)
        lists[name] = ((*names, *anywhere), fewest.queues, fewest.jobs)
    names_, queues, jobs = lists["el9-level3"]
    lists["el9-level3"] = (names_, queues - lists["el9"][1], jobs - lists["el9"][2])
    return lists


def _set_platforms(
    drafts: Sequence[Draft], lists: dict[str, tuple[tuple[str, ...], int, int]], random_: random.Random
) -> None:
    free = [draft for draft in drafts if draft.job_type != "LbAPI"]  # its one queue wants none
    random_.shuffle(free)
    # Simulation runs on old systems, data processing on ARM: only the start of the exchange, which keeps most of it.
    free.sort(key=lambda draft: draft.group != "lhcb_mc")
    place = 0
    for name in ("slc6", "centos7", "el9-level3", "el9", "arm"):
        for draft in free[place : place + lists[name][1]]:
            draft.platforms = name
        place += lists[name][1]
    error = {name: -jobs for name, (_, _, jobs) in lists.items()}
    for draft in free:
        error[draft.platforms] += draft.jobs
    for _ in range(EXCHANGES):
        one, other = random_.choice(free), random_.choice(free)
        more = other.jobs - one.jobs
        a, b = one.platforms, other.platforms
        if a != b and abs(error[a] + more) + abs(error[b] - more) < abs(error[a]) + abs(error[b]):
            error[a], error[b] = error[a] + more, error[b] - more
            one.platforms, other.platforms = b, a


def _sites(drafts: Sequence[Draft], random_: random.Random) -> tuple[dict[int, set[str]], dict[int, list[str]]]:
    """Wanted sites of each queue, and the bans of some."""
    lines = marginals("site")
    wanted: dict[int, set[str]] = {draft.id: set() for draft in drafts}
    jobs = {draft.id: draft.jobs for draft in drafts}
    simulation = [draft.id for draft in drafts if draft.group == "lhcb_mc"]
    simulated = sum(jobs[queue] for queue in simulation)
    for line in lines:
        lacking: set[int] = set()
        if line.queues < len(simulation):
            lacking = _some(simulation, jobs, len(simulation) - line.queues, simulated - line.jobs, random_)
        for queue in simulation:
            if queue not in lacking:
                wanted[queue].add(line.value)
    anywhere = next(draft for draft in drafts if draft.job_type == "LbAPI")
    others = [draft for draft in drafts if draft.group != "lhcb_mc" and draft is not anywhere]
    more = {line.value: line.queues - len(simulation) for line in lines if line.queues > len(simulation)}
    goal = {line.value: line.jobs - simulated for line in lines if line.value in more}
    dealt = _dealt(others, more, random_)
    _exchange(dealt, goal, jobs, random_)
    for site, queues in dealt.items():
        for queue in queues:
            wanted[queue].add(site)
    return wanted, {anywhere.id: [line.value for line in marginals("banned") if line.jobs == anywhere.jobs]}


def _some(queues: list[int], jobs: dict[int, int], number: int, goal: int, random_: random.Random) -> set[int]:
    """So many queues with about so many jobs."""
    best = random_.sample(queues, number)
    for _ in range(2_000):
        place, other = random_.randrange(number), random_.choice(queues)
        trial = [*best[:place], other, *best[place + 1 :]]
        if other not in best and abs(sum(map(jobs.get, trial), -goal)) < abs(sum(map(jobs.get, best), -goal)):  # type: ignore[arg-type]
            best = trial
    return set(best)


def _dealt(others: Sequence[Draft], more: dict[str, int], random_: random.Random) -> dict[str, set[int]]:
    """Each site's queues beyond simulation: as many as the counts say, each queue with one site at least."""
    left = dict(more)
    dealt: dict[str, set[int]] = {site: set() for site in more}

    def give(queue: int, site: str) -> None:
        dealt[site].add(queue)
        left[site] -= 1

    users = [draft.id for draft in others if draft.group == "lhcb_user"]
    for queue in users:
        for site in sorted(site for site in left if left[site] > 0):
            if random_.random() < 0.85:
                give(queue, site)
    rest = [draft.id for draft in others if draft.group != "lhcb_user"]
    random_.shuffle(rest)
    for queue in rest:
        sites = sorted(site for site in left if left[site] > 0)
        give(queue, random_.choices(sites, [left[site] for site in sites])[0])
    for site in sorted(left):
        free = [queue for queue in rest if queue not in dealt[site]]
        for queue in random_.sample(free, left[site]):
            give(queue, site)
    return dealt


def _exchange(dealt: dict[str, set[int]], goal: dict[str, int], jobs: dict[int, int], random_: random.Random) -> None:
    """Give queues of a site to others until its jobs agree; no queue loses its last site."""
    queues = sorted(set().union(*dealt.values()))
    sites = sorted(dealt)
    degree = {queue: sum(queue in some for some in dealt.values()) for queue in queues}
    held = {site: sorted(some) for site, some in dealt.items()}
    error = {site: sum(jobs[queue] for queue in held[site]) - goal[site] for site in sites}
    for _ in range(EXCHANGES):
        site = random_.choice(sites)
        place, new = random_.randrange(len(held[site])), random_.choice(queues)
        old = held[site][place]
        then = error[site] + jobs[new] - jobs[old]
        if degree[old] > 1 and new not in dealt[site] and abs(then) < abs(error[site]):
            held[site][place] = new
            dealt[site].remove(old)
            dealt[site].add(new)
            degree[old] -= 1
            degree[new] += 1
            error[site] = then


X86 = ("x86_64_v3", "haswell", "broadwell", "skylake", "skylake_avx512", "cannonlake", "x86_64_v4", "ivybridge")
ARM = ("armv8.1_a", "armv8.2_a", "armv8.3_a")


def _real_sites(random_: random.Random) -> tuple[Site, ...]:
    """Pilots' sites: sizes fall as in the list of sites; one to three kinds of nodes each, ARM at one site of five."""
    sites = []
    for place, line in enumerate(marginals("site")):
        levels = random_.sample(X86, random_.randint(1, 3))
        if random_.random() < 0.2:
            levels[-1] = random_.choice(ARM)
        nodes = tuple(
            Node(
                (f"{level}-el9", f"{level}-any"),
                random_.uniform(10, 20),
                memory_per_processor=random_.choice((2000, 3000)),
            )
            for level in levels
        )
        ces = tuple(f"ce{number}.{line.value.lower()}" for number in range(random_.randint(1, 4)))
        sites.append(Site(line.value, 1 / (place + 3), ces, nodes))
    return tuple(sites)
