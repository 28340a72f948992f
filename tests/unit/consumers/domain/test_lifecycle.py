from __future__ import annotations

from dataclasses import replace

import pytest

from consumers.domain import facts
from consumers.domain.decision import (
    Account,
    BindOutputs,
    Decision,
    Ignored,
    Illegal,
    JobView,
    LeaveQueue,
    Optimize,
    Outcome,
    ReleaseToQueue,
    SendControl,
    Stale,
)
from consumers.domain.lifecycle import decide
from schemas.job import ACCEPT_LEASE, MAX_INFRASTRUCTURE_RETRIES, JobStatus
from schemas.messages.common import MAX_ATTEMPTS, JobRef, SandboxFile, Usage
from schemas.messages.pilot import Report, Step

S = JobStatus
WAITING = JobView(1, S.WAITING, lease_seconds=100.0, changed=5.0)
MATCHED = JobView(1, S.MATCHED, attempt=1, pilot="p", matched=10.0, lease_until=30.0, lease_seconds=100.0, changed=10.0)
RUNNING = replace(
    MATCHED, status=S.RUNNING, accepted=True, lease_until=120.0, sequence=1, steps=1, heartbeat=20.0, changed=15.0
)
REF = JobRef(job=1, attempt=1)


def decided(outcome: Outcome) -> Decision:
    assert isinstance(outcome, Decision), outcome
    return outcome


def statuses(outcome: Outcome) -> list[JobStatus]:
    return [line.status for line in decided(outcome).lines]


def report(sequence: int, status: JobStatus, *steps: tuple[JobStatus, float], **more: object) -> Report:
    said = tuple(Step(status=step, time=time) for step, time in steps)
    return Report(job=1, attempt=1, sequence=sequence, status=status, steps=said, **more)  # type: ignore[arg-type]


def effects(outcome: Outcome, kind: type) -> list[object]:
    return [effect for effect in decided(outcome).effects if isinstance(effect, kind)]


class TestMatch:
    def test_begins_an_attempt_with_an_acceptance_lease(self) -> None:
        after = decided(decide(replace(WAITING, attempt=3), facts.Matched("p"), 10.0)).after
        assert (after.status, after.attempt, after.pilot) == (S.MATCHED, 4, "p")
        assert after.lease_until == 10.0 + ACCEPT_LEASE
        assert (after.sequence, after.steps, after.accepted) == (0, 0, False)

    @pytest.mark.parametrize("status", [status for status in S if status is not S.WAITING])
    def test_of_a_job_that_does_not_wait_is_illegal(self, status: JobStatus) -> None:
        assert isinstance(decide(replace(WAITING, status=status), facts.Matched("p"), 10.0), Illegal)

    def test_that_came_back_is_released_at_once_and_uncharged(self) -> None:
        outcome = decided(decide(MATCHED, facts.Unroutable(1, "p"), 11.0))
        assert outcome.after.status is S.WAITING
        assert (outcome.after.infra_failures, outcome.after.pilot, outcome.after.lease_until) == (0, "", None)
        assert decided(decide(outcome.after, facts.Matched("q"), 12.0)).after.attempt == 2

    def test_that_came_back_but_was_accepted_stays(self) -> None:
        assert isinstance(decide(RUNNING, facts.Unroutable(1, "p"), 21.0), Ignored)

    def test_that_came_back_after_a_kill_is_killed(self) -> None:
        after = decided(decide(replace(MATCHED, kill_requested="u"), facts.Unroutable(1, "p"), 11.0)).after
        assert after.status is S.KILLED


