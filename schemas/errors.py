"""The one error family: every error of ours derives from :class:`PilotageError`.

A class docstring is the default message. Temporary errors (worth another try) and permanent ones never mix.
"""

from __future__ import annotations


class PilotageError(Exception):
    """Something went wrong in Pilotage."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__class__.__doc__ or "").strip())


class TemporaryError(PilotageError):
    """Something is away for now; the same request may succeed later."""


class PermanentError(PilotageError):
    """The request cannot succeed as it stands."""


class InvalidInputError(PermanentError):
    """The input is not acceptable; the message says where and what to do."""


class ConfigurationError(PermanentError):
    """A setting is missing or wrong; the message names it."""


MAX_QUOTED = 300
"""Longest reason that quotes somebody's input: it is stored, logged and answered."""


def brief(reason: object) -> str:
    """Shorten a reason that may quote foreign input in full; its end, which says where, is kept."""
    text = str(reason)
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 101]}…{text[-100:]}"
