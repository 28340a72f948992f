"""One consumer on a channel of its own. I/O thread only.

A consumer outlives its channel: after a reconnect, after the broker cancelled it, after a refusal (which may heal: the
queue comes back) it consumes again by itself. Each channel is a new epoch; what belongs to an older one is dropped,
because the broker delivers it anew.

Streams differ: the position is the last offset handed out, and pausing closes the channel (a stream consumer that is
cancelled with messages on the way breaks the whole connection, as rejecting is not possible there).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pika
from pika import exceptions, spec
from pika.channel import Channel

from ._backoff import Backoff
from ._intake import Intake
from ._log import note
from ._loop import Loop
from ._pika import PackedConnection
from .errors import OperationRefusedError
from .ledger import AckBook
from .transport import Delivery, Pace, Tag

STREAM_OFFSET = "x-stream-offset"
# A refused consumer tries again soon (the queue is perhaps being made), later every 15 s.
RETRY = Pace(first=0.5, longest=15.0)
# The broker owes an answer to a consume; without one a new channel is tried.
ANSWER_TIMEOUT = 10.0


@dataclass(frozen=True)
class Wish:
    """What to consume, and how."""

    queue: str
    prefetch: int
    arguments: Mapping[str, object] = field(default_factory=dict)
    exclusive: bool = False
    consumer_tag: str | None = None

    @property
    def stream(self) -> bool:
        """Whether the queue is read as a stream."""
        return STREAM_OFFSET in self.arguments


class Consumer:
    """The I/O thread's half of a subscription; every method belongs to the I/O thread."""

    def __init__(self, loop: Loop, wish: Wish, intake: Intake, epochs: Callable[[], int]) -> None:
        self._loop = loop
        self._wish = wish
        self._intake = intake
        self._epochs = epochs
        self._epoch = 0
        self._backoff = Backoff(RETRY)
        self._connection: PackedConnection | None = None
        self._channel: Channel | None = None
        self._book = AckBook()
        self._consumer_tag: str | None = None
        self._consumptions = 0
        self._offset: int | None = None
        self._answered = False
        self._paused = False
        self._cancelled = False
        self._timer: object | None = None

    def opened(self, connection: PackedConnection) -> None:
        """A new connection is open."""
        self._connection = connection
        self._open()

    def lost(self) -> None:
        """The connection is gone."""
        self._connection = None
        self._drop_channel()

    def pause(self) -> None:
        """Stops consuming; what was delivered may still be drained and settled (but not from a stream)."""
        self._paused = True
        if self._wish.stream:
            self._close_channel()
        elif self._channel is not None and self._channel.is_open and self._consumer_tag is not None:
            self._channel.basic_cancel(self._consumer_tag, callback=lambda _frame: None)
            self._consumer_tag = None
        self._intake.tell(active=False)

    def resume(self) -> None:
        """Consumes again."""
        if not self._paused:
            return
        self._paused = False
        if self._channel is not None:
            self._consume(self._channel)
        else:
            self._open()

    def cancel(self) -> None:
        """Ends it for good; the broker takes back what is not settled."""
        self._cancelled = True
        self._close_channel()
        self._intake.close()

    def ack(self, tags: Iterable[Tag]) -> None:
        """Acknowledges deliveries of the present epoch, ignores others."""
        channel = self._channel
        if channel is not None and channel.is_open:
            for number, multiple in self._book.ack(self._present(tags)):
                channel.basic_ack(number, multiple=multiple)

    def reject(self, tags: Iterable[Tag], *, requeue: bool) -> None:
        """Rejects deliveries of the present epoch, ignores others. Never nack: quorum queues would not count it."""
        channel = self._channel
        if channel is not None and channel.is_open:
            for number in self._book.remove(self._present(tags)):
                channel.basic_reject(number, requeue=requeue)

    def _is_current(self, channel: Channel) -> bool:
        return channel is self._channel

    def _present(self, tags: Iterable[Tag]) -> list[int]:
        return [tag.number for tag in tags if tag.epoch == self._epoch]

    def _open(self) -> None:
        self._timer = None
        connection = self._connection
        idle = self._channel is None and not self._paused and not self._cancelled
        if idle and connection is not None and connection.is_open:
            connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Channel) -> None:
        if self._channel is not None or self._cancelled or channel.connection is not self._connection:
            channel.close()
            return
        self._channel = channel
        self._answered = False
        self._book = AckBook()
        self._epoch = self._epochs()
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_cancel_callback(self._on_cancelled_by_broker)
        self._loop.later(ANSWER_TIMEOUT, lambda: self._check_answer(channel))
        channel.basic_qos(prefetch_count=self._wish.prefetch, callback=lambda _frame: self._consume(channel))

    def _consume(self, channel: Channel) -> None:
        if not self._is_current(channel) or self._paused or self._consumer_tag is not None or not channel.is_open:
            return
        arguments = dict(self._wish.arguments)
        if self._wish.stream and self._offset is not None:
            arguments[STREAM_OFFSET] = self._offset + 1
        self._consumptions += 1
        # A tag of its own for each start: an earlier one may still be on its way out.
        base = self._wish.consumer_tag or f"{self._wish.queue[:200]}@{self._epoch}"
        self._consumer_tag = channel.basic_consume(
            self._wish.queue,
            self._on_message,
            exclusive=self._wish.exclusive,
            consumer_tag=base if self._consumptions == 1 else f"{base}-{self._consumptions}",
            arguments=arguments,
            callback=lambda _frame: self._on_consuming(channel),
        )

    def _on_consuming(self, channel: Channel) -> None:
        if self._is_current(channel) and self._consumer_tag is not None:
            self._answered = True
            self._backoff.opened(time.monotonic())
            self._intake.tell(active=True)

    def _check_answer(self, channel: Channel) -> None:
        if self._is_current(channel) and not self._answered and not self._paused:
            note(logging.WARNING, "broker.consumer_not_answered", queue=self._wish.queue, seconds=ANSWER_TIMEOUT)
            self._close_channel()
            self._open()

    def _on_message(
        self, channel: Channel, method: spec.Basic.Deliver, properties: spec.BasicProperties, body: bytes
    ) -> None:
        if not self._is_current(channel):
            return
        headers = properties.headers or {}
        self._book.add(method.delivery_tag)
        offset = _integer(headers.get(STREAM_OFFSET)) if self._wish.stream else None
        if offset is not None and self._offset is not None and offset <= self._offset:
            # The broker starts at a chunk's beginning; what was handed out before is only acknowledged.
            self.ack([Tag(self._epoch, 0, method.delivery_tag)])
            return
        self._intake.put(
            Delivery(
                queue=self._wish.queue,
                exchange=_text(method.exchange) or "",
                routing_key=_text(method.routing_key) or "",
                body=body,
                headers=headers,
                redelivered=method.redelivered,
                tag=Tag(self._epoch, channel.channel_number, method.delivery_tag),
                user_id=_text(properties.user_id),
                message_id=_text(properties.message_id),
                type=_text(properties.type),
                reply_to=_text(properties.reply_to),
                correlation_id=_text(properties.correlation_id),
                timestamp=properties.timestamp,
                delivery_count=_integer(headers.get("x-delivery-count")),
                stream_offset=offset,
            )
        )

    def drained(self, deliveries: list[Delivery]) -> None:
        """Notes how far a stream has been handed out."""
        for delivery in deliveries:
            if delivery.stream_offset is not None:
                self._offset = max(delivery.stream_offset, -1 if self._offset is None else self._offset)

    def _on_cancelled_by_broker(self, frame: pika.frame.Method[spec.Basic.Cancel]) -> None:
        if frame.method.consumer_tag != self._consumer_tag:
            return
        note(logging.WARNING, "broker.consumer_cancelled", queue=self._wish.queue)
        self._consumer_tag = None
        self._intake.tell(active=False)
        # The channel lives on, so that what is being worked on can still be settled.
        channel = self._channel
        if channel is not None:
            self._loop.later(self._backoff.delay(time.monotonic()), lambda: self._consume(channel))

    def _on_channel_closed(self, channel: Channel, reason: Exception) -> None:
        if not self._is_current(channel) or not channel.connection.is_open:
            return
        self._drop_channel()
        if not isinstance(reason, exceptions.ChannelClosedByBroker):
            return
        delay = self._backoff.delay(time.monotonic())
        note(
            logging.WARNING,
            "broker.consumer_refused",
            queue=self._wish.queue,
            code=reason.reply_code,
            reason=reason.reply_text,
            retry_in=round(delay, 2),
        )
        self._intake.tell(active=False, refusal=OperationRefusedError(reason.reply_text, code=reason.reply_code))
        if self._timer is None:
            self._timer = self._loop.later(delay, self._open)

    def _close_channel(self) -> None:
        channel = self._channel
        self._drop_channel()
        if channel is not None and channel.is_open:
            channel.close()

    def _drop_channel(self) -> None:
        self._channel = None
        self._consumer_tag = None
        self._epoch = 0
        self._intake.discard()
        self._intake.tell(active=False)


def _text(value: object) -> str | None:
    """Pika leaves a short string that is not UTF-8 as bytes; such a name is nobody's."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _integer(value: object) -> int | None:
    return int(value) if isinstance(value, int) else None  # pika has an integer class of its own
