"""A session's clock, and what it believes of a welcome."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from broker.session import NoAnswerError, Session, SessionSettings
from broker.transport import Endpoint
from tests.support.fake_deployment import FakeDeployment, install


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDeployment:
    made = FakeDeployment(tmp_path)
    install(made, monkeypatch)
    return made


@pytest.fixture
def session(deployment: FakeDeployment, tmp_path: Path) -> Session:
    settings = SessionSettings(
        endpoint=Endpoint("localhost", 5671, tmp_path / "ca.pem"),
        broker="test",
        trust_dir=tmp_path / "ca",
        gatekeeper=deployment.settings.broker.gatekeeper,
    )
    return Session(settings, deployment.proxy, name="test")


def test_the_nodes_clock_may_be_set_without_moving_any_lease(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.open()
    before = session.now()
    true_time = time.time
    for step in (-3600.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda step=step: true_time() + step)
        assert before <= session.now() < before + 60


def test_the_estimate_is_never_behind_the_server(session: Session) -> None:
    session.open()
    assert session.now() >= time.time()


def test_a_welcome_of_an_earlier_login_sets_no_clock(session: Session) -> None:
    session._login()  # the deployment's welcome names another login than this one
    with pytest.raises(NoAnswerError):
        session.open(0.2)
    assert session.welcome is None
