"""One-time passes by which we close a client's connections at the broker, in that client's own name.

RabbitMQ's management interface lets everybody close his own connections, and everybody's only an administrator, who
may do anything at all. So there is no administrator: to close a client's connections we log in there as that client,
with a pass that the gatekeeper itself made a moment ago and recognizes when RabbitMQ asks. Nothing that could be stolen
outlives the second in which it is used. A look at who is connected goes the same way, under a name that no client has.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from dataclasses import dataclass, field

CLOSE = "management"
"""The tag that lets a user look after his own connections."""

LOOK = "monitoring"
"""The tag that lets one see whose connections there are, and change nothing."""

LOOKER = "aaaaaaaaaaaaaaaaaaaa.looker"
"""In whose name we look: of the form of a client's, so that RabbitMQ asks the gatekeeper; no DN is known to hash to it,
and it may enter nothing."""

PASS_SECONDS = 15.0
"""Life of a pass: some requests, and a broker that is slow to answer them."""

MAX_PASSES = 1000
"""Passes at a time; there are as many as threads that close connections: one or two."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What to log in with at the management interface."""

    user: str
    secret: str = field(repr=False)


class ClosingPasses:
    """The passes that are valid now. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._valid: dict[str, tuple[str, str, float]] = {}

    def issue(self, user: str, tag: str = CLOSE) -> Pass:
        """A new pass; it replaces an older one of the same user."""
        made = Pass(user, secrets.token_urlsafe(32))
        now = time.monotonic()
        with self._lock:
            self._valid = {name: one for name, one in self._valid.items() if one[2] > now}
            if len(self._valid) < MAX_PASSES:
                self._valid[user] = (made.secret, tag, now + PASS_SECONDS)
        return made

    def withdraw(self, made: Pass) -> None:
        """It is not needed any more."""
        with self._lock:
            if self._valid.get(made.user, ("",))[0] == made.secret:
                del self._valid[made.user]

    def tag_of(self, user: str, secret: str) -> str:
        """The tag that a valid pass gives; empty if this is none."""
        with self._lock:
            known = self._valid.get(user)
        if known is None or known[2] <= time.monotonic():
            return ""
        return known[1] if hmac.compare_digest(known[0].encode(), secret.encode()) else ""
