"""Every message that is bound to a consumer's queue finds its handler there."""

from __future__ import annotations

import importlib
import inspect

import pytest

from broker.authorization import SERVICES, TABLE, Door
from broker.topology import QUEUES, Queue
from consumers.batch import Consumer
from schemas.registry import by_name


def consumer_of(service: str) -> type[Consumer]:
    # What the gatekeeper reads is read by its other half.
    name = "cut_off" if service == "gatekeeper" else service.replace("-", "_")
    module = importlib.import_module(f"consumers.{name}")
    (found,) = (
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Consumer) and cls is not Consumer and cls.__module__ == module.__name__
    )
    return found


CONSUMERS = {service: consumer_of(service) for service in sorted(SERVICES)}
READ = [queue for queue in QUEUES if queue.consumer]


@pytest.mark.parametrize("service", sorted(CONSUMERS))
def test_a_consumer_has_the_name_of_its_service(service: str) -> None:
    assert CONSUMERS[service].name == service


@pytest.mark.parametrize("queue", READ, ids=[queue.name for queue in READ])
def test_what_a_queue_carries_is_handled_by_its_reader(queue: Queue) -> None:
    consumer = CONSUMERS[queue.consumer]
    if queue.name in consumer.raw_queues:
        return
    handled = set(consumer.handlers)
    assert {by_name(key).struct for _, key in queue.bindings} <= handled


@pytest.mark.parametrize("service", sorted(CONSUMERS))
def test_a_handler_is_there_for_nothing_else(service: str) -> None:
    carried = {by_name(key).struct for queue in READ if queue.consumer == service for _, key in queue.bindings if key}
    events = {by_name(name).struct for name, rule in TABLE.items() if Door.EVENTS in rule.doors}
    assert set(CONSUMERS[service].handlers) - events <= carried


@pytest.mark.parametrize("service", sorted(CONSUMERS))
def test_named_handlers_exist(service: str) -> None:
    consumer = CONSUMERS[service]
    for method in filter(None, consumer.handlers.values()):
        assert callable(getattr(consumer, method))
