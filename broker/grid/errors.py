"""Errors of the grid's services; each message is one line that may be shown to a person."""

from __future__ import annotations

from schemas.errors import PermanentError, TemporaryError


class GridUnavailableError(TemporaryError):
    """The service cannot be reached, or broke off."""


class GridRefusedError(PermanentError):
    """The service said no, is not who it should be, or answers what nobody can read."""