class TestLease:
    def test_acceptance_starts_the_run_lease(self) -> None:
        outcome = decided(decide(MATCHED, facts.Accepted(REF, "p"), 12.0))
        assert (outcome.after.accepted, outcome.after.lease_until) == (True, 112.0)
        assert not outcome.lines

    def test_a_short_run_lease_does_not_shorten_the_acceptance_lease(self) -> None:
        after = decided(decide(replace(MATCHED, lease_seconds=1.0), facts.Accepted(REF, "p"), 12.0)).after
        assert after.lease_until == 30.0

    def test_heartbeat_renews_and_changes_no_state(self) -> None:
        outcome = decided(
            decide(replace(RUNNING, status=S.STALLED, stalled_from=S.RUNNING), facts.Beat(REF, "p"), 99.0)
        )
        assert outcome.changes() == {"lease_until": 199.0, "heartbeat": 99.0}

    def test_heartbeat_does_not_renew_what_was_not_accepted(self) -> None:
        assert isinstance(decide(MATCHED, facts.Beat(REF, "p"), 12.0), Ignored)

    def test_heartbeat_brings_an_unfulfilled_kill_again(self) -> None:
        outcome = decide(replace(RUNNING, kill_requested="u"), facts.Beat(REF, "p"), 50.0)
        assert effects(outcome, SendControl) == [SendControl("p", 1, "kill", "killed by u")]

    @pytest.mark.parametrize(("now", "over"), [(129.9, False), (130.0, True)])
    def test_ends_after_margin(self, now: float, over: bool) -> None:
        assert isinstance(decide(RUNNING, facts.LeaseWatch(), now), Decision if over else Ignored)

    @pytest.mark.parametrize(("now", "over"), [(189.9, False), (190.0, True)])
    def test_ends_after_our_own_outage_as_well(self, now: float, over: bool) -> None:
        assert isinstance(decide(RUNNING, facts.LeaseWatch(grace=60.0), now), Decision if over else Ignored)

    def test_end_gives_a_new_attempt_uncharged(self) -> None:
        outcome = decide(RUNNING, facts.LeaseWatch(), 131.0)
        assert statuses(outcome) == [S.RESCHEDULED, S.WAITING]
        after = decided(outcome).after
        assert (after.infra_failures, after.reschedules, after.pilot) == (1, 0, "")
        assert effects(outcome, ReleaseToQueue)
        [account] = effects(outcome, Account)
        assert isinstance(account, Account)
        assert (account.outcome, account.reported) == (S.RESCHEDULED, False)

    def test_end_of_a_killed_one_is_its_death(self) -> None:
        outcome = decide(replace(RUNNING, kill_requested="u", delete_requested=True), facts.LeaseWatch(), 131.0)
        assert statuses(outcome) == [S.KILLED, S.DELETED]

    def test_too_many_lost_attempts_fail_the_job(self) -> None:
        job = replace(RUNNING, infra_failures=MAX_INFRASTRUCTURE_RETRIES - 1)
        assert decided(decide(job, facts.LeaseWatch(), 131.0)).after.status is S.WAITING
        job = replace(RUNNING, infra_failures=MAX_INFRASTRUCTURE_RETRIES)
        after = decided(decide(job, facts.LeaseWatch(), 131.0)).after
        assert after.status is S.FAILED
        assert "lost 21 attempts" in after.minor

    def test_goodbye_releases_at_once(self) -> None:
        assert statuses(decide(RUNNING, facts.SaidGoodbye("p", "queue ends"), 21.0)) == [S.RESCHEDULED, S.WAITING]
        assert isinstance(decide(RUNNING, facts.SaidGoodbye("q"), 21.0), Ignored)

    def test_proof_of_death_is_for_one_attempt(self) -> None:
        assert statuses(decide(RUNNING, facts.Died(1, "p", "gone"), 21.0)) == [S.RESCHEDULED, S.WAITING]
        assert isinstance(decide(replace(RUNNING, attempt=2), facts.Died(1, "p", "gone"), 21.0), Stale)


