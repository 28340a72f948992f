"""Whoever reaches the broker's port can be denied any number of times; the store does not grow with it."""

from __future__ import annotations

import json
import os
import time

import pytest

from broker.login import make_assertion
from consumers import gatekeeper as module
from consumers.denials import PER_MINUTE
from consumers.gatekeeper import Gatekeeper
from consumers.store import audit, sessions
from schemas.identity import make_client_id
from tests.support import pki
from tests.support.messages import user

pytestmark = pytest.mark.integration


def test_denied_logins_fill_no_table(store, directory):
    clock = [6000.0]
    keeper = Gatekeeper(
        store=store, directory=directory, connection=None, signer=None, broker="test", clock=lambda: clock[0]
    )  # type: ignore[arg-type]  # a denial touches neither
    for number in range(3 * PER_MINUTE):
        assert not keeper.user({"username": f"{'a' * 20}.{number}", "password": "no assertion"})
    clock[0] += 60
    assert not keeper.user({"username": "x", "password": "y"})
    with store.reading() as tx:
        rows = audit.query(tx, limit=1000, event="login.denied")
    assert len(rows) == PER_MINUTE + 1
    assert f'"unrecorded":{2 * PER_MINUTE}'.encode() in rows[0].detail


def test_who_looks_what_is_open_is_written_down(store, directory):
    """Also while strangers' logins are denied by the thousand."""
    ada = user("ada")
    with store.transaction() as tx:
        sessions.put(tx, ada.cli, ada.identity, ada.group, "T", "user", 1.0)
    keeper = Gatekeeper(
        store=store, directory=directory, connection=None, signer=None, broker="test", clock=lambda: 6000.0
    )  # type: ignore[arg-type]  # a denial touches neither
    for number in range(2 * PER_MINUTE):
        keeper.user({"username": f"{'a' * 20}.{number}", "password": "no assertion"})
    form = {"username": ada.cli, "vhost": "/"}
    assert keeper.resource({**form, "resource": "queue", "name": f"reply.{ada.cli}", "permission": "read"})
    assert not keeper.resource({**form, "resource": "queue", "name": "reply.other.1", "permission": "read"})
    assert not keeper.resource({**form, "resource": "queue", "name": "submissions", "permission": "configure"})
    assert not keeper.topic({**form, "name": "pilotage.users", "routing_key": "job.report.v1", "permission": "write"})
    with store.reading() as tx:
        rows = audit.query(tx, limit=1000, event="access.denied")[::-1]
    assert {(row.identity, row.client) for row in rows} == {(ada.identity, ada.cli)}
    assert [json.loads(row.detail)["reason"] for row in rows] == [
        "may not read queue 'reply.other.1'",
        "may not configure queue 'submissions'",
        "may not write 'job.report.v1' to exchange 'pilotage.users'",
    ]


def test_one_user_does_not_log_in_without_end(store, directory, authority, monkeypatch):
    """Each login costs a queue at the broker and a line in the audit."""
    monkeypatch.setattr(module, "LOGINS_PER_MINUTE", 5)
    clock = [time.time() // 60 * 60]
    keeper = Gatekeeper(
        store=store, directory=directory, connection=None, signer=None, broker="test", clock=lambda: clock[0]
    )  # type: ignore[arg-type]  # the welcome is left out
    monkeypatch.setattr(keeper, "_welcome", lambda *_: None)

    def logs_in() -> bool:
        client = make_client_id(pki.USER_DN, os.urandom(6).hex())
        password = make_assertion(authority.user, client=client, audience="test", group="", now=clock[0])
        form = {"username": client, "password": password}
        return keeper.user(form) and keeper.user(form)  # RabbitMQ asks twice

    assert [logs_in() for _ in range(7)] == [True] * 5 + [False] * 2
    clock[0] += 60
    assert logs_in()
