"""The literal of the topology: nothing goes nowhere, nothing goes twice, and nobody reads another's queue."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from typing import Any

import pytest

import schemas.messages  # noqa: F401 - fills the register
from broker.authorization import SERVICES, TABLE, Door
from broker.topology import (
    DEAD_EXCHANGE,
    DEAD_QUEUE,
    EXCHANGES,
    MONITORING,
    QUEUES,
    InternalUser,
    QueueType,
    definitions,
    queue_named,
    queues_of,
    rights_of,
)
from schemas.registry import Kind, registered

CLIENT_DOORS = (Door.USERS, Door.PILOTS, Door.ADMIN)
BINDINGS = [(exchange, key, queue) for queue in QUEUES for exchange, key in queue.bindings]
SECRETS = [InternalUser(service, f"secret of {service}") for service in sorted(SERVICES)]


def test_every_queue_has_a_reader_that_exists() -> None:
    assert {queue.consumer for queue in QUEUES} <= SERVICES | {""}
    assert [queue.name for queue in QUEUES if not queue.consumer] == [MONITORING]
    assert len({queue.name for queue in QUEUES}) == len(QUEUES)


@pytest.mark.parametrize("name", sorted(name for name, row in registered().items() if row.kind in {"command", "query"}))
def test_a_request_goes_to_one_queue_by_each_of_its_doors(name: str) -> None:
    bound = Counter(exchange for exchange, key, _ in BINDINGS if key == name)
    assert bound == {door.value: 1 for door in TABLE[name].doors if door is not Door.QUEUE}


def test_the_reader_is_the_audience() -> None:
    for exchange, key, queue in BINDINGS:
        if exchange in CLIENT_DOORS:
            assert registered()[key].audience == queue.consumer


def test_nothing_is_bound_that_cannot_be_sent_there() -> None:
    for exchange, key, queue in BINDINGS:
        if key and key != "#":
            assert Door(exchange) in TABLE[key].doors, (key, queue.name)
    assert {exchange for exchange, _, _ in BINDINGS} <= set(EXCHANGES)


def test_every_event_is_in_the_stream() -> None:
    assert (Door.EVENTS.value, "#") in queue_named(MONITORING).bindings
    assert queue_named(MONITORING).type is QueueType.STREAM


def test_the_dead_come_together_and_do_not_die_again() -> None:
    assert queue_named(DEAD_QUEUE).bindings == ((DEAD_EXCHANGE, ""),)
    assert "x-dead-letter-exchange" not in queue_named(DEAD_QUEUE).arguments()
    for queue in QUEUES:
        if queue.type is QueueType.QUORUM:
            assert queue.arguments()["x-delivery-limit"] == 20


def test_what_outsiders_fill_is_bounded_and_loses_nothing_silently() -> None:
    for queue in QUEUES:
        if any(exchange in CLIENT_DOORS for exchange, _ in queue.bindings):
            assert queue.max_length
            assert queue.overflow == ("drop-head" if queue.name == "heartbeats" else "reject-publish")


def test_an_answer_is_not_awaited_longer_than_its_question_may_wait() -> None:
    for queue in QUEUES:
        keys = [key for exchange, key in queue.bindings if exchange in CLIENT_DOORS]
        if queue.ttl and keys:
            assert queue.ttl <= 1000 * max(registered()[key].lifetime for key in keys)


# -- rights ----------------------------------------------------------------------------------------------------------


def allowed(pattern: str, name: str) -> bool:
    """As RabbitMQ asks: an unanchored search."""
    return re.search(pattern, name) is not None


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_reads_its_own_queues_and_no_others(service: str) -> None:
    own = {queue.name for queue in queues_of(service)}
    assert {queue.name for queue in QUEUES if allowed(rights_of(service).read, queue.name)} == own
    for foreign in ("reply.abcdefghijklmnopqrst.x", *(f"{name}x" for name in own), *(f"x{name}" for name in own)):
        assert not allowed(rights_of(service).read, foreign)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_says_facts_and_answers_and_not_what_clients_say(service: str) -> None:
    rights = rights_of(service)
    for door in CLIENT_DOORS:
        assert not allowed(rights.write, door.value)
    assert allowed(rights.write, Door.EVENTS.value)
    assert allowed(rights.write, Door.REPLIES.value)
    assert allowed(rights.write, "amq.default") is (service in {"dead-letters", "relay"})


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_declares_nothing_of_the_topology(service: str) -> None:
    configure = rights_of(service).configure
    assert not [name for name in (*EXCHANGES, *(queue.name for queue in QUEUES)) if allowed(configure, name)]
    assert allowed(configure, "reply.x") is (service == "gatekeeper")
    assert allowed(configure, "followers.x") is (service == "job-monitor")


def test_the_default_exchange_is_written_only_by_those_who_may_send_by_it() -> None:
    by_queue = {service for rule in TABLE.values() if Door.QUEUE in rule.doors for service in rule.services}
    assert {service for service in SERVICES if allowed(rights_of(service).write, "amq.default")} <= by_queue


# -- definitions -----------------------------------------------------------------------------------------------------


def test_definitions_are_json_and_complete() -> None:
    loaded: dict[str, Any] = json.loads(json.dumps(definitions(SECRETS, virtual_host="v")))
    assert {queue["name"] for queue in loaded["queues"]} == {queue.name for queue in QUEUES}
    assert {exchange["name"] for exchange in loaded["exchanges"]} == set(EXCHANGES)
    assert len(loaded["bindings"]) == len(BINDINGS)
    assert {user["name"] for user in loaded["users"]} == {row["user"] for row in loaded["permissions"]} == SERVICES
    assert all(
        item["vhost"] == "v" for part in ("queues", "exchanges", "bindings", "permissions") for item in loaded[part]
    )
    assert all(queue["durable"] for queue in loaded["queues"])


def test_definitions_hold_no_secret_and_the_hash_is_rabbitmqs() -> None:
    loaded = definitions(SECRETS[:1])
    assert SECRETS[0].secret not in json.dumps(loaded)
    assert SECRETS[0].secret not in repr(SECRETS[0])
    (user,) = loaded["users"]  # type: ignore[misc]
    raw = base64.b64decode(user["password_hash"])
    assert raw[4:] == hashlib.sha512(raw[:4] + SECRETS[0].secret.encode()).digest()
    assert user["tags"] == ""


def test_nothing_that_newer_brokers_removed() -> None:
    for queue in QUEUES:
        assert not {"x-queue-mode", "x-ha-policy", "x-max-in-memory-length"} & set(queue.arguments())
        assert queue.type is not QueueType.CLASSIC or queue.ttl  # a classic queue is for hints, which may be lost


def test_replies_and_events_go_by_no_client_door() -> None:
    for name, row in registered().items():
        if row.kind in {Kind.REPLY, Kind.EVENT}:
            assert not set(TABLE[name].doors) & set(CLIENT_DOORS)
