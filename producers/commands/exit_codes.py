"""The exit codes of ``pilotage``: one table, stable; docs/reference/exit-codes.md tells the same (a test compares)."""

from __future__ import annotations

from enum import IntEnum

from schemas.errors import ConfigurationError, InvalidInputError, PilotageError, TemporaryError

from ..errors import BadProxyError, NoProxyError, NotAllowedError, NotFoundError, ProxyExpiredError, ServiceRefusedError


class ExitCode(IntEnum):
    """What a command's end means to a script."""

    OK = 0
    """Done."""
    NO = 1
    """Carried out, and the answer is no: a job failed, a kill found nothing to kill, a proxy is not valid."""
    USAGE = 2
    """Wrong usage, an invalid job description, or a configuration that cannot be read."""
    UNAVAILABLE = 3
    """Broker or service away, or the time ran out; the same command may succeed later."""
    REFUSED = 4
    """Refused: no valid proxy, login, rights, quota, or a conflict with what is there."""
    NOT_FOUND = 5
    """There is no such job, file or letter, or it is not yours to see."""
    INTERNAL = 70
    """An error in Pilotage itself; a log file has the details."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C."""


def code_of(error: PilotageError) -> ExitCode:
    """The exit code of an error."""
    if isinstance(error, TemporaryError):
        return ExitCode.UNAVAILABLE
    if isinstance(error, InvalidInputError | ConfigurationError):
        return ExitCode.USAGE
    if isinstance(error, NotFoundError):
        return ExitCode.NOT_FOUND
    if isinstance(error, NoProxyError | BadProxyError | ProxyExpiredError | NotAllowedError):
        return ExitCode.REFUSED
    if isinstance(error, ServiceRefusedError):
        return ExitCode.USAGE if error.code == "invalid" else ExitCode.REFUSED
    return ExitCode.NO
