"""The private stack's own user, by his certificate: for looks that need no proxy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from broker.identity import load_credential
from producers import Client
from producers.enrolments import create
from schemas.errors import PilotageError
from schemas.messages.enrolment import MAX_LIFE

from ..settings import make_user_settings, read_values
from .configs import SITE

if TYPE_CHECKING:
    from producers.enrolments import NewEnrolment

    from .layout import Layout

ASK_SECONDS = 5.0
"""How long an answer may take; a look that hangs helps nobody."""

ENROLMENT_SECONDS = 600.0
"""A secret goes to its pilot at once; this leaves room for a slow machine and for a clock that is being set."""


def own_client(layout: Layout) -> Client:
    """A client of this stack, not logged in yet.

    Raises:
        PilotageError: its configuration or its certificate cannot be used.
    """
    settings = make_user_settings(read_values(layout.client_config), layout.client_config, {})
    credential = load_credential(layout.user_certificate, key=layout.user_key)
    return Client(settings, credential, timeout=ASK_SECONDS)


def enrol_pilots(layout: Layout, count: int) -> list[NewEnrolment]:
    """Fresh secrets for so many pilots of this machine.

    Raises:
        PilotageError: the stack does not give them.
    """
    with own_client(layout) as client:
        return create(client, count, site=SITE, expires=time.time() + ENROLMENT_SECONDS, life_seconds=MAX_LIFE)


def can_log_in(layout: Layout) -> bool:
    """Whether a user's login succeeds now: broker and gatekeeper work together."""
    try:
        with own_client(layout):
            return True
    except PilotageError:
        return False
