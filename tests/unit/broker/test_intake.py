from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker._intake import Intake, Wakeup
from broker.errors import BrokerUnavailableError, ConnectionClosedError, OperationRefusedError
from broker.transport import Delivery, Tag
from tests.support.wait import wait_until


def delivery(number: int) -> Delivery:
    return Delivery(
        queue="q", exchange="", routing_key="q", body=b"", headers={}, redelivered=False, tag=Tag(1, 1, number)
    )


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [one.tag.number for one in deliveries]


def test_it_takes_what_is_there_up_to_the_limit() -> None:
    intake = Intake(None)
    for number in (1, 2, 3):
        intake.put(delivery(number))
    assert numbers(intake.take(2, 0)) == [1, 2]
    assert numbers(intake.take(9, 0)) == [3]
    assert intake.take(9, 0) == []


def test_a_sleeper_wakes_for_the_first_delivery() -> None:
    intake = Intake(None)
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(intake.take, 10, 10.0)
        wait_until(lambda: intake._sleepers)
        intake.put(delivery(1))
        assert numbers(taken.result(5)) == [1]


def test_many_takers_share_without_loss() -> None:
    intake = Intake(None)
    found: list[int] = []
    lock = threading.Lock()

    def take() -> None:
        while True:
            try:
                taken = numbers(intake.take(7, 5))
            except ConnectionClosedError:
                return
            with lock:
                found.extend(taken)

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(take) for _ in range(4)]
        for number in range(5000):
            intake.put(delivery(number))
        wait_until(lambda: len(found) == 5000)
        intake.close()
        for worker in workers:
            worker.result(5)
    assert sorted(found) == list(range(5000))


def test_a_closed_intake_gives_what_is_left_and_then_raises() -> None:
    intake = Intake(None)
    intake.put(delivery(1))
    intake.close()
    assert numbers(intake.take(5, 0)) == [1]
    with pytest.raises(ConnectionClosedError):
        intake.take(5, 0)


def test_a_shared_wakeup_is_set_by_each_and_again_by_leftovers() -> None:
    wakeup = Wakeup()
    first, second = Intake(wakeup), Intake(wakeup)
    assert not wakeup.wait(0)
    first.put(delivery(1))
    second.put(delivery(2))
    second.put(delivery(3))
    assert wakeup.wait(0)
    first.take(1, 0)
    assert not wakeup.wait(0)
    second.take(1, 0)
    assert wakeup.wait(0)
    second.take(1, 0)
    assert not wakeup.wait(0)


def test_waiting_for_activity_says_why_not() -> None:
    intake = Intake(None)
    with pytest.raises(BrokerUnavailableError):
        intake.wait_active(0)
    intake.tell(active=False, refusal=OperationRefusedError("no queue", code=404))
    with pytest.raises(OperationRefusedError, match="no queue"):
        intake.wait_active(0)
    intake.tell(active=True)
    intake.wait_active(0)
    intake.close()
    with pytest.raises(ConnectionClosedError):
        intake.wait_active(0)
