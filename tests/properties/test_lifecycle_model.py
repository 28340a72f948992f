"""Any order, delay, loss and repetition of what happens to a job: the promises of its lifecycle hold.

A model world around one job: pilots with their own knowledge of their leases, a bag of messages on the way that may be
delivered late, twice or never, users who kill, delete and reschedule, a matcher and a sweeper.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumers.domain import facts
from consumers.domain.decision import (
    Account,
    Decision,
    Illegal,
    JobView,
    LeaveQueue,
    Line,
    ReleaseToQueue,
    SendControl,
    Stale,
)
from consumers.domain.lifecycle import decide
from schemas.job import FINAL, LEASED, JobStatus, is_legal, lease_margin
from schemas.messages.common import JobRef
from schemas.messages.pilot import Report, Step

S = JobStatus
LEASE = 100.0
MARGIN = lease_margin(LEASE)


@dataclass
class Pilot:
    """A pilot that holds (or believes it holds) one attempt."""

    name: str
    attempt: int
    until: float
    skew: float
    received: bool = False
    started: bool = False
    over: bool = False
    sequence: int = 0
    steps: list[Step] = field(default_factory=list)

    def may_run(self, now: float) -> bool:
        """Its payload's processes may exist: it stops them at lease end - margin on its own clock."""
        return self.started and not self.over and now < self.until - MARGIN


