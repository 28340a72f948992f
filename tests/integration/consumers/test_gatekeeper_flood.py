"""Whoever reaches the broker's port can be denied any number of times; the store does not grow with it."""

from __future__ import annotations

import pytest

from consumers.gatekeeper import DENIALS_PER_MINUTE, Gatekeeper
from consumers.store import audit

pytestmark = pytest.mark.integration


def test_denied_logins_fill_no_table(store, directory):
    clock = [6000.0]
    keeper = Gatekeeper(
        store=store, directory=directory, connection=None, signer=None, broker="test", clock=lambda: clock[0]
    )  # type: ignore[arg-type]  # a denial touches neither
    for number in range(3 * DENIALS_PER_MINUTE):
        assert not keeper.user({"username": f"{'a' * 20}.{number}", "password": "no assertion"})
    clock[0] += 60
    assert not keeper.user({"username": "x", "password": "y"})
    with store.reading() as tx:
        rows = audit.query(tx, limit=1000, event="login.denied")
    assert len(rows) == DENIALS_PER_MINUTE + 1
    assert f'"unrecorded":{2 * DENIALS_PER_MINUTE}'.encode() in rows[0].detail
