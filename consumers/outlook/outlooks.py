"""What a snapshot means for jobs of one class and owner: obstacles, holds, place in the order, an estimate, advice.

Promises: what fits is decided by the match's own functions; nothing names another owner; a wait that cannot be told is
not guessed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.messages.why import Estimate, Hold, Obstacle, Outlook, Place, Sight

from ..domain.index import AGEING_SECONDS, Owner
from ..domain.obstacles import PILOTS_DEMAND, Survey, in_words, name_of, named, needs, survey
from ..domain.requirements import TEST_JOB, Requirements
from ..domain.running_limits import Instance
from ..domain.shares import DEFAULT_SHARE, Member, Turns
from ..domain.site_survey import SiteSurvey, survey_sites
from ..store import Reading, heads, proxies, sights
from ..store.sights import Behind
from .snapshot import ROLE, Snapshot

MIN_PROXY_SECONDS = 60.0
"""A stored proxy that ends sooner is of no use to a job."""

NO_PROXY = "a pilot that took it could not run it (pilotage proxy init, and the next pilotage submit stores a new one)"

MAX_BEFORE = 10_000
"""Jobs that are counted one by one; a place beyond that is "more than"."""

MAX_LIMITS = 10
"""Limits that are told, those that close most pilots first."""

MAX_PLACES = 500
"""Queues and priorities of one owner that are looked through for jobs before one."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose jobs of which class.

    Attributes:
        own_proxy: they bring a proxy of their own.
    """

    want: Requirements
    owner: str
    group: str
    own_proxy: bool = False


class Outlooks:
    """Makes outlooks.

    Args:
        tx: the store, to read.
        snapshot: the moment.
        now: server time.
    """

    def __init__(self, tx: Reading, snapshot: Snapshot, now: float) -> None:
        self._tx = tx
        self._shot = snapshot
        self._now = now

    def of(self, subject: Subject) -> Outlook:
        """Everything that keeps such jobs from pilots now."""
        found, sites = self._survey(subject)
        sight = self._sight(found, sites)
        obstacles = self._obstacles(subject, found, sites)
        holds = (*self._matcher(), *self._owner(subject), *self._proxy(subject), *self._rules(subject, found),
                 *self._mask(subject), *self._limits(subject, found))  # fmt: skip
        return Outlook(
            requirements=in_words(subject.want),
            sight=sight,
            obstacles=obstacles,
            holds=holds,
            verdict=verdict(sight, obstacles, holds),
            advice=advice(subject.want, found),
        )

    def _survey(self, subject: Subject) -> tuple[Survey, SiteSurvey]:
        """Remembered: many questions are about one class."""
        key = (subject.want, subject.owner, subject.group)
        known = self._shot.remembered.get(key)
        if not isinstance(known, tuple):
            shot = self._shot
            known = (
                survey(subject.want, shot.crowd, shot.usable_sites, subject.owner, subject.group),
                survey_sites(subject.want, shot.sites, shot.usable_sites, subject.group),
            )
            shot.remembered[key] = known
        return known

    def _sight(self, found: Survey, sites: SiteSurvey) -> Sight:
        registered = self._shot.registry.sites
        return Sight(
            pilots=found.offers,
            parked=found.parked,
            fitting=found.fitting,
            fitting_parked=found.fitting_parked,
            sites=len(registered),
            usable=sum(site.usable for site in registered.values()),
            fitting_sites=len(found.sites),
            possible_sites=len(sites.possible),
        )

    @staticmethod
    def _obstacles(subject: Subject, found: Survey, sites: SiteSurvey) -> tuple[Obstacle, ...]:
        conditions = sorted(
            found.failing.keys() | sites.failing.keys(),
            key=lambda one: (-(found.failing[one].offers if one in found.failing else 0), one.value),
        )
        told = []
        for condition in conditions:
            failing = found.failing.get(condition)
            told.append(
                Obstacle(
                    condition=name_of(condition),
                    needs=PILOTS_DEMAND.get(condition) or needs(condition, subject.want),
                    pilots=failing.offers if failing else 0,
                    parked=failing.parked if failing else 0,
                    only=failing.only if failing else 0,
                    only_parked=failing.only_parked if failing else 0,
                    sites=sites.failing[condition],
                    closest=failing.closest if failing else (),
                )
            )
        return tuple(told)

    # -- what else holds it -----------------------------------------------------------------------------------------

    def _matcher(self) -> Sequence[Hold]:
        leading = self._shot.leading
        if leading is None:
            return (Hold(kind=ROLE, text="no matcher has ever led: nothing is given to pilots; start one"),)
        if leading.until <= self._shot.taken:
            text = f"no matcher leads since {moment(leading.until)}: nothing is given to pilots until one is back"
            return (Hold(kind=ROLE, text=text),)
        return ()

    def _owner(self, subject: Subject) -> Sequence[Hold]:
        user = self._shot.registry.users.get(subject.owner)
        if user is None:
            return (Hold(kind="owner", text="its owner is not registered (any more)"),)
        if user.suspended:
            why = f": {user.reason}" if user.reason else ""
            return (Hold(kind="owner", text=f"its owner is suspended{why}"),)
        if subject.group not in user.groups:
            return (Hold(kind="owner", text=f"its owner is not (any more) in group {subject.group}"),)
        return ()

    def _proxy(self, subject: Subject) -> Sequence[Hold]:
        if subject.own_proxy:
            return ()
        until = proxies.until(self._tx, subject.owner, subject.group)
        if until is None:
            return (Hold(kind="proxy", text=f"no proxy of its owner is stored: {NO_PROXY}"),)
        if until < self._now + MIN_PROXY_SECONDS:
            return (Hold(kind="proxy", text=f"its owner's stored proxy ended at {moment(until)}: {NO_PROXY}"),)
        return ()

    def _rules(self, subject: Subject, found: Survey) -> Sequence[Hold]:
        """Operators' rules at sites whose pilots fit."""
        if self._owner(subject):
            return ()
        barred = [site for site in found.sites if self._shot.rights.is_barred(subject.owner, subject.group, site)]
        if not barred:
            return ()
        whole = len(barred) == len(found.sites)
        pilots = sum(found.sites[site] for site in barred)
        text = f"operators' rules keep its owner's jobs from {named(barred)}, where {count(pilots, 'pilot')} would fit"
        return (Hold(kind="rule", text=text, whole=whole),)

    def _mask(self, subject: Subject) -> Sequence[Hold]:
        """Wanted sites that operators have banned."""
        want, sites = subject.want, self._shot.registry.sites
        if want.job_type == TEST_JOB:
            return ()
        banned = [site for site in want.sites if site in sites and not sites[site].usable]
        if not banned:
            return ()
        why = "; ".join(f"{site} ({sites[site].reason or 'no reason given'})" for site in sorted(banned)[:3])
        more = f" and {len(banned) - 3} more" if len(banned) > 3 else ""
        text = f"operators allow only Test jobs at {why}{more}"
        return (Hold(kind="sites", text=text, whole=len(banned) == len(want.sites)),)

    def _limits(self, subject: Subject, found: Survey) -> Sequence[Hold]:
        """Limits of running jobs and start delays, at the places of the pilots that fit; without any, everywhere."""
        limits = self._shot.limits
        if not limits:
            return ()
        held: dict[Instance, int] = {}
        closed = 0
        for (site, ce), pilots in (found.places or {("", ""): 1}).items():
            facts = (site, ce, subject.want.job_type, subject.owner, subject.group)
            full = [one for one in limits.instances(facts) if not one.room(self._now)]
            closed += pilots * bool(full)
            for one in full:
                held[one] = held.get(one, 0) + pilots
        every = sum(found.places.values()) or 1
        worst = sorted(held, key=lambda one: -held[one])
        return tuple(
            Hold(kind="limit", text=f"limit {one.limit.scope}: {one.text(self._now)}", whole=closed == every)
            for one in worst[:MAX_LIMITS]
        )

    # -- the order --------------------------------------------------------------------------------------------------

    def place(self, subject: Subject, priority: int, submitted: float, job: int) -> Place:
        """Where a job stands; ``job`` may be beyond all ids for one that is not there yet."""
        index = self._shot.index
        group, owner = index.group(subject.group), index.owner(subject.group, subject.owner)
        groups_before, groups = _turn(index.turns, group)
        owners_before, owners = (0, 0) if group.sharing else _turn(group.turns, owner)
        concerned = list(group.owners.values()) if group.sharing else [owner]
        before, more = self._before(concerned, priority, submitted, job)
        return Place(
            group=group.name,
            group_share=group.share / DEFAULT_SHARE,
            groups_waiting=groups,
            groups_before=groups_before,
            owners_waiting=owners,
            owners_before=owners_before,
            priority=priority,
            before=before,
            more=more,
            background=group.background,
            sharing=group.sharing,
            group_used=round(group.used / index.clock.weight, 1),
            owner_share=owner.share / DEFAULT_SHARE,
            owner_used=round(owner.used / index.clock.weight, 1),
        )

    def _before(self, owners: Sequence[Owner], priority: int, submitted: float, job: int) -> tuple[int, bool]:
        """Waiting jobs of these owners in the group with a smaller rank: in whichever queue, of whichever priority."""
        places = [
            Behind(queue.id, level, submitted + AGEING_SECONDS * (level - priority), job)
            for owner in owners
            for queue in owner.queues.values()
            for level in queue.levels
        ]
        found = sights.before(self._tx, places[:MAX_PLACES], MAX_BEFORE + 1)
        return min(found, MAX_BEFORE), found > MAX_BEFORE or len(places) > MAX_PLACES

    def estimate(self, subject: Subject, outlook: Outlook, place: Place) -> Estimate:
        """How long until a job at this place is matched, if that can be told."""
        if any(hold.whole for hold in outlook.holds):
            return Estimate(basis="cannot be told: something holds it altogether")
        if not outlook.sight.fitting:
            return Estimate(basis="cannot be told: no pilot that is alive fits")
        if outlook.sight.fitting_parked and not place.before:
            return Estimate(seconds=0.0, basis="a pilot that fits asks for a job at this moment")
        matches = self._shot.matches
        window = max(1.0, self._shot.taken - matches.since)
        mine = matches.counts.get((subject.group, subject.owner), 0)
        if not mine:
            text = f"cannot be told: no job of this owner in {subject.group} was matched in the last {span(window)}"
            return Estimate(basis=text)
        seconds = (place.before + 1) * window / mine
        if place.more:
            return Estimate(
                seconds=seconds, basis=f"at least: {_rate(mine, window)}, and more jobs go first than counted"
            )
        return Estimate(
            seconds=seconds, basis=f"{_rate(mine, window)}, and {count(place.before, 'job')} of them go first"
        )


