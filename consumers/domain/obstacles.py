"""All that keeps a requirements class from an offer, not the first thing only; and a class in words.

:func:`obstacles` asks :func:`.requirements.in_the_way`, waives the condition that it names, and asks again: so it can
never disagree with the match, whatever conditions there are. :func:`survey` does it for a crowd of offers and says per
condition how many fail at it, how many at it alone, and which come nearest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from msgspec.structs import replace

from schemas.messages.pilot import Offer

from .requirements import Condition, Requirements, carried, describe, in_the_way, not_theirs

MAX_CLOSEST = 3
"""Nearest misses that are told of each condition."""

MAX_NAMES = 8
"""Names of a list that are spelled out in words."""

Waiver = Callable[[Requirements, Offer], tuple[Requirements, Offer]]


@dataclass(frozen=True, slots=True)
class Seen:
    """Some alike offers.

    Attributes:
        parked: they wait for a job at this moment.
    """

    offer: Offer
    parked: bool
    count: int = 1


@dataclass(slots=True)
class Failing:
    """Who fails at one condition.

    Attributes:
        offers: all of them.
        only: those that fail at nothing else.
        closest: the nearest misses, best first: text → offers.
    """

    offers: int = 0
    parked: int = 0
    only: int = 0
    only_parked: int = 0
    _misses: dict[tuple[int, float, str], int] = field(default_factory=dict)

    def note(self, seen: Seen, others: int, amount: float, text: str) -> None:
        """One kind of offers that fails at it, and at so many others."""
        self.offers += seen.count
        self.parked += seen.count * seen.parked
        if not others:
            self.only += seen.count
            self.only_parked += seen.count * seen.parked
        key = (others, -amount, f"{text} (site {seen.offer.site})")
        self._misses[key] = self._misses.get(key, 0) + seen.count
        if len(self._misses) > 64:  # only the best are ever told
            self._misses = {one: self._misses[one] for one in sorted(self._misses)[:32]}

    @property
    def closest(self) -> tuple[str, ...]:
        """The nearest misses for people."""
        best = sorted(self._misses)[:MAX_CLOSEST]
        return tuple(f"{_pilots(self._misses[key])}: {key[2]}" for key in best)


@dataclass(slots=True)
class Survey:
    """What became of a crowd of offers."""

    offers: int = 0
    parked: int = 0
    fitting: int = 0
    fitting_parked: int = 0
    failing: dict[Condition, Failing] = field(default_factory=dict)
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(Site, computing element) of the offers that fit."""
    together: Counter[tuple[Condition, ...]] = field(default_factory=Counter)
    """Conditions that fail together → offers."""

    @property
    def sites(self) -> Counter[str]:
        """Sites of the offers that fit."""
        found: Counter[str] = Counter()
        for (site, _), count in self.places.items():
            found[site] += count
        return found


def obstacles(
    want: Requirements,
    offer: Offer,
    usable_sites: Collection[str] | None,
    owner: str = "",
    group: str = "",
) -> tuple[Condition, ...]:
    """Every condition that keeps the class from the offer, in their order; empty: it fits.

    Args:
        want: the class.
        offer: the offer.
        usable_sites: the site mask.
        owner: whose job it is; empty: ask for the class only.
        group: and for which group.
    """
    found: list[Condition] = []
    while True:
        condition = in_the_way(want, offer, usable_sites)
        if condition is None or condition in found:
            break
        found.append(condition)
        if condition is Condition.SITE_UNUSABLE:
            usable_sites = None
        else:
            want, offer = _WAIVERS[condition](want, offer)
    while (condition := not_theirs(offer, owner, group)) is not None and condition not in found:
        found.append(condition)
        want, offer = _WAIVERS[condition](want, offer)
    return tuple(found)


