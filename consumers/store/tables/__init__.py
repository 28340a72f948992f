"""Every table of the store. ``metadata`` is the truth that the migrations must add up to (tests/migrations).

Times are seconds since the epoch, UTC, as double precision (the wire's form). JSON columns hold text that was encoded
before (:class:`~.base.Encoded`); the store never looks inside.
"""

from __future__ import annotations

from . import audit, enrolments, files, identity, jobs, messages, pilots, turns
from .base import Encoded, Status, metadata

__all__ = [
    "Encoded",
    "Status",
    "audit",
    "enrolments",
    "files",
    "identity",
    "jobs",
    "messages",
    "metadata",
    "pilots",
    "turns",
]
