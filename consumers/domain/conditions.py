"""The conditions that an offer may fail, what each asks of plain values, and its text for people.

Which of them a requirements class fails first is :mod:`.requirements`' to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from schemas.jdl.gpu import is_model
from schemas.messages.pilot import Gpu, Offer

ANY = "any"
"""A value that wants, or takes, anything (in any case of letters)."""


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
    LIMIT = 21
    """Operators' limits; like the two before and the one after it is asked where queues are chosen."""
    SERVED = 22
    """What else keeps all of an owner's jobs from a pilot."""


def takes_any(values: Iterable[str]) -> bool:
    """Whether a pilot's value says ``any``."""
    return any(value.lower() == ANY for value in values)


def is_usable(site: str, usable_sites: Collection[str] | None) -> bool:
    """Whether a site may run ordinary jobs; ``None`` means that no site is barred."""
    return usable_sites is None or site in usable_sites


def takes_job_type(offer: Offer, job_type: str) -> bool:
    """Whether a pilot takes jobs of a type: it names none, or this one, or ``any``."""
    return not offer.job_types or job_type in offer.job_types or takes_any(offer.job_types)


def in_pool(pool: str, pools: Collection[str]) -> bool:
    """Whether a pilot of a pool takes jobs that name these pools; no pool goes with none."""
    return pool in pools if pool else not pools


def has_gpus(gpus: Collection[Gpu], count: int, memory_mb: int, models: Collection[str]) -> bool:
    """Whether at least so many GPUs have the memory and are of one of the models (any, if there are none)."""
    good = (gpu for gpu in gpus if gpu.memory_mb >= memory_mb and _is_one_of(gpu.model, models))
    return sum(1 for _ in good) >= count


def _is_one_of(model: str, wanted: Collection[str]) -> bool:
    return not wanted or any(is_model(model, one) for one in wanted)


def _free(count: int, what: str) -> str:
    return f"{count} free {what}{'' if count == 1 else 's'}"


def told(condition: Condition, offer: Offer) -> str:
    """What of an offer is in the way, for people."""
    return _TEXTS[condition].format(
        offer=offer,
        ce=f"CE {offer.ce}" if offer.ce else "a pilot that names no CE",
        pool=offer.pool or "none",
        job_types=", ".join(offer.job_types),
        architecture=offer.architecture or "not known",
        gpus=_free(len(offer.gpus), "GPU"),
        processors=_free(offer.processors, "processor"),
        required=", ".join(offer.required_tags),
    )


_TEXTS = {
    Condition.SITE_UNUSABLE: "site {offer.site} is not usable, only for jobs of type Test",
    Condition.POOL: "the pilot's pool is {pool}",
    Condition.SITE: "site {offer.site} is not wanted",
    Condition.BANNED: "site {offer.site} is banned by the job",
    Condition.CE: "{ce} is not wanted",
    Condition.JOB_TYPE: "the pilot takes only jobs of type {job_types}",
    Condition.PLATFORM: "the node has no wanted platform",
    Condition.ARCHITECTURE: "the node's architecture is {architecture}",
    Condition.CPU_TIME: "CPU time left is {offer.cpu_seconds:.0f} s",
    Condition.WALL_TIME: "wall time left is {offer.wall_seconds:.0f} s",
    Condition.PROCESSORS: "the node has {processors}",
    Condition.WHOLE_NODE: "the pilot has no whole node",
    Condition.MEMORY: "the node has {offer.memory_mb:.0f} MB of memory free",
    Condition.DISK: "the node has {offer.disk_mb:.0f} MB of disk free",
    Condition.GPU: "the node has {gpus}",
    Condition.TAGS: "the node lacks tags",
    Condition.TAG_EXPRESSION: "the node's tags are not those wanted",
    Condition.REQUIRED_TAGS: "the pilot takes only jobs with tags {required}",
    Condition.OWNER: "the pilot takes only jobs of certain owners",
    Condition.GROUP: "the pilot takes only jobs of certain groups",
    Condition.LIMIT: "limits are reached",
    Condition.SERVED: "their owners may have no jobs run there now, or the pilot can take no more owners' proxies",
}