def survey(
    want: Requirements,
    crowd: Iterable[Seen],
    usable_sites: Collection[str] | None,
    owner: str = "",
    group: str = "",
) -> Survey:
    """How a class fares with a crowd of offers; arguments as for :func:`obstacles`."""
    told = Survey()
    for seen in crowd:
        found = obstacles(want, seen.offer, usable_sites, owner, group)
        told.offers += seen.count
        told.parked += seen.count * seen.parked
        if not found:
            told.fitting += seen.count
            told.fitting_parked += seen.count * seen.parked
            told.places[seen.offer.site, seen.offer.ce] += seen.count
            continue
        told.together[found] += seen.count
        for condition in found:
            failing = told.failing.setdefault(condition, Failing())
            amount = _amount(condition, want, seen.offer)
            failing.note(seen, len(found) - 1, amount, describe(condition, seen.offer, want))
    return told


def name_of(condition: Condition) -> str:
    """The stable name of a condition: ``cpu-time``, ``memory`` and so on."""
    return condition.name.lower().replace("_", "-")


# -- words --------------------------------------------------------------------------------------------------------


def in_words(want: Requirements) -> tuple[str, ...]:
    """A class in words, a line each; what it does not say is left out."""
    return tuple(text for condition in _ASKING if (text := needs(condition, want)))


def in_a_line(want: Requirements) -> str:
    """A class in one line."""
    return "; ".join(in_words(want))


def needs(condition: Condition, want: Requirements) -> str:
    """What a class asks for by one condition, for people; empty if nothing."""
    say = _NEEDS.get(condition)
    return say(want) if say is not None else ""


