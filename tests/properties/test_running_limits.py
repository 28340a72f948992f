"""The matcher's limits against a reference that counts every lease for every limit, one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.domain.choose import NoMatch, reserve
from consumers.domain.index import Index
from consumers.domain.requirements import canonical
from consumers.domain.running_limits import Lease, RunningLimits
from schemas.limits import EACH, MatchLimit, make_scope, parse_scope, scope_text
from schemas.messages.pilot import Offer

VALUES = {
    "site": ("A", "B"),
    "ce": ("c1", "c2"),
    "job-type": ("MC", "User"),
    "owner": ("/CN=ada", "/CN=bob"),
    "group": ("g1", "g2"),
}
NAMES = tuple(VALUES)
KINDS = tuple(product(VALUES["job-type"], VALUES["owner"], VALUES["group"]))
PLACES = tuple(product(VALUES["site"], (*VALUES["ce"], "")))


@st.composite
def limits(draw: st.DrawFn) -> MatchLimit:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True))
    scope = make_scope([f"{name}={draw(st.sampled_from((*VALUES[name], EACH)))}" for name in names])
    running = draw(st.none() | st.integers(0, 3))
    delay = draw(st.sampled_from((5.0, 12.0)) if running is None else st.sampled_from((None, None, 5.0)))
    return MatchLimit(scope=scope_text(scope), running=running, delay_seconds=delay)


Step: TypeAlias = tuple[str, Any, Any]
"""What happens, and its values."""

some_limits = st.lists(limits(), max_size=4, unique_by=lambda limit: limit.scope)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(PLACES), st.integers(1, 3)),
        st.tuples(st.just("end"), st.integers(0, 9), st.integers(1, 2)),
        st.tuples(st.just("pass"), st.integers(1, 7), st.none()),
        st.tuples(st.just("limit"), some_limits, st.none()),
        st.tuples(st.just("miss"), st.sampled_from(PLACES), st.none()),
        st.tuples(st.just("recount"), st.none(), st.none()),
    ),
    min_size=3,
    max_size=40,
)


@dataclass
class Reference:
    """Everything that ever started; limits are counted by going through it all."""

    now: float = 1000.0
    limits: tuple[MatchLimit, ...] = ()
    live: dict[int, Lease] = field(default_factory=dict)
    ever: list[Lease] = field(default_factory=list)

    def allows(self, facts: tuple[str, ...]) -> bool:
        return all(self.has_room(limit, facts) for limit in self.limits)

    def has_room(self, limit: MatchLimit, facts: tuple[str, ...]) -> bool:
        wanted = {NAMES.index(name): value for name, value in parse_scope(limit.scope)}
        if not all(facts[at] and value in {facts[at], EACH} for at, value in wanted.items()):
            return True
        alike = [one for one in self.live.values() if all(one.facts[at] == facts[at] for at in wanted)]
        if limit.running is not None and len(alike) >= limit.running:
            return False
        before = [one.matched for one in self.ever if all(one.facts[at] == facts[at] for at in wanted)]
        return not before or self.now >= max(before) + (limit.delay_seconds or 0.0)


def index_of() -> tuple[Index, dict[int, tuple[str, str, str]]]:
    index = Index()
    queues = dict(enumerate(KINDS, 1))
    for number, (job_type, owner, group) in queues.items():
        index.add_queue(number, canonical(job_type=job_type), group, owner)
        index.add(number, 0, 1000, 0.0)
    return index, queues


def offer_at(site: str, ce: str) -> Offer:
    return Offer(site=site, ce=ce, cpu_seconds=1e9, wall_seconds=1e9, processors=1, memory_mb=1e6, disk_mb=1e6)


@given(some_limits, steps)
@settings(max_examples=250, deadline=None)
def test_a_job_starts_where_every_limit_allows_it_and_only_there(  # noqa: C901 - one branch for each kind of step
    first: list[MatchLimit], told: list[Step]
) -> None:
    index, queues = index_of()
    truth = Reference(limits=tuple(first))
    counted = RunningLimits(truth.limits)
    jobs = 0

    def check(site: str, ce: str) -> set[int]:
        """Which queues are open there: the same for both."""
        closed = counted.closed_for(offer_at(site, ce), index, truth.now)
        found = set()
        for number, (job_type, owner, group) in queues.items():
            bit = 1 << index.queue(number).place
            shut = closed is not None and bit & (
                closed.classes | closed.of_group(group) | closed.of_owner(group, owner)
            )
            allowed = truth.allows((site, ce, job_type, owner, group))
            assert bool(shut) != allowed, (site, ce, job_type, owner, group, counted.standing(truth.now))
            if allowed:
                found.add(number)
        return found

    def start(site: str, ce: str) -> Lease | None:
        nonlocal jobs
        open_queues = check(site, ce)
        offer = offer_at(site, ce)
        chosen = reserve(offer, index, truth.now, 1, None, counted.closed_for(offer, index, truth.now))
        if isinstance(chosen, NoMatch):
            assert not open_queues
            return None
        assert chosen[0].queue_id in open_queues
        jobs += 1
        lease = Lease(jobs, 0, site, ce, *queues[chosen[0].queue_id], truth.now)
        counted.started(lease)
        return lease

    for what, one, two in told:
        if what == "ask":
            for _ in range(two):
                lease = start(*one)
                if lease is not None:
                    counted.confirm(lease.job, 1)
                    truth.live[lease.job] = lease._replace(attempt=1)
                    truth.ever.append(lease)
        elif what == "miss":
            lease = start(*one)
            if lease is not None:
                counted.withdraw(lease.job)
        elif what == "end" and truth.live:
            job = sorted(truth.live)[one % len(truth.live)]
            del truth.live[job]
            for _ in range(two):  # told twice is told once
                counted.ended(job, 1)
            counted.ended(job + 1, 0)  # of an older attempt: nothing
        elif what == "pass":
            truth.now += one
        elif what == "limit":
            truth.limits = tuple(one)
            counted = RunningLimits(truth.limits)
            counted.set_leases(truth.live.values())
            counted.note_starts(truth.ever)
        elif what == "recount":
            counted.set_leases(truth.live.values())
        for place in PLACES:
            check(*place)


@given(some_limits, steps)
@settings(max_examples=100, deadline=None)
def test_what_opens_is_told(first: list[MatchLimit], told: list[Step]) -> None:
    """Whatever was closed to a kind of job and is open now had an instance among those that opened."""
    index, queues = index_of()
    counted = RunningLimits(first)
    live: list[int] = []
    now, jobs = 1000.0, 0

    def closed() -> set[tuple[str, ...]]:
        found = set()
        for place, (job_type, owner, group) in product(PLACES, queues.values()):
            bits = counted.closed_for(offer_at(*place), index, now)
            bit = 1 << index.queue(KINDS.index((job_type, owner, group)) + 1).place
            if bits is not None and bit & (bits.classes | bits.of_group(group) | bits.of_owner(group, owner)):
                found.add((*place, job_type, owner, group))
        return found

    for what, one, two in told:
        before = closed()
        counted.take_opened(now)
        if what == "ask":
            jobs += 1
            counted.started(Lease(jobs, 1, *one, *KINDS[two], now))
            live.append(jobs)
        elif what == "end" and live:
            counted.ended(live.pop(one % len(live)), 1)
        elif what == "pass":
            due = counted.next_opening(now)
            now += one
            assert due is None or due > 1000.0
            if due is not None and due <= now:
                now = max(now, due)
        after = closed()
        opened = [{str(name): value for name, value in one.values.items()} for one in counted.take_opened(now)]
        for facts in before - after:
            named = dict(zip(NAMES, facts, strict=True))
            assert any(all(named[name] == value for name, value in one.items()) for one in opened), facts
