"""The intake between the I/O thread and the threads that drain a subscription. Knows nothing of pika."""

from __future__ import annotations

import threading
import time
from collections import deque

from .errors import BrokerUnavailableError, ConnectionClosedError, OperationRefusedError
from .transport import Delivery


class Wakeup:
    """Lets one thread wait for several subscriptions at once.

    After :meth:`wait` the caller drains all its subscriptions without waiting; a subscription that still holds
    something after a drain sets the wake-up again, so nothing is forgotten.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Wakes the waiting thread, or the next one that waits."""
        if not self._event.is_set():
            self._event.set()

    def wait(self, timeout: float | None) -> bool:
        """Waits, and says whether something happened."""
        happened = self._event.wait(timeout)
        self._event.clear()
        return happened


class Intake:
    """Deliveries on their way from the I/O thread to whoever drains."""

    def __init__(self, wakeup: Wakeup | None) -> None:
        self._deliveries: deque[Delivery] = deque()
        self._changed = threading.Condition()
        self._sleepers = 0
        self._wakeup = wakeup
        self._closed = False
        self._active = False
        self._refusal: OperationRefusedError | None = None

    def __len__(self) -> int:
        return len(self._deliveries)

    def put(self, delivery: Delivery) -> None:
        """Adds one; I/O thread. Takes the lock only if somebody sleeps (who announces it before looking)."""
        self._deliveries.append(delivery)
        if self._sleepers:
            with self._changed:
                self._changed.notify_all()
        if self._wakeup is not None:
            self._wakeup.set()

    def discard(self) -> None:
        """Throws away what was not drained; I/O thread."""
        with self._changed:
            self._deliveries.clear()

    def take(self, limit: int, timeout: float) -> list[Delivery]:
        """Waits for at least one delivery, then takes what is there, up to ``limit``."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._sleepers += 1
            try:
                while not self._deliveries:
                    if self._closed:
                        raise ConnectionClosedError
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        return []
                    self._changed.wait(remaining)
            finally:
                self._sleepers -= 1
            taken = [self._deliveries.popleft() for _ in range(min(limit, len(self._deliveries)))]
        if self._deliveries and self._wakeup is not None:
            self._wakeup.set()
        return taken

    def tell(self, *, active: bool, refusal: OperationRefusedError | None = None) -> None:
        """Notes whether the consumer is consuming, or why not; I/O thread."""
        with self._changed:
            self._active = active
            self._refusal = refusal
            self._changed.notify_all()

    def wait_active(self, timeout: float) -> None:
        """Waits until the consumer consumes; raises why it does not."""
        with self._changed:
            self._changed.wait_for(lambda: self._active or self._refusal or self._closed, timeout)
            if self._active:
                return
            if self._refusal is not None:
                raise self._refusal
            if self._closed:
                raise ConnectionClosedError
            raise BrokerUnavailableError(f"The consumer did not start within {timeout:g} s.")

    def close(self) -> None:
        """Wakes everybody for the last time."""
        with self._changed:
            self._closed = True
            self._active = False
            self._changed.notify_all()
        if self._wakeup is not None:
            self._wakeup.set()
