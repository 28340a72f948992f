"""Requirements classes: what a job wants of a node, in one canonical form, and whether an offer has it.

Two jobs with the same wishes have equal :class:`Requirements`, the same JSON bytes and the same digest, whatever the
order in which their owners wrote them; so classes are few where jobs are many. :func:`misfit` is the one definition of
"fits": the matcher's index (:mod:`.classes`), parked requests and ``job explain`` all follow it, and a property test
holds the index to it.

The conditions, in the order in which they are asked (semantics of DIRAC's task queues; numbers are numbers here):

* a site that is not usable gets only jobs of type Test;
* sites, CEs, platforms: an empty list wants anything; otherwise the offer's value must be in it. A pilot whose CE or
  platform is ``any`` skips that condition. Its site it always has to name, for bans rest on it;
* no banned site;
* the CPU time class fits into the CPU time left; processors, memory and whole node likewise;
* all tags of the class are on the node, and all tags that the pilot requires are in the class.

Who may use a private pilot is a question about the owner and is asked where queues are chosen (:mod:`.choose`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable
from enum import Enum
from hashlib import sha256

import msgspec

from schemas.jdl.description import JobDescription
from schemas.messages.pilot import Offer

HOUR = 3600
DAY = 24 * HOUR

CPU_CLASSES: tuple[int, ...] = (
    360,
    1800,
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
    25 * DAY // 2,
)
"""CPU time is rounded up to one of these (seconds), so that task queues stay few: DIRAC's default segments
(TaskQueueDB, ``taskQueueCPUTimeIntervals``)."""

ANY = "any"
"""A value that wants, or takes, anything (in any case of letters)."""

TEST_JOB = "Test"
"""The job type that also runs at sites that are not usable (DIRAC)."""


class Condition(Enum):
    """One thing that can be in the way; the value is the order in which it is asked."""

    SITE_UNUSABLE = 1
    POOL = 2
    SITE = 3
    BANNED = 4
    CE = 5
    JOB_TYPE = 6
    PLATFORM = 7
    ARCHITECTURE = 8
    CPU_TIME = 9
    WALL_TIME = 10
    PROCESSORS = 11
    WHOLE_NODE = 12
    MEMORY = 13
    DISK = 14
    GPU = 15
    TAGS = 16
    TAG_EXPRESSION = 17
    REQUIRED_TAGS = 18
    OWNER = 19
    GROUP = 20


class Requirements(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One requirements class; make it with :func:`canonical` so that equal wishes are equal values.

    Attributes:
        sites: may run at these only; empty means anywhere.
        banned_sites: never at these.
        ces: computing elements, empty means any.
        platforms: any one of these, empty means any.
        job_type: as the JDL says.
        cpu_class: CPU seconds (normalised), one of :data:`CPU_CLASSES`.
        min_processors: processors it needs.
        max_processors: processors it can use; absent: as many as there are.
        whole_node: it wants the node for itself.
        memory_mb: memory it needs, MB; 0 if it does not say.
        tags: the node must have all of these.
        wall_class: wall seconds, one of :data:`CPU_CLASSES`; 0 if it does not say.
        memory_per_processor_mb: memory it needs besides for each processor that it gets, MB.
        disk_mb: disk it needs in the work area, MB.
        gpus: GPUs it needs.
        gpu_memory_mb: memory that each of them must have, MB.
        gpu_models: each must be one of these; empty means any.
        architecture: family and lowest level of the processors, such as ``x86_64-v2``; empty means any.
        tag_expression: what must be true of the node's tags, in canonical form; empty means nothing.
        pools: the pools that may take it; empty: those pilots only that belong to none.
    """

    sites: tuple[str, ...] = ()
    banned_sites: tuple[str, ...] = ()
    ces: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    job_type: str = "User"
    cpu_class: int = CPU_CLASSES[0]
    min_processors: int = 1
    max_processors: int | None = 1
    whole_node: bool = False
    memory_mb: int = 0
    tags: tuple[str, ...] = ()
    # What came later stands last and is left out when it is not said, so that older classes keep their digests.
    wall_class: int = 0
    memory_per_processor_mb: int = 0
    disk_mb: int = 0
    gpus: int = 0
    gpu_memory_mb: int = 0
    gpu_models: tuple[str, ...] = ()
    architecture: str = ""
    tag_expression: str = ""
    pools: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """The canonical bytes: equal classes have equal bytes."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Requirements:
        """What :meth:`to_json` wrote.

        Raises:
            msgspec.ValidationError: it is not that.
        """
        return msgspec.json.decode(data, type=cls)

    def digest(self) -> str:
        """Hex SHA-256 of the canonical bytes: the class's key in the store."""
        return sha256(self.to_json()).hexdigest()


