"""The one way to the message broker, and the one wrapper of pika.

A :class:`Connection` owns an I/O thread with an AMQP 0-9-1 connection over TLS. It reconnects by itself, for ever,
with a fresh login each time. Every method is for every thread and none but the waiting ones blocks.

What it promises:

* each accepted publication's future is resolved exactly once, with the broker's confirm or with ``Confirm.LOST``;
* a subscription consumes again after every loss, and settles only what belongs to the present channel;
* a bad publication, declaration or consumer costs its own channel, never the connection or the others;
* no secret and no payload in a log line, an exception or a representation.

What it does not promise: a LOST publication may have arrived, and a delivery may come twice. Identity and order are the
business of the layers above. A broker in a memory or disk alarm stops reading from connections that publish, and their
acknowledgements wait with the publications: who consumes much and publishes much takes two connections.

Futures are resolved on the I/O thread: a done-callback must be short and must not wait. After a fork the child must
not use the parent's connection.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Self

from schemas.errors import PilotageError

from ._intake import Intake, Wakeup
from ._log import note
from .errors import BrokerUnavailableError, ConnectionClosedError
from .subscription import Subscription
from .transport import (
    Confirm,
    Delivery,
    Endpoint,
    Login,
    LoginSource,
    Outgoing,
    Pace,
    QueueInfo,
    State,
    Tag,
)

if TYPE_CHECKING:
    from ._consumer import Consumer

__all__ = [
    "Confirm",
    "Connection",
    "Delivery",
    "Endpoint",
    "Login",
    "LoginSource",
    "Outgoing",
    "Pace",
    "QueueInfo",
    "State",
    "Subscription",
    "Tag",
    "Wakeup",
]

# What the goodbye may take after the last confirms, before the socket is simply dropped.
GOODBYE = 2.0
USABLE = (State.CONNECTED, State.BLOCKED)


class Connection:
    """One connection to the broker that keeps itself alive. See the module for its promises."""

    def __init__(
        self,
        endpoint: Endpoint,
        login: LoginSource,
        *,
        name: str,
        window: int = 256,
        patience: float = 30.0,
        pace: Pace | None = None,
        on_state: Callable[[State], None] | None = None,
    ) -> None:
        """Prepares a connection; nothing happens on the network before :meth:`start`.

        Args:
            endpoint: where the broker is.
            login: asked for a fresh login at every (re)connect, on the I/O thread.
            name: shown by the broker to its operators.
            window: publications that may be unconfirmed at a time.
            patience: seconds that a publication waits to be sent before it is LOST.
            pace: how eagerly to reconnect.
            on_state: told of every change, on the I/O thread; must be short.
        """
        # Here and not above: importing pika takes as long as starting Python, and most commands never connect.
        from ._control import Control
        from ._link import Lane, Link
        from ._loop import Loop
        from ._publisher import Limits, Publisher

        self._name = name
        self._on_state = on_state
        self._changed = threading.Condition()
        self._state = State.DISCONNECTED
        self._error: PilotageError | None = None
        self._started = False
        self._closing = False
        self._epochs = itertools.count(1)
        self._loop = Loop(name, self._on_crash)
        self._publisher = Publisher(self._loop, Limits(window=window, patience=patience))
        self._control = Control(self._loop)
        self._lanes: list[Lane] = [self._publisher, self._control]
        self._consumers: list[Consumer] = []
        self._link = Link(
            self._loop, endpoint, login, name, pace or Pace(), lanes=self._lanes, on_state=self._note_state
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def state(self) -> State:
        """What the connection is doing now."""
        return self._state

    @property
    def error(self) -> PilotageError | None:
        """Why the connection is not there, if it is not."""
        return self._error

    def start(self, timeout: float = 15.0, *, wait: bool = True) -> None:
        """Connects; with ``wait=False`` goes on trying in the background and returns at once.

        A start that raises leaves nothing running.

        Raises:
            LoginRefusedError: the broker refused the login.
            BrokerRefusedError: its certificate is not good, or the virtual host is refused.
            BrokerUnavailableError: no connection within ``timeout`` seconds, tried again and again.
            ConnectionClosedError: closed before or meanwhile.
        """
        with self._changed:
            if self._started or self._closing:
                raise ConnectionClosedError("A connection is started once.")
            self._started = True
        self._loop.start()
        self._loop.post(self._link.connect)
        if not wait:
            return
        ends = (*USABLE, State.REFUSED, State.CLOSED)
        with self._changed:
            self._changed.wait_for(lambda: self._state in ends, timeout)
            state, error = self._state, self._error
        if state in USABLE:
            return
        self.close(timeout=0)
        if state is State.CLOSED:
            raise ConnectionClosedError
        raise error or BrokerUnavailableError(f"The message broker did not answer within {timeout:g} s.")

    def publish(self, messages: Sequence[Outgoing]) -> list[Future[Confirm]]:
        """Queues all messages or none, and returns a future for each, in order.

        A future that is cancelled before its message was sent withdraws the message.

        Raises:
            BackpressureError: too many messages wait already; temporary.
            ConnectionClosedError: after :meth:`close`.
        """
        return self._publisher.submit(messages)

    def publish_and_wait(self, messages: Sequence[Outgoing], timeout: float = 10.0) -> list[Confirm]:
        """Publishes and waits; what has no answer after ``timeout`` seconds is LOST (and withdrawn if not yet sent)."""
        futures = self.publish(messages)
        wait(futures, timeout)
        return [Confirm.LOST if future.cancel() or not future.done() else future.result() for future in futures]

    def subscribe(
        self,
        queue: str,
        *,
        prefetch: int,
        arguments: Mapping[str, object] | None = None,
        exclusive: bool = False,
        consumer_tag: str | None = None,
        wakeup: Wakeup | None = None,
    ) -> Subscription:
        """Consumes a queue, from now or from whenever the connection is there. Does not wait.

        Args:
            queue: its name; it must exist, or come to exist.
            prefetch: deliveries that may be unsettled at a time.
            arguments: for a stream ``{"x-stream-offset": ...}``; needs a connection of its own.
            exclusive: refuse other consumers.
            consumer_tag: shown by the broker to its operators.
            wakeup: shared by several subscriptions that one thread serves.
        """
        from ._consumer import Consumer, Wish

        wish = Wish(queue, prefetch, arguments or {}, exclusive, consumer_tag)
        intake = Intake(wakeup)
        consumer = Consumer(self._loop, wish, intake, lambda: next(self._epochs))
        self._loop.post(lambda: self._admit(consumer))
        if self._state is State.CLOSED:  # then nobody runs what was posted
            intake.close()
        return Subscription(queue, self._loop, consumer, intake, self._forget)

    def declare_exchange(self, exchange: str, kind: str = "topic", *, timeout: float = 10.0) -> None:
        """Declares a durable exchange. Raises as :meth:`declare_queue`."""
        self._control.ask(
            lambda channel, done: channel.exchange_declare(exchange, kind, durable=True, callback=done), timeout
        )

    def declare_queue(
        self,
        queue: str,
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        passive: bool = False,
        arguments: Mapping[str, object] | None = None,
        timeout: float = 10.0,
    ) -> QueueInfo:
        """Declares a queue, or with ``passive`` only looks at it.

        Raises:
            OperationRefusedError: refused, not found (passive), or declared differently before.
            BrokerUnavailableError: no answer within ``timeout`` seconds.
            ConnectionClosedError: after :meth:`close`.
        """
        answer = self._control.ask(
            lambda channel, done: channel.queue_declare(
                queue,
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                arguments=dict(arguments or {}),
                callback=done,
            ),
            timeout,
        )
        method = answer.method
        return QueueInfo(method.queue, method.message_count, method.consumer_count)

    def bind_queue(self, queue: str, exchange: str, routing_key: str, *, timeout: float = 10.0) -> None:
        """Binds a queue to an exchange. Raises as :meth:`declare_queue`."""
        self._control.ask(
            lambda channel, done: channel.queue_bind(queue, exchange, routing_key, callback=done), timeout
        )

    def unbind_queue(self, queue: str, exchange: str, routing_key: str, *, timeout: float = 10.0) -> None:
        """Removes a binding. Raises as :meth:`declare_queue`."""
        self._control.ask(
            lambda channel, done: channel.queue_unbind(queue, exchange, routing_key, callback=done), timeout
        )

    def delete_queue(self, queue: str, *, timeout: float = 10.0) -> None:
        """Deletes a queue with what is in it; one that does not exist is no error."""
        self._control.ask(lambda channel, done: channel.queue_delete(queue, callback=done), timeout)

    def login_again(self) -> None:
        """Connects anew with a fresh login, without waiting; for everybody else it is a short loss."""
        self._loop.post(self._link.login_again)

    def close(self, timeout: float = 5.0) -> None:
        """Sends pending acknowledgements, waits for open confirms, says goodbye and ends the thread.

        Publications without a confirm at the end are LOST. Takes ``timeout`` plus 2 seconds at most; may be called
        again, and from several threads.
        """
        self._publisher.refuse_new()
        with self._changed:
            first, self._closing = not self._closing, True
            started = self._started
        if not started:
            self._finish()
            return
        if first:
            self._loop.post(lambda: self._begin_close(timeout))
        self._loop.join(timeout + GOODBYE + 1.0)

    # What follows runs on the I/O thread.

    def _admit(self, consumer: Consumer) -> None:
        if self._state is State.CLOSED:
            consumer.cancel()
            return
        self._consumers.append(consumer)
        self._lanes.append(consumer)
        if self._link.connection is not None:
            consumer.opened(self._link.connection)

    def _forget(self, consumer: Consumer) -> None:
        if consumer in self._consumers:
            self._consumers.remove(consumer)
            self._lanes.remove(consumer)

    def _note_state(self, state: State, error: PilotageError | None) -> None:
        if state in USABLE:
            self._publisher.blocked(state is State.BLOCKED)
        with self._changed:
            self._state = state
            # While it tries again, why it failed before stays readable.
            self._error = self._error if state is State.CONNECTING else error
            self._changed.notify_all()
        if self._on_state is not None:
            try:
                self._on_state(state)
            except Exception as failure:  # noqa: BLE001 - a listener must not break the connection
                note(logging.ERROR, "broker.listener_failed", error=type(failure).__name__)

    def _on_crash(self, _error: BaseException) -> None:
        self._link.abandon()

    def _begin_close(self, timeout: float) -> None:
        if self._link.connection is None or timeout <= 0:
            self._say_goodbye()
        else:
            deadline = self._loop.later(timeout, self._say_goodbye)

            def flushed() -> None:
                self._loop.cancel(deadline)
                self._say_goodbye()

            self._publisher.when_idle(flushed)

    def _say_goodbye(self) -> None:
        self._publisher.give_up()
        self._loop.later(GOODBYE, self._hang_up)
        self._link.close(self._finish)

    def _hang_up(self) -> None:
        self._link.abandon()
        self._finish()

    def _finish(self) -> None:
        if self._state is State.CLOSED:
            return
        for consumer in list(self._consumers):
            consumer.cancel()
        self._publisher.give_up()
        self._control.give_up()
        self._note_state(State.CLOSED, None)
        self._loop.stop()
