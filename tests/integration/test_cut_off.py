"""Who loses his rights loses his connections: measured with plain pika, as a client that does not care would be met."""

from __future__ import annotations

import datetime as dt
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pika
import pytest
from pika import exceptions

from broker.identity import Authority, Credential, parse_certificate
from broker.login import make_assertion
from broker.session import Session
from compose.local.configs import DEPLOYMENT
from consumers.cut_off import SWEEP_SECONDS
from consumers.cutting import LISTED_SECONDS
from producers import Client
from schemas.access import Effect
from schemas.entries import RuleEntry, UserEntry
from schemas.envelope import reply_queue
from schemas.identity import make_client_id
from schemas.messages.registrar import ChangeRegistry, EntryChange, Operation, RegistryApplied
from schemas.messages.sessions import CutSessions, QuerySessions, SessionListing, SessionsEnded
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

AT_ONCE = 5.0
"""Seconds in which somebody who was blocked can do nothing new."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("cut-off")
    with deployment(folder, services=["gatekeeper", "registry"]) as running:
        yield running


@pytest.fixture(scope="module")
def operator(place: Deployment) -> Iterator[Client]:
    with place.client() as client:
        yield client


class Peer:
    """A plain pika client that publishes and consumes all the time, in a thread of its own."""

    def __init__(self, place: Deployment, credential: Credential) -> None:
        self.place = place
        self.identity = parse_certificate(credential.ders[-1]).dn
        self.client = make_client_id(self.identity, os.urandom(6).hex())
        self.password = self.assertion(credential)
        self.connection = self.connect(self.password)
        self.queue = reply_queue(self.client)
        self.published = 0
        self.last = 0.0
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def assertion(self, credential: Credential) -> str:
        return make_assertion(credential, client=self.client, audience=DEPLOYMENT, group="", now=time.time())

    def connect(self, password: str) -> pika.BlockingConnection:
        context = ssl.create_default_context(cafile=str(self.place.layout.tls / "ca.pem"))
        parameters = pika.ConnectionParameters(
            "127.0.0.1",
            self.place.node.port,
            credentials=pika.PlainCredentials(self.client, password),
            ssl_options=pika.SSLOptions(context, "localhost"),
            socket_timeout=20,
            stack_timeout=30,
            blocked_connection_timeout=20,
        )
        return pika.BlockingConnection(parameters)

    def _run(self) -> None:
        try:
            channel = self.connection.channel()
            channel.confirm_delivery()
            channel.basic_consume(self.queue, lambda *_: None, auto_ack=True)
            while not self._stop.is_set():
                channel.basic_publish(
                    "pilotage.pilots", "pilot.heartbeat.v1", b"x", pika.BasicProperties(user_id=self.client)
                )
                self.published += 1
                self.last = time.monotonic()
                self.connection.process_data_events(0.01)
        except BaseException as error:  # noqa: BLE001 - what it was is the test's to say
            self.error = error
        finally:
            self.ended.set()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20)
        if self.connection.is_open:
            self.connection.close()


@pytest.fixture
def peers(place: Deployment) -> Iterator[Callable[[int], Peer]]:
    made: list[Peer] = []

    def make(number: int) -> Peer:
        made.append(Peer(place, place.pilot(number)))
        peer = made[-1]
        wait_until(lambda: peer.published > 5, 20, "it publishes")
        return peer

    yield make
    for peer in made:
        peer.close()


def suspend(operator: Client, dn: str, *, suspended: bool) -> float:
    """Suspend somebody; the moment at which the registry answered."""
    change(operator, Operation.SET, UserEntry(dn=dn, suspended=suspended))
    return time.monotonic()


def is_refused(peer: Peer, password: str) -> bool:
    try:
        peer.connect(password).close()
    except exceptions.AMQPConnectionError:
        return True
    return False


def reason_of(peer: Peer) -> str:
    """What the broker said when it closed the connection."""
    return str(peer.error)


def test_a_suspended_identity_is_cut_at_once_and_stays_out(place, operator, peers):
    first, second, other = peers(1), peers(1), peers(2)
    asked = suspend(operator, first.identity, suspended=True)
    try:
        for peer in (first, second):
            assert peer.ended.wait(AT_ONCE), "the connection is still open"
            assert peer.last - asked < AT_ONCE
            assert "CONNECTION_FORCED" in reason_of(peer)
            assert "suspended: a test" in reason_of(peer)
        # A new login is refused, and a copy of the one that was good a moment ago is worth nothing soon after.
        assert is_refused(first, first.assertion(place.pilot(1)))
        wait_until(lambda: is_refused(first, first.password), 2 * AT_ONCE, "the old login is refused")
        assert time.monotonic() - asked < AT_ONCE + 2
        assert not [one for one in listed(operator) if one.identity == first.identity]
        assert other.connection.is_open
        assert not other.ended.is_set()
        queues = place.node.ctl("list_queues", "-q", "name").split()
        assert first.queue not in queues
        assert other.queue in queues
    finally:
        suspend(operator, first.identity, suspended=False)
    wait_until(lambda: not is_refused(first, first.assertion(place.pilot(1))), 10, "let in again")


def test_who_is_connected(place, operator, peers):
    peer = peers(2)
    wait_until(lambda: peer.client in {one.client for one in listed(operator)}, LISTED_SECONDS, "it is listed")
    [mine] = [one for one in listed(operator) if one.client == peer.client]
    assert (mine.identity, mine.group, mine.kind, mine.connections) == (peer.identity, "pilots", "pilot", 1)
    assert abs(mine.since - time.time()) < 60
    wait_until(lambda: {one.kind for one in listed(operator)} == {"user", "pilot"}, LISTED_SECONDS)
    assert {one.kind for one in listed(operator, kind="user")} == {"user"}
    assert {one.identity for one in listed(operator, who=peer.identity)} == {peer.identity}
    limited = operator.ask(QuerySessions(limit=1), SessionListing)
    assert len(limited.sessions) == 1
    assert limited.total >= 2


def listed(operator: Client, **wanted: str) -> tuple:
    return operator.ask(QuerySessions(**wanted), SessionListing).sessions


def test_an_operator_cuts_without_suspending(place, operator, peers):
    peer, other = peers(1), peers(2)
    asked = time.monotonic()
    answer = operator.ask(CutSessions(who=peer.identity, reason="stolen laptop"), SessionsEnded)
    assert (answer.clients, answer.connections, answer.left) == (1, 1, ())
    assert peer.ended.wait(AT_ONCE)
    assert time.monotonic() - asked < AT_ONCE
    assert "stolen laptop" in reason_of(peer)
    assert not other.ended.is_set()
    assert not is_refused(peer, peer.assertion(place.pilot(1)))
    one = operator.ask(CutSessions(who=other.client, reason="that one"), SessionsEnded)
    assert (one.clients, one.connections) == (1, 1)
    assert other.ended.wait(AT_ONCE)
    none = operator.ask(CutSessions(who=other.client, reason="again"), SessionsEnded)
    assert (none.clients, none.connections) == (0, 0)


def test_our_own_session_comes_back_by_itself_after_a_cut(place, operator):
    with place.session(place.pilot(3)) as session:
        answer = operator.ask(CutSessions(who=session.client, reason="a test"), SessionsEnded)
        assert answer.connections == 1

        def is_back() -> bool:
            return session.client in {one.client for one in listed(operator)}

        wait_until(is_back, 30, "it logged in again")


def test_a_revoked_chain_is_cut_and_refused(place, operator, peers):
    peer, other = peers(3), peers(2)
    serial = parse_certificate(place.pilot(3).ders[-1]).x509.serial_number
    authority = Authority.load(place.layout.authority)
    revoked = time.monotonic()
    authority.write_trust_dir(place.layout.trust, revoked=[serial], now=dt.datetime.now(dt.UTC))
    try:
        assert peer.ended.wait(AT_ONCE), "the connection is still open"
        assert peer.last - revoked < AT_ONCE
        assert "revoked" in reason_of(peer)
        assert is_refused(peer, peer.assertion(place.pilot(3)))
        assert not other.ended.is_set()
    finally:
        authority.write_trust_dir(place.layout.trust, now=dt.datetime.now(dt.UTC))
    wait_until(lambda: not is_refused(peer, peer.assertion(place.pilot(3))), 10, "good again")


def test_a_lost_fact_is_found_by_the_look(place, peers):
    """The registry changes without a word: as if the event had been lost."""
    peer = peers(1)
    group = place.services
    assert group is not None
    store = group._store
    assert store is not None
    from consumers.store import registry

    with store.transaction() as tx:
        registry.set_suspended(tx, peer.identity, suspended=True)
    asked = time.monotonic()
    try:
        assert peer.ended.wait(AT_ONCE), "the connection is still open"
        assert peer.last - asked < AT_ONCE
    finally:
        with store.transaction() as tx:
            registry.set_suspended(tx, peer.identity, suspended=False)


def test_a_client_that_the_store_does_not_know_is_cut_by_the_sweep(place, peers):
    peer = peers(2)
    assert place.services is not None
    store = place.services._store
    assert store is not None
    from consumers.store import sessions

    with store.transaction() as tx:
        sessions.remove(tx, peer.client, time.time() + 60)
    assert peer.ended.wait(SWEEP_SECONDS + AT_ONCE)
    assert "unknown" in reason_of(peer)


def test_a_rule_that_forbids_acts_on_an_open_session(place, operator, peers):
    """The broker would let a busy channel go on: it is cut, and finds after its new login what it may not."""
    peer, other = peers(2), peers(1)
    rule = RuleEntry(name="quiet", effect=Effect.DENY, who=f"dn:{peer.identity}", what="pilot.heartbeat.v1")
    change(operator, Operation.ADD, rule)
    asked = time.monotonic()
    try:
        assert peer.ended.wait(AT_ONCE), "the connection is still open"
        assert peer.last - asked < AT_ONCE
        assert "rights were taken away" in reason_of(peer)
        assert not other.ended.is_set()
        wait_until(lambda: not may_publish(peer, place), AT_ONCE + 2, "the broker refuses it")
    finally:
        change(operator, Operation.REMOVE, RuleEntry(name="quiet"))
    wait_until(lambda: may_publish(peer, place), AT_ONCE + 2, "the broker lets it again")


def test_who_may_not_see_any_more_reads_the_stream_no_longer(place, operator, peers):
    """A reader is asked for once only: it is cut when a rule takes its sight away."""
    credential = place.user()
    identity = parse_certificate(credential.ders[-1]).dn
    rule = RuleEntry(name="blind", effect=Effect.DENY, who=f"dn:{identity}", what="events.read")
    with place.session(credential) as session:
        before = session.welcome
        change(operator, Operation.ADD, rule)
        try:
            wait_until(lambda: renewed(session, before), AT_ONCE + 10, "it had to log in anew")
            assert session.welcome.rules
        finally:
            change(operator, Operation.REMOVE, RuleEntry(name="blind"))


def renewed(session: Session, before: object) -> bool:
    """Whether another welcome came: the one of a new login."""
    session.receive(1, 0.1)
    return session.welcome is not before


def may_publish(peer: Peer, place: Deployment) -> bool:
    connection = peer.connect(peer.assertion(place.pilot(2)))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("pilotage.pilots", "pilot.heartbeat.v1", b"x", pika.BasicProperties(user_id=peer.client))
    except exceptions.ChannelClosedByBroker:
        return False
    finally:
        connection.close()
    return True


def change(operator: Client, operation: Operation, entry: RuleEntry | UserEntry) -> None:
    asked = ChangeRegistry(changes=(EntryChange(operation=operation, entry=entry),), reason="a test")
    operator.ask(asked, RegistryApplied)
