"""The broker itself keeps clients in their bounds: tried with plain pika, as a hostile peer would."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import ssl
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pika
import psutil
import pytest
from pika import exceptions

from broker.identity import Credential, create_proxy
from broker.login import make_assertion
from broker.topology import EXCHANGES, MONITORING, QUEUES
from compose.local.configs import DEPLOYMENT
from consumers.passes import LOOK, LOOKER
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
    lambda channel: channel.exchange_bind("pilotage.pilots", "pilotage.events", "#"),
    lambda channel: channel.exchange_bind("pilotage.replies", "pilotage.pilots", "#"),
    lambda channel: channel.exchange_unbind("pilotage.events", "pilotage.pilots", "#"),
    lambda channel: channel.exchange_delete("pilotage.events"),
    lambda channel: channel.exchange_declare("pilotage.replies", "direct", durable=True),
    lambda channel: channel.exchange_declare("alternate", arguments={"alternate-exchange": "pilotage.events"}),
    lambda channel: channel.queue_declare("reply.mine", durable=True),
    lambda channel: channel.queue_declare("cuts.mine", durable=True),
    lambda channel: channel.queue_declare("stream", durable=True, arguments={"x-queue-type": "stream"}),
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
        ("pilotage.pilots", ""),
        ("pilotage.pilots", "match.request.v1.extra"),
        ("pilotage.pilots", "session.welcome.v1"),
        ("pilotage.events", "identity.blocked.v1"),
        ("pilotage.admin", "session.cut.v1"),
        ("pilotage.admin", "registry.change.v1"),
        ("", "reports"),
        ("", "match-requests"),
        ("", "sessions"),
        ("amq.topic", "x"),
        ("amq.direct", "x"),
        ("amq.fanout", "x"),
        ("amq.headers", "x"),
        ("amq.rabbitmq.event", "connection.closed"),
        ("amq.rabbitmq.log", "info"),
        ("amq.rabbitmq.trace", "publish.x"),
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


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_copies_by_header_reach_no_queue_behind_another_door(place, pilot, victim, header):
    """Before RabbitMQ 4 these headers slip past the check of the routing key; the exchange is the boundary."""
    aims = ["job.submit.v1", "session.cut.v1", "identity.blocked.v1", "dead.replay.v1", "submissions", "sessions"]
    aims += [reply_queue(victim.client), "#", "*"]
    before = waiting(place)
    channel = pilot.connection.channel()
    channel.confirm_delivery()
    copied = pika.BasicProperties(headers={header: aims})
    with contextlib.suppress(exceptions.ChannelClosedByBroker):  # RabbitMQ 4 checks the keys
        channel.basic_publish("pilotage.pilots", "pilot.heartbeat.v1", b"x", copied)
    after = waiting(place)
    moved = {name for name in after if after[name] != before.get(name)}
    assert moved <= {"heartbeats", MONITORING}  # logins are told there
    assert after[reply_queue(victim.client)] == before[reply_queue(victim.client)]


def waiting(place: Deployment) -> dict[str, int]:
    """Messages in each queue."""
    lines = place.node.ctl("list_queues", "-q", "name", "messages").splitlines()
    return {name: int(count) for name, count in (line.split("\t") for line in lines[1:])}


@pytest.mark.parametrize("queue", [queue.name for queue in QUEUES if queue.name != MONITORING])
def test_a_user_cannot_read_a_service_queue_either(user, queue):
    assert user.refused(lambda channel: channel.basic_consume(queue, lambda *_: None)) == 403
    assert user.refused(lambda channel: channel.basic_get(queue)) == 403


def test_a_pilot_cannot_read_the_stream_of_events(pilot):
    assert pilot.refused(lambda channel: channel.basic_consume(MONITORING, lambda *_: None)) == 403


@pytest.mark.parametrize(
    ("exchange", "key"),
    [
        ("pilotage.users", "job.report.v1"),
        ("pilotage.users", "job.submitted.v1"),
        ("pilotage.users", "dead.replay.v1"),
        ("pilotage.users", "job.#"),
        ("pilotage.users", "*"),
        ("pilotage.events", "registry.changed.v1"),
        ("pilotage.dead", ""),
        ("", "submissions"),
        ("", "sessions"),
        ("", "dead"),
    ],
)
def test_a_user_writes_only_what_a_user_may(user, exchange, key):
    assert user.refused(publish(exchange, key)) == 403


@pytest.mark.parametrize("exchange", ["pilotage.pilots", "pilotage.events", "pilotage.replies"])
def test_a_user_stays_out_of_the_others_doors(user, exchange):
    assert user.refused(publish(exchange, "job.report.v1")) == 403


def test_nobody_fills_a_service_with_one_message(user):
    """The broker takes no body beyond what any message may have: services hold hundreds before they look at one."""

    def attempt(channel):
        channel.basic_publish("pilotage.users", "job.submit.v1", b"x" * ((16 << 20) + 1))

    assert user.refused(attempt) in {406, 501}


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


# -- the management interface -------------------------------------------------------------------------------------


def management(place: Deployment, user: str, password: str, path: str, method: str = "GET") -> int:
    """The status of an answer."""
    context = ssl.create_default_context(cafile=str(place.layout.tls / "ca.pem"))
    connection = http.client.HTTPSConnection("localhost", place.node.management, context=context, timeout=10)
    headers = {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()} if user else {}
    connection.request(method, path, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


PATHS = ("overview", "connections", "queues", "users", "whoami", "definitions", "vhosts", "nodes")


@pytest.mark.parametrize("path", PATHS)
def test_management_tells_nobody_anything(place, pilot, path):
    credential = place.pilot(1)
    secret = (place.layout.services / "gatekeeper.secret").read_text().strip()
    tries = [
        ("", ""),
        ("guest", "guest"),
        ("gatekeeper", secret),  # a good login at the broker, but without any tag
        (pilot.client, "x"),
        (pilot.client, assertion(credential, pilot.client)),
        (LOOKER, ""),
        (LOOKER, "x"),
    ]
    assert {management(place, user, password, f"/api/{path}") for user, password in tries} == {401}


def test_management_speaks_tls_only_and_on_the_loopback_only(place):
    plain = http.client.HTTPConnection("127.0.0.1", place.node.management, timeout=10)
    plain.request("GET", "/api/overview")
    with pytest.raises((OSError, http.client.HTTPException)):
        plain.getresponse()
    ports = {place.node.management, place.node.port, place.settings.gatekeeper_port}
    listening = [one.laddr for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    assert {one.ip for one in listening if one.port in ports} == {"127.0.0.1"}


def test_a_pass_closes_ones_own_connections_and_nothing_else(place, pilot, victim):
    """The pass is the gatekeeper's alone; and even it gives no more than this."""
    passes = place.services._passes
    given = passes.issue(pilot.client)
    name = f"/api/connections/{quote(own_name(place, victim), safe='')}"
    assert management(place, pilot.client, given.secret, name, "DELETE") == 401
    assert management(place, pilot.client, given.secret, "/api/users") == 401
    assert management(place, pilot.client, given.secret, "/api/definitions") == 401
    assert management(place, pilot.client, given.secret, "/api/permissions/%2F/x", "DELETE") == 401
    assert management(place, pilot.client, given.secret, "/api/queues/%2F/reports/contents", "DELETE") in {401, 403}
    victim.connection.process_data_events(0)
    assert victim.connection.is_open
    assert management(place, pilot.client, given.secret, "/api/whoami") == 200
    look = passes.issue(LOOKER, LOOK)
    assert management(place, LOOKER, look.secret, "/api/connections") == 200
    assert management(place, LOOKER, look.secret, name, "DELETE") == 401
    with pytest.raises(exceptions.AMQPConnectionError):
        connect(place, LOOKER, look.secret)
    passes.withdraw(given)
    passes.withdraw(look)


def own_name(place: Deployment, hostile: Hostile) -> str:
    lines = place.node.ctl("list_connections", "-q", "user", "name").splitlines()[1:]
    return dict(line.split("\t") for line in lines)[hostile.client]


def test_every_exchange_and_queue_is_there(place):
    names = place.node.ctl("list_queues", "-q", "name").split()
    assert {queue.name for queue in QUEUES} <= set(names)
    exchanges = place.node.ctl("list_exchanges", "-q", "name").split()
    assert set(EXCHANGES) <= set(exchanges)
