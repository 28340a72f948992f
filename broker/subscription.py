"""A subscription: deliveries of one queue, drained in batches and settled by whoever worked on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ._intake import Intake, Wakeup
from .transport import Delivery

if TYPE_CHECKING:  # both import pika
    from ._consumer import Consumer
    from ._loop import Loop

__all__ = ["Subscription", "Wakeup"]


class Subscription:
    """Every method is for every thread. Made by :meth:`broker.connection.Connection.subscribe`.

    Survives reconnects: it consumes again by itself. Deliveries that were not drained before a loss vanish here and
    come again from the broker; settling a delivery from before the loss does nothing.
    """

    def __init__(
        self, queue: str, loop: Loop, consumer: Consumer, intake: Intake, forget: Callable[[Consumer], None]
    ) -> None:
        self.queue = queue
        self._loop = loop
        self._consumer = consumer
        self._intake = intake
        self._forget = forget

    @property
    def pending(self) -> int:
        """How many deliveries wait to be drained."""
        return len(self._intake)

    def wait_active(self, timeout: float) -> None:
        """Waits until the broker has accepted the consumer.

        Raises:
            OperationRefusedError: no such queue, no right, or the queue is taken; it is tried again nevertheless.
            BrokerUnavailableError: not within ``timeout`` seconds.
        """
        self._intake.wait_active(timeout)

    def drain(self, limit: int, timeout: float) -> list[Delivery]:
        """Waits up to ``timeout`` seconds for one delivery, then takes what is there, up to ``limit``.

        Raises:
            ConnectionClosedError: the subscription or its connection was closed and nothing is left.
        """
        deliveries = self._intake.take(limit, timeout)
        if deliveries and deliveries[-1].stream_offset is not None:
            self._loop.post(lambda: self._consumer.drained(deliveries))
        return deliveries

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledges; returns at once."""
        tags = [delivery.tag for delivery in deliveries]
        self._loop.post(lambda: self._consumer.ack(tags))

    def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        """Gives deliveries back to the queue, or to its dead-letter exchange; returns at once."""
        tags = [delivery.tag for delivery in deliveries]
        self._loop.post(lambda: self._consumer.reject(tags, requeue=requeue))

    def pause(self) -> None:
        """Stops consuming. What was delivered stays here, unsettled, and can be drained and settled."""
        self._loop.post(self._consumer.pause)

    def resume(self) -> None:
        """Consumes again."""
        self._loop.post(self._consumer.resume)

    def cancel(self) -> None:
        """Ends the subscription; the broker takes back what is not settled."""

        def end() -> None:
            self._forget(self._consumer)
            self._consumer.cancel()

        self._loop.post(end)
