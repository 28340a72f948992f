"""Requirements classes: what a job wants of a node, in one canonical form, and whether an offer has it.

Two jobs with the same wishes have equal :class:`Requirements`, the same JSON bytes and the same digest, whatever the
order in which their owners wrote them; so classes are few where jobs are many. :func:`misfit` is the one definition of
"fits": the matcher's index (:mod:`.classes`), parked requests and ``job explain`` all follow it, and a property test
holds the index to it.

The conditions, in the order in which they are asked (semantics of DIRAC's task queues; numbers are numbers here):

* a site that is not usable gets only jobs of type Test;
* a pilot of a pool gets only jobs that name the pool, a pilot of none only jobs that name none;
* sites, CEs, platforms: an empty list wants anything; otherwise the offer's value must be in it. A pilot whose CE or
  platform is ``any`` skips that condition. Its site it always has to name, for bans rest on it;
* no banned site;
* the job's type is among those that the pilot takes, if it names some;
* the processors are of the wanted family, and of its level or a higher one;
* the class of CPU time fits into the CPU time left, that of wall time into the wall time left;
* processors, whole node, memory, disk: at least so much is free (:func:`memory_needed`);
* so many of the free GPUs have the memory and are of a wanted model (:func:`schemas.jdl.gpu.is_model`);
* all tags of the class are on the node, and its tag expression is true of them;
* all tags that the pilot requires are carried by the class (:func:`carried`).

Who may use a private or group-bound pilot is a question about the queue's owner and group (:func:`not_theirs`), and is
asked where queues are chosen (:mod:`.choose`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable
from hashlib import sha256

import msgspec

from schemas.jdl.architecture import architecture_serves, wanted_architecture
from schemas.jdl.description import JobDescription
from schemas.jdl.tag_expression import holds, named, settle
from schemas.messages.pilot import Offer

from .conditions import ANY, Condition, has_gpus, in_pool, is_usable, takes_any, takes_job_type, told

__all__ = [
    "ANY",
    "CPU_CLASSES",
    "MULTI_PROCESSOR",
    "TEST_JOB",
    "WHOLE_NODE",
    "Condition",
    "Misfit",
    "Requirements",
    "canonical",
    "carried",
    "cpu_class",
    "describe",
    "fits",
    "in_the_way",
    "is_usable",
    "memory_needed",
    "misfit",
    "not_theirs",
    "requirements_of",
    "takes_any",
    "too_small",
]

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

MULTI_PROCESSOR = "MultiProcessor"
WHOLE_NODE = "WholeNode"

TEST_JOB = "Test"
"""The job type that also runs at sites that are not usable (DIRAC)."""


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
    wall_seconds: float = 0,
    memory_per_processor_mb: float = 0,
    disk_mb: float = 0,
    gpus: int = 0,
    gpu_memory_mb: float = 0,
    gpu_models: Iterable[str] = (),
    architecture: str = "",
    tag_expression: str = "",
    pools: Iterable[str] = (),
) -> Requirements:
    """The class of these wishes.

    Lists are sorted without repetition, ``any`` is taken as no wish, bans are taken off the wanted sites. CPU time and
    wall time are rounded up to a class. Memory and disk are rounded up to whole MB only: few different amounts are in
    use, and a job that asks for just what a node has must get it.

    Raises:
        TagExpressionError: the expression cannot be read, or no node can ever fulfil it together with the tags.
        ArchitectureError: there is no such architecture.
    """
    wanted, banned = _wishes(sites), _ordered(banned_sites)
    allowed = tuple(site for site in wanted if site not in banned)
    if allowed:
        # A list of sites says it all; only an unsatisfiable one keeps both, for the optimizers to refuse.
        wanted, banned = allowed, ()
    carried_tags, expression = settle(_ordered(tags), tag_expression)
    models = _wishes(gpu_models)
    count = gpus or (1 if gpu_memory_mb > 0 or models else 0)
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
        memory_mb=_up(memory_mb),
        tags=carried_tags,
        wall_class=cpu_class(wall_seconds) if wall_seconds > 0 else 0,
        memory_per_processor_mb=_up(memory_per_processor_mb),
        disk_mb=_up(disk_mb),
        gpus=count,
        gpu_memory_mb=_up(gpu_memory_mb),
        gpu_models=models,
        architecture="" if not architecture or takes_any((architecture,)) else str(wanted_architecture(architecture)),
        tag_expression=expression,
        pools=_ordered(pools),
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
        memory_mb=description.fixed_memory_mb,
        tags=description.tags,
        wall_seconds=description.wall_time or 0,
        memory_per_processor_mb=description.max_ram_per_processor or 0,
        disk_mb=description.disk_space or 0,
        gpus=description.gpus,
        gpu_memory_mb=description.gpu_memory or 0,
        gpu_models=description.gpu_models,
        architecture=description.architecture,
        tag_expression=description.tag_expression,
        pools=description.pools,
    )


def _up(amount: float) -> int:
    return int(-(-amount // 1))


def _ordered(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))


def _wishes(values: Iterable[str]) -> tuple[str, ...]:
    wishes = _ordered(values)
    return () if any(value.lower() == ANY for value in wishes) else wishes


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
    if not in_pool(offer.pool, want.pools):
        return Condition.POOL
    if want.sites and offer.site not in want.sites:
        return Condition.SITE
    if offer.site in want.banned_sites:
        return Condition.BANNED
    if want.ces and offer.ce not in want.ces and not takes_any((offer.ce,)):
        return Condition.CE
    if not takes_job_type(offer, want.job_type):
        return Condition.JOB_TYPE
    if want.platforms and not takes_any(offer.platforms) and set(want.platforms).isdisjoint(offer.platforms):
        return Condition.PLATFORM
    if want.architecture and not architecture_serves(offer.architecture, want.architecture):
        return Condition.ARCHITECTURE
    return too_small(want, offer) or _wrong_tags(want, offer)


def too_small(want: Requirements, offer: Offer) -> Condition | None:
    """The first amount of which an offer has too little for a class, GPUs and the whole node included."""
    if want.cpu_class > offer.cpu_seconds:
        return Condition.CPU_TIME
    if want.wall_class > offer.wall_seconds:
        return Condition.WALL_TIME
    if want.min_processors > offer.processors:
        return Condition.PROCESSORS
    if want.whole_node and not offer.whole_node:
        return Condition.WHOLE_NODE
    if memory_needed(want, offer.processors) > offer.memory_mb:
        return Condition.MEMORY
    if want.disk_mb > offer.disk_mb:
        return Condition.DISK
    if want.gpus and not has_gpus(offer.gpus, want.gpus, want.gpu_memory_mb, want.gpu_models):
        return Condition.GPU
    return None


def _wrong_tags(want: Requirements, offer: Offer) -> Condition | None:
    if want.tags and not set(want.tags).issubset(offer.tags):
        return Condition.TAGS
    if want.tag_expression and not holds(want.tag_expression, offer.tags):
        return Condition.TAG_EXPRESSION
    if offer.required_tags and not carried(want).issuperset(offer.required_tags):
        return Condition.REQUIRED_TAGS
    return None


def carried(want: Requirements) -> frozenset[str]:
    """The tags that a class carries for pilots that require some.

    They are its tags, those that its expression names without negation, and ``MultiProcessor`` and ``WholeNode`` where
    the numbers say so: operators require these two to keep small jobs from large slots (DIRAC).
    """
    implied = []
    if want.whole_node or want.max_processors is None or want.max_processors > 1:
        implied.append(MULTI_PROCESSOR)
    if want.whole_node:
        implied.append(WHOLE_NODE)
    return named(want.tag_expression).union(want.tags, implied)


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
    text = told(condition, offer)
    if want is None:
        return text
    needs = {
        Condition.CPU_TIME: f"; it needs {want.cpu_class} s",
        Condition.PROCESSORS: f"; it needs {want.min_processors}",
        Condition.WALL_TIME: f"; it needs {want.wall_class} s",
        Condition.MEMORY: f"; it needs {memory_needed(want, offer.processors)} MB",
        Condition.DISK: f"; it needs {want.disk_mb} MB",
        Condition.GPU: f"; it needs {_gpus_wanted(want)}",
        Condition.ARCHITECTURE: f"; it needs {want.architecture}",
        Condition.POOL: f"; it wants {', '.join(want.pools) or 'none'}",
        Condition.JOB_TYPE: f", it is {want.job_type}",
        Condition.TAG_EXPRESSION: f": {want.tag_expression}",
        Condition.TAGS: f": {', '.join(sorted(set(want.tags) - set(offer.tags)))}",
        Condition.PLATFORM: f": {', '.join(want.platforms)}",
    }.get(condition, "")
    return text + needs


def _gpus_wanted(want: Requirements) -> str:
    text = f"{want.gpus} with {want.gpu_memory_mb} MB each" if want.gpu_memory_mb else str(want.gpus)
    return f"{text} of {' or '.join(want.gpu_models)}" if want.gpu_models else text