def named(names: Collection[str], between: str = ", ") -> str:
    """Some names, the first of many."""
    shown = sorted(names)
    more = len(shown) - MAX_NAMES
    return between.join(shown[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def span(seconds: float) -> str:
    """Seconds with their meaning in larger units: ``86400 s (24 h)``."""
    return f"{seconds:.0f} s ({seconds / 3600:.4g} h)" if seconds >= 3600 else f"{seconds:.0f} s"


def _pilots(count: int) -> str:
    return f"{count} pilot{'' if count == 1 else 's'}"


def _sites(want: Requirements) -> str:
    return f"runs only at {named(want.sites)}" if want.sites else ""


def _processors(want: Requirements) -> str:
    least, most = want.min_processors, want.max_processors
    if most is None:
        return f"{least} or more processors"
    if most == least:
        return f"{least} processor{'' if least == 1 else 's'}"
    return f"{least} to {most} processors"


def _memory(want: Requirements) -> str:
    fixed = f"{want.memory_mb} MB of memory" if want.memory_mb else ""
    if not want.memory_per_processor_mb:
        return fixed
    each = f"{want.memory_per_processor_mb} MB for each processor"
    return f"{fixed} and {each}" if fixed else each.replace(" MB", " MB of memory")


def _gpus(want: Requirements) -> str:
    if not want.gpus:
        return ""
    memory = f" with {want.gpu_memory_mb} MB of memory" if want.gpu_memory_mb else ""
    models = f" of model {named(want.gpu_models, ' or ')}" if want.gpu_models else ""
    return f"{want.gpus} GPU{'' if want.gpus == 1 else 's'}{memory}{models}"


def _type(want: Requirements) -> str:
    return "" if want.job_type == "User" else f"job type {want.job_type}"


_NEEDS: Mapping[Condition, Callable[[Requirements], str]] = {
    Condition.SITE: _sites,
    Condition.BANNED: lambda want: f"never at {named(want.banned_sites)}" if want.banned_sites else "",
    Condition.CE: lambda want: f"computing element {named(want.ces)}" if want.ces else "",
    Condition.JOB_TYPE: _type,
    Condition.PLATFORM: lambda want: f"platform {named(want.platforms)}" if want.platforms else "",
    Condition.ARCHITECTURE: lambda want: f"architecture {want.architecture} or better" if want.architecture else "",
    Condition.CPU_TIME: lambda want: f"CPU time {span(want.cpu_class)}",
    Condition.WALL_TIME: lambda want: f"wall time {span(want.wall_class)}" if want.wall_class else "",
    Condition.PROCESSORS: _processors,
    Condition.WHOLE_NODE: lambda want: "the whole node" if want.whole_node else "",
    Condition.MEMORY: _memory,
    Condition.DISK: lambda want: f"{want.disk_mb} MB of disk" if want.disk_mb else "",
    Condition.GPU: _gpus,
    Condition.TAGS: lambda want: f"tag{'s' if len(want.tags) > 1 else ''} {named(want.tags)}" if want.tags else "",
    Condition.TAG_EXPRESSION: lambda want: f"tags {want.tag_expression}" if want.tag_expression else "",
    Condition.POOL: lambda want: f"pool {named(want.pools)}" if want.pools else "",
}

_ASKING = tuple(_NEEDS)

PILOTS_DEMAND: Mapping[Condition, str] = {
    Condition.SITE_UNUSABLE: "the operators allow their sites Test jobs only",
    Condition.POOL: "their pool is not one that the job names",
    Condition.JOB_TYPE: "they take other job types only",
    Condition.REQUIRED_TAGS: "they take only jobs that carry certain tags",
    Condition.OWNER: "private pilots of other owners",
    Condition.GROUP: "pilots for other groups",
}
"""Conditions that the pilot or its site sets, not the job."""


# -- waivers ------------------------------------------------------------------------------------------------------


def _amount(condition: Condition, want: Requirements, offer: Offer) -> float:
    """How near an offer comes at a condition: more is nearer."""
    match condition:
        case Condition.CPU_TIME:
            return offer.cpu_seconds
        case Condition.WALL_TIME:
            return offer.wall_seconds
        case Condition.PROCESSORS:
            return offer.processors
        case Condition.MEMORY:
            return offer.memory_mb
        case Condition.DISK:
            return offer.disk_mb
        case Condition.GPU:
            return len(offer.gpus)
        case Condition.TAGS:
            return -len(set(want.tags) - set(offer.tags))
    return 0.0


def _without_expression(want: Requirements, offer: Offer) -> tuple[Requirements, Offer]:
    """Tags that the pilot requires may be named in the expression: they still count as carried when it goes."""
    left = tuple(tag for tag in offer.required_tags if tag not in carried(want))
    return replace(want, tag_expression=""), replace(offer, required_tags=left)


_WAIVERS: Mapping[Condition, Waiver] = {
    Condition.POOL: lambda want, offer: (replace(want, pools=()), replace(offer, pool="")),
    Condition.SITE: lambda want, offer: (replace(want, sites=()), offer),
    Condition.BANNED: lambda want, offer: (replace(want, banned_sites=()), offer),
    Condition.CE: lambda want, offer: (replace(want, ces=()), offer),
    Condition.JOB_TYPE: lambda want, offer: (want, replace(offer, job_types=())),
    Condition.PLATFORM: lambda want, offer: (replace(want, platforms=()), offer),
    Condition.ARCHITECTURE: lambda want, offer: (replace(want, architecture=""), offer),
    Condition.CPU_TIME: lambda want, offer: (want, replace(offer, cpu_seconds=inf)),
    Condition.WALL_TIME: lambda want, offer: (want, replace(offer, wall_seconds=inf)),
    Condition.PROCESSORS: lambda want, offer: (want, replace(offer, processors=want.min_processors)),
    Condition.WHOLE_NODE: lambda want, offer: (want, replace(offer, whole_node=True)),
    Condition.MEMORY: lambda want, offer: (want, replace(offer, memory_mb=inf)),
    Condition.DISK: lambda want, offer: (want, replace(offer, disk_mb=inf)),
    Condition.GPU: lambda want, offer: (replace(want, gpus=0, gpu_memory_mb=0, gpu_models=()), offer),
    Condition.TAGS: lambda want, offer: (want, replace(offer, tags=(*offer.tags, *want.tags))),
    Condition.TAG_EXPRESSION: _without_expression,
    Condition.REQUIRED_TAGS: lambda want, offer: (want, replace(offer, required_tags=())),
    Condition.OWNER: lambda want, offer: (want, replace(offer, owners=())),
    Condition.GROUP: lambda want, offer: (want, replace(offer, groups=())),
}
"""Per condition a class and an offer that do not fail at it any more, and at nothing new."""