class World(RuleBasedStateMachine):
    pilots = Bundle("pilots")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.job = JobView(7, S.RECEIVED, lease_seconds=LEASE, changed=self.now)
        self.history: list[Line] = []
        self.accounts: list[Account] = []
        self.started_attempts: list[int] = []
        self.everyone: list[Pilot] = []
        self.bag: list[tuple[facts.Fact, Pilot]] = []
        self.left: set[str] = set()
        self.queued = 0

    @initialize(waits=st.sampled_from([True, True, True, False]))
    def begin(self, waits: bool) -> None:
        if waits:
            self.happen(facts.FoundReady())

    def happen(self, fact: facts.Fact, sender: Pilot | None = None) -> None:
        """Decide and carry out, and check what must hold of every single decision."""
        before = self.job
        outcome = decide(before, fact, self.now)
        if sender is not None and isinstance(outcome, Decision):
            assert before.leased, "only a live attempt can be told anything about"
            assert sender.name == before.pilot
            if not isinstance(fact, facts.SaidGoodbye):
                assert sender.attempt == before.attempt
            if isinstance(fact, facts.Reported) and fact.report.sequence <= before.sequence:
                assert self.only_history(outcome)
        if isinstance(outcome, Illegal):
            assert isinstance(fact, facts.Matched | facts.Reported)
            return
        if not isinstance(outcome, Decision):
            return
        self.carry_out(outcome)
        if isinstance(fact, facts.Beat | facts.Accepted):
            assert self.job.status is before.status
            assert not outcome.lines

    @staticmethod
    def only_history(decision: Decision) -> bool:
        return decision.changes().keys() <= {"steps", "changed"} and not decision.effects

    def carry_out(self, decision: Decision) -> None:
        status = decision.before.status
        for line in decision.lines:
            if line.cause != "late report":
                assert line.status is status or is_legal(status, line.status)
                status = line.status
        assert status is decision.after.status
        for name, value in decision.changes().items():
            assert getattr(decision.after, name) == value
        self.queued -= decision.before.status is S.WAITING and decision.after.status is S.MATCHED
        for effect in decision.effects:
            if isinstance(effect, Account):
                assert effect.attempt not in [account.attempt for account in self.accounts]
                self.accounts.append(effect)
            self.queued += isinstance(effect, ReleaseToQueue)
            self.queued -= isinstance(effect, LeaveQueue)
            if isinstance(effect, SendControl):
                assert decision.before.leased
                assert (effect.pilot, effect.attempt) == (decision.before.pilot, decision.before.attempt)
        self.history.extend(decision.lines)
        self.job = decision.after

    # ---- time, users, services

    @rule(seconds=st.sampled_from([0.0, 1.0, 19.0, 40.0, 95.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(check_first=st.booleans())
    def optimizer(self, check_first: bool) -> None:
        if check_first:
            self.happen(facts.CheckNeeded())
        self.happen(facts.FoundReady())

    @rule(wish=st.sampled_from(["nothing", "nothing", "nothing", "kill", "delete", "reschedule", "reschedule"]))
    def user(self, wish: str) -> None:
        if wish == "kill":
            self.happen(facts.KillAsked("owner"))
        elif wish == "delete":
            self.happen(facts.DeleteAsked("owner"))
        elif wish == "reschedule":
            self.happen(facts.RescheduleAsked("owner"))

    @rule(grace=st.sampled_from([0.0, 0.0, 30.0]))
    def sweeper(self, grace: float) -> None:
        self.happen(facts.SilenceWatch(60.0))
        self.happen(facts.LeaseWatch(None, grace))

    @precondition(lambda self: self.job.status is S.WAITING)
    @rule(
        target=pilots,
        skew=st.sampled_from([0.0, -3600.0, 3600.0]),
        reaches=st.sampled_from([True, True, True, False]),
        known=st.booleans(),
    )
    def matcher(self, skew: float, reaches: bool, known: bool) -> Pilot:
        """A waiting job can always be matched; perhaps to a pilot that had it before."""
        name = f"pilot{len(self.everyone)}"
        if known and self.everyone and self.everyone[-1].name not in self.left:
            name = self.everyone[-1].name
        before = self.job.attempt
        self.happen(facts.Matched(name))
        assert self.job.status is S.MATCHED
        assert self.job.attempt == before + 1
        assert self.job.attempt not in self.started_attempts
        self.started_attempts.append(self.job.attempt)
        assert self.job.lease_until is not None
        pilot = Pilot(name, self.job.attempt, self.job.lease_until, skew, received=reaches)
        self.everyone.append(pilot)
        if not reaches:
            self.bag.append((facts.Unroutable(pilot.attempt, name), pilot))
        return pilot

    # ---- pilots

    def alive(self, pilot: Pilot) -> bool:
        return pilot.received and not pilot.over

    @rule(pilot=pilots, answered=st.booleans())
    def pilot_starts(self, pilot: Pilot, answered: bool) -> None:
        if self.alive(pilot) and self.now < pilot.until - MARGIN:
            pilot.started = True
            self.bag.append((facts.Accepted(self.ref(pilot), pilot.name), pilot))
            if answered:
                self.arrive(*self.bag.pop(), answered=True)

    @rule(pilot=pilots)
    def pilot_beats(self, pilot: Pilot) -> None:
        if pilot.received:
            self.bag.append((facts.Beat(self.ref(pilot), pilot.name), pilot))

    @rule(
        pilot=pilots,
        status=st.sampled_from(
            [S.RUNNING, S.RUNNING, S.RUNNING, S.COMPLETING, S.DONE, S.FAILED, S.KILLED, S.RESCHEDULED, S.MATCHED]
        ),
        infrastructure=st.booleans(),
        at_once=st.booleans(),
    )
    def pilot_reports(self, pilot: Pilot, status: S, infrastructure: bool, at_once: bool) -> None:
        """Zombies report, too: a pilot that lost its lease may say anything."""
        if not pilot.received:
            return
        pilot.sequence += 1
        pilot.steps.append(Step(status=status, time=self.now + pilot.skew, minor=f"step {pilot.sequence}"))
        report = Report(
            job=7,
            attempt=pilot.attempt,
            sequence=pilot.sequence,
            status=status,
            steps=tuple(pilot.steps),
            infrastructure=infrastructure,
        )
        if status in FINAL | {S.RESCHEDULED}:
            pilot.over = True
        self.bag.append((facts.Reported(report, pilot.name), pilot))
        if at_once:
            self.happen(*self.bag[-1])

    @rule(pilot=pilots)
    def pilot_leaves(self, pilot: Pilot) -> None:
        if self.alive(pilot):
            for other in self.everyone:
                other.over = other.over or other.name == pilot.name
            self.left.add(pilot.name)
            self.bag.append((facts.SaidGoodbye(pilot.name, "no time left"), pilot))

    def ref(self, pilot: Pilot) -> JobRef:
        return JobRef(job=7, attempt=pilot.attempt)

    # ---- the network

    @precondition(lambda self: self.bag)
    @rule(data=st.data(), again=st.booleans(), answered=st.booleans())
    def deliver(self, data: st.DataObject, again: bool, answered: bool) -> None:
        """Any message, in any order; perhaps it comes again; perhaps the answer is lost."""
        place = data.draw(st.integers(0, len(self.bag) - 1))
        self.arrive(*(self.bag[place] if again else self.bag.pop(place)), answered)

    def arrive(self, fact: facts.Fact, pilot: Pilot, answered: bool) -> None:
        before = self.job
        self.happen(fact, pilot)
        told = isinstance(fact, facts.Accepted | facts.Beat) and self.job is not before
        if answered and told and self.job.lease_until is not None:
            pilot.until = max(pilot.until, self.job.lease_until)

    @precondition(lambda self: self.bag)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.bag.pop(data.draw(st.integers(0, len(self.bag) - 1)))

    # ---- what must hold always

    @invariant()
    def never_two_at_once(self) -> None:
        assert sum(pilot.may_run(self.now) for pilot in self.everyone) <= 1

    @invariant()
    def history_is_in_order(self) -> None:
        times = [line.time for line in self.history]
        assert times == sorted(times)
        assert not times or times[-1] <= self.now

    @invariant()
    def each_attempt_ends_exactly_once(self) -> None:
        ended = [account.attempt for account in self.accounts]
        live = [self.job.attempt] if self.job.leased else []
        assert sorted(ended + live) == self.started_attempts

    @invariant()
    def the_view_is_whole(self) -> None:
        job = self.job
        assert job.status is not S.RESCHEDULED
        assert self.queued == (job.status is S.WAITING)
        if job.status in LEASED:
            assert job.pilot
            assert job.lease_until is not None
        else:
            assert job.lease_until is None
            assert job.stalled_from is None
        if job.status is S.WAITING:
            assert not job.pilot
            assert not job.kill_requested
        assert (job.status is S.STALLED) == (job.stalled_from is not None)


def test_lifecycle_model() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        World,
        settings=settings(
            max_examples=250,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_a_zombie_changes_nothing() -> None:
    job = JobView(7, S.RUNNING, attempt=2, pilot="new", lease_until=50.0, accepted=True)
    zombie = Report(job=7, attempt=1, sequence=9, status=S.DONE)
    for fact in (
        facts.Reported(zombie, "old"),
        facts.Accepted(JobRef(job=7, attempt=1), "old"),
        facts.Beat(JobRef(job=7, attempt=1), "old"),
        facts.Beat(JobRef(job=7, attempt=2), "old"),
        facts.Unroutable(1, "old"),
        facts.Died(1, "old", "gone"),
    ):
        assert isinstance(decide(job, fact, 40.0), Stale)
