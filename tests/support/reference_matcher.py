"""The matcher as it is specified, in the plainest form: lists, loops, no index, nothing remembered but what must be.

Written from the specification (docs/explanation/matching.md and what DIRAC's users rely on), not from the code, and to
be read as such: each condition is one function that says whether a job may run on what is offered; each limit is looked
at on its own; the order is the published formula, computed anew for each choice. Everything costs what it costs.

The core of the matcher is held to it by ``tests/properties/test_reference.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import combinations

from msgspec.structs import replace

from consumers.domain.conditions import Condition
from consumers.domain.requirements import Requirements, canonical
from schemas.messages.pilot import Gpu, Offer

MINUTE, HOUR, DAY = 60, 3600, 86_400

TIME_CLASSES = (
    6 * MINUTE,
    30 * MINUTE,
    1 * HOUR,
    6 * HOUR,
    12 * HOUR,
    1 * DAY,
    2 * DAY,
    3 * DAY,
    4 * DAY,
    6 * DAY,
    8 * DAY,
    10 * DAY,
    12 * DAY + 12 * HOUR,
)
"""DIRAC's segments: what a job says is rounded up to one of these, and what is beyond the last counts as the last."""


# -- what a job wants -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tag:
    """Part of a tag expression: the node has this tag."""

    name: str

    def text(self) -> str:
        return self.name

    def holds(self, tags: Collection[str]) -> bool:
        return self.name in tags

    def names(self) -> set[str]:
        return {self.name}


@dataclass(frozen=True)
class Not:
    """Part of a tag expression: that does not hold."""

    part: Expression

    def text(self) -> str:
        return f"!{self.part.text()}"

    def holds(self, tags: Collection[str]) -> bool:
        return not self.part.holds(tags)

    def names(self) -> set[str]:
        return self.part.names()


@dataclass(frozen=True)
class Both:
    """Part of a tag expression: all of these hold."""

    parts: tuple[Expression, ...]

    def text(self) -> str:
        return "(" + " && ".join(part.text() for part in self.parts) + ")"

    def holds(self, tags: Collection[str]) -> bool:
        return all(part.holds(tags) for part in self.parts)

    def names(self) -> set[str]:
        return {name for part in self.parts for name in part.names()}


@dataclass(frozen=True)
class Either:
    """Part of a tag expression: one of these holds."""

    parts: tuple[Expression, ...]

    def text(self) -> str:
        return "(" + " || ".join(part.text() for part in self.parts) + ")"

    def holds(self, tags: Collection[str]) -> bool:
        return any(part.holds(tags) for part in self.parts)

    def names(self) -> set[str]:
        return {name for part in self.parts for name in part.names()}


Expression = Tag | Not | Both | Either


@dataclass(frozen=True)
class Wish:
    """What a job says, as its owner wrote it: nothing ordered, nothing rounded."""

    sites: tuple[str, ...] = ()
    banned_sites: tuple[str, ...] = ()
    ces: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    job_type: str = "User"
    cpu_seconds: float = 360
    wall_seconds: float = 0
    min_processors: int = 1
    whole_node: bool = False
    memory_mb: float = 0
    memory_per_processor_mb: float = 0
    disk_mb: float = 0
    gpus: int = 0
    gpu_memory_mb: float = 0
    gpu_models: tuple[str, ...] = ()
    architecture: str = ""
    tags: tuple[str, ...] = ()
    expression: Expression | None = None
    pools: tuple[str, ...] = ()

    def requirements(self) -> Requirements:
        """The class that the product makes of it."""
        return canonical(
            sites=self.sites,
            banned_sites=self.banned_sites,
            ces=self.ces,
            platforms=self.platforms,
            job_type=self.job_type,
            cpu_seconds=self.cpu_seconds,
            wall_seconds=self.wall_seconds,
            min_processors=self.min_processors,
            whole_node=self.whole_node,
            memory_mb=self.memory_mb,
            memory_per_processor_mb=self.memory_per_processor_mb,
            disk_mb=self.disk_mb,
            gpus=self.gpus,
            gpu_memory_mb=self.gpu_memory_mb,
            gpu_models=self.gpu_models,
            architecture=self.architecture,
            tags=self.tags,
            tag_expression="" if self.expression is None else self.expression.text(),
            pools=self.pools,
        )