def _turn(turns: Turns, member: Member) -> tuple[int, int]:
    """How many have their turn before a member, and how many there are with him; who comes anew, where he would be."""
    mine = member.place
    if not member.active:
        mine = (member.background, max(member.turn, turns.floor(member)), member.name)
    return sum(place < mine for place in turns.order), len(turns.order) + (not member.active)


def _rate(jobs: int, window: float) -> str:
    were = "was" if jobs == 1 else "were"
    return f"{count(jobs, 'job')} of this owner and group {were} matched in the last {span(window)}"


def verdict(sight: Sight, obstacles: Sequence[Obstacle], holds: Sequence[Hold]) -> str:
    """All of it in one sentence."""
    whole = [hold for hold in holds if hold.whole]
    if whole:
        return f"It is held: {whole[0].text}."
    if not sight.pilots:
        if sight.sites and not sight.possible_sites:
            return "No pilot is alive, and none of the registered sites could run it: look at what it asks for."
        return "No pilot is alive: it waits for one to start."
    if not sight.fitting:
        worst = obstacles[0] if obstacles else None
        if sight.pilots == 1:
            names = " and ".join(one.condition for one in obstacles if one.pilots)
            return f"The only pilot that is alive does not fit: it fails at {names}."
        text = f": {_most(worst.pilots, sight.pilots)} fail at {worst.condition}" if worst is not None else ""
        return f"None of the {count(sight.pilots, 'pilot')} that are alive fits{text}."
    if any(hold.kind == "limit" for hold in holds):
        return f"{count(sight.fitting, 'pilot')} would fit, but limits hold it (see below)."
    if sight.fitting_parked:
        asking = count(sight.fitting_parked, "pilot")
        ask = "asks" if sight.fitting_parked == 1 else "ask"
        return f"{asking} that {_fit(sight.fitting_parked)} {ask} for jobs now: it is matched when its turn comes."
    if sight.fitting == 1:
        return "1 pilot fits, but it does not ask for a job now: it is busy."
    return f"{count(sight.fitting, 'pilot')} fit, but none of them asks for a job now: all are busy."


