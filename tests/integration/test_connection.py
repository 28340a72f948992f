"""The connection against a real node: confirms, refusals, consumers, streams, closing."""

from __future__ import annotations

import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pika
import pytest

from broker.connection import (
    Confirm,
    Connection,
    Delivery,
    Endpoint,
    Login,
    Outgoing,
    Pace,
    State,
    Subscription,
    Wakeup,
)
from broker.errors import (
    BackpressureError,
    BrokerRefusedError,
    BrokerUnavailableError,
    ConnectionClosedError,
    LoginRefusedError,
    OperationRefusedError,
)
from compose.local.rabbitmq import RabbitNode
from tests.support import servers
from tests.support.throwaway_ca import make_server_tls
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

PACE = Pace(first=0.05, longest=0.5, refused=0.2)
Connect = Callable[..., Connection]


def endpoint(node: RabbitNode, **changes: object) -> Endpoint:
    values: dict[str, object] = {"host": "localhost", "port": node.port, "ca_file": node.tls.ca} | changes
    return Endpoint(**values)  # type: ignore[arg-type]  # overrides by keyword


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

    def enough() -> bool:
        found.extend(subscription.drain(1000, 0.2))
        return len(found) >= count

    wait_until(enough, timeout, f"{count} deliveries")
    return found


def refusal(subscription: Subscription) -> OperationRefusedError:
    """Waits until the broker refuses the consumer."""
    found: list[OperationRefusedError] = []

    def refused() -> bool:
        try:
            subscription.wait_active(0)
        except OperationRefusedError as error:
            found.append(error)
        except BrokerUnavailableError:
            pass
        return bool(found)

    wait_until(refused, 10, "a refusal")
    return found[0]


def accepted(subscription: Subscription) -> bool:
    try:
        subscription.wait_active(0)
    except (OperationRefusedError, BrokerUnavailableError):
        return False
    return True


def depth(connection: Connection, queue: str) -> int:
    return connection.declare_queue(queue, passive=True).messages


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
    wait_until(lambda: depth(connection, queue) == 0)


def test_many_publications_are_confirmed_in_order_of_their_futures(connect: Connect, queue: str) -> None:
    connection = connect(window=16)
    messages = [message(queue if number % 10 else "nowhere", b"%d" % number) for number in range(1000)]
    expected = [Confirm.ACKED if number % 10 else Confirm.RETURNED for number in range(1000)]
    assert connection.publish_and_wait(messages, 30) == expected
    wait_until(lambda: depth(connection, queue) == 900)


def test_an_optional_message_without_a_queue_is_acked(connect: Connect) -> None:
    assert connect().publish_and_wait([message("nowhere", mandatory=False)]) == [Confirm.ACKED]


def test_threads_share_one_connection(connect: Connect, queue: str) -> None:
    connection = connect()
    subscriptions = [connection.subscribe(queue, prefetch=50) for _ in range(2)]
    found: list[bytes] = []
    stop = threading.Event()

    def work(subscription: Subscription) -> None:
        while not stop.is_set():
            deliveries = subscription.drain(20, 0.1)
            found.extend(delivery.body for delivery in deliveries)
            subscription.ack(deliveries)

    def send(sender: int) -> list[Confirm]:
        return connection.publish_and_wait([message(queue, b"%d.%d" % (sender, number)) for number in range(300)], 30)

    with ThreadPoolExecutor(6) as pool:
        workers = [pool.submit(work, subscription) for subscription in subscriptions]
        answers = list(pool.map(send, range(4)))
        wait_until(lambda: len(found) >= 1200, 30)
        stop.set()
        for worker in workers:
            worker.result(5)
    assert answers == [[Confirm.ACKED] * 300] * 4
    assert len(found) == len(set(found)) == 1200
    wait_until(lambda: depth(connection, queue) == 0)


