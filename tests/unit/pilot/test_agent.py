"""The agent with a real session on a fake wire: what it asks, obeys, tells, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.publisher import reply
from pilot.hardware import GpuDevice
from schemas.job import JobStatus
from schemas.messages.common import JobRef
from schemas.messages.pilot import AcceptJobs, ControlDone, Goodbye, Heartbeat, ReportJobs, RequestMatch
from schemas.messages.service import ControlJobs, Lease, LeasesRenewed, MatchResponse, Order
from tests.support.pilot_desk import ADA, BOB, Desk
from tests.support.wait import wait_until

Maker = Callable[..., Desk]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maker]:
    desks: list[Desk] = []

    def maker(**settings: object) -> Desk:
        desks.append(Desk(tmp_path, monkeypatch, **settings))
        return desks[-1]

    yield maker
    for desk in desks:
        assert not desk.session._kept, "messages were left unread"
        desk.close()


@pytest.fixture
def desk(make: Maker) -> Desk:
    return make()


def order(job: int, action: str = "kill", attempt: int = 1) -> ControlJobs:
    return ControlJobs(orders=(Order(job=job, attempt=attempt, action=action, reason="ada wants it"),))


# -- asking -----------------------------------------------------------------------------------------------------


def test_asks_for_one_job_per_processor_once(desk: Desk) -> None:
    for _ in range(20):
        desk.turn()
    [asked] = desk.asked
    assert (asked.request.jobs, len(asked.request.csrs), asked.request.offer.processors) == (2, 2, 2)


def test_an_offer_says_what_is_free_and_what_there_is(make: Maker) -> None:
    gpu = GpuDevice("7", "Tesla T4", 16_000.0)
    desk = make(
        slots=4, memory_mb=8000.0, gpus=(gpu,), pool="big", job_types=("Test",), groups=("g",), owners=("/CN=a",)
    )
    desk.turn()
    idle = desk.asked[-1].request.offer
    assert (idle.processors, idle.memory_mb, len(idle.gpus), idle.whole_node) == (4, 8000, 1, True)
    assert (idle.pool, idle.job_types, idle.groups, idle.owners) == ("big", ("Test",), ("g",), ("/CN=a",))
    payload = desk.run(1, NumberOfProcessors=2, MaxRAM=1000, MaxRAMPerProcessor=1000, NumberOfGPUs=1)
    busy = desk.asked[-1].request
    assert busy.jobs == 2
    assert (busy.offer.processors, busy.offer.memory_mb, busy.offer.gpus, busy.offer.whole_node) == (2, 5000, (), False)
    assert (busy.offer.total_processors, busy.offer.total_memory_mb) == (4, 8000)
    assert (payload.spec.processors, payload.spec.memory_mb, payload.spec.gpus) == (2, 3000, ("7",))
    assert desk.watchdog.limits["1"].memory_mb == 3000
    payload.end()
    desk.turn(after=1)
    again = desk.asked[-1].request.offer
    assert (again.processors, again.memory_mb, again.whole_node) == (4, 8000, True)
    assert again.gpus == idle.gpus


def test_what_a_job_waits_for_here_is_not_offered(make: Maker) -> None:
    desk = make(slots=4, memory_mb=8000.0)
    first = desk.run(1, MaxRAM=7000)
    desk.give(desk.match(2, MaxRAM=4000))  # of an older, larger offer: it waits
    offer = desk.asked[-1].request.offer
    assert (offer.processors, offer.memory_mb, offer.whole_node) == (2, 0, False)
    assert [payload.spec.job_id for payload in desk.runner.started] == ["1"]
    first.end()
    desk.turn(after=1)
    assert (desk.asked[-1].request.offer.processors, desk.asked[-1].request.offer.memory_mb) == (3, 4000)


def test_a_parked_request_that_promises_too_much_is_replaced(make: Maker) -> None:
    desk = make(slots=4)
    desk.turn()
    first = desk.asked[-1]
    desk.run(1).end()
    desk.turn(after=1)
    assert desk.asked[-1].request.jobs == 4
    desk.give(desk.match(2), to=first)  # twice answered
    desk.turn(after=1)
    assert desk.asked[-1].request.jobs == 3


def test_the_disk_that_running_jobs_were_matched_for_is_not_offered(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilot.agent.free_disk_mb", lambda _: 50_000.0)
    desk = make(slots=4)
    desk.turn()
    assert desk.asked[-1].request.offer.disk_mb == 50_000
    desk.run(1, DiskSpace=20_000)
    assert desk.asked[-1].request.offer.disk_mb == 30_000


def test_cpu_work_is_wall_time_times_the_power_of_one_processor(make: Maker) -> None:
    desk = make(slots=8, wall_seconds=1000.0, cpu_power=12.0)
    desk.turn()
    offer = desk.asked[-1].request.offer
    assert offer.wall_seconds == pytest.approx(1000, abs=20)
    assert offer.cpu_seconds == pytest.approx(offer.wall_seconds * 12)


def test_asks_again_when_the_answer_is_overdue(desk: Desk) -> None:
    desk.turn()
    desk.turn(after=329)
    assert len(desk.asked) == 1
    desk.turn(after=2)
    assert len(desk.asked) == 2


def test_an_empty_answer_is_remembered_and_asked_anew_once(desk: Desk) -> None:
    desk.turn()
    desk.say(MatchResponse(slot="main", reasons=("no work",)), desk.asked[-1].id)
    desk.turn()
    assert (len(desk.asked), desk.agent.reasons) == (2, ("no work",))


def test_the_reasons_of_empty_answers_are_logged_when_they_change(desk: Desk) -> None:
    with capture_logs() as logged:
        for reasons in (
            ("1 class: too small", "2 classes: banned"),
            ("1 class: too small", "2 classes: banned"),
            ("x",),
        ):
            desk.turn()
            desk.say(MatchResponse(slot="main", reasons=reasons), desk.asked[-1].id)
            desk.turn()
    told = [line["why"] for line in logged if line["event"] == "pilot.no_match"]
    assert told == ["1 class: too small; 2 classes: banned", "x"]


def test_a_new_login_asks_again(desk: Desk) -> None:
    desk.turn()
    desk.deployment.on_login()
    desk.turn()
    assert len(desk.asked) == 2


def test_a_job_that_ends_makes_a_larger_request_but_no_storm(desk: Desk) -> None:
    first = desk.run(1)
    desk.give()  # nothing for the second processor: the pilot asks again, parked
    asked = len(desk.asked)
    assert desk.asked[-1].request.jobs == 1
    desk.turn(after=1)
    first.end()
    for _ in range(5):
        desk.turn()
    assert [one.request.jobs for one in desk.asked[asked:]] == [2]


def test_two_answers_to_replaced_requests_both_run_and_nothing_is_overcommitted(desk: Desk) -> None:
    old = desk.give(desk.match(1))
    desk.issue(old)
    desk.payload(1).end()
    desk.turn(after=1)
    assert len(desk.asked) > 1
    one, two = desk.asked[-2:]
    desk.give(desk.match(2), desk.match(3), to=one)
    desk.give(desk.match(4, csr=-1), desk.match(5, csr=-1), to=two)
    desk.issue(one)
    desk.turn()
    assert desk.attempts.busy_processors() == 2
    assert len(desk.runner.started) == 3  # 1, and two of the four
    desk.payload(2).end()
    desk.payload(3).end()
    desk.turn()
    assert {payload.spec.job_id for payload in desk.runner.started} == {"1", "2", "3", "4", "5"}


def test_no_request_when_the_slot_ends(make: Maker) -> None:
    desk = make(wall_seconds=0.0)
    desk.turn()
    assert desk.asked == []


# -- matches ----------------------------------------------------------------------------------------------------


def test_accepts_before_anything_else(desk: Desk) -> None:
    desk.give(desk.match(1), desk.match(2))
    [accept] = desk.take(AcceptJobs)
    assert accept == AcceptJobs(jobs=(JobRef(job=1, attempt=1), JobRef(job=2, attempt=1)))


def test_the_same_message_twice_does_nothing_the_second_time(desk: Desk) -> None:
    desk.turn()
    asked = desk.asked[-1]
    letter = reply(MatchResponse(slot="main", matches=(desk.match(1),)), desk.session.client, asked.id)
    for _ in range(3):
        desk.deployment.replies.put(
            desk.deployment._deliver(letter, "matcher", letter.routing_key, desk.session.now(), None)
        )
        desk.turn()
    assert len(desk.take(AcceptJobs)) == 1
    desk.issue(asked)
    desk.payload(1).end()
    desk.turn()
    desk.deployment.replies.put(
        desk.deployment._deliver(letter, "matcher", letter.routing_key, desk.session.now(), None)
    )
    desk.turn()
    assert len(desk.runner.started) == 1
    assert desk.last_word(1).status is JobStatus.DONE


def test_every_message_is_acknowledged_after_it_was_dealt_with(desk: Desk) -> None:
    desk.run(1)
    assert desk.session.acked == 2  # match and proxy; the welcome is the session's own


# -- leases -----------------------------------------------------------------------------------------------------


def test_acceptance_lease_that_is_over_gives_back(desk: Desk) -> None:
    desk.give(desk.match(1, accept=20))
    desk.turn(after=17)
    word = desk.last_word(1)
    assert (word.status, word.infrastructure) == (JobStatus.RESCHEDULED, True)
    assert desk.directories() == []
    assert desk.runner.started == []


def test_a_lease_renewed_while_waiting_keeps_the_job(desk: Desk) -> None:
    desk.give(desk.match(1, accept=20), desk.match(2), desk.match(3))
    until = desk.session.now() + 60
    refs = [Lease(job=job, attempt=1, until=until) for job in (1, 2, 3)]
    desk.say(LeasesRenewed(leases=tuple(refs)))
    desk.turn(after=29)
    assert len(desk.attempts) == 3
    desk.turn(after=25)  # 54 of 60 s, margin 10
    assert len(desk.attempts) == 0


def test_a_shorter_renewal_never_shortens_a_lease(desk: Desk) -> None:
    desk.run(1)
    now = desk.session.now()
    desk.say(LeasesRenewed(leases=(Lease(job=1, attempt=1, until=now + 100),)))
    desk.say(LeasesRenewed(leases=(Lease(job=1, attempt=1, until=now + 50),)))
    assert desk.watchdog.limits["1"].lease_end is not None
    [task] = desk.attempts._tasks.values()
    assert task.lease_end == pytest.approx(now + 100)


def test_renewals_do_not_shrink_the_disk_limit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([1000.0, 100.0, 50.0])
    monkeypatch.setattr("pilot.stagehand.free_disk_mb", lambda _: next(free))
    desk.run(1)
    before = desk.watchdog.limits["1"]
    desk.say(LeasesRenewed(leases=(Lease(job=1, attempt=1, until=desk.session.now() + 500),)))
    after = desk.watchdog.limits["1"]
    assert after.disk_mb == before.disk_mb == 450
    assert after.lease_end is not None
    assert before.lease_end is not None
    assert after.lease_end > before.lease_end + 400


def test_a_lost_lease_stops_the_payload_and_tells_nothing(desk: Desk) -> None:
    payload = desk.run(1)
    desk.turn(after=2)
    desk.take(ReportJobs)
    desk.say(LeasesRenewed(lost=(JobRef(job=1, attempt=1),)))
    payload.obey()
    desk.turn()
    assert desk.reports(1) == []
    assert desk.directories() == []
    assert len(desk.attempts) == 0


def test_a_payload_that_its_lease_ended_is_given_back(desk: Desk) -> None:
    desk.run(1).end(None, "the lease ends and was not renewed in time")
    desk.turn()
    word = desk.last_word(1)
    assert (word.status, word.infrastructure) == (JobStatus.RESCHEDULED, True)


# -- heartbeats -------------------------------------------------------------------------------------------------


def test_heartbeats_name_every_attempt_held(desk: Desk) -> None:
    payload = desk.run(1)
    desk.give(desk.match(2, csr=-1), desk.match(3, csr=-1), desk.match(4, csr=-1))
    payload.end()
    desk.take(Heartbeat)
    desk.turn(after=15.1)
    [beat] = desk.take(Heartbeat)
    assert isinstance(beat, Heartbeat)
    assert {one.job for one in beat.payloads} == {2, 3, 4}
    assert {one.usage.cpu_seconds for one in beat.payloads} == {0.0, 3.0}  # those that run, and those that wait


@pytest.mark.parametrize("lease", [2.0, 3.0])
def test_short_leases_are_renewed_in_time(desk: Desk, lease: float) -> None:
    desk.turn()
    desk.take(Heartbeat)  # the next one would come in 30 s
    desk.run(1, run_lease=lease)
    times = []
    for _ in range(40):
        desk.turn(after=0.1)
        times += [desk.session.shift for _ in desk.take(Heartbeat)]
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert max(gaps) <= lease / 4 + 0.11
    assert len(times) <= 4 / (lease / 4) + 2, "a storm of heartbeats"


def test_an_idle_pilot_beats_every_thirty_seconds(desk: Desk) -> None:
    for _ in range(100):
        desk.turn(after=1)
    assert len(desk.take(Heartbeat)) == 4


# -- orders -----------------------------------------------------------------------------------------------------


def test_kill_before_its_match_leaves_a_tombstone(desk: Desk) -> None:
    desk.say(order(1))
    assert len(desk.take(ControlDone)) == 1
    asked = desk.give(desk.match(1), desk.match(2))
    word = desk.last_word(1)
    assert (word.status, word.reason) == (JobStatus.KILLED, "ada wants it")
    desk.issue(asked)
    assert [payload.spec.job_id for payload in desk.runner.started] == ["2"]


def test_a_tombstone_is_for_one_attempt_only(desk: Desk) -> None:
    desk.say(order(1, attempt=1))
    desk.run(1, attempt=2)
    assert desk.reports(1) == []


def test_kill_while_waiting(desk: Desk) -> None:
    desk.give(desk.match(1), desk.match(2), desk.match(3))
    desk.say(order(3))
    assert desk.last_word(3).status is JobStatus.KILLED


def test_kill_while_it_waits_for_its_proxy(desk: Desk) -> None:
    asked = desk.give(desk.match(1))
    assert desk.directories() != []
    desk.say(order(1))
    assert desk.last_word(1).status is JobStatus.KILLED
    assert desk.directories() == []
    desk.issue(asked)
    assert desk.runner.started == []


def test_kill_while_running(desk: Desk) -> None:
    payload = desk.run(1)
    desk.say(order(1))
    assert payload.stopped == "ada wants it"
    assert desk.reports(1) == []  # not before it is gone
    payload.obey()
    desk.turn()
    word = desk.last_word(1)
    assert (word.status, word.reason, word.outputs) == (JobStatus.KILLED, "ada wants it", ())
    assert desk.directories() == []


def test_abandon_while_running_reports_nothing(desk: Desk) -> None:
    payload = desk.run(1)
    desk.say(order(1, "abandon"))
    payload.obey()
    desk.turn()
    assert desk.reports(1) == []
    assert [one.outcome for one in desk.take(ControlDone) if isinstance(one, ControlDone)] == ["obeyed"]
    assert desk.directories() == []


def test_abandon_while_it_waits_for_its_proxy_reports_nothing(desk: Desk) -> None:
    desk.give(desk.match(1))
    desk.say(order(1, "abandon"))
    assert desk.reports(1) == []
    assert desk.directories() == []


# -- proxies ----------------------------------------------------------------------------------------------------


def test_owners_never_share_a_key(desk: Desk) -> None:
    asked = desk.give(desk.match(1, csr=0), desk.match(2, owner=BOB, csr=1))
    desk.issue(asked, 0, ADA)
    desk.issue(asked, 1, BOB)
    files = [payload.spec.proxy.read_bytes() for payload in desk.runner.started if payload.spec.proxy]
    keys = [text.split(b"-----BEGIN")[2] for text in files]
    assert len(set(keys)) == 2


def test_a_proxy_for_somebody_elses_request_is_not_used(desk: Desk) -> None:
    asked = desk.give(desk.match(1, csr=0), desk.match(2, owner=BOB, csr=1))
    desk.issue(asked, 0, BOB)
    assert desk.runner.started == []


def test_a_refused_proxy_fails_the_job_and_says_why(desk: Desk) -> None:
    asked = desk.give(desk.match(1))
    desk.refuse(asked, reason="ada's delegated proxy has expired")
    word = desk.last_word(1)
    assert (word.status, word.infrastructure) == (JobStatus.FAILED, False)
    assert "ada's delegated proxy has expired" in word.reason
    assert desk.proxies._wanted == {}
    assert len(desk.proxies._keys) == sum(len(one.request.csrs) for one in desk.asked[1:])


def test_a_proxy_that_does_not_come_gives_the_job_back(desk: Desk) -> None:
    desk.give(desk.match(1))
    desk.say(LeasesRenewed(leases=(Lease(job=1, attempt=1, until=desk.session.now() + 200),)))
    desk.turn(after=31)
    word = desk.last_word(1)
    assert (word.status, word.infrastructure) == (JobStatus.RESCHEDULED, True)
    assert desk.directories() == []


# -- what runs --------------------------------------------------------------------------------------------------


def test_steps_and_sequence_grow(desk: Desk) -> None:
    payload = desk.run(1)
    desk.turn(after=1.5)
    [first] = desk.reports(1)
    payload.end()
    desk.turn()
    last = desk.last_word(1)
    assert first.status is JobStatus.RUNNING
    assert last.status is JobStatus.DONE
    assert last.sequence > first.sequence
    assert last.steps[: len(first.steps)] == first.steps
    assert len(last.steps) > len(first.steps)
    assert last.usage.cpu_seconds == 1.5
    assert last.exit_code == 0


def test_a_short_payload_is_told_of_once(desk: Desk) -> None:
    desk.run(1).end(3)
    desk.turn()
    [only] = desk.reports(1)
    assert (only.status, only.exit_code, only.infrastructure) == (JobStatus.FAILED, 3, False)
    assert desk.directories() == []


def test_large_jobs_are_neither_overcommitted_nor_overtaken(make: Maker) -> None:
    desk = make(slots=4)
    asked = desk.give(
        desk.match(1, NumberOfProcessors=2), desk.match(2, NumberOfProcessors=4), desk.match(3), desk.match(4)
    )
    desk.issue(asked)
    started = [payload.spec.job_id for payload in desk.runner.started]
    assert started == ["1"]
    desk.payload(1).end()
    desk.turn()
    assert [payload.spec.job_id for payload in desk.runner.started] == ["1", "2"]
    assert desk.attempts.busy_processors() == 4
    desk.payload(2).end()
    desk.turn()
    assert [payload.spec.job_id for payload in desk.runner.started] == ["1", "2", "3", "4"]


def test_a_job_larger_than_the_pilot_goes_back(desk: Desk) -> None:
    desk.give(desk.match(1, NumberOfProcessors=3))
    word = desk.last_word(1)
    assert (word.status, word.infrastructure) == (JobStatus.RESCHEDULED, True)


def test_no_more_is_asked_for_while_a_large_job_waits(make: Maker) -> None:
    desk = make(slots=4)
    desk.issue(desk.give(desk.match(1)))
    desk.give(desk.match(2, csr=-1, NumberOfProcessors=4))
    asked = len(desk.asked)
    for _ in range(5):
        desk.turn(after=0.5)
    assert len(desk.asked) == asked


# -- the end ----------------------------------------------------------------------------------------------------


def leave(desk: Desk) -> str:
    stop = threading.Event()
    stop.set()
    return desk.agent.run(stop)


def test_leaving_gives_back_what_waits_and_says_goodbye_last(desk: Desk) -> None:
    desk.give(desk.match(1), desk.match(2), desk.match(3))
    assert leave(desk) == "told to stop"
    said = list(desk.deployment.sent)
    assert isinstance(said[-1], Goodbye)
    for job in (1, 2, 3):
        word = desk.last_word(job)
        assert (word.status, word.infrastructure) == (JobStatus.RESCHEDULED, True)
        desk.deployment.sent.extend(said)
    assert desk.directories() == []


def test_leaving_stops_payloads_and_reports_them_before_the_goodbye(desk: Desk) -> None:
    payload = desk.run(1)
    thread = threading.Thread(target=leave, args=(desk,))
    thread.start()
    try:
        wait_until(lambda: payload.stopped, 10, "the order to stop")
        payload.obey()
    finally:
        thread.join(20)
    said = list(desk.deployment.sent)
    assert isinstance(said[-1], Goodbye)
    assert desk.last_word(1).status is JobStatus.RESCHEDULED
    assert desk.directories() == []


def test_a_payload_that_had_ended_is_told_as_it_ended(desk: Desk) -> None:
    desk.run(1).end()
    leave(desk)
    assert desk.last_word(1).status is JobStatus.DONE


def test_a_match_that_comes_while_leaving_is_given_back(desk: Desk) -> None:
    payload = desk.run(1)
    thread = threading.Thread(target=leave, args=(desk,))
    thread.start()
    try:
        wait_until(lambda: payload.stopped, 10, "the order to stop")
        desk.deployment.say(MatchResponse(slot="main", matches=(desk.match(2, csr=-1),)), desk.asked[-1].id)
        wait_until(lambda: not desk.deployment.replies.waiting, 10, "the match being read")
        payload.obey()
    finally:
        thread.join(20)
    said = list(desk.deployment.sent)
    assert isinstance(said[-1], Goodbye)
    assert [one.spec.job_id for one in desk.runner.started] == ["1"]
    assert desk.last_word(2).status is JobStatus.RESCHEDULED


def test_an_idle_pilot_ends(make: Maker) -> None:
    desk = make(idle_seconds=0.05)
    assert "nothing to do" in desk.agent.run(threading.Event())
    assert isinstance(desk.deployment.sent[-1], Goodbye)
    assert {type(message) for message in desk.deployment.sent} == {RequestMatch, Heartbeat, Goodbye}


def test_a_pilot_ends_with_its_slot(make: Maker) -> None:
    desk = make(wall_seconds=0.05)
    assert desk.agent.run(threading.Event()) == "the slot ends"