# -- whether a node has it: each condition on its own -----------------------------------------------------------------


def says_any(values: Iterable[str]) -> bool:
    """A value of a job or a pilot that stands for all values."""
    return any(value.lower() == "any" for value in values)


def site_is_usable(wish: Wish, offer: Offer, usable: Collection[str] | None) -> bool:
    """At a site that the mask bars run jobs of type Test only."""
    return usable is None or offer.site in usable or wish.job_type == "Test"


def pool_is_named(wish: Wish, offer: Offer) -> bool:
    """A pilot of a pool takes the jobs that name the pool; a pilot of none takes the jobs that name none."""
    if offer.pool:
        return offer.pool in wish.pools
    return not wish.pools


def site_is_wanted(wish: Wish, offer: Offer) -> bool:
    """What is wanted and banned is not wanted, unless all is."""
    wanted = set(wish.sites) - set(wish.banned_sites) or set(wish.sites)
    return not wish.sites or says_any(wish.sites) or offer.site in wanted


def site_is_not_banned(wish: Wish, offer: Offer) -> bool:
    return offer.site not in wish.banned_sites


def ce_is_wanted(wish: Wish, offer: Offer) -> bool:
    return not wish.ces or says_any(wish.ces) or says_any([offer.ce]) or offer.ce in wish.ces


def job_type_is_taken(wish: Wish, offer: Offer) -> bool:
    return not offer.job_types or says_any(offer.job_types) or wish.job_type in offer.job_types


def platform_is_there(wish: Wish, offer: Offer) -> bool:
    if not wish.platforms or says_any(wish.platforms) or says_any(offer.platforms):
        return True
    return bool(set(wish.platforms) & set(offer.platforms))


def architecture_is_high_enough(wish: Wish, offer: Offer) -> bool:
    """The same family, and at least the level."""
    if not wish.architecture or says_any([wish.architecture]):
        return True
    family, level = _architecture(wish.architecture)
    offered_family, offered_level = _architecture(offer.architecture)
    return family == offered_family and level <= offered_level


def _architecture(name: str) -> tuple[str, int]:
    found = re.fullmatch(r"(.+)-v(\d+)", name.lower())
    return (found[1], int(found[2])) if found else (name.lower(), 1)


def cpu_time_suffices(wish: Wish, offer: Offer) -> bool:
    return _class_of(wish.cpu_seconds) <= offer.cpu_seconds


def wall_time_suffices(wish: Wish, offer: Offer) -> bool:
    return not wish.wall_seconds or _class_of(wish.wall_seconds) <= offer.wall_seconds


def _class_of(seconds: float) -> int:
    for one in TIME_CLASSES:
        if seconds <= one:
            return one
    return TIME_CLASSES[-1]


def processors_suffice(wish: Wish, offer: Offer) -> bool:
    return max(1, wish.min_processors) <= offer.processors


def node_is_whole(wish: Wish, offer: Offer) -> bool:
    return offer.whole_node or not wish.whole_node


def memory_suffices(wish: Wish, offer: Offer) -> bool:
    gets = offer.processors if wish.whole_node else max(1, wish.min_processors)
    return _up(wish.memory_mb) + _up(wish.memory_per_processor_mb) * gets <= offer.memory_mb


def disk_suffices(wish: Wish, offer: Offer) -> bool:
    return _up(wish.disk_mb) <= offer.disk_mb


def _up(amount: float) -> int:
    """Whole megabytes."""
    whole = int(amount)
    return whole if whole == amount else whole + 1


def gpus_suffice(wish: Wish, offer: Offer) -> bool:
    """So many GPUs, each with the memory and one of the models; who says only what it must be like wants one."""
    like = [model for model in wish.gpu_models if not says_any(wish.gpu_models)]
    count = wish.gpus or (1 if wish.gpu_memory_mb or like else 0)

    def does(gpu: Gpu) -> bool:
        return gpu.memory_mb >= _up(wish.gpu_memory_mb) and (not like or any(is_model(gpu, model) for model in like))

    return sum(1 for gpu in offer.gpus if does(gpu)) >= count