def test_a_single_bad_publication_is_refused_and_the_channel_comes_back(connect: Connect, queue: str) -> None:
    connection = connect()
    subscription = connection.subscribe(queue, prefetch=10)
    subscription.wait_active(10)
    assert connection.publish_and_wait([message(queue, exchange="no.such.exchange")]) == [Confirm.REFUSED]
    assert connection.publish_and_wait([message(queue, user_id="somebody.else")]) == [Confirm.REFUSED]
    assert connection.publish_and_wait([message(queue)]) == [Confirm.ACKED]
    (delivery,) = drain(subscription, 1)
    assert not delivery.redelivered
    assert connection.state is State.CONNECTED


def test_a_bad_publication_among_good_ones_is_found_out(connect: Connect, queue: str) -> None:
    """Its neighbours may be LOST with it, but who tries all of them again gets each good one through."""
    connection = connect()
    messages = [message(queue, b"%d" % number, "" if number != 20 else "no.such.exchange") for number in range(50)]
    answers: dict[int, Confirm] = {}
    for _ in range(4):
        rest = [number for number in range(50) if answers.get(number) not in {Confirm.ACKED, Confirm.REFUSED}]
        confirms = connection.publish_and_wait([messages[number] for number in rest])
        answers.update(zip(rest, confirms, strict=True))
    assert answers == {number: Confirm.ACKED if number != 20 else Confirm.REFUSED for number in range(50)}


def test_what_cannot_be_encoded_is_refused_alone(connect: Connect, queue: str) -> None:
    confirms = connect().publish_and_wait([message(queue), message(queue, message_id="x" * 300), message(queue)])
    assert confirms == [Confirm.ACKED, Confirm.REFUSED, Confirm.ACKED]


def test_large_bodies_pass(connect: Connect, queue: str) -> None:
    connection = connect()
    bodies = [bytes([number]) * 700_000 for number in range(8)]
    assert connection.publish_and_wait([message(queue, body) for body in bodies], 30) == [Confirm.ACKED] * 8
    assert [delivery.body for delivery in drain(connection.subscribe(queue, prefetch=100), 8)] == bodies


def test_rejected_deliveries_come_again_and_are_counted(connect: Connect) -> None:
    connection = connect()
    name = f"test.{uuid.uuid4().hex}"
    connection.declare_queue(name, arguments={"x-queue-type": "quorum"})
    connection.publish_and_wait([message(name)])
    subscription = connection.subscribe(name, prefetch=1)
    (first,) = drain(subscription, 1)
    subscription.reject([first], requeue=True)
    (second,) = drain(subscription, 1)
    assert (first.delivery_count, second.delivery_count, second.redelivered) == (None, 1, True)
    subscription.reject([second], requeue=False)
    wait_until(lambda: depth(connection, name) == 0)
    connection.delete_queue(name)


def test_settling_twice_or_elsewhere_does_no_harm(connect: Connect, queue: str) -> None:
    connection = connect()
    connection.publish_and_wait([message(queue)] * 3)
    subscription = connection.subscribe(queue, prefetch=10)
    deliveries = drain(subscription, 3)
    other = connection.subscribe(queue, prefetch=10)
    other.ack(deliveries)
    other.reject(deliveries, requeue=True)
    subscription.ack(deliveries)
    subscription.ack(deliveries)
    subscription.reject(deliveries, requeue=True)
    connection.publish_and_wait([message(queue, b"after")])
    fresh: list[Delivery] = []
    wait_until(lambda: fresh.extend(subscription.drain(9, 0.05) + other.drain(9, 0.05)) or fresh)
    assert [(delivery.body, delivery.redelivered) for delivery in fresh] == [(b"after", False)]


def test_a_drain_never_waits_for_more_than_one(connect: Connect, queue: str) -> None:
    connection = connect()
    subscription = connection.subscribe(queue, prefetch=10)
    assert subscription.drain(10, 0.05) == []
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(subscription.drain, 100, 30)
        connection.publish_and_wait([message(queue)])
        assert len(drained.result(5)) == 1


def test_one_thread_waits_for_several_subscriptions(connect: Connect, queue: str) -> None:
    connection = connect()
    second = f"{queue}.second"
    connection.declare_queue(second)
    wakeup = Wakeup()
    subscriptions = [connection.subscribe(name, prefetch=10, wakeup=wakeup) for name in (queue, second)]
    connection.publish_and_wait([message(queue), message(second), message(second)])
    found: list[str] = []
    while len(found) < 3:
        assert wakeup.wait(10)
        for subscription in subscriptions:
            found += [delivery.queue for delivery in subscription.drain(1, 0)]
    assert sorted(found) == sorted([queue, second, second])
    connection.delete_queue(second)


