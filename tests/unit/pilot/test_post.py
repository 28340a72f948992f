"""What the pilot says: gathered when much happens, at once when little does, again when it was lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from typing import cast

import msgspec
import pytest

from broker.errors import BackpressureError
from broker.publisher import Letter, request
from broker.session import Session
from broker.transport import Confirm
from pilot.post import GATHER_SECONDS, MAX_REPORTS, RETRY_SECONDS, Post
from schemas.job import JobStatus
from schemas.messages.common import SandboxFile
from schemas.messages.pilot import Goodbye, Report, ReportJobs
from schemas.registry import Message


class Wire:
    """Takes the place of a session: keeps what was posted; confirms come when the test says so."""

    def __init__(self) -> None:
        self.posted: list[tuple[Letter, Future[Confirm]]] = []
        self.full = False

    def letter(self, message: Message) -> Letter:
        return request(message, frozenset({"GenericPilot"}))

    def post(self, letters: Sequence[Letter]) -> list[Future[Confirm]]:
        if self.full:
            raise BackpressureError
        futures: list[Future[Confirm]] = [Future() for _ in letters]
        self.posted += zip(letters, futures, strict=True)
        return futures

    def confirm(self, outcome: Confirm = Confirm.ACKED) -> None:
        for _, future in self.posted:
            if not future.done():
                future.set_result(outcome)

    def reported(self) -> list[list[int]]:
        """Jobs of each message of reports."""
        packs = [letter for letter, _ in self.posted if letter.name == "job.report.v1"]
        return [[one.job for one in msgspec.json.decode(pack.payload, type=ReportJobs).reports] for pack in packs]


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def post(wire: Wire) -> Post:
    return Post(cast("Session", wire))


def done(job: int, output: bytes = b"") -> Report:
    outputs = (SandboxFile(name="std.out", sha256="0" * 64, size=len(output), content=output),) if output else ()
    return Report(job=job, attempt=1, sequence=1, status=JobStatus.DONE, outputs=outputs)


def test_a_report_that_comes_alone_goes_at_once(post: Post, wire: Wire) -> None:
    post.report(done(1))
    post.flush(100.0, gather=True)
    assert wire.reported() == [[1]]
    assert post.due_in(100.0) == math.inf


def test_reports_that_follow_quickly_travel_together(post: Post, wire: Wire) -> None:
    post.report(done(1))
    post.flush(100.0, gather=True)
    for job in (2, 3):
        post.report(done(job))
        post.flush(100.0 + GATHER_SECONDS / 2, gather=True)
    assert wire.reported() == [[1]]
    assert post.due_in(100.0 + GATHER_SECONDS / 2) == pytest.approx(GATHER_SECONDS / 2)
    assert post.due_in(101.0) == 0.0
    post.flush(100.0 + GATHER_SECONDS, gather=True)
    assert wire.reported() == [[1], [2, 3]]


def test_the_last_report_waits_for_no_other(post: Post, wire: Wire) -> None:
    post.report(done(1))
    post.flush(100.0, gather=True)
    post.report(done(2))
    post.flush(100.001)
    assert wire.reported() == [[1], [2]]


def test_what_is_gathered_counts_as_unsaid(post: Post, wire: Wire) -> None:
    post.report(done(1))
    post.flush(100.0, gather=True)
    post.report(done(2))
    post.flush(100.001, gather=True)
    wire.confirm()
    assert len(post) == 2
    post.flush(100.002)
    wire.confirm()
    post.flush(100.003)
    assert len(post) == 0


def test_messages_stay_within_their_bounds(post: Post, wire: Wire) -> None:
    for job in range(1, MAX_REPORTS + 2):
        post.report(done(job))
    post.report(done(1000, b"x" * 60_000))
    for job in range(1001, 1010):
        post.report(done(job, b"x" * 60_000))
    post.flush(100.0)
    assert [len(pack) for pack in wire.reported()] == [MAX_REPORTS, 9, 2]


@pytest.mark.parametrize("loss", [Confirm.LOST, Confirm.NACKED])
def test_what_was_lost_goes_again_with_the_same_id(post: Post, wire: Wire, loss: Confirm) -> None:
    message_id = post.say(Goodbye(reason="over"))
    post.flush(100.0)
    wire.confirm(loss)
    post.flush(100.1)
    assert len(wire.posted) == 1
    post.flush(100.1 + RETRY_SECONDS)
    assert [letter.message_id for letter, _ in wire.posted] == [message_id, message_id]


def test_a_full_window_is_tried_again(post: Post, wire: Wire) -> None:
    wire.full = True
    post.report(done(1))
    post.flush(100.0)
    wire.full = False
    post.flush(100.1)
    assert not wire.posted
    post.flush(100.0 + RETRY_SECONDS)
    assert wire.reported() == [[1]]
