"""The broker, job-state, the matcher and the gatekeeper go away in the middle of the work, and come back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from consumers.matcher import LEAD_SECONDS, RENEW_SECONDS
from schemas.errors import PilotageError
from schemas.job import LEASED, JobStatus
from tests.support.wait import wait_until

from .harness import ACCEPT, Stand, stand
from .invariants import check, no_letter_died, nothing_left

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150)]

OTHERS = (
    "dead-letters",
    "job-manager",
    "job-monitor",
    "optimizer",
    "proxy-manager",
    "relay",
    "replica-catalog",
    "sandbox-store",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory, postgres) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("outages"), postgres) as one:
        one.serve("gatekeeper")
        one.serve(*OTHERS, known_as="others")
        one.serve("job-state")
        one.serve("matcher")
        one.start_pilot(1)
        one.start_pilot(2)
        yield one


@pytest.fixture(autouse=True)
def all_well(place) -> Iterator[None]:
    """A failed case must not take the following ones with it."""
    yield
    if not place.place.node.running:
        place.place.node.start()
    for name in ("gatekeeper", "job-state", "matcher"):
        if name not in place.processes:
            place.serve(name)
    for number in (1, 2):
        if f"pilot-{number}" not in place.processes:
            place.start_pilot(number)


def holder(place: Stand) -> int:
    """The present epoch of the matchers' leadership."""
    with place.store.reading() as tx:
        from consumers.store.tables.messages import leaders

        statement = leaders.select().where(leaders.c.role == "matcher")
        return int(tx.connection.execute(statement).mappings().one()["epoch"])


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_broker_goes_down_in_the_middle_of_fifty_jobs(place, how):
    user = place.client()
    pilots = {name: place.processes[name].pid for name in ("pilot-1", "pilot-2")}
    ids = place.submit(50, user, tenths=2)
    wait_until(lambda: len(place.told()) >= 8, 30, "some of them to run")
    getattr(place.place.node, how)()
    assert JobStatus.WAITING in place.statuses(ids).values(), "it was the middle"
    place.place.node.start()
    place.wait_for(ids, 90)
    check(place, ids)
    assert {name: place.processes[name].pid for name in pilots} == pilots, "the pilots are the same"
    assert all(place.processes[name].poll() is None for name in pilots)
    # The user's standing login has come back by itself, too.
    assert {job.job for job in user.jobs(ids)} == set(ids)
    nothing_left(place)
    no_letter_died(place)


def test_job_state_is_down_while_short_payloads_end(place):
    """Their reports wait in the queue; when they come their leases are long over, and they count all the same."""
    ids = place.submit(2, tenths=20, lease=8)  # fits into the slots of one pilot, whoever takes them
    for job in ids:
        place.wait_started(job, 1)
    place.kill("job-state")
    rows = place.jobs(ids).values()
    assert all(row.status in LEASED for row in rows)
    end = max(row.lease_until or 0.0 for row in rows)
    wait_until(lambda: time.time() > end + 4.0, 30, "all leases to be long over")
    assert all(place.told()[job, 1].ended for job in ids)
    assert not any(status is JobStatus.DONE for status in place.statuses(ids).values())
    place.serve("job-state")
    place.wait_for(ids)
    assert {row.attempt for row in place.jobs(ids).values()} == {1}, "no attempt is lost by our own outage"
    check(place, ids)


def test_job_state_is_down_for_longer_than_the_lease_of_long_payloads(place):
    """No lease is renewed, so the pilots stop their payloads in time; the jobs run again, once."""
    ids = place.submit(2, tenths=120, lease=5)
    for job in ids:
        place.wait_started(job, 1)
    place.kill("job-state")
    end = max(row.lease_until or 0.0 for row in place.jobs(ids).values())
    wait_until(lambda: time.time() > end + 4.0, 30, "all leases to be long over")
    told = place.told()
    assert not any(told[job, 1].ended for job in ids), "a payload outlived its lease"
    place.serve("job-state")
    place.wait_for(ids)
    assert {row.attempt for row in place.jobs(ids).values()} == {2}
    for job in ids:
        assert "the lease ends" in place.attempts(job)[0].reason, "told by the pilot, not guessed by the sweeper"
    check(place, ids)


def test_another_matcher_takes_over_when_the_leader_dies(place):
    place.serve("matcher", known_as="standby")
    epoch = holder(place)
    place.kill("matcher")
    died = time.monotonic()
    wait_until(lambda: holder(place) == epoch + 1, 20, "another leader")
    assert time.monotonic() - died < 5.0
    ids = place.submit(4)
    place.wait_for(ids)
    check(place, ids)
    place.serve("matcher")
    place.stop("standby")
    stopped = time.monotonic()
    wait_until(lambda: holder(place) == epoch + 2, 20, "the matcher to lead again")
    assert time.monotonic() - stopped < LEAD_SECONDS - RENEW_SECONDS, "a leader that stops hands over at once"


def test_a_frozen_leader_does_no_harm_when_it_wakes(place):
    place.serve("matcher", known_as="standby")
    epoch = holder(place)
    place.freeze("matcher")
    ids = place.submit(4)
    place.wait_for(ids, ACCEPT + 30)
    assert holder(place) == epoch + 1
    place.thaw("matcher")
    more = place.submit(20)
    place.wait_for(more)
    check(place, [*ids, *more])
    assert holder(place) == epoch + 1, "the old leader has not taken the lead back"
    assert place.processes["matcher"].poll() is None
    assert "matcher.lost_leadership" in place.log("matcher")
    place.stop("standby")
    last = place.submit(2)
    place.wait_for(last)
    assert holder(place) == epoch + 2, "now it leads again"
    check(place, last)


def test_without_a_gatekeeper_nobody_logs_in_and_everything_else_goes_on(place):
    user = place.client()
    place.wait_for(place.submit(4, user))  # everybody has said once what he has to say: the broker remembers the rights
    place.kill("gatekeeper")
    ids = place.submit(4, user)
    place.wait_for(ids)
    check(place, ids)
    with pytest.raises(PilotageError):
        place.client(timeout=3.0).open()
    place.serve("gatekeeper")
    place.client().open()


def test_a_pilot_keeps_what_the_broker_refuses_while_the_gatekeeper_is_away(place):
    user = place.client()
    place.wait_for(place.submit(1, user))
    for name in ("pilot-1", "pilot-2"):
        place.stop(name)
    place.start_pilot(1)
    wait_until(lambda: place.count("parked") > 0, 10, "its request")
    place.kill("gatekeeper")
    ids = place.submit(2, user)
    for job in ids:
        place.wait_started(job, 1)
    wait_until(lambda: "pilot.message_not_taken" in place.log("pilot-1"), 10, "the first report to be refused")
    place.serve("gatekeeper")
    place.wait_for(ids)
    check(place, ids)


def test_a_pilot_that_starts_without_a_gatekeeper_waits_for_it(place):
    place.kill("gatekeeper")
    name = place.start_pilot(3, wait=False)
    wait_until(lambda: "broker.refused" in place.log(name), 20, "a refused login")
    place.serve("gatekeeper")
    wait_until(place.ready_file(3).exists, 30, "the pilot")
    place.stop(name)


def test_nothing_lies_about_after_all_that(place):
    nothing_left(place)
    no_letter_died(place)
