"""Measures the connection against a private node and prints a table: `python -m tests.benchmarks.bench_connection`."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import wait

from broker.connection import Confirm, Connection, Endpoint, Login, Outgoing
from tests.support import servers

BODY = bytes(1024)
COUNT = 20_000


def line(what: str, figure: str) -> None:
    print(f"{what:<58} {figure:>16}")


def outgoing(queue: str) -> Outgoing:
    return Outgoing(exchange="", routing_key=queue, body=BODY, headers={"jws": "x" * 400}, message_id="m" * 36)


def publish_rate(connection: Connection, queue: str, batch: int) -> float:
    begin = time.perf_counter()
    left = COUNT
    futures = []
    while left:
        futures += connection.publish([outgoing(queue)] * min(batch, left))
        left -= min(batch, left)
        if len(futures) > 4 * batch:
            wait(futures[:batch])
            assert all(future.result() is Confirm.ACKED for future in futures[:batch])
            del futures[:batch]
    wait(futures)
    return COUNT / (time.perf_counter() - begin)


def drain_rate(connection: Connection, queue: str, limit: int) -> float:
    begin = time.perf_counter()
    subscription = connection.subscribe(queue, prefetch=4 * limit)
    got = 0
    while got < COUNT:
        deliveries = subscription.drain(limit, 5)
        got += len(deliveries)
        subscription.ack(deliveries)
    connection.declare_queue(queue, passive=True)
    rate = got / (time.perf_counter() - begin)
    subscription.cancel()
    return rate


def latencies(connection: Connection, queue: str) -> tuple[list[float], list[float]]:
    subscription = connection.subscribe(queue, prefetch=10)
    subscription.wait_active(10)
    confirms, deliveries = [], []
    for _ in range(500):
        begin = time.perf_counter()
        (future,) = connection.publish([outgoing(queue)])
        (delivery,) = subscription.drain(1, 5)
        deliveries.append(time.perf_counter() - begin)
        future.result(5)
        confirms.append(time.perf_counter() - begin)
        subscription.ack([delivery])
    subscription.cancel()
    return confirms, deliveries


def main() -> None:
    with servers.rabbit_node() as node:
        place = Endpoint("localhost", node.port, node.tls.ca)
        for window in (256, 1000):
            begin = time.perf_counter()
            connection = Connection(
                place, lambda: Login(servers.ADMIN, servers.ADMIN_PASSWORD), name="bench", window=window
            )
            connection.start()
            line(f"connect (window {window})", f"{(time.perf_counter() - begin) * 1000:.1f} ms")
            for kind in ("classic", "quorum"):
                queue = f"bench.{kind}"
                connection.declare_queue(queue, arguments={"x-queue-type": kind})
                line(f"publish+confirm 1 kB, {kind}, window {window}", f"{publish_rate(connection, queue, 500):,.0f}/s")
                line(f"drain+ack 1 kB, {kind}, batches of 200", f"{drain_rate(connection, queue, 200):,.0f}/s")
                confirms, deliveries = latencies(connection, queue)
                for what, values in (("confirm", confirms), ("delivery", deliveries)):
                    p50, p99 = statistics.median(values) * 1000, statistics.quantiles(values, n=100)[98] * 1000
                    line(f"one publish to its {what}, {kind}, p50 / p99", f"{p50:.2f} / {p99:.2f} ms")
                connection.delete_queue(queue)
            connection.close()


if __name__ == "__main__":
    main()