def test_pause_stops_the_flow_and_resume_restores_it(connect: Connect, queue: str) -> None:
    connection = connect()
    subscription = connection.subscribe(queue, prefetch=2)
    connection.publish_and_wait([message(queue, b"%d" % number) for number in range(4)])
    first = drain(subscription, 2)
    subscription.pause()
    wait_until(lambda: connection.declare_queue(queue, passive=True).consumers == 0)
    subscription.ack(first)
    wait_until(lambda: depth(connection, queue) == 2)
    assert subscription.drain(10, 0.2) == []
    subscription.resume()
    second = drain(subscription, 2)
    assert [delivery.body for delivery in first + second] == [b"0", b"1", b"2", b"3"]
    assert not any(delivery.redelivered for delivery in second)


def test_a_cancelled_subscription_gives_back_what_it_holds(connect: Connect, queue: str) -> None:
    connection = connect()
    connection.publish_and_wait([message(queue)] * 5)
    subscription = connection.subscribe(queue, prefetch=10)
    taken = subscription.drain(1, 10)
    wait_until(lambda: subscription.pending + len(taken) == 5)
    subscription.ack(taken)
    subscription.cancel()
    wait_until(lambda: depth(connection, queue) == 4)
    with pytest.raises(ConnectionClosedError):
        subscription.drain(10, 5)


def test_a_consumer_outlives_the_deletion_of_its_queue(connect: Connect, queue: str) -> None:
    connection = connect()
    subscription = connection.subscribe(queue, prefetch=10)
    subscription.wait_active(10)
    connection.delete_queue(queue)
    assert refusal(subscription).code == 404
    connection.declare_queue(queue)
    connection.publish_and_wait([message(queue)])
    assert len(drain(subscription, 1)) == 1
    assert connection.state is State.CONNECTED


def test_an_exclusive_consumer_keeps_others_out(connect: Connect, queue: str) -> None:
    connection = connect()
    first = connection.subscribe(queue, prefetch=1, exclusive=True, consumer_tag="the-one")
    first.wait_active(10)
    second = connection.subscribe(queue, prefetch=1)
    with pytest.raises(OperationRefusedError) as refused:
        second.wait_active(10)
    assert refused.value.code in {403, 405}
    first.cancel()
    wait_until(lambda: accepted(second), 20)


def test_a_refused_declaration_harms_no_other(connect: Connect, queue: str) -> None:
    connection = connect()
    with ThreadPoolExecutor(4) as pool:
        bad = [pool.submit(connection.declare_queue, f"{queue}.none", passive=True) for _ in range(3)]
        good = [pool.submit(connection.declare_queue, queue, passive=True) for _ in range(3)]
        for future in bad:
            with pytest.raises(OperationRefusedError) as refused:
                future.result(10)
            assert refused.value.code == 404
        assert [future.result(10).name for future in good] == [queue] * 3


def test_topology_is_declared_bound_and_unbound(connect: Connect, queue: str) -> None:
    connection = connect()
    connection.declare_exchange("test.topic", "topic")
    connection.bind_queue(queue, "test.topic", "a.#")
    assert connection.publish_and_wait([message("a.b", exchange="test.topic")]) == [Confirm.ACKED]
    connection.unbind_queue(queue, "test.topic", "a.#")
    assert connection.publish_and_wait([message("a.b", exchange="test.topic")]) == [Confirm.RETURNED]
    assert connection.declare_queue(queue, passive=True).messages == 1


