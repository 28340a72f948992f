"""What the gatekeeper lets each client touch: all that the table says, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from broker.authorization import SERVICES, TABLE, Door, Principal, why_not
from broker.connection import Connection
from broker.signing import Signer
from broker.topology import MONITORING, QUEUES
from consumers import gatekeeper as module
from consumers.directory import Directory
from consumers.gatekeeper import ClientSession, Gatekeeper
from consumers.store import Store
from consumers.store.errors import StoreUnavailable
from schemas.envelope import reply_queue
from tests.support.messages import Sender, pilot, user

ADA, OLGA, PILOT = user("ada"), user("olga", "Operator", group="vo_admin"), pilot()
WHO = [ADA, OLGA, PILOT]


class Register:
    """Who is who."""

    def __init__(self) -> None:
        self.suspended: set[str] = set()
        self.limited: set[str] = set()

    def __call__(self, thumbprint: str) -> object:
        return SimpleNamespace(limited=thumbprint in self.limited)

    def verify(self, ders: list[bytes]) -> object:
        raise AssertionError("nothing here is a chain")

    def principal(self, identity: str, group: str, client: str) -> Principal | None:
        known = {sender.identity: sender for sender in WHO}
        sender = known.get(identity)
        return None if sender is None or identity in self.suspended or sender.group != group else sender.principal


class Sessions:
    """The store: a table of sessions, and whether it answers."""

    def __init__(self) -> None:
        self.rows: dict[str, ClientSession] = {}
        self.reads = 0
        self.away = False

    @contextmanager
    def reading(self) -> Iterator[Sessions]:
        if self.away:
            raise StoreUnavailable
        self.reads += 1
        yield self

    @contextmanager
    def transaction(self) -> Iterator[Sessions]:
        if self.away:
            raise StoreUnavailable
        yield self


@pytest.fixture
def register() -> Register:
    return Register()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Sessions:
    def get(tx: Sessions, client: str) -> object | None:
        row = tx.rows.get(client)
        return None if row is None else SimpleNamespace(identity=row.identity, grp=row.group, thumbprint=client)

    monkeypatch.setattr(module.sessions, "get", get)
    monkeypatch.setattr(module.audit, "append", lambda *_, **__: None)
    made = Sessions()
    made.rows = {sender.cli: ClientSession(sender.cli, sender.identity, sender.group) for sender in WHO}
    return made


@pytest.fixture
def keeper(register: Register, store: Sessions) -> Gatekeeper:
    return Gatekeeper(
        store=cast("Store", store),
        directory=cast("Directory", register),
        connection=cast("Connection", None),
        signer=cast("Signer", None),
        broker="test",
    )


def resource(keeper: Gatekeeper, sender: Sender, kind: str, name: str, permission: str) -> bool:
    form = {"username": sender.cli, "vhost": "/", "resource": kind, "name": name, "permission": permission}
    return keeper.resource(form)


@pytest.mark.parametrize("sender", WHO, ids=lambda one: one.group)
def test_queues(keeper: Gatekeeper, sender: Sender) -> None:
    names = {queue.name for queue in QUEUES} | {reply_queue(one.cli) for one in WHO} | {"", "reply.", "amq.gen-x"}
    readable = {name for name in names if resource(keeper, sender, "queue", name, "read")}
    sees = {MONITORING} if sender is OLGA else set()
    assert readable == {reply_queue(sender.cli)} | sees
    for permission in ("write", "configure", "", "READ"):
        assert not any(resource(keeper, sender, "queue", name, permission) for name in names)


@pytest.mark.parametrize("sender", WHO, ids=lambda one: one.group)
def test_exchanges(keeper: Gatekeeper, sender: Sender) -> None:
    names = [door.value for door in Door] + ["amq.topic", "amq.default", "pilotage.dead", "other"]
    writable = {name for name in names if resource(keeper, sender, "exchange", name, "write")}
    expected = {"ada": {Door.USERS}, "olga": {Door.USERS, Door.ADMIN}, "pilot": {Door.PILOTS}}
    assert writable == {door.value for door in expected[sender.identity.rsplit("=")[-1]]}
    assert not any(resource(keeper, sender, "exchange", name, what) for name in names for what in ("read", "configure"))
    assert not any(resource(keeper, sender, "topic", name, "write") for name in names)


@pytest.mark.parametrize("sender", WHO, ids=lambda one: one.group)
def test_topics(keeper: Gatekeeper, sender: Sender) -> None:
    for door in Door:
        for name in [*TABLE, "job.submit.v2", "#", "*", ""]:
            form = {"username": sender.cli, "name": door.value, "routing_key": name, "permission": "write"}
            allowed = keeper.topic(form)
            if allowed:
                assert door in TABLE[name].doors
                assert why_not(sender.principal, name) is None
            assert not keeper.topic({**form, "permission": "read"})
    own = "match.request.v1" if sender is PILOT else "job.query.v1"
    door = Door.PILOTS if sender is PILOT else Door.USERS
    assert keeper.topic({"username": sender.cli, "name": door, "routing_key": own, "permission": "write"})


def test_forms_without_their_fields(keeper: Gatekeeper) -> None:
    for form in ({}, {"username": ADA.cli}, {"username": "job-manager"}, {"username": "x" * 9999}):
        assert not keeper.user(form)
        assert not keeper.resource(form)
        assert not keeper.topic(form)
    assert keeper.vhost({"username": ADA.cli})
    assert not keeper.vhost({})


@pytest.mark.parametrize("name", [*sorted(SERVICES), "guest", "", "a.b", "A" * 20 + ".1", "a" * 20 + ".", "x\n"])
def test_names_that_are_no_client_ids_never_log_in(keeper: Gatekeeper, name: str) -> None:
    assert not keeper.user({"username": name, "password": "whatever"})
    assert not keeper.vhost({"username": name})


def test_an_assertion_that_is_none(keeper: Gatekeeper) -> None:
    for password in ("", "x", "a..b", "\x00", "e30..e30", "é" * 10):
        assert not keeper.user({"username": ADA.cli, "password": password})


def test_a_denial_stands_although_it_cannot_be_written_down(keeper: Gatekeeper, store: Sessions) -> None:
    store.away = True
    assert not keeper.user({"username": ADA.cli, "password": "x"})


def test_a_suspended_user_is_refused_at_once_although_his_session_is_known(
    keeper: Gatekeeper, register: Register
) -> None:
    assert keeper.vhost({"username": ADA.cli})
    register.suspended.add(ADA.identity)
    assert not keeper.vhost({"username": ADA.cli})
    assert not resource(keeper, ADA, "queue", reply_queue(ADA.cli), "read")
    assert not resource(keeper, ADA, "exchange", Door.USERS.value, "write")
    register.suspended.clear()
    assert keeper.vhost({"username": ADA.cli})


def test_a_store_that_is_away_fails_closed_for_unknown_sessions_only(keeper: Gatekeeper, store: Sessions) -> None:
    assert keeper.vhost({"username": ADA.cli})
    store.away = True
    assert keeper.vhost({"username": ADA.cli})
    with pytest.raises(StoreUnavailable):  # the front makes a deny of it
        keeper.vhost({"username": PILOT.cli})


def test_remembered_sessions_are_bounded(keeper: Gatekeeper, store: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_SESSIONS", 2)
    for _ in range(3):
        for sender in WHO:
            assert keeper.vhost({"username": sender.cli})
    assert len(keeper._sessions) == 2
    assert store.reads == 9
    assert keeper.vhost({"username": WHO[-1].cli})
    assert store.reads == 9


def test_a_payloads_proxy_reads_no_events(keeper: Gatekeeper, register: Register) -> None:
    """A limited proxy of somebody who may see all lies on worker nodes with his jobs."""
    register.limited.add(OLGA.cli)
    assert not resource(keeper, OLGA, "queue", MONITORING, "read")
    assert resource(keeper, OLGA, "queue", reply_queue(OLGA.cli), "read")
