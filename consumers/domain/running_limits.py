"""How many jobs of a scope may run at once, and how long after each other they may start.

The leader tells every lease that begins and ends (:meth:`RunningLimits.started`, :meth:`RunningLimits.ended`) and asks
what is closed for an offer (:meth:`RunningLimits.closed_for`). Nothing is stored: the counts are those of the live
leases, told anew by :meth:`RunningLimits.set_leases`. Ends may be told twice, late or never; until then it counts.

A limit whose scope has ``*`` is one limit for each value: an *instance* each. A job may start if every instance that
concerns it has room; each is tested on its own, so two limits never cancel each other, and none holds what it does not
concern. Instances that are closed are kept by place (site and CE), so that an offer meets only those of its own place,
and an offer where nothing is closed costs four look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice, product
from typing import NamedTuple, TypeAlias, TypeVar

from schemas.limits import EACH, Attribute, MatchLimit, Scope, parse_scope, scope_text
from schemas.messages.pilot import Offer

from .classes import ClassIndex
from .index import Index, Owner

Facts: TypeAlias = tuple[str, ...]
"""What a limit can be about, of one lease, in the order of :class:`schemas.limits.Attribute`."""

_PLACES = {attribute: place for place, attribute in enumerate(Attribute)}

EVERYTHING = -1
"""As bits of classes: all of them."""

MANY = 1 << 60
"""Room that is not limited."""

MAX_SEEN = 256
"""Owners and groups whose closed limits are gone through for an answer."""


_Key: TypeAlias = tuple[str, Facts]
"""Scope of a limit, and the value of each of its attributes."""

_Shape: TypeAlias = tuple[int, ...]
"""Places of a limit's attributes in :data:`Facts`."""


M = TypeVar("M")


class Lease(NamedTuple):
    """One live lease."""

    job: int
    attempt: int
    site: str
    ce: str
    job_type: str
    owner: str
    group: str
    matched: float

    @property
    def facts(self) -> Facts:
        """What limits can be about."""
        return self[2:7]


@dataclass(slots=True, eq=False)
class Instance:
    """One limit for one value of each of its attributes.

    Attributes:
        limit: as the registry has it.
        values: attribute → value, never ``*``.
        running: leases that it counts.
        opens: no start before this time.
        closed: it is among those that are looked at.
    """

    limit: MatchLimit
    values: dict[Attribute, str]
    running: int = 0
    opens: float = 0.0
    closed: bool = False

    @property
    def is_full(self) -> bool:
        """Whether as many run as may."""
        return self.limit.running is not None and self.running >= self.limit.running

    def room(self, now: float) -> int:
        """Jobs that it lets start now."""
        if now < self.opens or self.is_full:
            return 0
        if self.limit.delay_seconds:
            return 1
        return MANY if self.limit.running is None else self.limit.running - self.running

    def text(self, now: float) -> str:
        """How it stands, for people."""
        where = " and ".join(f"{word} {self.values[one]}" for one, word in _WHERE if one in self.values)
        which = "".join(f" of {word} {self.values[one]}" for one, word in _WHOSE if one in self.values)
        told = []
        if self.limit.running is not None:
            told.append(f"{self.running} of {self.limit.running} jobs{which} run")
        if now < self.opens:
            told.append(f"the next job{which} may start in {self.opens - now:.0f} s")
        elif self.limit.delay_seconds and not self.is_full:
            told.append(f"jobs{which} start {self.limit.delay_seconds:g} s apart")
        reason = f" ({self.limit.reason})" if self.limit.reason else ""
        return f"{where + ': ' if where else ''}{', '.join(told)}{reason}"


_WHERE = ((Attribute.SITE, "site"), (Attribute.CE, "CE"))
_WHOSE = ((Attribute.JOB_TYPE, "type"), (Attribute.OWNER, "owner"), (Attribute.GROUP, "group"))


@dataclass(frozen=True, slots=True)
class Standing:
    """How one instance stands.

    Attributes:
        limit: as the registry has it.
        scope: of the instance, without ``*``.
        running: leases that it counts.
        opens: no start before this time.
        closed: nothing of its scope starts now.
        text: the same for people.
    """

    limit: MatchLimit
    scope: str
    running: int
    opens: float
    closed: bool
    text: str


