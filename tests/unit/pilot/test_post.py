"""What the pilot has to say: in order, again after a loss, in messages of bounded size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from broker.errors import BackpressureError
from broker.session import Session
from broker.transport import Confirm
from pilot.post import GATHER_SECONDS, MAX_REPORTS, Post
from schemas.job import JobStatus
from schemas.messages.common import MAX_INLINE_BYTES, SandboxFile
from schemas.messages.pilot import Goodbye, Heartbeat, Report, ReportJobs, Step
from schemas.registry import encode, type_of
from tests.support.pilot_desk import Desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk(tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def post(desk: Desk) -> Post:
    return Post(cast("Session", desk.session))


def report(job: int, sequence: int = 1, **fields: object) -> Report:
    return Report(job=job, attempt=1, sequence=sequence, status=JobStatus.RUNNING, **fields)  # type: ignore[arg-type]


def said(desk: Desk) -> list[int]:
    return [one.job for message in desk.take(ReportJobs) if isinstance(message, ReportJobs) for one in message.reports]


def test_reports_of_one_turn_travel_together(desk: Desk, post: Post) -> None:
    for job in range(1, 6):
        post.report(report(job))
    assert len(post) == 5
    post.flush(0)
    [message] = desk.take(ReportJobs)
    assert isinstance(message, ReportJobs)
    assert [one.job for one in message.reports] == [1, 2, 3, 4, 5]
    post.flush(1)
    assert len(post) == 0


def test_many_reports_are_split_within_the_bounds(desk: Desk, post: Post) -> None:
    for job in range(1, 2 * MAX_REPORTS + 2):
        post.report(report(job))
    post.flush(0)
    assert said(desk) == list(range(1, 2 * MAX_REPORTS + 2))


@pytest.mark.parametrize("what", ["outputs", "steps"])
def test_large_reports_stay_below_the_bound_of_a_message(desk: Desk, post: Post, what: str) -> None:
    file = SandboxFile(name="f", sha256="0" * 64, size=MAX_INLINE_BYTES, content=b"\xff" * MAX_INLINE_BYTES)
    step = Step(status=JobStatus.RUNNING, minor='"' * 1000, time=0.0)
    for job in range(1, 30):
        post.report(report(job, outputs=(file,)) if what == "outputs" else report(job, steps=(step,) * 60))
    post.flush(0)
    messages = desk.take(ReportJobs)
    assert all(len(encode(message)) <= type_of(message).max_bytes for message in messages)
    desk.deployment.sent.extend(messages)
    assert said(desk) == list(range(1, 30))


@pytest.mark.parametrize("loss", [Confirm.LOST, Confirm.NACKED])
def test_what_was_lost_is_sent_again_in_order_before_what_came_later(desk: Desk, post: Post, loss: Confirm) -> None:
    desk.deployment.confirms[ReportJobs] = deque([loss])
    for job in (1, 2):
        post.report(report(job))
        post.flush(float(job))
    assert said(desk) == []
    post.report(report(3))
    post.flush(2.1)
    assert said(desk) == []  # a pause first
    post.flush(4)
    assert said(desk) == [1, 2, 3]
    post.flush(5)
    assert len(post) == 0


def test_the_republication_keeps_its_id(desk: Desk, post: Post) -> None:
    ids: list[str] = []
    real = desk.deployment.on_publish

    def note(outgoing: object) -> Confirm:
        ids.append(outgoing.message_id)  # type: ignore[attr-defined]
        real(outgoing)  # type: ignore[arg-type]
        return Confirm.LOST if len(ids) == 1 else Confirm.ACKED

    desk.deployment.on_publish = note  # type: ignore[method-assign, assignment]
    mine = post.say(Heartbeat(site="S1"))
    post.flush(0)
    post.flush(0.5)
    post.flush(2)
    assert ids == [mine, mine]


@pytest.mark.parametrize("verdict", [Confirm.RETURNED, Confirm.REFUSED])
def test_what_nobody_takes_is_tried_again_but_not_for_ever(desk: Desk, post: Post, verdict: Confirm) -> None:
    tries = desk.deployment.confirms[Goodbye] = deque([verdict] * 10_000)
    post.say(Goodbye(reason="x"))
    now = 0.0
    while len(post):
        post.flush(now)
        now += 1.0
        assert now < 100_000, "tried for ever"
    assert desk.take(Goodbye) == []
    assert 2 <= 10_000 - len(tries) <= 500


def test_backpressure_keeps_everything(desk: Desk, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise BackpressureError

    monkeypatch.setattr(desk.session.session, "post", full)
    post.report(report(1))
    post.say(Goodbye(reason="x"))
    post.flush(0)
    assert len(post) == 2
    monkeypatch.undo()
    post.flush(0.5)
    assert len(post) == 2
    post.flush(1.5)
    assert said(desk) == [1]


def test_gathered_reports_wait_a_moment_and_lonely_ones_do_not(desk: Desk, post: Post) -> None:
    post.report(report(1))
    post.flush(10.0, gather=True)
    assert said(desk) == [1]
    post.report(report(2))
    post.flush(10.01, gather=True)
    assert said(desk) == []
    assert 0 < post.due_in(10.01) < GATHER_SECONDS
    post.flush(10.0 + GATHER_SECONDS, gather=True)
    assert said(desk) == [2]


def test_what_a_service_could_not_verify_is_said_again(desk: Desk, post: Post) -> None:
    said_first = post.say(Goodbye(reason="test"))
    post.flush(0)
    assert len(desk.take(Goodbye)) == 1
    assert not post.repeat("unknown", 0)
    assert post.repeat(said_first, 0)
    post.flush(0.5)
    assert desk.take(Goodbye) == []  # not before the new login had a chance
    post.flush(2)
    assert len(desk.take(Goodbye)) == 1
