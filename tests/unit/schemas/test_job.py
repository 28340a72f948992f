"""The table of transitions: whole, without dead ends, and honest about what is final."""

from __future__ import annotations

import pytest

from schemas.job import (
    ACCEPT_LEASE,
    DEFAULT_RUN_LEASE,
    FINAL,
    HEARTBEAT_SECONDS,
    LEASE_MARGIN,
    LEASED,
    MISSED_HEARTBEATS,
    TRANSITIONS,
    JobStatus,
    is_legal,
    lease_margin,
)


def reachable(start: JobStatus) -> set[JobStatus]:
    seen: set[JobStatus] = set()
    todo = {start}
    while todo:
        seen |= todo
        todo = {after for before in todo for after in TRANSITIONS[before]} - seen
    return seen


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(JobStatus)


def test_every_state_can_be_reached_from_the_first() -> None:
    assert reachable(JobStatus.RECEIVED) == set(JobStatus)


@pytest.mark.parametrize("status", sorted(JobStatus))
def test_from_every_state_a_job_can_end(status: JobStatus) -> None:
    assert reachable(status) & FINAL
    assert status in FINAL or {JobStatus.FAILED, JobStatus.KILLED} <= TRANSITIONS[status]


@pytest.mark.parametrize("status", sorted(JobStatus))
def test_nothing_follows_itself(status: JobStatus) -> None:
    assert not is_legal(status, status)


def test_what_is_over_comes_back_only_as_a_new_attempt() -> None:
    for status in FINAL - {JobStatus.DELETED}:
        assert TRANSITIONS[status] == {JobStatus.DELETED, JobStatus.RESCHEDULED}
    assert not TRANSITIONS[JobStatus.DELETED]


def test_only_what_is_over_can_be_deleted() -> None:
    assert {before for before, afters in TRANSITIONS.items() if JobStatus.DELETED in afters} == FINAL - {
        JobStatus.DELETED
    }


def test_a_pilot_gets_a_job_only_from_waiting() -> None:
    ways_in = {before for before, afters in TRANSITIONS.items() if before not in LEASED and afters & LEASED}
    assert ways_in == {JobStatus.WAITING}
    assert TRANSITIONS[JobStatus.WAITING] & LEASED == {JobStatus.MATCHED}


def test_final_and_leased_are_apart() -> None:
    assert not FINAL & LEASED


def test_stalled_can_be_taken_back() -> None:
    assert LEASED - {JobStatus.STALLED} <= TRANSITIONS[JobStatus.STALLED]


def test_margins_fit_into_every_lease() -> None:
    for lease in (0.5, 5.0, 49.0, 50.0, 51.0, DEFAULT_RUN_LEASE):
        assert 0 < lease_margin(lease) <= LEASE_MARGIN
        assert 2 * lease_margin(lease) < lease
    assert MISSED_HEARTBEATS * HEARTBEAT_SECONDS < DEFAULT_RUN_LEASE
    assert ACCEPT_LEASE < MISSED_HEARTBEATS * HEARTBEAT_SECONDS
