"""The control lane: declarations and other single questions to the broker, one at a time on a channel of their own.

One at a time, so that when the broker closes the channel it is clear which operation it refused; the others go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Protocol

from pika import exceptions
from pika.channel import Channel

from ._loop import Loop
from ._pika import PackedConnection
from .errors import BrokerUnavailableError, ConnectionClosedError, OperationRefusedError


class DeclareOk(Protocol):
    """The only answer with fields that somebody reads."""

    queue: str
    message_count: int
    consumer_count: int


class Answer(Protocol):
    """A method frame from the broker."""

    method: DeclareOk


# Sends one request on a channel; the second argument takes the broker's answer.
Operation = Callable[[Channel, Callable[[Answer], None]], object]


class Control:
    """Asks the broker. :meth:`ask` is for every thread but the I/O thread, the rest for the I/O thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Operation, Future[Answer]]] = deque()
        self._current: Future[Answer] | None = None
        self._connection: PackedConnection | None = None
        self._channel: Channel | None = None
        self._opening = False
        self._closed = False

    def ask(self, operation: Operation, timeout: float) -> Answer:
        """Runs one operation and returns the broker's answer frame.

        Raises:
            OperationRefusedError: the broker refused it.
            BrokerUnavailableError: no answer within ``timeout`` seconds, or the connection was lost meanwhile.
            ConnectionClosedError: the connection was closed on our side.
        """
        if self._closed:
            raise ConnectionClosedError
        future: Future[Answer] = Future()
        self._loop.post(lambda: self._enqueue(operation, future))
        try:
            return future.result(timeout)
        except FutureTimeoutError as error:
            if not future.cancel():
                self._loop.post(lambda: self._abandon(future))
            raise BrokerUnavailableError(f"The message broker did not answer within {timeout:g} s.") from error

    def opened(self, connection: PackedConnection) -> None:
        """A new connection is open."""
        self._connection = connection
        self._next()

    def lost(self) -> None:
        """The connection is gone: the running operation fails, those that wait go on waiting."""
        self._connection, self._channel, self._opening = None, None, False
        self._fail(BrokerUnavailableError("The connection was lost before the message broker answered."))

    def give_up(self) -> None:
        """Fails everything that waits, now and later."""
        self._closed = True
        self._fail(ConnectionClosedError())
        while self._waiting:
            _, self._current = self._waiting.popleft()
            if self._current.set_running_or_notify_cancel():
                self._fail(ConnectionClosedError())

    def _enqueue(self, operation: Operation, future: Future[Answer]) -> None:
        if self._closed:
            future.set_exception(ConnectionClosedError())
            return
        self._waiting.append((operation, future))
        self._next()

    def _next(self) -> None:
        if self._connection is None or self._current is not None or not self._waiting or self._opening:
            return
        if self._channel is None:
            self._opening = True
            self._connection.channel(on_open_callback=self._on_channel)
            return
        operation, future = self._waiting.popleft()
        if not future.set_running_or_notify_cancel():
            self._next()
            return
        self._current = future
        try:
            operation(self._channel, lambda frame: self._answered(future, frame))
        except Exception as error:  # noqa: BLE001 - pika refuses to encode it
            self._fail(OperationRefusedError(f"The request cannot be sent: {type(error).__name__}."))
            self._next()

    def _on_channel(self, channel: Channel) -> None:
        if channel.connection is not self._connection:
            return
        self._opening = False
        self._channel = channel
        channel.add_on_close_callback(self._on_channel_closed)
        self._next()

    def _on_channel_closed(self, channel: Channel, reason: Exception) -> None:
        if not self._is_current(channel) or not channel.connection.is_open:
            return
        self._channel = None
        if isinstance(reason, exceptions.ChannelClosedByBroker):
            self._fail(OperationRefusedError(reason.reply_text, code=reason.reply_code))
        else:
            self._fail(BrokerUnavailableError())
        self._loop.post(self._next)

    def _is_current(self, channel: Channel) -> bool:
        return channel is self._channel

    def _abandon(self, future: Future[Answer]) -> None:
        """Nobody waits for this answer any more; the next operation gets a fresh channel."""
        if future is not self._current or self._connection is None:
            return
        channel, self._channel, self._current = self._channel, None, None
        if channel is not None and channel.is_open:
            channel.close()
        self._next()

    def _answered(self, future: Future[Answer], frame: Answer) -> None:
        if future is self._current:  # and not one that was abandoned
            self._current = None
            future.set_result(frame)
            self._next()

    def _fail(self, error: Exception) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.set_exception(error)