_Kinds: TypeAlias = dict[str, set[Instance]]
_Shut: TypeAlias = dict[tuple[str, str], _Kinds]
"""(owner, group) → job type → closed instances; empty: any."""


class Closed:
    """What limits close for one offer now, as bits of classes; -1 for all.

    Attributes:
        classes: closed for everybody.
    """

    __slots__ = ("_index", "_now", "_shut", "classes")

    def __init__(self, shut: Sequence[_Shut], index: ClassIndex, now: float) -> None:
        self._shut = shut
        self._index = index
        self._now = now
        self.classes = self._bits(("", ""))

    def of_group(self, group: str) -> int:
        """Closed for this group, beside :attr:`classes`."""
        return self._bits(("", group))

    def of_owner(self, group: str, owner: str) -> int:
        """Closed for this owner in this group, beside :attr:`classes` and :meth:`of_group`."""
        return self._bits((owner, "")) | self._bits((owner, group))

    def texts(self, fitting: int, index: Index) -> Iterator[str]:
        """The limits that keep waiting jobs of these classes from the offer, for people; of very many some."""
        for shut in self._shut:
            for (owner, group), kinds in islice(shut.items(), MAX_SEEN):
                for job_type, instances in kinds.items():
                    held = self._of(job_type) & fitting
                    if held and any(one.mask & held for one in _members(index, group or None, owner or None)):
                        yield from (one.text(self._now) for one in instances)

    def _bits(self, who: tuple[str, str]) -> int:
        found = 0
        for shut in self._shut:
            for job_type in shut.get(who, ()):
                found |= self._of(job_type)
        return found

    def _of(self, job_type: str) -> int:
        return self._index.of_job_type(job_type) if job_type else EVERYTHING


class Rooms:
    """For how many requests a batch may hope: a try that is thrown away."""

    def __init__(self, limits: RunningLimits, now: float) -> None:
        self._limits = limits
        self._now = now
        self._left: dict[_Key, int] = {}

    def take(self, offer: Offer, job_type: str, owner: str, group: str, jobs: int = 1) -> bool:
        """Hope for up to so many jobs; whether one may start."""
        left, most, keys = self._left, jobs, []
        for limit, _, values in self._limits.concerning((offer.site, offer.ce, job_type, owner, group)):
            key = limit.scope, values
            if key not in left:
                left[key] = self._limits.room(limit, values, self._now)
            most = min(most, left[key])
            keys.append(key)
        if most <= 0:
            return False
        for key in keys:
            left[key] -= most
        return True

    def is_closed(self, offer: Offer, job_type: str, owner: str, group: str) -> bool:
        """Whether there was no room from the first."""
        facts = (offer.site, offer.ce, job_type, owner, group)
        found = self._limits.concerning(facts)
        return any(self._limits.room(limit, values, self._now) <= 0 for limit, _, values in found)


@dataclass(slots=True)
class _Held:
    """What a lease counts for, and when its instances opened before it.

    Attributes:
        former: an older lease of the job, whose end nobody told; it counts until this one is confirmed.
    """

    attempt: int
    instances: tuple[Instance, ...]
    before: tuple[float, ...] = field(default=())
    former: _Held | None = None


