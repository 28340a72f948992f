"""Errors of the broker layer. Temporary ones are worth another try; permanent ones need a human or another request."""

from __future__ import annotations

from schemas.errors import PermanentError, TemporaryError


class BrokerUnavailableError(TemporaryError):
    """The message broker cannot be reached for now."""


class BackpressureError(TemporaryError):
    """Too many messages wait to be sent; try again when some of them are through."""


class BrokerRefusedError(PermanentError):
    """The message broker, or its TLS certificate, refuses this connection as it is configured."""


class LoginRefusedError(BrokerRefusedError):
    """The message broker refused the login."""


class ConnectionClosedError(PermanentError):
    """The connection to the message broker was closed on our side."""


class OperationRefusedError(PermanentError):
    """The message broker refused an operation on a queue or an exchange.

    Attributes:
        code: the AMQP reply code (403 refused, 404 not found, 405 locked, 406 precondition failed).
    """

    def __init__(self, message: str | None = None, *, code: int = 0) -> None:
        super().__init__(message or "The message broker refused an operation on a queue or an exchange.")
        self.code = code