def nodes_that_please(wish: Wish) -> list[frozenset[str]]:
    """Every set of the tags that the job names which a node may have so that tags and expression hold."""
    names = sorted({*wish.tags, *(wish.expression.names() if wish.expression is not None else ())})
    subsets = (frozenset(chosen) for size in range(len(names) + 1) for chosen in combinations(names, size))
    return [
        tags
        for tags in subsets
        if tags.issuperset(wish.tags) and (wish.expression is None or wish.expression.holds(tags))
    ]


def is_model(gpu: Gpu, wanted: str) -> bool:
    """The words of a model are there, next to each other: drivers put maker, form and memory around them."""
    have, want = (" ".join(re.findall(r"[a-z0-9]+", text.lower())) for text in (gpu.model, wanted))
    return f" {want} " in f" {have} "


def tags_are_there(wish: Wish, offer: Offer) -> bool:
    """The tags without which no node pleases: those listed, and those that the expression leaves no choice about."""
    return all(tag in offer.tags for tag in frozenset.intersection(*nodes_that_please(wish)))


def tag_expression_holds(wish: Wish, offer: Offer) -> bool:
    return wish.expression is None or wish.expression.holds(offer.tags)


def required_tags_are_carried(wish: Wish, offer: Offer) -> bool:
    """What the pilot requires the job asks for: there is a node that pleases with the tag and not without it."""
    pleasing = set(nodes_that_please(wish))
    return all(any(tag in node and node - {tag} not in pleasing for node in pleasing) for tag in offer.required_tags)


def owner_is_served(owner: str, offer: Offer) -> bool:
    """A private pilot takes its owner's jobs only."""
    return not offer.owners or owner in offer.owners


def group_is_served(group: str, offer: Offer) -> bool:
    return not offer.groups or group in offer.groups


CONDITIONS: tuple[tuple[Condition, Callable[[Wish, Offer], bool]], ...] = (
    (Condition.POOL, pool_is_named),
    (Condition.SITE, site_is_wanted),
    (Condition.BANNED, site_is_not_banned),
    (Condition.CE, ce_is_wanted),
    (Condition.JOB_TYPE, job_type_is_taken),
    (Condition.PLATFORM, platform_is_there),
    (Condition.ARCHITECTURE, architecture_is_high_enough),
    (Condition.CPU_TIME, cpu_time_suffices),
    (Condition.WALL_TIME, wall_time_suffices),
    (Condition.PROCESSORS, processors_suffice),
    (Condition.WHOLE_NODE, node_is_whole),
    (Condition.MEMORY, memory_suffices),
    (Condition.DISK, disk_suffices),
    (Condition.GPU, gpus_suffice),
    (Condition.TAGS, tags_are_there),
    (Condition.TAG_EXPRESSION, tag_expression_holds),
    (Condition.REQUIRED_TAGS, required_tags_are_carried),
)
"""In the order in which they are asked, after the site mask."""


def obstacle(wish: Wish, offer: Offer, usable: Collection[str] | None = None) -> Condition | None:
    """The first condition that keeps a job from an offer, whoever's it is."""
    if not site_is_usable(wish, offer, usable):
        return Condition.SITE_UNUSABLE
    return next((condition for condition, holds in CONDITIONS if not holds(wish, offer)), None)


def aged(offer: Offer, seconds: float) -> Offer:
    """What is left of an offer after some time: less wall time, and CPU work in proportion."""
    if not offer.wall_seconds:
        return replace(offer, cpu_seconds=max(0.0, offer.cpu_seconds - 10 * seconds))
    left = max(0.0, offer.wall_seconds - seconds)
    return replace(offer, wall_seconds=left, cpu_seconds=offer.cpu_seconds * left / offer.wall_seconds)


# -- limits: each on its own ------------------------------------------------------------------------------------------