def test_a_stream_is_read_from_an_offset_and_goes_on_after_a_pause(connect: Connect) -> None:
    writer, reader = connect(), connect(name="reader")
    name = f"test.{uuid.uuid4().hex}"
    writer.declare_queue(name, arguments={"x-queue-type": "stream"})
    writer.publish_and_wait([message(name, b"%d" % number) for number in range(300)])
    subscription = reader.subscribe(name, prefetch=50, arguments={"x-stream-offset": 100})
    found: list[int] = []

    def read_until(count: int) -> None:
        def enough() -> bool:
            deliveries = subscription.drain(20, 0.2)
            found.extend(delivery.stream_offset or 0 for delivery in deliveries)
            subscription.ack(deliveries)
            return len(found) >= count

        wait_until(enough, 20, f"{count} stream messages")

    read_until(60)
    subscription.pause()
    wait_until(lambda: subscription.pending == 0)
    seen = len(found)
    subscription.resume()
    read_until(200)
    wanted = [offset for offset in found if offset >= 100]
    assert wanted == sorted(set(wanted)), "no repetition and no disorder"
    assert wanted[-1] == 299
    assert seen < len(found)
    subscription.cancel()
    assert reader.declare_queue(name, passive=True).name == name, "the connection survives the end of a stream reader"
    writer.delete_queue(name)


class RawProperties(pika.BasicProperties):  # type: ignore[misc]  # pika has no types
    """Properties with a header table given as bytes."""

    def __init__(self, table: bytes) -> None:
        super().__init__()
        self.table = table

    def encode(self) -> list[bytes]:
        return [struct.pack(">HI", self.FLAG_HEADERS, len(self.table)), self.table]


