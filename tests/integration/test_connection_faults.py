"""The connection when something breaks: cut and frozen wires, restarts, kill -9, a broker that takes nothing."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.connection import Confirm, Connection, Delivery, Endpoint, Login, Outgoing, Pace, State, Subscription
from broker.errors import BackpressureError, BrokerUnavailableError
from compose.local.rabbitmq import RabbitNode
from tests.support import servers
from tests.support.wait import wait_until
from tests.support.wire import Wire, wire_to

pytestmark = [pytest.mark.integration, pytest.mark.faults]

PACE = Pace(first=0.05, longest=0.5, refused=0.2)
ALL_WELL = {Confirm.ACKED}


def admin() -> Login:
    return Login(servers.ADMIN, servers.ADMIN_PASSWORD)


def connection_to(node: RabbitNode, port: int | None = None, **options: object) -> Connection:
    # The shortest heartbeat: a frozen wire is noticed after 1 + 5 seconds.
    place = Endpoint("localhost", port or node.port, node.tls.ca, heartbeat=1)
    values: dict[str, object] = {"name": "faults", "pace": PACE} | options
    return Connection(place, admin, **values)  # type: ignore[arg-type]  # options by keyword


@pytest.fixture
def wire(rabbit_node: RabbitNode) -> Iterator[Wire]:
    with wire_to(rabbit_node.port) as wire:
        yield wire


@pytest.fixture
def connection(rabbit_node: RabbitNode, wire: Wire) -> Iterator[Connection]:
    with connection_to(rabbit_node, wire.port) as connection:
        connection.start(20)
        yield connection


@pytest.fixture
def queue(rabbit_node: RabbitNode) -> Iterator[str]:
    name = f"faults.{uuid.uuid4().hex}"
    with connection_to(rabbit_node, name="fixture") as connection:
        connection.start(20)
        connection.declare_queue(name, arguments={"x-queue-type": "quorum"})
        yield name
        connection.delete_queue(name)


def message(queue: str, body: bytes = b"x") -> Outgoing:
    return Outgoing(exchange="", routing_key=queue, body=body)


def drain(subscription: Subscription, count: int, timeout: float = 20.0) -> list[Delivery]:
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(subscription.drain(1000, 0.2))
        return len(found) >= count

    wait_until(enough, timeout, f"{count} deliveries")
    return found


def test_after_a_cut_the_unsettled_come_again_and_old_settlements_do_no_harm(
    connection: Connection, wire: Wire, queue: str
) -> None:
    subscription = connection.subscribe(queue, prefetch=10)
    connection.publish_and_wait([message(queue, b"%d" % number) for number in range(5)])
    old = drain(subscription, 5)
    subscription.ack(old[:2])
    wait_until(lambda: connection.declare_queue(queue, passive=True).messages == 0)
    wire.cut()
    new = drain(subscription, 3)
    assert {delivery.body for delivery in new} >= {b"2", b"3", b"4"}
    assert all(delivery.redelivered for delivery in new)
    subscription.ack(old)
    subscription.reject(old, requeue=False)
    subscription.ack(new)
    assert connection.publish_and_wait([message(queue, b"after")]) == [Confirm.ACKED]
    (after,) = drain(subscription, 1)
    assert (after.body, after.redelivered) == (b"after", False)


def test_a_cut_returns_every_unconfirmed_publication(connection: Connection, wire: Wire, queue: str) -> None:
    assert connection.publish_and_wait([message(queue)]) == [Confirm.ACKED]
    wire.freeze()
    futures = connection.publish([message(queue)] * 200)
    wire.cut()
    wire.thaw()
    assert {future.result(20) for future in futures} <= {Confirm.LOST, Confirm.ACKED}
    assert connection.publish_and_wait([message(queue)], 20) == [Confirm.ACKED]


def test_what_was_not_sent_waits_for_the_next_connection(connection: Connection, wire: Wire, queue: str) -> None:
    wire.down()
    wait_until(lambda: connection.state is State.DISCONNECTED)
    futures = connection.publish([message(queue)] * 100)
    assert not any(future.done() for future in futures)
    wire.up()
    assert {future.result(20) for future in futures} == ALL_WELL


def test_a_frozen_wire_is_noticed_by_heartbeat(connection: Connection, wire: Wire, queue: str) -> None:
    subscription = connection.subscribe(queue, prefetch=10)
    subscription.wait_active(10)
    wire.freeze()
    (future,) = connection.publish([message(queue)])
    assert future.result(20) is Confirm.LOST
    wire.cut()
    wire.thaw()
    assert connection.publish_and_wait([message(queue, b"again")], 20) == [Confirm.ACKED]
    assert b"again" in {delivery.body for delivery in drain(subscription, 1)}


def test_a_broker_that_confirms_nothing_does_not_hold_futures_for_ever(
    rabbit_node: RabbitNode, wire: Wire, queue: str
) -> None:
    place = Endpoint("localhost", wire.port, rabbit_node.tls.ca, heartbeat=60)
    with Connection(place, admin, name="patient", pace=PACE, patience=0.5) as connection:
        connection.start(20)
        assert connection.publish_and_wait([message(queue)]) == [Confirm.ACKED]
        wire.freeze()
        futures = connection.publish([message(queue)] * 300)
        assert {future.result(10) for future in futures} == {Confirm.LOST}
        assert connection.state is State.CONNECTED
        wire.thaw()
        wait_until(lambda: connection.publish_and_wait([message(queue)]) == [Confirm.ACKED], 20)


def test_a_slow_wire_is_only_slow(connection: Connection, wire: Wire, queue: str) -> None:
    wire.delay = 0.02
    assert set(connection.publish_and_wait([message(queue)] * 500, 30)) == ALL_WELL


def test_operations_report_a_lost_connection_and_a_silent_one(connection: Connection, wire: Wire, queue: str) -> None:
    wire.freeze()
    with pytest.raises(BrokerUnavailableError, match="did not answer"):
        connection.declare_queue(queue, passive=True, timeout=0.2)
    wire.down()
    wire.thaw()
    with pytest.raises(BrokerUnavailableError):
        connection.declare_queue(queue, passive=True, timeout=0.5)
    wire.up()
    assert connection.declare_queue(queue, passive=True, timeout=20).name == queue


def test_close_does_not_wait_for_a_frozen_peer(rabbit_node: RabbitNode, wire: Wire, queue: str) -> None:
    connection = connection_to(rabbit_node, wire.port)
    connection.start(20)
    wire.freeze()
    futures = connection.publish([message(queue)] * 10)
    connection.close(0.3)
    assert connection.state is State.CLOSED
    assert {future.result(0) for future in futures} == {Confirm.LOST}
    wire.cut()


def test_close_while_a_connection_is_being_made(rabbit_node: RabbitNode, wire: Wire) -> None:
    wire.freeze()
    connection = connection_to(rabbit_node, wire.port)
    connection.start(wait=False)
    wait_until(lambda: wire.accepted)
    connection.close(0.3)
    assert connection.state is State.CLOSED
    assert not any("faults" in thread.name for thread in threading.enumerate())
    wire.cut()


def test_every_attempt_asks_for_a_fresh_login(rabbit_node: RabbitNode, wire: Wire) -> None:
    asked: list[Login] = []

    def source() -> Login:
        asked.append(admin())
        return asked[-1]

    place = Endpoint("localhost", wire.port, rabbit_node.tls.ca)
    with Connection(place, source, name="fresh", pace=PACE) as connection:
        connection.start(20)
        wire.cut()
        wait_until(lambda: len(asked) >= 2 and connection.state is State.CONNECTED)


def test_a_blocked_broker_holds_publications_back(rabbit_node: RabbitNode, queue: str) -> None:
    connection = connection_to(rabbit_node, patience=60)
    connection.start(20)
    rabbit_node.ctl("set_vm_memory_high_watermark", "absolute", "1")
    try:
        held = connection.publish([message(queue)])  # the broker blocks who publishes
        wait_until(lambda: connection.state is State.BLOCKED, 20)
        held += connection.publish([message(queue)] * 9_000)
        with pytest.raises(BackpressureError):
            connection.publish([message(queue)] * 2_000)
        stuck = connection_to(rabbit_node)
        stuck.start(20)
        lost = stuck.publish([message(queue)])
        wait_until(lambda: stuck.state is State.BLOCKED, 20)
        stuck.close(0.3)
        assert [future.result(0) for future in lost] == [Confirm.LOST]
    finally:
        rabbit_node.ctl("set_vm_memory_high_watermark", "0.6")
    assert {future.result(30) for future in held} == ALL_WELL
    connection.close()


class Load:
    """One thread publishes each number until it is ACKED, another drains and acknowledges."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.acked: list[int] = []
        self.received: set[int] = set()
        self.enough, self.end = threading.Event(), threading.Event()

    def send(self, connection: Connection) -> None:
        for start in range(0, 10**9, 50):
            if self.enough.is_set():
                return
            wanted = list(range(start, start + 50))
            while wanted and not self.end.is_set():
                answers = connection.publish_and_wait([message(self.queue, b"%d" % one) for one in wanted], 15)
                wanted = [one for one, answer in zip(wanted, answers, strict=True) if answer is not Confirm.ACKED]
            self.acked.extend(range(start, start + 50))

    def receive(self, connection: Connection) -> None:
        subscription = connection.subscribe(self.queue, prefetch=200)
        while not self.end.is_set():
            deliveries = subscription.drain(100, 0.2)
            self.received.update(int(delivery.body) for delivery in deliveries)
            subscription.ack(deliveries)

    def wait_progress(self, what: str) -> None:
        acked, received = len(self.acked), len(self.received)
        wait_until(lambda: len(self.acked) > acked + 200 and len(self.received) > received + 200, 60, what)


@pytest.mark.parametrize("fault", ["stop", "kill"])
def test_a_broker_that_goes_and_comes_back_under_load_loses_nothing(fault: str) -> None:
    load = Load("load")
    with (
        servers.rabbit_node() as node,
        connection_to(node, name="faults-in", patience=4) as sender,
        connection_to(node, name="faults-out") as receiver,
        ThreadPoolExecutor(2) as pool,
    ):
        sender.start(20)
        receiver.start(20)
        sender.declare_queue(load.queue, arguments={"x-queue-type": "quorum"})
        # RabbitMQ 3.10 writes a new quorum queue down after five seconds; killed earlier, it never answers again.
        node.restart()
        try:
            working = [pool.submit(load.send, sender), pool.submit(load.receive, receiver)]
            for _ in range(2):
                load.wait_progress(f"progress before the {fault}")
                getattr(node, fault)()
                wait_until(lambda: sender.state is not State.CONNECTED, 20, "the loss to be noticed")
                node.start()
            load.wait_progress(f"progress after the {fault}")
            load.enough.set()
            working[0].result(30)
            wait_until(lambda: not set(load.acked) - load.received, 30, "the last deliveries")
        finally:
            load.enough.set()
            load.end.set()
        working[1].result(10)