SITE, CE, JOB_TYPE, OWNER, GROUP = "site", "ce", "job-type", "owner", "group"


@dataclass(frozen=True)
class Start:
    """A job that started: what limits look at."""

    number: int
    at: float
    values: dict[str, str]


@dataclass(frozen=True)
class Limited:
    """A limit: its scope (attribute → value, ``*`` for each value separately), and what it allows."""

    scope: dict[str, str]
    running: int | None = None
    delay: float = 0.0

    def concerns(self, values: dict[str, str]) -> bool:
        """Who has no value for an attribute is not limited by it."""
        return all(values[name] and wanted in {"*", values[name]} for name, wanted in self.scope.items())

    def is_alike(self, one: dict[str, str], other: dict[str, str]) -> bool:
        """Both are counted together."""
        return all(one[name] == other[name] for name in self.scope)

    def allows(self, values: dict[str, str], leases: Iterable[Start], starts: Iterable[Start], now: float) -> bool:
        """Whether one more may start."""
        if not self.concerns(values):
            return True
        if self.running is not None and sum(self.is_alike(one.values, values) for one in leases) >= self.running:
            return False
        return all(now >= one.at + self.delay for one in starts if self.is_alike(one.values, values))


# -- the order --------------------------------------------------------------------------------------------------------

PRIORITY_SECONDS = 86_400.0
"""One step of user priority is worth a day of waiting."""

HALF_LIFE = 86_400.0
CREDIT_SECONDS = 1800.0
MOST_CREDIT = 1000.0


@dataclass(frozen=True)
class Job:
    """A waiting job."""

    number: int
    wish: Wish
    owner: str
    group: str
    priority: int = 1
    submitted: float = 0.0
    queue: int = 0

    @property
    def rank(self) -> float:
        """Smallest first within an owner."""
        return self.submitted - PRIORITY_SECONDS * self.priority

    def values(self, offer: Offer) -> dict[str, str]:
        """What limits look at if it starts there."""
        return {SITE: offer.site, CE: offer.ce, JOB_TYPE: self.wish.job_type, OWNER: self.owner, GROUP: self.group}


@dataclass
class Account:
    """What one who takes part has had: a pass, and processors, both inflated."""

    share: float = 1000.0
    background: bool = False
    turn: float = 0.0
    used: float = 0.0
    active: bool = False


@dataclass
class Circle:
    """Those who share something with each other: the groups, or the owners of one group."""

    accounts: dict[str, Account] = field(default_factory=dict)
    last: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})

    def account(self, name: str) -> Account:
        return self.accounts.setdefault(name, Account())

    def floor(self, one: Account, weight: float, used_by_all: float) -> float:
        """Nobody's pass is further behind virtual time than his credit."""
        lately = 1 - 2 ** (-CREDIT_SECONDS / HALF_LIFE)
        fair = self.last[one.background] * one.share / 1000
        alike = [other for other in self.accounts.values() if other.background == one.background]
        shares = sum(other.share for other in alike if other.active)
        credit = min(lately * fair, lately * used_by_all * one.share / shares, MOST_CREDIT * weight)
        return self.last[one.background] - credit * 1000 / one.share

    def used(self) -> float:
        return sum(one.used for one in self.accounts.values())

    def note_active(self, names: Collection[str], weight: float) -> None:
        """Who has waiting jobs now."""
        for name in names:
            self.account(name)
        for name, one in self.accounts.items():
            one.active = name in names

    def charge(self, name: str, amount: float, weight: float) -> None:
        """He got a job of so many (inflated) processors."""
        one = self.account(name)
        floor = self.floor(one, weight, self.used())
        self.last[one.background] = max(self.last[one.background], one.turn)
        one.turn = max(one.turn, floor) + amount * 1000 / one.share
        one.used += amount

    def place(self, name: str) -> tuple[bool, float]:
        """Smallest first; ties by name."""
        one = self.account(name)
        return one.background, one.turn


@dataclass
class Group:
    """A group: its place among the others, and its owners."""

    sharing: bool = False
    owners: Circle = field(default_factory=Circle)


