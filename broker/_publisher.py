"""The publishing lane: one channel in confirm mode, a window of unconfirmed messages, and a bounded queue before it.

Every accepted message gets a future, and every future is resolved exactly once: by the broker's confirm, as LOST when
the channel or the connection is lost after sending, or as LOST when it could not be sent within its patience. When no
confirm at all comes for as long, the channel is given up too: RabbitMQ 3.10 was seen to swallow what is
published to a quorum queue that was declared within five seconds before its node was killed, on a healthy connection.

The broker closes the channel for one bad message and does not say which. If only one message was open it was that one:
REFUSED. Otherwise all are LOST, and as many of the next ones go out one at a time, so that a bad message which is tried
again is found out and cannot take its neighbours down for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import pika
from pika import exceptions, spec
from pika.channel import Channel

from ._log import note
from ._loop import Loop
from ._pika import PackedConnection
from .errors import BackpressureError, ConnectionClosedError
from .ledger import ConfirmLedger
from .transport import Confirm, Outgoing

# Bytes on the way at once, whatever the window: sandbox chunks must not fill the memory.
WINDOW_BYTES = 16 * 1024 * 1024
# How often waiting messages are looked at while nothing can be sent.
EXPIRY_PERIOD = 0.5
PERSISTENT = 2


@dataclass(frozen=True)
class Limits:
    """Bounds of the queue before the window.

    Attributes:
        patience: seconds that a message waits at most to be sent, for example while the broker is away; and
            that sent ones wait for any confirm.
    """

    window: int = 256
    messages: int = 10_000
    bytes: int = 64 * 1024 * 1024
    patience: float = 30.0


class _Item:
    __slots__ = ("deadline", "future", "message", "returned")

    def __init__(self, message: Outgoing, deadline: float) -> None:
        self.message = message
        self.deadline = deadline
        self.future: Future[Confirm] = Future()
        self.returned = False


class Publisher:
    """Sends messages and answers their futures. :meth:`submit` is for every thread, the rest for the I/O thread."""

    def __init__(self, loop: Loop, limits: Limits) -> None:
        self._loop = loop
        self._limits = limits
        self._lock = threading.Lock()
        self._waiting: deque[_Item] = deque()
        self._waiting_bytes = 0
        self._refuse_new = False
        self._connection: PackedConnection | None = None
        self._channel: Channel | None = None
        self._ledger: ConfirmLedger[_Item] = ConfirmLedger()
        self._blocked = False
        self._careful = 0
        self._expiry: object | None = None
        self._watch: object | None = None
        self._progress_at = 0.0
        self._on_idle: Callable[[], None] | None = None

    def submit(self, messages: Sequence[Outgoing]) -> list[Future[Confirm]]:
        """Takes all messages or none of them.

        Raises:
            BackpressureError: too many messages or bytes wait already.
            ConnectionClosedError: after the close.
        """
        deadline = time.monotonic() + self._limits.patience
        items = [_Item(message, deadline) for message in messages]
        size = sum(len(message.body) for message in messages)
        with self._lock:
            if self._refuse_new:
                raise ConnectionClosedError
            if len(self._waiting) + len(items) > self._limits.messages:
                raise BackpressureError
            if self._waiting and self._waiting_bytes + size > self._limits.bytes:
                raise BackpressureError
            self._waiting.extend(items)
            self._waiting_bytes += size
        self._loop.post(self.pump)
        return [item.future for item in items]

    def refuse_new(self) -> None:
        """From now on :meth:`submit` refuses. For every thread."""
        with self._lock:
            self._refuse_new = True

    def when_idle(self, action: Callable[[], None]) -> None:
        """Runs ``action`` once, as soon as nothing waits and nothing is unconfirmed."""
        self._on_idle = action
        self._check_idle()

    def _check_idle(self) -> None:
        if self._on_idle is not None and not self._waiting and not len(self._ledger):
            action, self._on_idle = self._on_idle, None
            action()

    def opened(self, connection: PackedConnection) -> None:
        """Opens the channel on a new connection."""
        self._connection = connection
        self._blocked = False
        connection.channel(on_open_callback=self._on_channel)

    def lost(self) -> None:
        """The connection is gone: what was sent and not confirmed is LOST; what waits goes on waiting."""
        self._connection = None
        self._drop_channel(Confirm.LOST)

    def blocked(self, blocked: bool) -> None:
        """The broker takes no publications for now, or takes them again."""
        self._blocked = blocked
        self.pump()

    def give_up(self) -> None:
        """Resolves everything as LOST."""
        self._on_idle = None
        self._drop_channel(Confirm.LOST)
        while self._waiting:
            item = self._take()
            if item.future.set_running_or_notify_cancel():
                item.future.set_result(Confirm.LOST)

    def pump(self) -> None:
        """Sends as much as the window allows."""
        channel = self._channel
        if channel is None or self._connection is None or self._blocked:
            self._arm_expiry()
            return
        if self._waiting:
            with self._connection.packed():
                self._fill_window(channel)
        self._check_idle()

    def _fill_window(self, channel: Channel) -> None:
        ledger = self._ledger
        window = 1 if self._careful else self._limits.window
        while self._waiting and len(ledger) < window and ledger.bytes < WINDOW_BYTES:
            item = self._take()
            if item.future.set_running_or_notify_cancel():
                self._send(channel, item)
                if self._careful:
                    break

    def _take(self) -> _Item:
        item = self._waiting.popleft()
        with self._lock:
            self._waiting_bytes -= len(item.message.body)
        return item

    def _send(self, channel: Channel, item: _Item) -> None:
        message = item.message
        try:
            channel.basic_publish(
                message.exchange, message.routing_key, message.body, _properties(message), mandatory=message.mandatory
            )
        except exceptions.AMQPChannelError:
            item.future.set_result(Confirm.LOST)
        except Exception as error:  # noqa: BLE001 - pika refuses to encode it: too long a name, a foreign type
            note(logging.WARNING, "broker.publication_refused", message=message.type, reason=type(error).__name__)
            item.future.set_result(Confirm.REFUSED)
        else:
            if not len(self._ledger):
                self._progress_at = time.monotonic()
            self._ledger.add(item, len(message.body))
            if self._watch is None:
                self._watch = self._loop.later(self._limits.patience, self._check_progress)

    def _on_channel(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _frame: self._ready(channel))

    def _ready(self, channel: Channel) -> None:
        if self._mine(channel) and channel.is_open:
            self._channel = channel
            self._ledger = ConfirmLedger()
            self.pump()

    def _on_confirm(self, frame: pika.frame.Method[spec.Basic.Ack | spec.Basic.Nack]) -> None:
        method = frame.method
        good = isinstance(method, spec.Basic.Ack)
        self._progress_at = time.monotonic()
        for item in self._ledger.settle(method.delivery_tag, multiple=method.multiple):
            if self._careful:
                self._careful -= 1
            answer = Confirm.RETURNED if item.returned else Confirm.ACKED
            item.future.set_result(answer if good else Confirm.NACKED)
        self.pump()

    def _on_return(
        self, _channel: Channel, method: spec.Basic.Return, properties: spec.BasicProperties, body: bytes
    ) -> None:
        # The return comes before the confirm of the same message, and in the order of sending.
        for item in self._ledger.entries():
            message = item.message
            if (
                not item.returned
                and message.message_id == properties.message_id
                and message.routing_key == method.routing_key
                and message.exchange == method.exchange
                and message.body == body
            ):
                item.returned = True
                return

    def _on_channel_closed(self, channel: Channel, reason: Exception) -> None:
        if not self._mine(channel):
            return
        if self._is_current(channel):
            open_messages = len(self._ledger)
            if isinstance(reason, exceptions.ChannelClosedByBroker):
                note(logging.WARNING, "broker.publication_refused", code=reason.reply_code, reason=reason.reply_text)
            if open_messages == 1:
                self._drop_channel(Confirm.REFUSED)
            else:
                self._careful = open_messages
                self._drop_channel(Confirm.LOST)
        self._loop.post(self._reopen)

    def _mine(self, channel: Channel) -> bool:
        return self._connection is not None and channel.connection is self._connection and self._connection.is_open

    def _is_current(self, channel: Channel) -> bool:
        return channel is self._channel

    def _reopen(self) -> None:
        connection = self._connection
        if connection is not None and connection.is_open and self._channel is None:
            connection.channel(on_open_callback=self._on_channel)

    def _drop_channel(self, answer: Confirm) -> None:
        self._channel = None
        for item in self._ledger.clear():
            item.future.set_result(answer)
        self._check_idle()
        if self._waiting:
            self._arm_expiry()

    def _check_progress(self) -> None:
        self._watch = None
        channel = self._channel
        if channel is None or not len(self._ledger):
            return
        # A blocked broker owes us nothing; the connection has a time limit of its own for that.
        now = time.monotonic()
        if self._blocked:
            self._progress_at = now
        rest = self._progress_at + self._limits.patience - now
        if rest > 0:
            self._watch = self._loop.later(rest, self._check_progress)
            return
        note(logging.WARNING, "broker.no_confirms", open=len(self._ledger), seconds=self._limits.patience)
        self._drop_channel(Confirm.LOST)
        channel.close()
        self._reopen()

    def _arm_expiry(self) -> None:
        if self._expiry is None and self._waiting:
            self._expiry = self._loop.later(EXPIRY_PERIOD, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        now = time.monotonic()
        while self._waiting and (self._waiting[0].deadline <= now or self._waiting[0].future.cancelled()):
            item = self._take()
            if item.future.set_running_or_notify_cancel():
                item.future.set_result(Confirm.LOST)
        if self._channel is None or self._blocked:
            self._arm_expiry()
        else:
            self.pump()


def _properties(message: Outgoing) -> spec.BasicProperties:
    return spec.BasicProperties(
        content_type=message.content_type,
        headers=dict(message.headers) or None,
        delivery_mode=PERSISTENT if message.persistent else 1,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        expiration=message.expiration,
        message_id=message.message_id,
        timestamp=message.timestamp,
        type=message.type,
        user_id=message.user_id,
    )