class TestSilence:
    def test_is_shown_and_taken_back(self) -> None:
        stalled = decided(decide(replace(RUNNING, status=S.COMPLETING), facts.SilenceWatch(90.0), 111.0)).after
        assert (stalled.status, stalled.stalled_from) == (S.STALLED, S.COMPLETING)
        assert isinstance(decide(stalled, facts.SilenceWatch(90.0), 112.0), Ignored)
        beaten = decided(decide(stalled, facts.Beat(REF, "p"), 113.0)).after
        assert beaten.status is S.STALLED
        back = decided(decide(beaten, facts.SilenceWatch(90.0), 114.0)).after
        assert (back.status, back.stalled_from) == (S.COMPLETING, None)

    def test_grace_covers_our_outage(self) -> None:
        assert isinstance(decide(RUNNING, facts.SilenceWatch(90.0, 60.0), 111.0), Ignored)

    def test_of_an_unaccepted_match_is_the_leases_matter(self) -> None:
        assert isinstance(decide(MATCHED, facts.SilenceWatch(1.0), 1000.0), Ignored)

    def test_a_report_ends_it(self) -> None:
        stalled = replace(RUNNING, status=S.STALLED, stalled_from=S.RUNNING)
        after = decided(decide(stalled, facts.Reported(report(2, S.RUNNING, (S.RUNNING, 11.0)), "p"), 112.0)).after
        assert (after.status, after.stalled_from) == (S.RUNNING, None)

    def test_a_report_cannot_use_it_to_go_back(self) -> None:
        stalled = replace(RUNNING, status=S.STALLED, stalled_from=S.COMPLETING)
        assert isinstance(decide(stalled, facts.Reported(report(2, S.RUNNING), "p"), 112.0), Illegal)


class TestReport:
    def test_a_short_job_goes_from_matched_to_done(self) -> None:
        files = (SandboxFile(name="std.out", sha256="0" * 64, size=0),)
        said = report(
            1,
            S.DONE,
            (S.RUNNING, 11.0),
            (S.COMPLETING, 11.5),
            (S.DONE, 12.0),
            outputs=files,
            usage=Usage(cpu_seconds=1),
        )
        outcome = decide(MATCHED, facts.Reported(said, "p"), 13.0)
        assert statuses(outcome) == [S.RUNNING, S.COMPLETING, S.DONE]
        assert [line.time for line in decided(outcome).lines] == [11.0, 11.5, 12.0]
        assert effects(outcome, BindOutputs) == [BindOutputs(1, files)]
        [account] = effects(outcome, Account)
        assert isinstance(account, Account)
        assert (account.outcome, account.usage.cpu_seconds, account.reported) == (S.DONE, 1, True)
        again = decide(decided(outcome).after, facts.Reported(said, "p"), 14.0)
        assert isinstance(again, Ignored)

    @pytest.mark.parametrize("skew", [-3600.0, 3600.0])
    def test_a_wrong_clock_leaves_the_history_in_order(self, skew: float) -> None:
        said = report(1, S.DONE, (S.RUNNING, 11.0 + skew), (S.COMPLETING, 11.5 + skew), (S.DONE, 12.0 + skew))
        times = [line.time for line in decided(decide(MATCHED, facts.Reported(said, "p"), 13.0)).lines]
        assert times == sorted(times)
        assert all(10.0 <= time <= 13.0 for time in times)

    @pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
    def test_a_time_that_is_none_is_bounded(self, odd: float) -> None:
        [line] = decided(decide(MATCHED, facts.Reported(report(1, S.RUNNING, (S.RUNNING, odd)), "p"), 13.0)).lines
        assert 10.0 <= line.time <= 13.0

    def test_later_lines_are_never_earlier(self) -> None:
        said = report(2, S.COMPLETING, (S.RUNNING, 11.0), (S.COMPLETING, 12.0))
        [line] = decided(decide(RUNNING, facts.Reported(said, "p"), 30.0)).lines
        assert line.time == RUNNING.changed

    def test_renews_the_lease(self) -> None:
        after = decided(decide(MATCHED, facts.Reported(report(1, S.RUNNING), "p"), 13.0)).after
        assert (after.accepted, after.lease_until, after.heartbeat) == (True, 113.0, 13.0)

    def test_an_older_one_changes_no_state(self) -> None:
        job = replace(RUNNING, status=S.COMPLETING, sequence=5, steps=2)
        assert isinstance(decide(job, facts.Reported(report(4, S.RUNNING, (S.RUNNING, 11.0)), "p"), 40.0), Ignored)
        longer = report(4, S.RUNNING, (S.RUNNING, 11.0), (S.RUNNING, 12.0), (S.RUNNING, 13.0))
        outcome = decided(decide(job, facts.Reported(longer, "p"), 40.0))
        assert (outcome.after.status, outcome.after.sequence, outcome.after.steps) == (S.COMPLETING, 5, 3)
        assert len(outcome.lines) == 1

    def test_a_payloads_failure_is_final(self) -> None:
        outcome = decide(RUNNING, facts.Reported(report(2, S.FAILED, exit_code=3), "p"), 40.0)
        assert decided(outcome).after.status is S.FAILED
        assert decided(outcome).after.minor == "the payload ended with exit code 3"

    def test_a_failure_of_the_infrastructure_is_a_new_attempt(self) -> None:
        said = report(2, S.FAILED, (S.RUNNING, 11.0), (S.FAILED, 30.0), infrastructure=True, reason="disk full")
        outcome = decide(RUNNING, facts.Reported(said, "p"), 40.0)
        assert statuses(outcome) == [S.RESCHEDULED, S.WAITING]
        assert decided(outcome).after.infra_failures == 1
        assert not effects(outcome, BindOutputs)

    def test_given_back(self) -> None:
        outcome = decide(MATCHED, facts.Reported(report(1, S.RESCHEDULED, reason="no time"), "p"), 40.0)
        assert statuses(outcome) == [S.RESCHEDULED, S.WAITING]

    def test_killed_on_order(self) -> None:
        job = replace(RUNNING, kill_requested="u")
        assert statuses(decide(job, facts.Reported(report(2, S.KILLED), "p"), 40.0)) == [S.KILLED]

    def test_killed_without_an_order_is_a_new_attempt(self) -> None:
        assert statuses(decide(RUNNING, facts.Reported(report(2, S.KILLED), "p"), 40.0)) == [S.RESCHEDULED, S.WAITING]

    def test_done_before_the_kill_came_is_done(self) -> None:
        job = replace(RUNNING, kill_requested="u")
        assert statuses(decide(job, facts.Reported(report(2, S.DONE), "p"), 40.0)) == [S.DONE]

    def test_given_back_after_a_kill_is_killed(self) -> None:
        job = replace(RUNNING, kill_requested="u")
        assert statuses(decide(job, facts.Reported(report(2, S.RESCHEDULED), "p"), 40.0)) == [S.KILLED]

    @pytest.mark.parametrize("status", [S.WAITING, S.MATCHED, S.DELETED, S.STALLED])
    def test_what_is_not_a_pilots_to_say_is_illegal(self, status: JobStatus) -> None:
        assert isinstance(decide(RUNNING, facts.Reported(report(2, status), "p"), 40.0), Illegal)

    def test_backwards_is_illegal(self) -> None:
        said = report(2, S.DONE, (S.RUNNING, 1.0), (S.COMPLETING, 12.0), (S.RUNNING, 13.0), (S.DONE, 14.0))
        assert isinstance(decide(RUNNING, facts.Reported(said, "p"), 40.0), Illegal)

    @pytest.mark.parametrize(
        "job",
        [
            replace(RUNNING, attempt=2),
            replace(RUNNING, pilot="q"),
            replace(RUNNING, status=S.WAITING, pilot=""),
            replace(RUNNING, status=S.KILLED),
            replace(RUNNING, status=S.DELETED),
        ],
    )
    def test_of_a_stale_attempt(self, job: JobView) -> None:
        assert isinstance(decide(job, facts.Reported(report(9, S.DONE), "p"), 40.0), Stale)


