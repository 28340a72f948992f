"""First come, first served."""

from __future__ import annotations

import threading

import pytest

from consumers.store.locks import FairLock
from tests.support.wait import wait_until


def test_threads_get_their_turn_in_the_order_in_which_they_came() -> None:
    lock, order, threads = FairLock(), [], []

    def work(number: int) -> None:
        assert lock.acquire(10)
        order.append(number)
        lock.release()

    assert lock.acquire(0)
    for number in range(5):
        thread = threading.Thread(target=work, args=(number,))
        thread.start()
        threads.append(thread)
        wait_until(lambda n=number: len(lock._waiting) == n + 1, what="the thread to queue")
    lock.release()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]
    assert lock.acquire(0)


def test_who_waits_too_long_leaves_the_queue() -> None:
    lock, results = FairLock(), []
    assert lock.acquire(0)
    thread = threading.Thread(target=lambda: results.append(lock.acquire(0.01)))
    thread.start()
    thread.join(10)
    assert results == [False]
    lock.release()
    assert lock.acquire(0)


def test_a_thread_that_would_wait_for_itself_is_told() -> None:
    lock = FairLock()
    assert lock.acquire(0)
    with pytest.raises(RuntimeError, match="inside"):
        lock.acquire(10)
