"""A deployment for the client to talk to; one set of certificates for all tests of the folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from producers import Client
from tests.support.fake_deployment import FakeDeployment, install


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDeployment:
    fake = FakeDeployment(tmp_path)
    install(fake, monkeypatch)
    return fake


@pytest.fixture
def client(deployment: FakeDeployment) -> Iterator[Client]:
    with Client(deployment.settings, timeout=20.0) as client:
        yield client
    deployment.assert_nothing_else_sent()
