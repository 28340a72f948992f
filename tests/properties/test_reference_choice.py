"""Which job is chosen, against the specification in its plainest form (:mod:`tests.support.reference_matcher`).

Random jobs, offers, site masks, shares and limits, and time that passes; `make fuzz` tries more.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.domain.choose import NoMatch, choose, reserve
from consumers.domain.conditions import Condition
from consumers.domain.index import Index
from consumers.domain.requirements import Requirements
from consumers.domain.running_limits import Lease, RunningLimits
from schemas.limits import MatchLimit, make_scope, scope_text
from schemas.messages.pilot import Offer
from tests.support.effort import effort
from tests.support.reference_matcher import Job, Limited, ReferenceMatcher, Wish
from tests.support.wishes import GROUPS, OWNERS, scenes, usable

scopes = st.lists(st.sampled_from(("site", "ce", "job-type", "owner", "group")), min_size=1, max_size=2, unique=True)
VALUES = {
    "site": ("A", "B", "*"),
    "ce": ("ce1", "any", "*"),
    "job-type": ("User", "MCSim", "*"),
    "owner": ("o0", "o1", "*"),
    "group": ("g0", "g1", "*"),
}


@st.composite
def limits(draw: st.DrawFn) -> Limited:
    scope = {name: draw(st.sampled_from(VALUES[name])) for name in draw(scopes)}
    running = draw(st.one_of(st.none(), st.integers(0, 3)))
    return Limited(scope, running, draw(st.sampled_from((0.0, 30.0) if running is not None else (30.0, 100.0))))


shares = st.fixed_dictionaries(
    {
        name: st.tuples(st.sampled_from((1000.0, 1000.0, 100.0, 3000.0, 0.0)), st.booleans(), st.booleans())
        for name in GROUPS
    }
)


class Pair:
    """The core and the reference, kept in step."""

    def __init__(self, sites: frozenset[str] | None, some: list[Limited]) -> None:
        self.reference = ReferenceMatcher(usable=sites, limits=some)
        self.index = Index()
        self.index.set_usable_sites(sites)
        entries = {
            scope_text(make_scope([f"{name}={value}" for name, value in one.scope.items()])): one for one in some
        }
        self.reference.limits = list(entries.values())
        self.limits = RunningLimits(
            [
                MatchLimit(scope=scope, running=one.running, delay_seconds=one.delay or None)
                for scope, one in entries.items()
            ]
        )
        self.queues: dict[tuple[Requirements, str, str], int] = {}
        self.numbers = 0

    def set_share(self, group: str, share: float, *, sharing: bool) -> None:
        account = self.reference.shares.account(group)
        account.share, account.background = max(1.0, share), share <= 0
        self.reference.group(group).sharing = sharing
        self.index.set_share(group, share, sharing=sharing)

    def set_member_share(self, group: str, owner: str, share: float) -> None:
        account = self.reference.group(group).owners.account(owner)
        account.share, account.background = max(1.0, share), share <= 0
        self.index.set_member_share(group, owner, share)

    def add(self, wish: Wish, owner: str, group: str, priority: int, submitted: float) -> None:
        want = wish.requirements()
        queue = self.queues.setdefault((want, owner, group), len(self.queues))
        self.index.add_queue(queue, want, group, owner)
        self.index.add(queue, priority, 1, submitted)
        self.numbers += 1
        self.reference.jobs.append(Job(self.numbers, wish, owner, group, priority, submitted, queue))
        self.reference.note_active()

    def ask(self, offer: Offer, now: float) -> Job | None:
        """Both choose; the same; both take."""
        self.reference.weight(now)
        closed = self.limits.closed_for(offer, self.index, now)
        expected = self.reference.choose(offer, now)
        looked = choose(offer, self.index, now, closed=closed)
        outcome = reserve(offer, self.index, now, closed=closed)
        assert looked == outcome, "looking is the same as taking"
        if isinstance(outcome, NoMatch):
            assert expected is None, f"nothing, but {expected} fits"
            counts = Counter[Condition]()
            for reason in outcome.reasons:
                counts[reason.condition] += reason.count
            assert counts == self.reference.why_not(offer, now)
            return None
        [choice] = outcome
        assert expected is not None, f"{choice} fits nothing"
        job = self.taken(choice.queue_id, choice.priority)
        if (job.group, job.owner) != (expected.group, expected.owner):
            self.assert_tied(job, expected)
        else:
            assert job == expected
        self.reference.take(job, offer, now)
        self.put_head_right(job)
        lease = Lease(job.number, 1, offer.site, offer.ce, job.wish.job_type, job.owner, job.group, now)
        self.limits.started(lease)
        return job

    def taken(self, queue: int, priority: int) -> Job:
        some = [job for job in self.reference.jobs if (job.queue, job.priority) == (queue, priority)]
        return min(some, key=lambda job: (job.submitted, job.number))

    def assert_tied(self, job: Job, expected: Job) -> None:
        """The order of additions may decide between passes that are equal but for the last bits."""
        circle = self.reference.shares
        one, other = job.group, expected.group
        if one == other:
            assert not self.reference.group(one).sharing
            circle, one, other = self.reference.group(one).owners, job.owner, expected.owner
        (background, turn), (wanted, best) = circle.place(one), circle.place(other)
        assert background == wanted
        assert turn == pytest.approx(best, rel=1e-9), (job, expected)

    def put_head_right(self, job: Job) -> None:
        left = [one for one in self.reference.jobs if (one.queue, one.priority) == (job.queue, job.priority)]
        if left:
            self.index.set_head(job.queue, job.priority, min(one.submitted for one in left))

    def end(self, number: int) -> None:
        """A lease ends."""
        self.reference.leases = [one for one in self.reference.leases if one.number != number]
        self.limits.ended(number, 1)


@given(scenes(6, 8), usable, st.lists(limits(), max_size=4), shares, st.data())
@effort(250)
def test_what_is_chosen(
    scene: tuple[list[Wish], list[Offer]],
    sites: frozenset[str] | None,
    some: list[Limited],
    policy: dict[str, tuple[float, bool, bool]],
    data: st.DataObject,
) -> None:
    wishes, offers = scene
    wanted = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(wishes),
                st.sampled_from(OWNERS),
                st.sampled_from(GROUPS),
                st.integers(0, 10),
                st.integers(0, 10**6),
            ),
            max_size=25,
        )
    )
    asked = data.draw(
        st.lists(st.tuples(st.sampled_from(offers), st.sampled_from((0.0, 1.0, 40.0, 7200.0))), max_size=25)
    )
    both = Pair(sites, some)
    for group, (share, sharing, said) in policy.items():
        if said:
            both.set_share(group, share, sharing=sharing)
    for owner in OWNERS:
        if data.draw(st.integers(0, 4)) == 0:
            both.set_member_share("g0", owner, data.draw(st.sampled_from((0.0, 500.0, 2000.0))))
    later = data.draw(st.integers(0, len(wanted)))
    for wish, owner, group, priority, submitted in wanted[later:]:
        both.add(wish, owner, group, priority, float(submitted))
    now = 2e6
    for number, (offer, seconds) in enumerate(asked):
        now += seconds
        job = both.ask(offer, now)
        if number == len(asked) // 2:
            for wish, owner, group, priority, submitted in wanted[:later]:
                both.add(wish, owner, group, priority, float(submitted))
        if job is not None and data.draw(st.booleans()):
            both.end(job.number)


def test_a_private_pilot_is_told_of_its_owners_limit() -> None:
    """Although the limit leaves the class open to others."""
    both = Pair(None, [Limited({"owner": "o1"}, running=0)])
    both.add(Wish(), "o1", "g0", 1, 0.0)
    both.add(Wish(), "o2", "g0", 1, 0.0)
    offer = Offer(site="A", cpu_seconds=1e6, owners=("o1",))
    assert both.ask(offer, 1.0) is None
    outcome = choose(offer, both.index, 1.0, closed=both.limits.closed_for(offer, both.index, 1.0))
    assert isinstance(outcome, NoMatch)
    assert [reason.condition for reason in outcome.reasons] == [Condition.LIMIT]


def test_who_shares_nothing_in_a_sharing_group_comes_last() -> None:
    """An owner with share 0 gets what the other owners leave, however old his jobs are."""
    both = Pair(None, [])
    both.set_share("g0", 1000.0, sharing=True)
    both.set_member_share("g0", "o0", 0.0)
    both.add(Wish(), "o0", "g0", 1, 0.0)
    both.add(Wish(), "o1", "g0", 1, 1000.0)
    job = both.ask(Offer(site="A", cpu_seconds=1e6), 2000.0)
    assert job is not None
    assert job.owner == "o1"


SIZES = (Wish(), Wish(), Wish(min_processors=2), Wish(min_processors=5), Wish(whole_node=True))
LARGE = Offer(site="A", cpu_seconds=1e6, processors=8, whole_node=True)
crowd = st.lists(
    st.tuples(
        st.sampled_from(SIZES),
        st.sampled_from(OWNERS),
        st.sampled_from(GROUPS),
        st.sampled_from((0, 1, 2)),
        st.integers(0, 10**5),
    ),
    min_size=20,
    max_size=60,
)


@given(crowd, shares, st.lists(st.sampled_from((0.0, 0.0, 60.0, 20_000.0)), min_size=30, max_size=60), st.data())
@effort(60)
def test_whose_turn_it_is(
    wanted: list[tuple[Wish, str, str, int, int]],
    policy: dict[str, tuple[float, bool, bool]],
    pauses: list[float],
    data: st.DataObject,
) -> None:
    """Everything fits, so that the order alone decides: shares, sizes, time, owners that come and go."""
    both = Pair(None, [])
    for group, (share, sharing, said) in policy.items():
        if said:
            both.set_share(group, share, sharing=sharing)
    for owner in data.draw(st.lists(st.sampled_from(OWNERS), max_size=2, unique=True)):
        both.set_member_share("g0", owner, data.draw(st.sampled_from((0.0, 500.0, 2000.0))))
    late = data.draw(st.integers(0, len(wanted) // 2))
    for wish, owner, group, priority, submitted in wanted[late:]:
        both.add(wish, owner, group, priority, float(submitted))
    now = 2e5
    for number, pause in enumerate(pauses):
        now += pause
        both.ask(LARGE, now)
        if number == 10:
            for wish, owner, group, priority, submitted in wanted[:late]:
                both.add(wish, owner, group, priority, float(submitted))


def test_a_sharing_group_looks_at_the_first_job_that_fits_of_each() -> None:
    """Not at the first job of each: one that fits nowhere would carry its owner's later ones past the others'."""
    both = Pair(None, [])
    both.set_share("g0", 1000.0, sharing=True)
    both.add(Wish(sites=("B",)), "o0", "g0", 1, 0.0)
    both.add(Wish(), "o0", "g0", 1, 5000.0)
    both.add(Wish(), "o1", "g0", 1, 1000.0)
    taken = [both.ask(Offer(site="A", cpu_seconds=1e6), 6000.0 + number) for number in range(2)]
    assert [job.owner for job in taken if job is not None] == ["o1", "o0"]


def test_the_oldest_of_the_few_that_fit_comes_first() -> None:
    """Of an owner with many task queues, most of which do not fit."""
    both = Pair(None, [])
    both.add(Wish(tags=("gold",)), "o0", "g0", 1, 900.0)
    for number in range(30):
        both.add(Wish(sites=("B",), cpu_seconds=360, memory_mb=number), "o0", "g0", 1, float(number))
    both.add(Wish(tags=("gold", "avx")), "o0", "g0", 1, 500.0)
    job = both.ask(Offer(site="A", cpu_seconds=1e6, tags=("gold", "avx")), 1000.0)
    assert job is not None
    assert job.submitted == 500.0
