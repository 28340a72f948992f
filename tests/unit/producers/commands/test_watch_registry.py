"""What `pilotage watch` tells of the registry: one line each, harmless, whatever it holds."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from producers.commands import watch
from schemas.messages.event import WorkWaiting
from schemas.messages.registrar import (
    Blocked,
    EntryKind,
    IdentityBlocked,
    Policy,
    RegistryChanged,
    RegistryStale,
)
from schemas.registry import Message
from tests.support.fake_deployment import FakeDeployment

OP = "/CN=op"


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        (RegistryChanged(kind=EntryKind.SITE, names=("A", "B"), version=3, time=1.0, actor=OP, reason="fire"),
         "registry: site A, B by /CN=op: fire"),
        (RegistryChanged(kind=EntryKind.USER, names=("1", "2", "3", "4"), version=3, time=1.0, actor="seed"),
         "registry: user 1, 2, 3, … by seed"),
        (IdentityBlocked(identity="/CN=x\x1b[2J", group="g", how=Blocked.LEFT, reason="odd", by=OP, time=1.0,
                         jobs=Policy.KILL),
         "blocked: /CN=x\N{REPLACEMENT CHARACTER}[2J left g by /CN=op: odd"),
        (IdentityBlocked(identity="/CN=x", how=Blocked.REMOVED, reason="", by="seed", time=1.0, jobs=Policy.KILL),
         "blocked: /CN=x removed by seed"),
        (RegistryStale(source="iam", reason="HTTP 503", time=1.0), "source iam: HTTP 503"),
    ],
)  # fmt: skip
def test_registry_events(deployment: FakeDeployment, fact: Message, text: str) -> None:
    deployment.happen(fact, 0, service="registry")
    result = CliRunner().invoke(watch.app, ["--since", "first", "--until-now"], obj=deployment.settings)
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith(text)


def test_hints_between_services_are_for_machines(deployment: FakeDeployment) -> None:
    deployment.happen(WorkWaiting(queues=(1,)), 0, service="job-manager")
    told = CliRunner().invoke(watch.app, ["--since", "first", "--until-now"], obj=deployment.settings)
    assert (told.exit_code, told.stdout) == (0, "")
    deployment.happen(WorkWaiting(queues=(1,)), 1, service="job-manager")
    told = CliRunner().invoke(watch.app, ["--since", "first", "--until-now", "-o", "json"], obj=deployment.settings)
    assert "work.waiting.v1" in told.stdout
