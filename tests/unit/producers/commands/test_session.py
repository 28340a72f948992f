"""``pilotage session``: what it asks, prints, and how it ends."""

from __future__ import annotations

import json
import time

import pytest
from typer.testing import CliRunner, Result

from producers.commands import session
from producers.errors import AwayError, NotFoundError
from schemas.messages.sessions import CutSessions, QuerySessions, SessionInfo, SessionListing, SessionsEnded
from tests.support.fake_deployment import FakeDeployment

ADA = "/O=Test/CN=Ada"
ONE = SessionInfo(
    client="a" * 20 + ".1", identity=ADA, group="users", kind="user", since=time.time() - 90, connections=1
)


def run(deployment: FakeDeployment, *words: str) -> Result:
    return CliRunner().invoke(session.app, list(words), obj=deployment.settings)


def test_who_is_connected(deployment: FakeDeployment) -> None:
    deployment.answer(QuerySessions, SessionListing(sessions=(ONE,), total=3))
    table = run(deployment, "list", ADA, "--kind", "user", "--limit", "1")
    assert table.exit_code == 0
    assert [ONE.client, "user", "users"] == table.stdout.splitlines()[1].split()[:3]
    assert table.stdout.splitlines()[1].endswith(ADA)
    assert "3 in all" in table.stderr
    assert deployment.take(QuerySessions) == QuerySessions(who=ADA, kind="user", limit=1)
    assert run(deployment, "list", "-o", "quiet").stdout == f"{ONE.client}\n"
    assert json.loads(run(deployment, "list", "-o", "json").stdout)["sessions"][0]["identity"] == ADA


def test_nobody(deployment: FakeDeployment) -> None:
    deployment.answer(QuerySessions, SessionListing(sessions=(), total=0))
    assert run(deployment, "list").stderr == "Nobody.\n"


def test_a_cut_needs_a_reason_and_tells_what_was_closed(deployment: FakeDeployment) -> None:
    deployment.answer(CutSessions, SessionsEnded(clients=1, connections=2))
    assert run(deployment, "cut", ADA).exit_code == 2
    done = run(deployment, "cut", ADA, "--reason", "stolen laptop")
    assert done.exit_code == 0
    assert done.stdout == "Closed 2 connections of 1 client.\n"
    assert "suspend" in done.stderr
    assert deployment.take(CutSessions) == CutSessions(who=ADA, reason="stolen laptop")
    assert run(deployment, "cut", ADA, "--reason", "x", "-o", "quiet").stdout == "2\n"


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (SessionsEnded(clients=0, connections=0), NotFoundError),
        (SessionsEnded(clients=0, connections=0, left=(ONE.client,), reason="the broker is away"), AwayError),
    ],
)
def test_a_cut_that_closed_nothing_is_no_success(
    deployment: FakeDeployment, ended: SessionsEnded, error: type[Exception]
) -> None:
    deployment.answer(CutSessions, ended)
    assert isinstance(run(deployment, "cut", ADA, "--reason", "x").exception, error)
