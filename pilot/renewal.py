"""A pilot's next certificate, asked for in good time, for a new key each time. Memory only."""

from __future__ import annotations

import math
from collections.abc import Callable

import structlog

from broker.identity import Credential, IdentityError, PrivateKey, make_csr, new_key, parse_certificate
from broker.session import Session
from schemas.messages.enrolment import PilotEnrolled, RenewIdentity

from .enrolment import NotEnrolledError

RENEW_AT = 2 / 3
"""Of a certificate's life: eight hours are left of a day's, enough for any outage of ours that a pilot can outlive."""

AGAIN_SECONDS = 300.0
"""After a request without an answer."""

log = structlog.get_logger(__name__)

Accept = Callable[[PilotEnrolled, PrivateKey], Credential]
"""Makes a credential of an answer, or raises why not."""


class Renewal:
    """Keeps one session's credential young.

    Args:
        session: the pilot's.
        credential: what it uses now.
        say: says a message; returns its id.
        accept: judges an answer.
        until: so long it is needed (server time); infinite if the slot has no end.
    """

    def __init__(
        self,
        session: Session,
        credential: Credential,
        say: Callable[[RenewIdentity], str],
        accept: Accept,
        until: float = math.inf,
    ) -> None:
        self._session = session
        self._say = say
        self._accept = accept
        self._until = until
        self._due = self._next(credential)
        self._pending: tuple[str, PrivateKey] | None = None

    def turn(self, now: float) -> None:
        """Ask, if it is time. Times are the server's."""
        if now < self._due:
            return
        key = new_key()
        wanted = max(0.0, self._until - now) if math.isfinite(self._until) else 0.0
        self._pending = self._say(RenewIdentity(csr=make_csr(key), life_seconds=wanted)), key
        self._due = now + AGAIN_SECONDS

    def on_enrolled(self, enrolled: PilotEnrolled, request: str) -> None:
        """An answer came."""
        if self._pending is None or self._pending[0] != request:
            return  # of an older request: its key is gone
        key = self._pending[1]
        try:
            credential = self._accept(enrolled, key)
            self._session.use(credential)
        except (IdentityError, NotEnrolledError) as error:
            log.warning("pilot.not_renewed", reason=str(error))
            return
        self._pending = None
        self._due = self._next(credential)
        log.info("pilot.renewed", not_after=enrolled.not_after)

    def _next(self, credential: Credential) -> float:
        """When the next one is due: never, if this one outlives the slot."""
        certificate = parse_certificate(credential.leaf).x509
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        return math.inf if end >= self._until else begin + (end - begin) * RENEW_AT
