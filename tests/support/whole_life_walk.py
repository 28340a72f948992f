"""Steps in any order through the world of :mod:`tests.support.whole_life`, for Hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from consumers.store import Store
from schemas.job import JobStatus
from schemas.messages.user import DeleteJobs, KillJobs, RescheduleJobs
from tests.support.effort import FACTOR
from tests.support.reference_matcher import Limited
from tests.support.whole_life import SHAPES, SITES, USERS, World

PILOTS = st.integers(0, 3)
senders = st.sampled_from(USERS)
REPORTED = [JobStatus.RUNNING, JobStatus.DONE, JobStatus.FAILED, JobStatus.RESCHEDULED]
rarely = st.sampled_from([False] * 7 + [True])


VALUES = {
    "site": ("S1", "S2", "*"),
    "ce": ("ce1", "*"),
    "job-type": ("User", "Test", "*"),
    "owner": (USERS[0].identity, "*"),
    "group": ("vo_user", "*"),
}


@st.composite
def limits(draw):
    """One about one or two attributes."""
    scope = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=2, unique=True))
    running = draw(st.sampled_from([None, 0, 1, 2, 3]))
    delay = draw(st.sampled_from([30.0, 100.0] if running is None else [0.0, 0.0, 30.0]))
    return Limited({name: draw(st.sampled_from(VALUES[name])) for name in scope}, running, delay)


class WholeLife(RuleBasedStateMachine):
    """Steps in the world.

    Args:
        place: an empty store, and its end.
    """

    def __init__(self, place: Callable[[], AbstractContextManager[Store]]) -> None:
        super().__init__()
        self.place = ExitStack()
        self.world = World(self.place.enter_context(place()))

    def teardown(self) -> None:
        with self.place:
            self.world.settle()

    @invariant()
    def all_well(self) -> None:
        self.world.check()

    # ---- users

    @rule(sender=senders, shape=st.integers(0, len(SHAPES) - 1), count=st.integers(1, 4))
    def submit(self, sender, shape, count):
        if sender.identity not in self.world.suspended:
            self.world.submit(sender, shape, count)

    @precondition(lambda self: self.world.submitted)
    @rule(kind=st.sampled_from([KillJobs, KillJobs, DeleteJobs, RescheduleJobs]), data=st.data())
    def command(self, kind, data):
        self.world.command(kind, data.draw(st.sampled_from(sorted(self.world.submitted))))

    # ---- pilots

    @rule(
        number=PILOTS,
        which=st.sampled_from([0, 0, 1]),
        jobs=st.sampled_from([1, 1, 2, 5]),
        slot=st.sampled_from(["a", "a", "b"]),
        wait=st.sampled_from([0.0, 60.0, 1200.0, 1200.0]),
        csrs=st.sampled_from([0, 1, 1, 2]),
        holds=senders,
        now=st.booleans(),
    )
    def request(self, number, which, jobs, slot, wait, csrs, holds, now):
        self.world.request(number, which, jobs, slot, wait, csrs, holds)
        if now:
            self.world.deliver()

    @rule(number=PILOTS, accept=st.sampled_from([True, True, True, False]))
    def read_mail(self, number, accept):
        self.world.read_mail(number, accept=accept)

    @rule(number=PILOTS)
    def heartbeat(self, number):
        self.world.heartbeat(number)

    @rule(
        number=PILOTS,
        status=st.sampled_from([JobStatus.RUNNING, JobStatus.DONE, JobStatus.FAILED, JobStatus.RESCHEDULED]),
    )
    def report(self, number, status):
        self.world.report(number, status)

    @rule(number=PILOTS, says_so=st.booleans())
    def goodbye(self, number, says_so):
        self.world.goodbye(number, says_so=says_so)

    @rule(number=PILOTS)
    def new_pilot(self, number):
        self.world.new_pilot(number)

    # ---- the matcher and time

    @rule(most=st.sampled_from([1, 2, 100, 100]), which=st.integers(0, 1), fail=rarely)
    def deliver(self, most, which, fail):
        self.world.deliver(most, which=which, fail=fail)

    @rule(fail=rarely)
    def chores(self, fail):
        self.world.send_back()
        self.world.chores(fail=fail)

    @rule()
    def lose_hints(self):
        self.world.lose_hints()

    @rule(seconds=st.sampled_from([1.0, 6.0, 19.0, 45.0, 80.0]))
    def time_passes(self, seconds):
        self.world.pass_time(seconds)

    @rule(number=st.integers(0, 1))
    def restart_matcher(self, number):
        self.world.restart_matcher(number)

    @rule(number=st.integers(0, 1), asleep=st.booleans())
    def pause_matcher(self, number, asleep):
        (self.world.asleep.add if asleep else self.world.asleep.discard)(number)

    # ---- operators

    @rule(site=st.sampled_from(SITES), usable=st.booleans())
    def set_site(self, site, usable):
        self.world.set_site(site, usable=usable)

    @rule(sender=senders, suspended=st.booleans())
    def set_suspended(self, sender, suspended):
        self.world.set_suspended(sender, suspended=suspended)

    @rule(limits=st.lists(limits(), max_size=2))
    def set_limits(self, limits):
        self.world.set_limits(limits)

    @rule()
    def settle(self):
        self.world.settle()


def walk(place: Callable[[], AbstractContextManager[Store]], walks: int) -> None:
    """So many walks, times :data:`tests.support.effort.FACTOR`, each in a store of its own."""
    run_state_machine_as_test(
        lambda: WholeLife(place),
        settings=settings(
            max_examples=walks * FACTOR,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate, Phase.shrink),  # a walk takes 200 ms: explaining takes minutes
        ),
    )
