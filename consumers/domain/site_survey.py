"""Which registered sites could run jobs of a class, by what the registry says of them: pilots there or none.

A site without computing elements in the registry is judged by its name alone; one with some by their queues, the best
of which counts. What the registry does not know of nodes (GPUs, architecture, disk) keeps no site out. The conditions
are those of the match (:mod:`.obstacles`), asked of an imagined pilot in each queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from schemas.entries import ComputingQueue
from schemas.messages.pilot import Offer

from .obstacles import obstacles
from .requirements import ANY, Condition, Requirements

UNKNOWN = frozenset(
    {
        Condition.POOL,
        Condition.ARCHITECTURE,
        Condition.WHOLE_NODE,
        Condition.DISK,
        Condition.GPU,
        Condition.TAG_EXPRESSION,
        Condition.REQUIRED_TAGS,
    }
)
"""What only a pilot can tell."""

BY_NAME = frozenset({Condition.SITE_UNUSABLE, Condition.SITE, Condition.BANNED})
"""What can be told of a site whose computing elements are not known."""


@dataclass(slots=True)
class SiteSurvey:
    """What became of the sites.

    Attributes:
        possible: sites that might take it.
        failing: condition → sites that fail at it, whatever else they fail at.
    """

    possible: list[str] = field(default_factory=list)
    failing: Counter[Condition] = field(default_factory=Counter)


def survey_sites(
    want: Requirements,
    sites: Mapping[str, Sequence[tuple[str, ComputingQueue]]],
    usable_sites: Collection[str] | None,
    group: str = "",
) -> SiteSurvey:
    """How a class fares with the sites.

    Args:
        want: the class.
        sites: site → (computing element, one of its queues), none if not known.
        usable_sites: the site mask.
        group: for which the job runs; queues may be for some only.
    """
    told = SiteSurvey()
    for site, queues in sites.items():
        found = _of_site(want, site, queues, usable_sites, group)
        if found:
            told.failing.update(found)
        else:
            told.possible.append(site)
    return told


def _of_site(
    want: Requirements,
    site: str,
    queues: Sequence[tuple[str, ComputingQueue]],
    usable_sites: Collection[str] | None,
    group: str,
) -> frozenset[Condition]:
    """What all queues of a site fail at; if each fails at something else, what the best one fails at."""
    if not queues:
        return frozenset(obstacles(want, Offer(site=site), usable_sites)) & BY_NAME
    each = [frozenset(obstacles(want, _pilot_in(site, ce, queue), usable_sites, "", group)) - UNKNOWN
            for ce, queue in queues]  # fmt: skip
    best = min(each, key=len)
    return frozenset.intersection(*each) or best


def _pilot_in(site: str, ce: str, queue: ComputingQueue) -> Offer:
    return Offer(
        site=site,
        ce=ce,
        platforms=(queue.platform or ANY,),
        cpu_seconds=queue.cpu_seconds or inf,
        wall_seconds=queue.wall_seconds or inf,
        processors=queue.processors,
        memory_mb=queue.memory_mb or inf,
        disk_mb=inf,
        tags=queue.tags,
        groups=queue.groups,
    )
