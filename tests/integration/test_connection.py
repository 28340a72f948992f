"""The connection against a real node: confirms, refusals, consumers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from broker.connection import Confirm, Connection, Delivery, Endpoint, Login, Outgoing, Pace
from broker.subscription import Subscription
from compose.local.rabbitmq import RabbitNode
from tests.support import servers
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

PACE = Pace(first=0.05, longest=0.5, refused=0.2, stable=10)
Connect = Callable[..., Connection]


def endpoint(node: RabbitNode, **changes: object) -> Endpoint:
    values: dict[str, object] = {"host": "localhost", "port": node.port, "ca_file": node.tls.ca} | changes
    return Endpoint(**values)  # type: ignore[arg-type]  # test-only keyword overrides


def admin() -> Login:
    return Login(servers.ADMIN, servers.ADMIN_PASSWORD)


@pytest.fixture
def connect(rabbit_node: RabbitNode) -> Iterator[Connect]:
    made: list[Connection] = []

    def make(**options: object) -> Connection:
        values: dict[str, object] = {"name": "test", "pace": PACE} | options
        connection = Connection(endpoint(rabbit_node), admin, **values)  # type: ignore[arg-type]
        made.append(connection)
        connection.start(20)
        return connection

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def queue(connect: Connect) -> Iterator[str]:
    name = f"test.{uuid.uuid4().hex}"
    connection = connect(name="fixture")
    connection.declare_queue(name)
    yield name
    connection.delete_queue(name)


def message(queue: str, body: bytes = b"x", exchange: str = "", **more: object) -> Outgoing:
    return Outgoing(exchange=exchange, routing_key=queue, body=body, **more)  # type: ignore[arg-type]


def drain(subscription: Subscription, count: int, timeout: float = 20.0) -> list[Delivery]:
    found: list[Delivery] = []
    wait_until(lambda: found.extend(subscription.drain(1000, 0.2)) or len(found) >= count, timeout, f"{count} deliveries")
    return found


def test_a_publication_arrives_with_its_properties(connect: Connect, queue: str) -> None:
    connection = connect()
    sent = message(
        queue,
        b"body",
        headers={"jws": "a.b.c"},
        user_id=servers.ADMIN,
        message_id="m1",
        type="job.submit.v1",
        reply_to="reply.me",
        correlation_id="c1",
        timestamp=1_700_000_000,
    )
    assert connection.publish_and_wait([sent]) == [Confirm.ACKED]
    subscription = connection.subscribe(queue, prefetch=10)
    (delivery,) = drain(subscription, 1)
    assert delivery.body == b"body"
    assert delivery.headers == {"jws": "a.b.c"}
    assert (delivery.user_id, delivery.message_id, delivery.type) == (servers.ADMIN, "m1", "job.submit.v1")
    assert (delivery.reply_to, delivery.correlation_id, delivery.timestamp) == ("reply.me", "c1", 1_700_000_000)
    assert (delivery.queue, delivery.exchange, delivery.routing_key) == (queue, "", queue)
    assert not delivery.redelivered
    subscription.ack([delivery])
    wait_until(lambda: connection.declare_queue(queue, passive=True).messages == 0)
