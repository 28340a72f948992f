"""The broker itself keeps clients in their bounds: tried with plain pika, as a hostile peer would."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator

import pika
import pytest
from pika import exceptions

from broker.identity import Credential, create_proxy
from broker.login import make_assertion
from broker.topology import EXCHANGES, QUEUES
from compose.local.configs import DEPLOYMENT
from schemas.envelope import reply_queue
from schemas.identity import make_client_id
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("boundary"), services=["gatekeeper"]) as running:
        yield running


def identity(credential: Credential) -> str:
    from broker.identity import parse_certificate

    return parse_certificate(credential.ders[-1]).dn


def connect(place: Deployment, user: str, password: str) -> pika.BlockingConnection:
    context = ssl.create_default_context(cafile=str(place.layout.tls / "ca.pem"))
    parameters = pika.ConnectionParameters(
        "127.0.0.1",
        place.node.port,
        credentials=pika.PlainCredentials(user, password),
        ssl_options=pika.SSLOptions(context, "localhost"),
        socket_timeout=20,
        stack_timeout=30,
        blocked_connection_timeout=20,
    )
    return pika.BlockingConnection(parameters)


def assertion(credential: Credential, client: str, **changes) -> str:
    values = {"client": client, "audience": DEPLOYMENT, "group": "", "now": time.time()} | changes
    return make_assertion(credential, **values)


class Hostile:
    """A plain pika client with a genuine login of its own."""

    def __init__(self, place: Deployment, credential: Credential) -> None:
        self.place = place
        self.client = make_client_id(identity(credential), os.urandom(6).hex())
        self.connection = connect(place, self.client, assertion(credential, self.client))

    def refused(self, attempt: Callable[[pika.adapters.blocking_connection.BlockingChannel], object]) -> int:
        """The AMQP code with which the broker refuses an attempt; fails if it is let through."""
        channel = self.connection.channel()
        channel.confirm_delivery()
        with pytest.raises(exceptions.ChannelClosedByBroker) as caught:
            attempt(channel)  # publishing waits for its confirm, so every refusal comes here
        return int(caught.value.reply_code)


@pytest.fixture
def pilot(place) -> Iterator[Hostile]:
    hostile = Hostile(place, place.pilot(1))
    yield hostile
    hostile.connection.close()


@pytest.fixture
def victim(place) -> Iterator[Hostile]:
    hostile = Hostile(place, place.pilot(2))
    yield hostile
    hostile.connection.close()


@pytest.fixture
def user(place) -> Iterator[Hostile]:
    hostile = Hostile(place, place.user())
    yield hostile
    hostile.connection.close()


def test_a_client_reads_its_own_queue_and_finds_the_welcome(pilot):
    channel = pilot.connection.channel()
    method, properties, body = next(channel.consume(reply_queue(pilot.client), inactivity_timeout=5))
    assert method is not None
    assert properties.type == "session.welcome.v1"
    assert properties.user_id == "gatekeeper"
    assert body


OTHERS = {
    "read": lambda channel, queue: channel.basic_consume(queue, lambda *_: None),
    "get": lambda channel, queue: channel.basic_get(queue),
    "purge": lambda channel, queue: channel.queue_purge(queue),
    "delete": lambda channel, queue: channel.queue_delete(queue),
    "bind": lambda channel, queue: channel.queue_bind(queue, "pilotage.events", "#"),
    "unbind": lambda channel, queue: channel.queue_unbind(queue, "pilotage.replies", queue),
    "declare": lambda channel, queue: channel.queue_declare(queue, durable=True, arguments={"x-expires": 1000}),
}


@pytest.mark.parametrize("attempt", sorted(OTHERS))
def test_one_pilot_cannot_touch_anothers_queue(pilot, victim, attempt):
    queue = reply_queue(victim.client)
    assert pilot.refused(lambda channel: OTHERS[attempt](channel, queue)) == 403


@pytest.mark.parametrize("attempt", ["delete", "bind", "declare", "unbind"])
def test_a_client_cannot_change_even_its_own_queue(pilot, attempt):
    assert pilot.refused(lambda channel: OTHERS[attempt](channel, reply_queue(pilot.client))) == 403


@pytest.mark.parametrize("queue", [queue.name for queue in QUEUES])
@pytest.mark.parametrize("attempt", ["read", "purge", "delete"])
def test_a_pilot_cannot_touch_a_service_queue(pilot, queue, attempt):
    assert pilot.refused(lambda channel: OTHERS[attempt](channel, queue)) == 403


PASSIVE = (
    lambda channel: channel.exchange_declare("mine", "fanout"),
    lambda channel: channel.queue_declare("mine", durable=True),
    lambda channel: channel.queue_declare("", exclusive=True),
    lambda channel: channel.queue_declare("reply.mine", auto_delete=True),
    lambda channel: channel.exchange_delete("pilotage.pilots"),
    lambda channel: channel.exchange_bind("pilotage.events", "pilotage.pilots", "#"),
    lambda channel: channel.queue_declare("dlx", arguments={"x-dead-letter-exchange": "pilotage.replies"}),
)


@pytest.mark.parametrize("number", range(len(PASSIVE)))
def test_a_client_declares_nothing(pilot, number):
    assert pilot.refused(PASSIVE[number]) == 403


def publish(exchange: str, key: str, **properties):
    def attempt(channel):
        channel.basic_publish(exchange, key, b"{}", pika.BasicProperties(**properties))

    return attempt


@pytest.mark.parametrize(
    ("exchange", "key"),
    [
        ("pilotage.pilots", "job.submit.v1"),
        ("pilotage.pilots", "match.response.v1"),
        ("pilotage.pilots", "dead.replay.v1"),
        ("pilotage.pilots", "anything"),
        ("pilotage.pilots", "#"),
        ("pilotage.users", "job.submit.v1"),
        ("pilotage.users", "sandbox.put.v1"),
        ("pilotage.admin", "dead.replay.v1"),
        ("pilotage.events", "job.changed.v1"),
        ("pilotage.replies", "reply.somebody"),
        ("pilotage.dead", ""),
        ("", "reports"),
        ("", "match-requests"),
        ("amq.topic", "x"),
        ("amq.direct", "x"),
    ],
)
def test_a_pilot_writes_only_what_a_pilot_may(pilot, exchange, key):
    assert pilot.refused(publish(exchange, key)) == 403


def test_it_cannot_write_to_anothers_reply_queue(pilot, victim):
    assert pilot.refused(publish("pilotage.replies", reply_queue(victim.client))) == 403
    assert pilot.refused(publish("", reply_queue(victim.client))) == 403


def test_it_cannot_say_another_user_id(pilot, victim):
    for name in ("matcher", victim.client):
        assert pilot.refused(publish("pilotage.pilots", "pilot.heartbeat.v1", user_id=name)) == 406


@pytest.mark.parametrize("exchange", ["pilotage.pilots", "pilotage.events", "pilotage.replies"])
def test_a_user_stays_out_of_the_others_doors(user, exchange):
    assert user.refused(publish(exchange, "job.report.v1")) == 403


def test_what_it_may_it_can(pilot, user):
    for hostile, exchange, key in (
        (pilot, "pilotage.pilots", "pilot.heartbeat.v1"),
        (user, "pilotage.users", "job.kill.v1"),
    ):
        channel = hostile.connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(
            exchange, key, b"not signed", pika.BasicProperties(user_id=hostile.client), mandatory=True
        )
        assert channel.is_open


# -- login ---------------------------------------------------------------------------------------------------------


def refused_login(place: Deployment, user: str, password: str) -> None:
    with pytest.raises(exceptions.AMQPConnectionError):
        connect(place, user, password).close()


def test_nobody_logs_in_under_a_services_name(place):
    credential = place.pilot(1)
    for name in ("matcher", "gatekeeper", "relay", "guest"):
        refused_login(place, name, assertion(credential, name))
        refused_login(place, name, "")


def test_nobody_logs_in_under_anothers_client_id(place):
    other = make_client_id(identity(place.pilot(2)), "abc")
    refused_login(place, other, assertion(place.pilot(1), other))


@pytest.mark.parametrize("password", ["", "x", "a.b.c", "é", "A" * 30_000])
def test_garbage_is_no_password(place, password):
    refused_login(place, make_client_id(identity(place.pilot(1)), "abc"), password)


def test_an_old_or_foreign_assertion_is_refused(place):
    credential = place.pilot(1)
    client = make_client_id(identity(credential), "abc")
    refused_login(place, client, assertion(credential, client, now=time.time() - 3600))
    refused_login(place, client, assertion(credential, client, now=time.time() + 3600))
    refused_login(place, client, assertion(credential, client, audience="elsewhere"))
    refused_login(place, client, assertion(credential, client, group="users"))


def test_an_assertion_serves_for_one_login_only(place):
    credential = place.pilot(1)
    client = make_client_id(identity(credential), "once")
    password = assertion(credential, client)
    connect(place, client, password).close()

    def is_worthless() -> bool:
        try:
            connect(place, client, password).close()
        except exceptions.AMQPConnectionError:
            return True
        return False

    # Valid for a minute and the clocks' difference, but used up as soon as the broker's own memory of it (5 s) ends.
    wait_until(is_worthless, 30, "a copy of a used assertion is refused")


def test_a_stolen_chain_without_its_key_is_refused(place):
    credential = place.pilot(1)
    client = make_client_id(identity(credential), "abc")
    stolen = Credential(place.pilot(2).key, credential.ders)
    refused_login(place, client, assertion(stolen, client))


def test_a_service_certificate_is_no_clients_login(place):
    from broker.identity import load_credential

    credential = load_credential(place.layout.services / "matcher.pem")
    client = make_client_id(identity(credential), "abc")
    refused_login(place, client, assertion(credential, client))


def test_a_limited_proxy_logs_in_but_cannot_be_made_full(place):
    import datetime as dt

    limited = place.user(limited=True)
    child = create_proxy(
        limited.ders, limited.key, lifetime=dt.timedelta(hours=1), limited=False, now=dt.datetime.now(dt.UTC)
    )
    with place.session(child) as session:
        assert session.welcome is not None
        assert session.welcome.group == "users"


def test_every_exchange_and_queue_is_there(place):
    names = place.node.ctl("list_queues", "-q", "name").split()
    assert {queue.name for queue in QUEUES} <= set(names)
    exchanges = place.node.ctl("list_exchanges", "-q", "name").split()
    assert set(EXCHANGES) <= set(exchanges)
