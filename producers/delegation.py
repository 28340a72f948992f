"""Delegation of the user's proxy to the service: by certificate request, so that no private key travels."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from schemas.errors import InvalidInputError
from schemas.messages.service import DelegationCsr, DelegationStored
from schemas.messages.user import PutDelegation, RequestDelegation

from .connect import end_of
from .errors import ServiceRefusedError

if TYPE_CHECKING:
    from broker.identity import Credential
    from broker.session import Session

LIFETIME = dt.timedelta(hours=12)
"""Longest delegated proxy: a day's work. Never longer than the user's own proxy."""

ENOUGH = dt.timedelta(hours=6)
"""With so much left the delegated proxy is good for another submission: two round trips in half a day."""

SLACK = dt.timedelta(minutes=10)
"""A delegated proxy that ends so little before the user's own would not gain by being made anew."""


MAX_OWN_HOURS = 7 * 24.0
"""Longest proxy of a submission's own: the service keeps none for longer, as a thief of it would have it so long."""


def is_enough(delegated_until: float | None, own_end: dt.datetime, now: float) -> bool:
    """Whether what the repository holds will do for another submission."""
    if delegated_until is None:
        return False
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    until = dt.datetime.fromtimestamp(delegated_until, dt.UTC)
    return until >= min(moment + ENOUGH, own_end - SLACK) and until > moment


def delegate(session: Session, credential: Credential, timeout: float) -> float:
    """Delegate a new proxy for the account. Returns its end, seconds since the epoch."""
    return _delegate(session, credential, timeout, "", LIFETIME)[1]


def delegate_own(session: Session, credential: Credential, hours: float, timeout: float) -> str:
    """Delegate a longer proxy for a single submission. Returns its id, which the submission must name.

    Raises:
        InvalidInputError: too long, or longer than the user's own proxy lives.
    """
    if not 0 < hours <= MAX_OWN_HOURS:
        raise InvalidInputError(f"a submission's own proxy lives at most {MAX_OWN_HOURS:.0f} h, not {hours:g} h")
    left = end_of(credential) - dt.datetime.fromtimestamp(session.now(), dt.UTC)
    if left < dt.timedelta(hours=hours):
        have = max(0.0, left.total_seconds()) / 3600
        raise InvalidInputError(
            f"your own proxy lives for {have:.1f} h more, and {hours:g} h were asked for: "
            f"make a longer one first (pilotage proxy init --hours {hours + 1:g})"
        )
    return _delegate(session, credential, timeout, "submission", dt.timedelta(hours=hours))[0]


def _delegate(
    session: Session, credential: Credential, timeout: float, purpose: str, lifetime: dt.timedelta
) -> tuple[str, float]:
    """Both steps; id of the delegation and end of what is kept."""
    from broker.identity import sign_csr

    asked = session.request(RequestDelegation(purpose=purpose), timeout)
    if not isinstance(asked, DelegationCsr):
        raise ServiceRefusedError("the proxy manager did not send a certificate request")
    chain = sign_csr(
        asked.csr,
        credential.ders,
        credential.key,
        lifetime=lifetime,
        limited=False,
        now=dt.datetime.fromtimestamp(session.now(), dt.UTC),
    )
    stored = session.request(PutDelegation(delegation=asked.delegation, chain=chain.decode("ascii")), timeout)
    if not isinstance(stored, DelegationStored):
        raise ServiceRefusedError("the proxy manager did not say that it stored the proxy")
    return asked.delegation, stored.not_after


def ensure_delegated(session: Session, credential: Credential, timeout: float) -> float | None:
    """Delegate unless the repository holds enough. Returns the new end, or None if nothing was needed."""
    held = session.welcome.delegated_until if session.welcome is not None else None
    if is_enough(held, end_of(credential), session.now()):
        return None
    return delegate(session, credential, timeout)
