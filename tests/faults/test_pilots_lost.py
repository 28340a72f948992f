"""Pilots that die, freeze, or come back from nowhere: the job runs again elsewhere, never twice at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from schemas.job import JobStatus, lease_margin
from tests.support.certified_pilots import pilot_dn
from tests.support.wait import wait_until
from tests.support.wire import wire_to

from .harness import Stand, monotonic_of_boot, stand
from .invariants import check, no_letter_died

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

LEASE = 5
"""Seconds; margins are a fifth of it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("pilots")) as one:
        one.serve("all")
        yield one


@pytest.fixture(scope="module")
def user(place):
    return place.client()


@pytest.fixture(autouse=True)
def no_pilots_left(place) -> Iterator[None]:
    yield
    for name in [name for name in place.processes if name.startswith("pilot-")]:
        place.thaw(name)
        place.stop(name)


def start_on(place: Stand, pilot: str, user, tenths: int, jobs: int = 2) -> list[int]:
    """Jobs that run on this pilot now."""
    ids = place.submit(jobs, user, tenths=tenths, lease=LEASE)
    for job in ids:
        place.wait_started(job, 1)
    return ids


def assert_lost_and_run_again(place: Stand, ids: list[int], why: str) -> None:
    for job in ids:
        first, second = place.attempts(job)
        assert why in first.reason, first
        assert first.pilot != second.pilot
        causes = [line.cause for line in place.history(job) if line.status is JobStatus.RESCHEDULED]
        assert len(causes) == 1
        assert why in causes[0]


def reports_of(place: Stand, pilot: int) -> int:
    """How many of a pilot's reports were handled."""
    return place.count("inbox", f"typ = 'job.report.v1' AND iss = '{pilot_dn(pilot)}'")


@pytest.mark.parametrize("victim", ["pilot", "keeper"])
def test_a_pilot_is_killed(place, user, victim):
    name = place.start_pilot(1)
    ids = start_on(place, name, user, tenths=20)
    place.start_pilot(2)
    if victim == "pilot":
        os.kill(place.agent_pid(name), signal.SIGKILL)
        place.processes.pop(name).wait(10)
        why = "lease ended without a sign of the pilot"
    else:
        place.kill(name)  # its pilot gets TERM and leaves in good order
        why = "the pilot ends"
    died = monotonic_of_boot()
    place.wait_for(ids)
    assert_lost_and_run_again(place, ids, why)
    told = place.told()
    assert all(told[job, 1].last < died + 1.0 for job in ids), "a payload outlived its pilot by more than a second"
    check(place, ids)


def test_a_pilot_that_is_cut_off_stops_its_payloads_and_what_it_says_later_changes_nothing(place, user):
    with wire_to(place.place.node.port) as wire:
        name = place.start_pilot(1, port=wire.port)
        ids = start_on(place, name, user, tenths=100)
        place.start_pilot(2)
        zombie = place.jobs(ids)[ids[0]].pilot
        wire.down()
        wait_until(lambda: all((job, 2) in place.told() for job in ids), 30, "the second attempts")
        told = place.told()
        assert not any(told[job, 1].ended for job in ids), "stopped at the end of their leases"
        before, reports = place.attempts(ids[0]), reports_of(place, 1)
        wire.up()
        # What it kept to say comes now: its own end of attempt 1. Attempt 2 goes on as if nothing were.
        wait_until(lambda: reports_of(place, 1) > reports, 30, "the zombie's report")
        assert place.attempts(ids[0])[0] == before[0]
        assert {row.attempt for row in place.jobs(ids).values()} == {2}
        place.wait_for(ids)
        assert {row.attempt for row in place.jobs(ids).values()} == {2}
        assert_lost_and_run_again(place, ids, "lease ended without a sign of the pilot")
        check(place, ids)
        # It is no worse a pilot for that: it works again.
        place.stop("pilot-2")
        more = place.submit(2, user)
        place.wait_for(more)
        assert {row.pilot for job in more for row in place.attempts(job)} == {zombie}
        check(place, more)
        place.stop(name)


def test_a_frozen_pilot_does_not_let_its_payload_run_beyond_the_lease(place, user):
    name = place.start_pilot(1)
    ids = start_on(place, name, user, tenths=100)
    place.start_pilot(2)
    os.kill(place.agent_pid(name), signal.SIGSTOP)  # the payloads go on
    assert place.processes[name].wait(20) == 137, "its keeper ends it with its payloads"
    del place.processes[name]
    place.wait_for(ids)
    assert_lost_and_run_again(place, ids, "lease ended without a sign of the pilot")
    check(place, ids)


def test_a_suspended_node_comes_back_when_its_job_is_done(place, user):
    name = place.start_pilot(1)
    ids = start_on(place, name, user, tenths=20)
    place.start_pilot(2)
    place.freeze(name)
    place.wait_for(ids)
    assert_lost_and_run_again(place, ids, "lease ended without a sign of the pilot")
    lives = {job: (place.history(job), place.attempts(job), place.jobs([job])[job]) for job in ids}
    place.thaw(name)
    thawed = monotonic_of_boot()
    # The pilot or its keeper ends what the node slept over, and the pilot, if it lives, is told to abandon it.
    wait_until(lambda: monotonic_of_boot() > thawed + lease_margin(LEASE) + 1.0, 10, "the zombie to act")
    told = place.told()
    assert not any(told[job, 1].ended for job in ids)
    assert all(told[job, 1].last < thawed + 1.0 for job in ids)
    assert {job: (place.history(job), place.attempts(job), place.jobs([job])[job]) for job in ids} == lives
    if place.processes[name].poll() is not None:
        del place.processes[name]


def test_no_letter_died(place):
    no_letter_died(place)
