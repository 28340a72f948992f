"""One AMQP connection after another: connect, classify failures, wait, connect again. I/O thread only.

Knows nothing about messages: it tells its lanes when a connection opened and when it is gone. A temporary failure is
tried again for ever with growing, jittered delays; a permanent refusal is reported and tried again at a slow pace.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from typing import Protocol

import pika
from pika import exceptions

from schemas.errors import PermanentError, PilotageError

from ._backoff import Backoff
from ._log import note
from ._loop import Loop
from ._pika import PackedConnection, teach
from .errors import BrokerRefusedError, BrokerUnavailableError, LoginRefusedError
from .transport import Endpoint, LoginSource, Pace, State

# TCP connect; and TCP + TLS + AMQP together. A hung authentication service answers after 15 s at the latest.
SOCKET_TIMEOUT = 10.0
STACK_TIMEOUT = 20.0
# The broker takes nothing for so long: give the connection up, its owners get their messages back.
BLOCKED_TIMEOUT = 120.0
ACCESS_REFUSED = 403
NOT_ALLOWED = 530

teach()


class Lane(Protocol):
    """What uses the connection: the publisher, the control channel, each consumer."""

    def opened(self, connection: PackedConnection) -> None:
        """A new connection is open."""

    def lost(self) -> None:
        """The connection is gone, its channels with it."""


class Link:
    """Keeps one connection open."""

    def __init__(
        self,
        loop: Loop,
        endpoint: Endpoint,
        login: LoginSource,
        name: str,
        pace: Pace,
        *,
        lanes: list[Lane],
        on_state: Callable[[State, PilotageError | None], None],
    ) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._login = login
        self._name = name
        self._backoff = Backoff(pace)
        self._lanes = lanes
        self._on_state = on_state
        self._connection: PackedConnection | None = None
        self._timer: object | None = None
        self._reason = ""
        self._closing: Callable[[], None] | None = None

    @property
    def connection(self) -> PackedConnection | None:
        """The open connection, if there is one."""
        connection = self._connection
        return connection if connection is not None and connection.is_open else None

    def connect(self) -> None:
        """Starts one attempt; everything after it follows by itself."""
        self._timer = None
        if self._closing is not None or self._connection is not None:
            return
        self._on_state(State.CONNECTING, None)
        try:
            parameters = _parameters(self._endpoint, self._login, self._name)
            self._connection = PackedConnection(
                parameters, self._on_open, self._on_open_error, self._on_close, custom_ioloop=self._loop.native
            )
        except Exception as error:  # noqa: BLE001 - a login source may fail in any way of its own
            self._failed(error)

    def close(self, done: Callable[[], None]) -> None:
        """Closes in good order and calls ``done`` when the connection is gone."""
        self._closing = done
        if self._timer is not None:
            self._loop.cancel(self._timer)
            self._timer = None
        connection = self._connection
        if connection is None:
            done()
        elif not (connection.is_closing or connection.is_closed):
            connection.close()

    def login_again(self) -> None:
        """Closes the connection in good order; the next one comes with a fresh login, as after any loss."""
        connection = self.connection
        if connection is not None and self._closing is None:
            connection.close()

    def abandon(self) -> None:
        """Drops the connection without a word: the peer does not listen, or our own state is in doubt."""
        connection, self._connection = self._connection, None
        transport = getattr(connection, "_transport", None)  # pika offers no public way to drop an open socket
        if transport is not None:
            transport.abort()
        if connection is not None and self._closing is None:
            self._gone(BrokerUnavailableError("The connection to the message broker was dropped."))

    def _on_open(self, connection: PackedConnection) -> None:
        if not self._is_current(connection):
            connection.close()  # abandoned while it was being opened
            return
        self._backoff.opened(time.monotonic())
        self._reason = ""
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        note(
            logging.INFO, "broker.connected", connection=self._name, host=self._endpoint.host, port=self._endpoint.port
        )
        self._on_state(State.CONNECTED, None)
        for lane in list(self._lanes):
            lane.opened(connection)

    def _is_current(self, connection: PackedConnection) -> bool:
        return connection is self._connection

    def _on_blocked(self, connection: PackedConnection, _frame: object) -> None:
        if self._is_current(connection):
            note(logging.WARNING, "broker.blocked", connection=self._name)
            self._on_state(State.BLOCKED, None)

    def _on_unblocked(self, connection: PackedConnection, _frame: object) -> None:
        if self._is_current(connection):
            note(logging.INFO, "broker.unblocked", connection=self._name)
            self._on_state(State.CONNECTED, None)

    def _on_open_error(self, connection: PackedConnection, error: BaseException) -> None:
        if self._is_current(connection):
            self._connection = None
            self._failed(error)

    def _on_close(self, connection: PackedConnection, error: BaseException) -> None:
        if self._is_current(connection):
            self._connection = None
            self._gone(classify(error))

    def _gone(self, error: PilotageError) -> None:
        try:
            for lane in list(self._lanes):
                lane.lost()
        finally:
            self._retry(error)

    def _failed(self, error: BaseException) -> None:
        self._retry(classify(error))

    def _retry(self, error: PilotageError) -> None:
        if self._closing is not None:
            self._closing()
            return
        refused = isinstance(error, PermanentError)
        delay = self._backoff.delay(time.monotonic(), refused=refused)
        usual = logging.ERROR if refused else logging.INFO
        repeated, self._reason = str(error) == self._reason, str(error)
        note(
            logging.DEBUG if repeated else usual,  # an outage of hours is one line, not thousands
            "broker.refused" if refused else "broker.disconnected",
            connection=self._name,
            reason=str(error),
            retry_in=round(delay, 2),
        )
        self._on_state(State.REFUSED if refused else State.DISCONNECTED, error)
        self._timer = self._loop.later(delay, self.connect)


def _parameters(endpoint: Endpoint, source: LoginSource, name: str) -> pika.ConnectionParameters:
    # Not create_default_context: from Python 3.13 on it adds VERIFY_X509_STRICT, which real grid CAs do not pass.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=str(endpoint.ca_file))
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        message = f"The CA file {endpoint.ca_file} cannot be used to verify the message broker: {reason}."
        raise BrokerRefusedError(message) from error
    login = source()
    return pika.ConnectionParameters(
        host=endpoint.host,
        port=endpoint.port,
        virtual_host=endpoint.virtual_host,
        credentials=pika.PlainCredentials(login.user, login.secret, erase_on_connect=True),
        heartbeat=endpoint.heartbeat,
        blocked_connection_timeout=BLOCKED_TIMEOUT,
        connection_attempts=1,
        socket_timeout=SOCKET_TIMEOUT,
        stack_timeout=STACK_TIMEOUT,
        ssl_options=pika.SSLOptions(context, endpoint.server_name or endpoint.host),
        client_properties={"connection_name": name, "product": "pilotage"},
    )


def classify(error: BaseException | None) -> PilotageError:
    """Turns what pika, OpenSSL or a login source raised into an error of ours. Its text never holds the secret."""
    if isinstance(error, PilotageError):
        return error
    chain = list(_causes(error))
    text = " ".join(str(cause) for cause in chain)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain):
        return BrokerRefusedError("The certificate of the message broker cannot be verified with the given CA file.")
    if isinstance(error, exceptions.AuthenticationError) or (
        isinstance(error, exceptions.ProbableAuthenticationError) and str(ACCESS_REFUSED) in text
    ):
        return LoginRefusedError()
    if isinstance(error, exceptions.ProbableAccessDeniedError) and str(NOT_ALLOWED) in text:
        return BrokerRefusedError("The message broker does not let this login use the virtual host.")
    reason = type(chain[-1]).__name__ if chain else "closed"
    detail = str(chain[-1]) if chain else ""
    return BrokerUnavailableError(f"The message broker cannot be reached: {reason} {detail}".strip())


def _causes(error: BaseException | None) -> list[BaseException]:
    """An exception and what it wraps: pika nests the cause as an attribute or an argument."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        nested = getattr(error, "exception", None) or (getattr(error, "exceptions", None) or [None])[-1]
        inner = [part for part in error.args if isinstance(part, BaseException)]
        error = nested if isinstance(nested, BaseException) else (inner[0] if inner else error.__cause__)
    return found
