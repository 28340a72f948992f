"""What can go wrong for somebody who asks, and what to do about it: one family, one sentence each, with a hint.

:func:`explained` turns the errors of the layers below into these; nothing below needs to know about commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from schemas.errors import ConfigurationError, InvalidInputError, PermanentError, PilotageError, TemporaryError


@dataclass(frozen=True, slots=True)
class Fault:
    """One error in a job description, with its place (1-based; 0 where there is none).

    Attributes:
        source: number of the description in the call, from 0; -1 if it belongs to none.
        attribute: the JDL attribute concerned; empty if none can be named.
    """

    message: str
    line: int = 0
    column: int = 0
    attribute: str = ""
    source: int = -1


class InvalidJobError(InvalidInputError):
    """The job description is not valid; nothing was sent.

    Attributes:
        faults: all of them.
    """

    def __init__(self, faults: Sequence[Fault], message: str | None = None) -> None:
        self.faults = tuple(faults)
        first = self.faults[0] if self.faults else None
        text = message
        if text is None and first is not None:
            place = f"line {first.line}, column {first.column}: " if first.line else ""
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            text = f"{place}{first.message}{more}"
        super().__init__(text)


class NotConfiguredError(ConfigurationError):
    """No deployment is configured: run 'pilotage up' for a private one, or write a configuration file."""


class NoProxyError(PermanentError):
    """There is no proxy: run 'pilotage proxy init'."""


class ProxyExpiredError(PermanentError):
    """The proxy has expired: run 'pilotage proxy init'."""


class BadProxyError(PermanentError):
    """The proxy file cannot be used: run 'pilotage proxy init'."""


class AwayError(TemporaryError):
    """The message broker is away: try again later, or see 'pilotage status'."""


class TimedOutError(TemporaryError):
    """It did not happen in time."""


class NotAllowedError(PermanentError):
    """This identity or group may not do that."""


class NotFoundError(PermanentError):
    """There is no such thing, or it is not yours to see."""


class ServiceRefusedError(PermanentError):
    """The service refused the request.

    Attributes:
        code: stable word: ``invalid``, ``conflict``, ``limit``, ``no-proxy``, ``expired``, ``failed``.
    """

    def __init__(self, message: str | None = None, *, code: str = "failed") -> None:
        super().__init__(message)
        self.code = code


class OutputError(PermanentError):
    """An output sandbox cannot be written."""


@contextmanager
def explained() -> Iterator[None]:
    """Raise what the layers below raise as an error of this module, with what to do."""
    try:
        yield
    except PilotageError as error:
        better = _explain(error)
        if better is error:
            raise
        raise better from error


def _explain(error: PilotageError) -> PilotageError:
    # Here and not above: whoever raises these has imported them already, others need not pay for it.
    from broker.errors import (
        BackpressureError,
        BrokerRefusedError,
        BrokerUnavailableError,
        ConnectionClosedError,
        LoginRefusedError,
        OperationRefusedError,
    )
    from broker.identity import IdentityError
    from broker.refusal import RefusalError
    from broker.session import NoAnswerError, NotSentError, RequestRefusedError

    if isinstance(error, RequestRefusedError):
        return _from_refusal(error)
    if isinstance(error, LoginRefusedError):
        return NotAllowedError(
            "The login was refused: is this identity registered there, and in this group? Is the clock right, and the "
            "gatekeeper up? 'pilotage proxy info' shows who you are; the gatekeeper's log says why."
        )
    if isinstance(error, RefusalError) and error.code == "denied":
        return NotAllowedError(str(error))
    if isinstance(error, BrokerRefusedError):
        return NotAllowedError(f"{error} Check [broker] in the configuration.")
    if isinstance(error, OperationRefusedError):
        return NotAllowedError(f"The broker does not allow it to this identity and group: {error}")
    if isinstance(error, ConnectionClosedError):
        return AwayError("The connection to the message broker is closed.")
    if isinstance(error, BrokerUnavailableError | BackpressureError):
        return AwayError(f"{str(error).rstrip('.')}: try again later, or see 'pilotage status'.")
    if isinstance(error, NoAnswerError):
        return TimedOutError(f"{str(error).rstrip('.')}: the request waits at the broker; is the service running?")
    if isinstance(error, NotSentError):
        return AwayError(str(error))
    if isinstance(error, IdentityError):
        return NotAllowedError(f"The proxy is not accepted: {error}. 'pilotage proxy info' tells more.")
    return error


def _from_refusal(error: PilotageError) -> PilotageError:
    from broker.session import RequestRefusedError

    assert isinstance(error, RequestRefusedError)  # noqa: S101 - for the type checker; the caller has just looked
    refused = error.refused
    if refused.errors:
        faults = [Fault(e.message, e.line, e.column, e.attribute, 0) for e in refused.errors]
        return InvalidJobError(faults, refused.reason)
    match refused.code:
        case "denied":
            return NotAllowedError(refused.reason)
        case "not-found":
            return NotFoundError(refused.reason)
        case "invalid":
            return InvalidInputError(refused.reason)
        case "no-proxy":
            return ServiceRefusedError(f"{refused.reason}: run 'pilotage proxy init' and try again", code="no-proxy")
        case code:
            return ServiceRefusedError(refused.reason, code=code)