class Misfit(msgspec.Struct, frozen=True):
    """Why an offer does not fit a class: the first condition in the way, and its text."""

    condition: Condition
    text: str


def cpu_class(seconds: float) -> int:
    """The class that holds this CPU time; the last one for all that is longer."""
    return CPU_CLASSES[min(bisect_left(CPU_CLASSES, seconds), len(CPU_CLASSES) - 1)]


def canonical(
    *,
    sites: Iterable[str] = (),
    banned_sites: Iterable[str] = (),
    ces: Iterable[str] = (),
    platforms: Iterable[str] = (),
    job_type: str = "User",
    cpu_seconds: float = 0,
    min_processors: int = 1,
    max_processors: int | None = 1,
    whole_node: bool = False,
    memory_mb: float = 0,
    tags: Iterable[str] = (),
) -> Requirements:
    """The class of these wishes.

    Lists are sorted without repetition, ``any`` is taken as no wish, bans are taken off the wanted sites, numbers are
    rounded up.
    """
    wanted, banned = _wishes(sites), _ordered(banned_sites)
    allowed = tuple(site for site in wanted if site not in banned)
    if allowed:
        # A list of sites says it all; only an unsatisfiable one keeps both, for the optimizers to refuse.
        wanted, banned = allowed, ()
    return Requirements(
        sites=wanted,
        banned_sites=banned,
        ces=_wishes(ces),
        platforms=_wishes(platforms),
        job_type=job_type,
        cpu_class=cpu_class(cpu_seconds),
        min_processors=max(1, min_processors),
        max_processors=None if max_processors is None else max(1, min_processors, max_processors),
        whole_node=whole_node,
        memory_mb=int(-(-memory_mb // 1)),
        tags=_ordered(tags),
    )


def requirements_of(description: JobDescription, candidate_sites: Collection[str] | None = None) -> Requirements:
    """The class of a job.

    Args:
        description: what its owner said.
        candidate_sites: where it may run at all, as the optimizers found; ``None``: as the owner said.
    """
    return canonical(
        sites=description.sites if candidate_sites is None else candidate_sites,
        banned_sites=description.banned_sites,
        ces=description.grid_ces,
        platforms=description.platforms,
        job_type=description.job_type,
        cpu_seconds=description.cpu_time,
        min_processors=description.min_processors,
        max_processors=description.max_processors,
        whole_node=description.whole_node,
        memory_mb=description.max_ram or 0,
        tags=description.tags,
    )


def _ordered(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))


def _wishes(values: Iterable[str]) -> tuple[str, ...]:
    wishes = _ordered(values)
    return () if any(value.lower() == ANY for value in wishes) else wishes


def takes_any(values: Iterable[str]) -> bool:
    """Whether a pilot's value says ``any``."""
    return any(value.lower() == ANY for value in values)


def is_usable(site: str, usable_sites: Collection[str] | None) -> bool:
    """Whether a site may run ordinary jobs; ``None`` means that no site is barred."""
    return usable_sites is None or site in usable_sites


def misfit(requirements: Requirements, offer: Offer, usable_sites: Collection[str] | None = None) -> Misfit | None:
    """The first condition that keeps this class from this offer, or ``None`` if it fits."""
    condition = in_the_way(requirements, offer, usable_sites)
    return None if condition is None else Misfit(condition, describe(condition, offer, requirements))


def fits(requirements: Requirements, offer: Offer, usable_sites: Collection[str] | None = None) -> str | None:
    """Why this class does not fit this offer, for people; ``None`` if it fits."""
    found = misfit(requirements, offer, usable_sites)
    return None if found is None else found.text


def in_the_way(want: Requirements, offer: Offer, usable_sites: Collection[str] | None) -> Condition | None:
    """The first condition that keeps this class from this offer (:func:`misfit` without its text)."""
    if want.job_type != TEST_JOB and not is_usable(offer.site, usable_sites):
        return Condition.SITE_UNUSABLE
    if want.sites and offer.site not in want.sites:
        return Condition.SITE
    if offer.site in want.banned_sites:
        return Condition.BANNED
    if want.ces and offer.ce not in want.ces and not takes_any((offer.ce,)):
        return Condition.CE
    if want.platforms and not takes_any(offer.platforms) and set(want.platforms).isdisjoint(offer.platforms):
        return Condition.PLATFORM
    return _too_small(want, offer)


def _too_small(want: Requirements, offer: Offer) -> Condition | None:
    if not want.cpu_class <= offer.cpu_seconds:
        return Condition.CPU_TIME
    if not want.min_processors <= offer.processors:
        return Condition.PROCESSORS
    if want.whole_node and not offer.whole_node:
        return Condition.WHOLE_NODE
    if not want.memory_mb <= offer.memory_mb:
        return Condition.MEMORY
    if not set(want.tags).issubset(offer.tags):
        return Condition.TAGS
    if not set(offer.required_tags).issubset(want.tags):
        return Condition.REQUIRED_TAGS
    return None


def not_theirs(offer: Offer, owner: str, group: str = "") -> Condition | None:
    """Whether a private or group-bound pilot keeps a job of this owner and group from itself, and by what.

    Args:
        offer: what the pilot says.
        owner: of the job; empty: do not ask.
        group: likewise.
    """
    if owner and offer.owners and owner not in offer.owners:
        return Condition.OWNER
    if group and offer.groups and group not in offer.groups:
        return Condition.GROUP
    return None


def memory_needed(want: Requirements, processors: int) -> int:
    """MB that a job needs on a node with so many free processors: a whole-node job gets them all, another its least."""
    return want.memory_mb + want.memory_per_processor_mb * (processors if want.whole_node else want.min_processors)


def describe(condition: Condition, offer: Offer, want: Requirements | None = None) -> str:
    """What is in the way, for people: of one class, or (without it) of all that fail for this condition."""
    if want is None:
        return _TEXTS[condition].format(
            offer=offer,
            ce=offer.ce or "none",
            pool=offer.pool or "none",
            job_types=", ".join(offer.job_types),
            architecture=offer.architecture or "not known",
            gpus=len(offer.gpus),
            required=", ".join(offer.required_tags),
        )
    needs = {
        Condition.CPU_TIME: f"; it needs {want.cpu_class} s",
        Condition.PROCESSORS: f"; it needs {want.min_processors}",
        Condition.MEMORY: f"; it needs {want.memory_mb} MB",
        Condition.TAGS: f": {', '.join(sorted(set(want.tags) - set(offer.tags)))}",
        Condition.PLATFORM: f": {', '.join(want.platforms)}",
    }.get(condition, "")
    return describe(condition, offer) + needs


_TEXTS = {
    Condition.SITE_UNUSABLE: "site {offer.site} is not usable, only for jobs of type Test",
    Condition.POOL: "the pilot's pool is {pool}",
    Condition.SITE: "site {offer.site} is not wanted",
    Condition.BANNED: "site {offer.site} is banned by the job",
    Condition.CE: "CE {ce} is not wanted",
    Condition.JOB_TYPE: "the pilot takes only jobs of type {job_types}",
    Condition.PLATFORM: "the node has no wanted platform",
    Condition.ARCHITECTURE: "the node's architecture is {architecture}",
    Condition.CPU_TIME: "CPU time left is {offer.cpu_seconds:.0f} s",
    Condition.WALL_TIME: "wall time left is {offer.wall_seconds:.0f} s",
    Condition.PROCESSORS: "the node has {offer.processors} free processors",
    Condition.WHOLE_NODE: "the pilot has no whole node",
    Condition.MEMORY: "the node has {offer.memory_mb:.0f} MB of memory free",
    Condition.DISK: "the node has {offer.disk_mb:.0f} MB of disk free",
    Condition.GPU: "the node has {gpus} free GPUs",
    Condition.TAGS: "the node lacks tags",
    Condition.TAG_EXPRESSION: "the node's tags are not those wanted",
    Condition.REQUIRED_TAGS: "the pilot takes only jobs with tags {required}",
    Condition.OWNER: "the pilot takes only jobs of certain owners",
    Condition.GROUP: "the pilot takes only jobs of certain groups",
}