class TestCommands:
    @pytest.mark.parametrize("status", [S.RECEIVED, S.CHECKING, S.STAGING, S.WAITING])
    def test_kill_without_a_pilot_is_at_once(self, status: JobStatus) -> None:
        outcome = decide(replace(WAITING, status=status), facts.KillAsked("u"), 10.0)
        assert statuses(outcome) == [S.KILLED]
        assert bool(effects(outcome, LeaveQueue)) == (status is S.WAITING)

    def test_kill_of_a_leased_job_orders_the_pilot_again_and_again(self) -> None:
        first = decide(RUNNING, facts.KillAsked("u"), 30.0)
        asked = decided(first).after
        assert (asked.status, asked.kill_requested) == (S.RUNNING, "u")
        assert effects(first, SendControl) == [SendControl("p", 1, "kill", "killed by u")]
        second = decide(asked, facts.KillAsked("v"), 31.0)
        assert effects(second, SendControl) == [SendControl("p", 1, "kill", "killed by u")]
        assert not decided(second).changes()

    def test_kill_of_an_ended_job(self) -> None:
        assert decide(replace(WAITING, status=S.DONE), facts.KillAsked("u"), 1.0) == Ignored("already Done")

    def test_delete(self) -> None:
        assert statuses(decide(WAITING, facts.DeleteAsked("u"), 10.0)) == [S.KILLED, S.DELETED]
        assert statuses(decide(replace(WAITING, status=S.DONE), facts.DeleteAsked("u"), 10.0)) == [S.DELETED]
        asked = decided(decide(RUNNING, facts.DeleteAsked("u"), 30.0)).after
        assert asked.delete_requested
        assert statuses(decide(asked, facts.Reported(report(2, S.DONE), "p"), 40.0)) == [S.DONE, S.DELETED]
        assert isinstance(decide(replace(WAITING, status=S.DELETED), facts.DeleteAsked("u"), 10.0), Ignored)

    def test_reschedule_starts_anew(self) -> None:
        job = replace(RUNNING, status=S.FAILED, lease_until=None, infra_failures=20, kill_requested="u")
        outcome = decide(job, facts.RescheduleAsked("u"), 60.0)
        after = decided(outcome).after
        assert statuses(outcome) == [S.RESCHEDULED, S.CHECKING]
        assert effects(outcome, Optimize)
        assert (after.attempt, after.infra_failures, after.reschedules, after.kill_requested) == (1, 0, 1, "")
        waiting = decided(decide(after, facts.FoundReady(), 61.0)).after
        assert decided(decide(waiting, facts.Matched("q"), 62.0)).after.attempt == 2

    def test_reschedule_needs_numbers_for_all_attempts_that_may_be_lost(self) -> None:
        job = replace(RUNNING, status=S.FAILED, lease_until=None, attempt=MAX_ATTEMPTS - MAX_INFRASTRUCTURE_RETRIES - 1)
        assert statuses(decide(job, facts.RescheduleAsked("u"), 60.0)) == [S.RESCHEDULED, S.CHECKING]
        refused = decide(replace(job, attempt=job.attempt + 1), facts.RescheduleAsked("u"), 60.0)
        assert isinstance(refused, Ignored)
        assert "used up, submit it as a new job" in refused.reason

    @pytest.mark.parametrize(
        "fact",
        [
            facts.LeaseWatch(),
            facts.SaidGoodbye("p"),
            facts.Unroutable(MAX_ATTEMPTS, "p"),
            facts.Died(MAX_ATTEMPTS, "p", "gone"),
        ],
    )
    def test_the_last_number_is_the_last_attempt(self, fact: facts.Fact) -> None:
        """Also of matches that were never charged, of which there may be any number."""
        job = replace(RUNNING, status=S.MATCHED, accepted=False, attempt=MAX_ATTEMPTS)
        after = decided(decide(job, fact, 1e6)).after
        assert (after.status, after.lease_until) == (S.FAILED, None)
        assert "used up" in after.minor
        before = replace(job, attempt=MAX_ATTEMPTS - 1)
        if isinstance(fact, facts.Unroutable | facts.Died):
            fact = replace(fact, attempt=MAX_ATTEMPTS - 1)
        assert decided(decide(before, fact, 1e6)).after.status is S.WAITING

    @pytest.mark.parametrize("status", [S.RUNNING, S.WAITING, S.DELETED])
    def test_reschedule_of_others_is_refused(self, status: JobStatus) -> None:
        assert isinstance(decide(replace(RUNNING, status=status), facts.RescheduleAsked("u"), 60.0), Ignored)

    def test_checking(self) -> None:
        received = JobView(1, S.RECEIVED)
        checking = decided(decide(received, facts.CheckNeeded(), 1.0)).after
        assert checking.status is S.CHECKING
        assert statuses(decide(checking, facts.FoundReady(), 2.0)) == [S.WAITING]
        refused = decided(decide(received, facts.FoundRefused("No candidate sites", "why"), 2.0))
        assert (refused.after.status, refused.after.minor) == (S.FAILED, "No candidate sites")
        assert refused.lines[0].cause == "why"
        assert isinstance(decide(RUNNING, facts.FoundReady(), 20.0), Ignored)
