"""Every message of the wire, by sender. Importing this package fills the register (:mod:`schemas.registry`)."""

from __future__ import annotations

from . import admin, audit, enrolment, event, pilot, proxies, registrar, service, sessions, user, why

__all__ = [
    "admin",
    "audit",
    "enrolment",
    "event",
    "pilot",
    "proxies",
    "registrar",
    "service",
    "sessions",
    "user",
    "why",
]