@dataclass
class ReferenceMatcher:
    """All that waits, all that runs, and who had what."""

    jobs: list[Job] = field(default_factory=list)
    leases: list[Start] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    limits: list[Limited] = field(default_factory=list)
    usable: frozenset[str] | None = None
    groups: dict[str, Group] = field(default_factory=dict)
    shares: Circle = field(default_factory=Circle)
    epoch: float | None = None
    time: float = 0.0

    def group(self, name: str) -> Group:
        return self.groups.setdefault(name, Group())

    def weight(self, now: float) -> float:
        """What a processor counts that is taken now, beside one taken at the beginning. Time does not go back."""
        if self.epoch is None:
            self.epoch = self.time = now
        self.time = max(self.time, now)
        return float(2.0 ** ((self.time - self.epoch) / HALF_LIFE))

    def note_active(self) -> None:
        """To be called after jobs came or went."""
        weight = 1.0 if self.epoch is None else self.weight(self.time)
        self.shares.note_active({job.group for job in self.jobs}, weight)
        for name in {*self.groups, *(job.group for job in self.jobs)}:
            owners = {job.owner for job in self.jobs if job.group == name}
            self.group(name).owners.note_active(owners, weight)

    # -- may it? --------------------------------------------------------------------------------------------------

    def fits(self, job: Job, offer: Offer) -> bool:
        return obstacle(job.wish, offer, self.usable) is None

    def is_for(self, job: Job, offer: Offer) -> bool:
        return owner_is_served(job.owner, offer) and group_is_served(job.group, offer)

    def is_open(self, job: Job, offer: Offer, now: float) -> bool:
        values = job.values(offer)
        return all(limit.allows(values, self.leases, self.starts, now) for limit in self.limits)

    def candidates(self, offer: Offer, now: float) -> list[Job]:
        return [
            job
            for job in self.jobs
            if self.fits(job, offer) and self.is_for(job, offer) and self.is_open(job, offer, now)
        ]

    # -- which? ---------------------------------------------------------------------------------------------------

    def choose(self, offer: Offer, now: float) -> Job | None:
        """The job whose turn it is."""
        some = self.candidates(offer, now)
        if not some:
            return None
        group = min({job.group for job in some}, key=lambda name: (*self.shares.place(name), name))
        some = [job for job in some if job.group == group]
        owners = self.group(group).owners
        if self.group(group).sharing:
            return min(some, key=lambda job: (owners.account(job.owner).background, job.rank, job.owner, *_tie(job)))
        owner = min({job.owner for job in some}, key=lambda name: (*owners.place(name), name))
        return min((job for job in some if job.owner == owner), key=lambda job: (job.rank, *_tie(job)))

    def take(self, job: Job, offer: Offer, now: float) -> None:
        """It starts there now."""
        self.jobs.remove(job)
        processors = max(1, offer.processors) if job.wish.whole_node else max(1, job.wish.min_processors)
        weight = self.weight(now)
        self.shares.charge(job.group, processors * weight, weight)
        self.group(job.group).owners.charge(job.owner, processors * weight, weight)
        start = Start(job.number, now, job.values(offer))
        self.leases.append(start)
        self.starts.append(start)
        self.note_active()

    # -- why not? -------------------------------------------------------------------------------------------------

    def why_not(self, offer: Offer, now: float) -> Counter[Condition]:
        """Each waiting class under the first thing in its way."""
        counts: Counter[Condition] = Counter()
        for want in {job.wish.requirements() for job in self.jobs}:
            some = [job for job in self.jobs if job.wish.requirements() == want]
            found = obstacle(some[0].wish, offer, self.usable)
            if found is not None:
                counts[found] += 1
            elif not any(owner_is_served(job.owner, offer) for job in some):
                counts[Condition.OWNER] += 1
            elif not any(self.is_for(job, offer) for job in some):
                counts[Condition.GROUP] += 1
            else:
                assert not any(self.is_for(job, offer) and self.is_open(job, offer, now) for job in some)
                counts[Condition.LIMIT] += 1
        return counts


def _tie(job: Job) -> tuple[int, int]:
    return job.queue, -job.priority