class RunningLimits:
    """All limits and what they count.

    Args:
        limits: of the registry; their scopes are in order.
    """

    def __init__(self, limits: Iterable[MatchLimit] = ()) -> None:
        self.limits = tuple(limits)
        self._shapes: dict[_Shape, dict[Facts, MatchLimit]] = {}
        self._instances: dict[_Key, Instance] = {}
        self._leases: dict[int, _Held] = {}
        self._shut: dict[tuple[str, str], _Shut] = {}
        self._timers: list[tuple[float, int, Instance]] = []
        self._timer = 0
        self._opened: dict[Instance, None] = {}
        for limit in self.limits:
            self._add(limit, parse_scope(limit.scope))

    def __bool__(self) -> bool:
        return bool(self.limits)

    def _add(self, limit: MatchLimit, scope: Scope) -> None:
        shape = tuple(_PLACES[attribute] for attribute, _ in scope)
        values = tuple(value for _, value in scope)
        self._shapes.setdefault(shape, {})[values] = limit
        if EACH not in values:
            self._instance(limit, shape, values)
        elif limit.running == 0:  # none of each value is none at all, of values that nobody has seen as well
            some = {name: value for name, value in scope if value != EACH or name is Attribute.CE}  # no CE is none
            self._instances[limit.scope, values] = closed = Instance(limit, some)
            self._settle(closed)

    # -- what runs ----------------------------------------------------------------------------------------------

    def set_leases(self, leases: Iterable[Lease]) -> None:
        """These are the live leases, and there are no others."""
        for one in self._instances.values():
            one.running = 0
        self._leases.clear()
        for lease in leases:
            self._hold(lease)
        for one in list(self._instances.values()):
            self._settle(one)

    def note_starts(self, starts: Iterable[Lease]) -> None:
        """These started, whether they still run or not: what delays are reckoned from."""
        for lease in starts:
            for one in self.instances(lease.facts):
                self._start(one, lease.matched)
                self._settle(one)

    def started(self, lease: Lease) -> None:
        """A lease begins now (at ``lease.matched``). An older lease of the job has ended by that.

        If its attempt has no number yet (0), the older one ends when it gets one (:meth:`confirm`).
        """
        self.ended(lease.job, lease.attempt)
        for one in self._hold(lease):
            self._settle(one)

    def confirm(self, job: int, attempt: int) -> None:
        """The lease that was told before its attempt had a number has this one."""
        held = self._leases.get(job)
        if held is not None:
            held.attempt = attempt
            former, held.former = held.former, None
            self._release(former)

    def withdraw(self, job: int) -> None:
        """The last lease told of this job never began: delays are as if it had not been told."""
        held = self._leases.pop(job, None)
        if held is not None:
            for one, before in zip(held.instances, held.before, strict=True):
                one.running -= 1
                self._set_opens(one, before)
                self._settle(one)
            if held.former is not None:
                self._leases[job] = held.former

    def ended(self, job: int, attempt: int) -> None:
        """The lease of this attempt has ended; of another, or told again: nothing."""
        held = self._leases.get(job)
        if held is None or held.attempt > attempt:
            return
        del self._leases[job]
        self._release(held)
        self._release(held.former)

    def _release(self, held: _Held | None) -> None:
        """What a lease counted for has room."""
        for one in held.instances if held is not None else ():
            one.running -= 1
            self._settle(one)

    def _hold(self, lease: Lease) -> tuple[Instance, ...]:
        concerned = self.instances(lease.facts)
        former = self._leases.get(lease.job)
        if concerned or former is not None:
            before = tuple(one.opens for one in concerned)
            self._leases[lease.job] = _Held(lease.attempt, concerned, before, former)
            for one in concerned:
                one.running += 1
                self._start(one, lease.matched)
        return concerned

    def _start(self, one: Instance, at: float) -> None:
        if one.limit.delay_seconds:
            self._set_opens(one, max(one.opens, at + one.limit.delay_seconds))

    def _set_opens(self, one: Instance, opens: float) -> None:
        if opens != one.opens:
            one.opens = opens
            if opens:
                self._timer += 1
                heappush(self._timers, (opens, self._timer, one))

    # -- what may start -----------------------------------------------------------------------------------------

    def closed_for(self, offer: Offer, index: Index, now: float) -> Closed | None:
        """What no job may start of on this offer, whatever else fits; ``None`` if nothing is closed there."""
        self._let_time_pass(now)
        if not self._shut:
            return None
        shut = [found for place in _places(offer) if (found := self._shut.get(place)) is not None]
        return Closed(shut, index.classes, now) if shut else None

    def held(self) -> list[tuple[int, int]]:
        """The leases that are counted: job and attempt."""
        return [(job, one.attempt) for job, one in self._leases.items()]

    def rooms(self, now: float) -> Rooms:
        """For trying how many could start."""
        self._let_time_pass(now)
        return Rooms(self, now)

    def next_opening(self, now: float) -> float | None:
        """When :meth:`take_opened` will have something to tell, as far as is known."""
        if self._opened:
            return now
        while self._timers and self._timers[0][0] != self._timers[0][2].opens:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def take_opened(self, now: float) -> list[Instance]:
        """Instances that were closed and are open now, each told once."""
        self._let_time_pass(now)
        opened, self._opened = self._opened, {}
        return list(opened)

    def standing(self, now: float) -> tuple[Standing, ...]:
        """How each instance stands that has anything to tell; those without ``*`` always."""
        self._let_time_pass(now)
        return tuple(
            Standing(
                one.limit,
                scope_text(tuple(one.values.items())),
                one.running,
                one.opens,
                one.room(now) == 0,
                one.text(now),
            )
            for one in self._instances.values()
        )

    def instances(self, facts: Facts) -> tuple[Instance, ...]:
        """Every instance that concerns a lease, on whichever attributes."""
        return tuple(self._instance(*found) for found in self.concerning(facts))

    def concerning(self, facts: Facts) -> Iterator[tuple[MatchLimit, _Shape, Facts]]:
        """Limits that concern a lease, and the values of theirs that it has. Who names no CE has none to be limited."""
        for shape, limits in self._shapes.items():
            values = tuple(facts[place] for place in shape)
            for choice in product(*((value, EACH) if value else () for value in values)):
                limit = limits.get(choice)
                if limit is not None:
                    yield limit, shape, values

    def room(self, limit: MatchLimit, values: Facts, now: float) -> int:
        """Jobs of these values that a limit lets start now."""
        known = self._instances.get((limit.scope, values))
        return (known or Instance(limit, {})).room(now)

    # -- keeping ------------------------------------------------------------------------------------------------

    def _instance(self, limit: MatchLimit, shape: _Shape, values: Facts) -> Instance:
        key = (limit.scope, values)
        known = self._instances.get(key)
        if known is None:
            attributes = tuple(Attribute)
            known = Instance(limit, {attributes[at]: value for at, value in zip(shape, values, strict=True)})
            self._instances[key] = known
            self._settle(known)
        return known

    def _let_time_pass(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, _, one = heappop(self._timers)
            if one.opens <= now:
                one.opens = 0.0
                self._settle(one)

    def _settle(self, one: Instance) -> None:
        """Put an instance among the closed ones, or take it out."""
        closed = one.is_full or one.opens > 0
        if closed == one.closed:
            return
        one.closed = closed
        values = one.values
        place = values.get(Attribute.SITE, ""), values.get(Attribute.CE, "")
        who = values.get(Attribute.OWNER, ""), values.get(Attribute.GROUP, "")
        job_type = values.get(Attribute.JOB_TYPE, "")
        if closed:
            self._opened.pop(one, None)
            self._shut.setdefault(place, {}).setdefault(who, {}).setdefault(job_type, set()).add(one)
            return
        self._opened[one] = None
        shut = self._shut[place]
        shut[who][job_type].remove(one)
        if not shut[who][job_type]:
            del shut[who][job_type]
        if not shut[who]:
            del shut[who]
        if not shut:
            del self._shut[place]


def _places(offer: Offer) -> Iterator[tuple[str, str]]:
    """Where an offer is, as limits may name it."""
    yield "", ""
    yield offer.site, ""
    if offer.ce:
        for ce in (offer.ce, EACH):
            yield "", ce
            yield offer.site, ce


def queues_of(instance: Instance, index: Index) -> Iterator[int]:
    """Queues whose waiting jobs an instance may concern, wherever they run."""
    values = instance.values
    wanted = values.get(Attribute.JOB_TYPE)
    bits = EVERYTHING if wanted is None else index.classes.of_job_type(wanted)
    for owner in _members(index, values.get(Attribute.GROUP), values.get(Attribute.OWNER)):
        if owner.mask & bits:
            yield from (queue.id for queue in owner.queues.values() if queue.levels and bits >> queue.place & 1)


def _members(index: Index, group: str | None, owner: str | None) -> Iterator[Owner]:
    for one in _named(index.groups, group):
        if one.mask:
            yield from _named(one.owners, owner)


def _named(some: Mapping[str, M], name: str | None) -> Iterable[M]:
    return some.values() if name is None else [some[name]] if name in some else []