def nested(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = b"\x01xF" + struct.pack(">I", len(table)) + table
    return table


@pytest.mark.parametrize(
    "table",
    [b"\x01tT" + struct.pack(">Q", 2**62), b"\x01\xfft\x01", nested(3000)],
    ids=["timestamp-far-away", "key-not-text", "too-deep"],
)
def test_properties_that_cannot_be_decoded_are_empty(
    connect: Connect, queue: str, rabbit_node: RabbitNode, table: bytes
) -> None:
    connection = connect()
    subscription = connection.subscribe(queue, prefetch=10)
    with servers.plain_connection(rabbit_node) as hostile:
        channel = hostile.channel()
        channel.basic_publish("", queue, b"hostile", RawProperties(table))
        channel.basic_publish("", queue, b"next", pika.BasicProperties(headers={"jws": "x"}))
    deliveries = drain(subscription, 2)
    assert [(delivery.body, delivery.headers) for delivery in deliveries] == [(b"hostile", {}), (b"next", {"jws": "x"})]
    assert not any(delivery.redelivered for delivery in deliveries)


def test_a_routing_key_that_is_no_text_does_no_harm(connect: Connect, queue: str, rabbit_node: RabbitNode) -> None:
    connection = connect()
    connection.declare_exchange("test.fanout", "fanout")
    connection.bind_queue(queue, "test.fanout", "")
    subscription = connection.subscribe(queue, prefetch=10)
    with servers.plain_connection(rabbit_node) as hostile:
        hostile.channel().basic_publish("test.fanout", b"\xff\xfe", b"x", pika.BasicProperties(type=b"\xff"))
    (delivery,) = drain(subscription, 1)
    assert isinstance(delivery.routing_key, str)
    assert isinstance(delivery.type, str)


def test_a_wrong_password_is_a_permanent_refusal_without_the_secret(rabbit_node: RabbitNode) -> None:
    connection = Connection(endpoint(rabbit_node), lambda: Login(servers.ADMIN, "s3cret"), name="t", pace=PACE)
    with pytest.raises(LoginRefusedError) as refused:
        connection.start(20)
    assert "s3cret" not in repr(refused.value) + repr(refused.value.__cause__) + repr(Login("u", "s3cret"))
    assert connection.state is State.CLOSED


def test_a_refused_login_is_tried_again_with_a_fresh_one(rabbit_node: RabbitNode) -> None:
    asked: list[State] = []
    logins = iter([Login(servers.ADMIN, "wrong"), Login(servers.ADMIN, "stale"), admin()])
    connection = Connection(
        endpoint(rabbit_node), lambda: next(logins), name="t", pace=PACE, on_state=lambda state: asked.append(state)
    )
    connection.start(wait=False)
    wait_until(lambda: connection.state is State.CONNECTED, 20)
    assert asked.count(State.REFUSED) == 2
    connection.close()
    assert asked[-1] is State.CLOSED


def test_a_foreign_certificate_and_a_wrong_name_are_refused(
    rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory
) -> None:
    foreign = make_server_tls(tmp_path_factory.mktemp("foreign"))
    for changes in ({"ca_file": foreign.ca}, {"server_name": "broker.example.org"}, {"virtual_host": "none"}):
        connection = Connection(endpoint(rabbit_node, **changes), admin, name="t", pace=PACE)
        with pytest.raises(BrokerRefusedError):
            connection.start(20)
    missing = endpoint(rabbit_node, ca_file=foreign.ca.with_name("none.pem"))
    with pytest.raises(BrokerRefusedError, match=r"none\.pem"):
        Connection(missing, admin, name="t", pace=PACE).start(20)


def test_a_broker_that_is_away_is_a_temporary_error(rabbit_node: RabbitNode) -> None:
    connection = Connection(endpoint(rabbit_node, port=1), admin, name="t", pace=PACE)
    with pytest.raises(BrokerUnavailableError, match="cannot be reached"):
        connection.start(0.5)


def test_without_a_connection_publications_wait_and_then_are_lost(rabbit_node: RabbitNode) -> None:
    connection = Connection(endpoint(rabbit_node, port=1), admin, name="t", pace=PACE, patience=0.3)
    connection.start(wait=False)
    withdrawn, kept = connection.publish([message("q"), message("q")])
    assert withdrawn.cancel()
    assert kept.result(10) is Confirm.LOST
    with pytest.raises(BackpressureError):
        connection.publish([message("q")] * 20_000)
    (last,) = connection.publish([message("q")])
    connection.close()
    assert last.result(0) is Confirm.LOST
    with pytest.raises(ConnectionClosedError):
        connection.publish([message("q")])


def test_close_flushes_confirms_and_acknowledgements(connect: Connect, queue: str) -> None:
    connection, observer = connect(), connect(name="observer")
    connection.publish_and_wait([message(queue)] * 10)
    subscription = connection.subscribe(queue, prefetch=100)
    deliveries = drain(subscription, 10)
    futures = connection.publish([message(queue, b"late")] * 500)
    subscription.ack(deliveries)
    connection.close(20)
    assert [future.result(0) for future in futures] == [Confirm.ACKED] * 500
    wait_until(lambda: depth(observer, queue) == 500)
    connection.close()
    with pytest.raises(ConnectionClosedError):
        connection.declare_queue(queue, passive=True)
    with pytest.raises(ConnectionClosedError):
        connection.subscribe(queue, prefetch=1).drain(1, 10)


def test_a_waiting_drain_ends_with_the_connection(connect: Connect, queue: str) -> None:
    connection = connect()
    subscription = connection.subscribe(queue, prefetch=10)
    subscription.wait_active(10)
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(subscription.drain, 1, 60)
        connection.close()
        with pytest.raises(ConnectionClosedError):
            drained.result(5)


def test_a_connection_that_was_never_started_closes(rabbit_node: RabbitNode) -> None:
    connection = Connection(endpoint(rabbit_node), admin, name="t")
    (future,) = connection.publish([message("q")])
    connection.close()
    assert future.result(1) is Confirm.LOST
    with pytest.raises(ConnectionClosedError):
        connection.start()


def test_a_callback_that_raises_does_not_break_the_connection(connect: Connect, queue: str) -> None:
    def burst(_: object) -> None:
        raise RuntimeError("a listener's own fault")

    connection = connect(on_state=burst)
    (future,) = connection.publish([message(queue)])
    future.add_done_callback(burst)
    wait([future], 10)
    assert connection.publish_and_wait([message(queue)]) == [Confirm.ACKED]


def test_nothing_is_left_running_after_close(connect: Connect) -> None:
    connection = connect(name="leak-check")
    wait_until(lambda: any("leak-check" in thread.name for thread in threading.enumerate()))
    connection.close()
    assert not any("leak-check" in thread.name for thread in threading.enumerate())