def advice(want: Requirements, found: Survey) -> str:
    """Which single condition, if it were not there, would give most pilots."""
    best = max(found.failing, key=lambda one: (found.failing[one].only_parked, found.failing[one].only), default=None)
    if best is None or not found.failing[best].only:
        if found.fitting or not found.together:
            return ""
        nearest, pilots = min(found.together.items(), key=lambda item: (len(item[0]), -item[1]))
        names = " and ".join(name_of(one) for one in nearest)
        fail = "fails" if pilots == 1 else "fail"
        return f"No single change would do: the nearest {count(pilots, 'pilot')} {fail} at {names}."
    gain = found.failing[best]
    idle = f" ({gain.only_parked} idle now)" if gain.only_parked else ""
    what = PILOTS_DEMAND.get(best) or needs(best, want)
    more = "more pilot" if found.fitting else "pilot"
    return f"{count(gain.only, more)}{idle} would fit but for one condition, {name_of(best)}: {what}."


def head_of(tx: Reading, queue_id: int, levels: Sequence[int], most: int) -> list[tuple[int, int, float]]:
    """The first jobs of a queue in their order: (job, priority, submitted)."""
    rows = [
        (job, priority, submitted)
        for priority in levels
        for submitted, job in heads.page(tx, (queue_id, priority), most)
    ]
    return sorted(rows, key=lambda row: (row[2] - AGEING_SECONDS * row[1], row[0]))[:most]


def count(number: int, noun: str) -> str:
    """``1 pilot``, ``3 pilots``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def moment(time: float) -> str:
    """A time for people, in UTC: who reads it may be anywhere."""
    if time <= 0:
        return "its start"
    return f"{dt.datetime.fromtimestamp(time, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(seconds: float) -> str:
    """A duration for people."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or (unit == "h" and seconds >= size):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _most(some: int, of: int) -> str:
    return "all of them" if some == of else f"{some} of them"


def _fit(number: int) -> str:
    return "fits" if number == 1 else "fit"


__all__ = ["Outlooks", "Subject", "advice", "count", "head_of", "moment", "span", "verdict"]
