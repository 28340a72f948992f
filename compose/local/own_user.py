"""The private stack's own user, by his certificate: for looks that need no proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.identity import load_credential
from producers import Client
from schemas.errors import PilotageError

from ..settings import make_user_settings, read_values

if TYPE_CHECKING:
    from .layout import Layout

ASK_SECONDS = 5.0
"""How long an answer may take; a look that hangs helps nobody."""


def own_client(layout: Layout) -> Client:
    """A client of this stack, not logged in yet.

    Raises:
        PilotageError: its configuration or its certificate cannot be used.
    """
    settings = make_user_settings(read_values(layout.client_config), layout.client_config, {})
    credential = load_credential(layout.user_certificate, key=layout.user_key)
    return Client(settings, credential, timeout=ASK_SECONDS)


def can_log_in(layout: Layout) -> bool:
    """Whether a user's login succeeds now: broker and gatekeeper work together."""
    try:
        with own_client(layout):
            return True
    except PilotageError:
        return False
