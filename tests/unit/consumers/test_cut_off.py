"""Who is cut and who is not, whatever the broker says: with a broker that is made up."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from broker.authorization import Principal
from broker.connection import Connection
from broker.errors import OperationRefusedError
from consumers import cutting as module
from consumers.batch import Batch
from consumers.broker_connections import BrokerAwayError, BrokerConnections
from consumers.cut_off import AGAIN_SECONDS, LOOK_SECONDS, SWEEP_SECONDS, CutOff
from consumers.cutting import Cutter
from consumers.directory import Directory
from consumers.gatekeeper import Gatekeeper
from consumers.store import Store, Transaction
from consumers.store.sessions import Session
from schemas.access import AccessRule, Effect
from schemas.envelope import reply_queue
from schemas.identity import make_client_id
from schemas.messages.registrar import Blocked, IdentityBlocked, Policy
from schemas.messages.service import Refused
from schemas.messages.sessions import CutSessions, QuerySessions, SessionListing, SessionsEnded
from schemas.registry import Message
from tests.support.messages import Sender, admitted, opened, service, user

ADA, BOB, OLGA = user("ada"), user("bob"), user("olga", "Operator", group="vo_admin")
NOW = 1_800_000_000.0


@dataclass
class World:
    """Broker, store and registry in one."""

    users: Counter[str] = field(default_factory=Counter)
    rows: dict[str, Session] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    ends: float = NOW + 100
    away: bool = False
    stuck: set[str] = field(default_factory=set)
    deleted: list[str] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    audited: list[tuple[str, str, object]] = field(default_factory=list)
    changes: int = 0
    fresh: list[str] = field(default_factory=list)
    unparked: list[str] = field(default_factory=list)
    let_in: dict[str, Principal | None] = field(default_factory=dict)
    properties: frozenset[str] = frozenset()
    rules: tuple[AccessRule, ...] = ()

    def login(self, sender: Sender, *, kind: str = "user", connections: int = 1) -> str:
        client = sender.cli
        self.users[client] += connections
        self.let_in[client] = self.principal(sender.identity, sender.group, client)
        self.rows[client] = Session(client, sender.identity, sender.group, f"t-{client}", kind, NOW, NOW)
        return client

    # the broker
    def close(self, client: str, reason: str) -> int:
        if self.away or client in self.stuck:
            raise BrokerAwayError("no answer")
        self.closed.append((client, reason))
        return self.users.pop(client, 0)

    def delete_queue(self, queue: str) -> None:
        self.deleted.append(queue)

    # the directory
    def principal(self, identity: str, group: str, client: str) -> Principal | None:
        return None if identity in self.blocked else Principal(identity, group, self.properties, rules=self.rules)

    def __call__(self, thumbprint: str) -> object | None:
        return None if thumbprint in self.revoked else SimpleNamespace(not_after=self.ends)

    def recent(self, seconds: float) -> list[str]:
        return self.fresh

    def granted(self, client: str) -> Principal | None:
        return self.let_in.get(client)

    def generation(self) -> tuple[int, int]:
        return self.changes, 0

    def forget(self, client: str = "") -> None:
        self.forgotten.append(client)

    # the store
    @contextlib.contextmanager
    def reading(self) -> Iterator[World]:
        yield self

    transaction = reading


class Broker:
    def __init__(self, world: World) -> None:
        self.world = world
        self.close = world.close

    def users(self) -> Counter[str]:
        if self.world.away:
            raise BrokerAwayError("no answer")
        return Counter(self.world.users)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(
        module.sessions, "get_many", lambda tx, ids: {one: tx.rows[one] for one in ids if one in tx.rows}
    )
    monkeypatch.setattr(module.parked, "remove_clients", lambda tx, clients: tx.unparked.extend(clients))
    monkeypatch.setattr(module.sessions, "remove", lambda tx, client, before: tx.rows.pop(client, None))
    monkeypatch.setattr(
        module.audit,
        "append",
        lambda tx, now, event, **more: tx.audited.append((event, more["client"], more["detail"])),
    )
    return World()


@pytest.fixture
def cutter(world: World) -> Cutter:
    return Cutter(
        store=cast("Store", world),
        directory=cast("Directory", world),
        gatekeeper=cast("Gatekeeper", world),
        connection=cast("Connection", world),
        broker=cast("BrokerConnections", Broker(world)),
        clock=lambda: NOW,
    )


def test_an_identity_is_cut_with_all_its_clients_and_nobody_else(world: World, cutter: Cutter) -> None:
    first, second, other = world.login(ADA), world.login(user("ada", suffix="2"), connections=2), world.login(BOB)
    world.users["matcher"] += 1
    done = cutter.cut_somebody(ADA.identity, "stolen", by=OLGA.identity)
    assert (done.clients, done.connections, done.left) == (2, 3, ())
    assert {client for client, _ in world.closed} == {first, second}
    assert set(world.deleted) == {reply_queue(first), reply_queue(second)}
    assert set(world.rows) == {other}
    assert set(world.users) == {other, "matcher"}
    assert ("session.cut", first, {"reason": "stolen", "connections": 1, "by": OLGA.identity}) in world.audited


def test_who_may_not_come_back_waits_for_no_job_any_more(world: World, cutter: Cutter) -> None:
    pilot = world.login(ADA, kind="pilot")
    cutter.cut_somebody(ADA.identity, "stolen")
    assert world.unparked == []
    world.login(ADA, kind="pilot")
    world.blocked.add(ADA.identity)
    cutter.cut_somebody(ADA.identity, "suspended")
    assert world.unparked == [pilot]


def test_who_is_not_listed_yet_is_cut_too(world: World, cutter: Cutter) -> None:
    client, quick = world.login(ADA), user("ada", suffix="2").cli
    world.rows[quick] = Session(quick, ADA.identity, ADA.group, "t", "user", NOW, NOW)
    world.fresh = [quick, client]
    assert cutter.cut_somebody(ADA.identity, "x").clients == 1
    assert {cut for cut, _ in world.closed} == {client, quick}


def test_one_group_only(world: World, cutter: Cutter) -> None:
    world.login(ADA)
    prod = world.login(user("ada", group="vo_prod", suffix="2"))
    cutter.cut_somebody(ADA.identity, "left the group", group="vo_prod")
    assert [client for client, _ in world.closed] == [prod]


def test_one_client_only(world: World, cutter: Cutter) -> None:
    first, _ = world.login(ADA), world.login(user("ada", suffix="2"))
    assert cutter.cut_somebody(first, "that one").clients == 1
    assert cutter.cut_somebody(first, "again").clients == 0
    assert cutter.cut_somebody("matcher", "a service is no client").clients == 0


def test_what_could_not_be_closed_keeps_its_session_for_the_next_try(world: World, cutter: Cutter) -> None:
    first, second = world.login(ADA), world.login(user("ada", suffix="2"))
    world.stuck = {first}
    done = cutter.cut_somebody(ADA.identity, "stolen")
    assert (done.clients, done.left, done.reason) == (1, (first,), "no answer")
    assert set(world.rows) == {first}
    assert second not in world.users


def test_a_refused_queue_is_no_end(world: World, cutter: Cutter, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.login(ADA)

    def refuse(_queue: str) -> None:
        raise OperationRefusedError("no", code=403)

    monkeypatch.setattr(world, "delete_queue", refuse)
    assert cutter.cut_somebody(ADA.identity, "x").left == (first,)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda world, client: world.blocked.add(ADA.identity), "suspended, or not registered"),
        (lambda world, client: world.revoked.add(f"t-{client}"), "revoked"),
        (lambda world, client: setattr(world, "ends", NOW - 1), "has ended"),
        (lambda world, client: world.rows.pop(client), "unknown"),
    ],
)
def test_the_sweep_finds_who_must_not_be_there(
    world: World, cutter: Cutter, spoil: Callable[[World, str], None], why: str
) -> None:
    client = world.login(ADA)
    assert cutter.sweep().clients == 0
    spoil(world, client)
    assert cutter.sweep().clients == 1
    [(cut, reason)] = world.closed
    assert cut == client
    assert why in reason


def test_who_lost_a_right_is_to_log_in_anew(world: World, cutter: Cutter) -> None:
    world.properties = frozenset({"NormalUser", "JobMonitor"})
    client, other = world.login(ADA), world.login(BOB)
    assert cutter.sweep().clients == 0
    world.properties = frozenset({"NormalUser", "JobMonitor", "DataManager"})
    assert cutter.sweep().clients == 0, "more rights are no reason"
    world.properties = frozenset({"NormalUser", "DataManager"})
    assert cutter.sweep().clients == 2
    assert {cut for cut, _ in world.closed} == {client, other}
    assert "log in anew" in world.closed[0][1]
    world.login(ADA)
    assert cutter.sweep().clients == 0


def test_a_rule_that_denies_is_a_right_lost(world: World, cutter: Cutter) -> None:
    world.properties = frozenset({"NormalUser"})
    world.login(ADA)
    world.rules = (AccessRule(name="ban", effect=Effect.DENY, who="*", what="job.submit.v1"),)
    elsewhere = world.login(BOB)
    world.let_in.pop(elsewhere)
    world.rules = (*world.rules, AccessRule(name="more", effect=Effect.DENY, who="*", what="*"))
    assert cutter.sweep().clients == 1, "who was let in elsewhere is another gatekeeper's to look after"


def test_a_pilot_that_enrols_has_no_chain_yet(world: World, cutter: Cutter) -> None:
    client = world.login(ADA, kind="enrolling")
    world.revoked.add(f"t-{client}")
    assert cutter.sweep().clients == 0
    world.blocked.add(ADA.identity)
    assert cutter.sweep().clients == 1


# -- the consumer -----------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def consumer(world: World, cutter: Cutter, clock: Clock) -> CutOff:
    return CutOff(cast("Directory", world), cutter, clock=clock)


def told(consumer: CutOff, world: World, message: Message, sender: Sender) -> list[Message]:
    batch = Batch(cast("Transaction", world), NOW)
    consumer.handle(batch, [admitted(message, sender)])
    assert world.closed == [], "the broker is asked after the commit"
    for commit in batch.commits:
        commit()
    assert not batch.letters
    return [opened(letter) for letter in batch.unrecorded]


def looked(consumer: CutOff, world: World) -> int:
    """How many clients a look cuts."""
    batch, before = Batch(cast("Transaction", world), NOW), len(world.closed)
    consumer.chores(batch)
    for commit in batch.commits:
        commit()
    return len(world.closed) - before


def blocked(sender: Sender) -> IdentityBlocked:
    return IdentityBlocked(
        identity=sender.identity, how=Blocked.SUSPENDED, reason="stolen", by=OLGA.identity, time=NOW, jobs=Policy.HOLD
    )


def test_a_blocked_identity_is_cut_and_the_registry_is_read_anew(world: World, consumer: CutOff) -> None:
    client = world.login(ADA)
    assert told(consumer, world, blocked(ADA), service("registry")) == []
    assert world.closed == [(client, "suspended: stolen")]
    assert "" in world.forgotten


def test_it_is_looked_at_again_for_who_was_just_logging_in(world: World, consumer: CutOff, clock: Clock) -> None:
    assert looked(consumer, world) == 0
    told(consumer, world, blocked(ADA), service("registry"))
    world.blocked.add(ADA.identity)
    for seconds in AGAIN_SECONDS:
        world.login(ADA)
        assert looked(consumer, world) == 0
        clock.now = 1000.0 + seconds + 0.1
        assert looked(consumer, world) == 1


def test_it_looks_when_something_changed_and_from_time_to_time(world: World, consumer: CutOff, clock: Clock) -> None:
    looked(consumer, world)
    assert consumer.due_in(0) == LOOK_SECONDS
    world.login(ADA)
    world.blocked.add(ADA.identity)
    assert looked(consumer, world) == 0
    world.changes += 1
    assert looked(consumer, world) == 1
    world.login(ADA)
    clock.now += SWEEP_SECONDS - 0.1
    assert looked(consumer, world) == 0
    clock.now += 0.2
    assert looked(consumer, world) == 1


def test_a_broker_that_is_away_stops_nothing(world: World, consumer: CutOff) -> None:
    world.login(ADA)
    world.away = True
    assert looked(consumer, world) == 0
    assert told(consumer, world, blocked(ADA), service("registry")) == []
    for message in (CutSessions(who=ADA.identity, reason="x"), QuerySessions()):
        [answer] = told(consumer, world, message, OLGA)
        assert isinstance(answer, Refused)
        assert answer.code == "unavailable"


def test_an_operator_is_told_what_was_cut(world: World, consumer: CutOff) -> None:
    client = world.login(ADA, connections=2)
    [answer] = told(consumer, world, CutSessions(who=ADA.identity, reason="stolen laptop"), OLGA)
    assert answer == SessionsEnded(clients=1, connections=2)
    assert world.audited[0] == ("session.cut-ordered", OLGA.cli, {"who": ADA.identity, "reason": "stolen laptop"})
    assert world.audited[1][:2] == ("session.cut", client)


def test_a_listing_tells_the_latest_first_and_how_many_there_are(world: World, consumer: CutOff) -> None:
    world.login(ADA)
    world.login(BOB, kind="pilot")
    stranger = make_client_id("/CN=x", "1")
    world.users[stranger] = 3
    [everybody] = told(consumer, world, QuerySessions(limit=2), OLGA)
    assert isinstance(everybody, SessionListing)
    assert (len(everybody.sessions), everybody.total) == (2, 3)
    [mine] = told(consumer, world, QuerySessions(who=ADA.identity), OLGA)
    assert isinstance(mine, SessionListing)
    assert [one.identity for one in mine.sessions] == [ADA.identity]
    [kind] = told(consumer, world, QuerySessions(kind="pilot"), OLGA)
    assert isinstance(kind, SessionListing)
    assert [one.identity for one in kind.sessions] == [BOB.identity]
    [unknown] = told(consumer, world, QuerySessions(who=stranger), OLGA)
    assert isinstance(unknown, SessionListing)
    assert [one.connections for one in unknown.sessions] == [3]
