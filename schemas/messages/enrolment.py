"""How pilots come to an identity of their own: what operators, pilots and services say about enrolments."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..registry import DAY, HOUR, MINUTE, Kind, Message, register
from .common import Count, Epoch, Name, Text, Value
from .event import EVENTS
from .service import CLIENT

PILOT_AUTHORITY = "pilot-authority"

MAX_ENROLMENTS = 500
"""Enrolments in one message: a message of 100 kB, and a batch of pilots that one submission to a site has."""

MAX_LIFE = 366 * DAY
"""Longest life of an enrolled identity, its renewals included: a year, for pilots on machines of one's own. A pilot in
a batch slot is given what its slot needs."""

EnrolmentId = Annotated[str, Meta(pattern="^[a-z2-7]{20}$", max_length=20)]
"""Fingerprint of the enrolment's public key: base32 of the first 100 bits of its SHA-256."""
PublicKeyDer = Annotated[bytes, Meta(min_length=64, max_length=128)]
"""SubjectPublicKeyInfo (DER) of a P-256 key: 91 bytes."""
CsrDer = Annotated[bytes, Meta(max_length=4096)]
SiteName = Annotated[str, Meta(min_length=1, max_length=256)]


class EnrolmentInfo(Value, frozen=True, kw_only=True):
    """One enrolment.

    Attributes:
        number: in order of creation.
        id: fingerprint of its public key.
        identity: canonical DN of the pilot that it makes.
        state: ``open``, ``used`` (its pilot waits for the certificate), ``enrolled``, ``expired``, ``ended``,
            ``revoked``.
        creator: DN of the operator.
        expires: the secret is worth nothing after that.
        life_seconds: longest life of the identity, renewals included.
        used: when its secret was used.
        client: which client used it.
        ends: when the identity ends for good.
        reused: how often somebody else tried the secret after its use.
        revoked: when it was revoked.
        reason: why.
    """

    number: Count
    id: EnrolmentId
    identity: Name
    site: str
    group: str
    state: str
    creator: str
    created: Epoch
    expires: Epoch
    life_seconds: float
    used: Epoch | None = None
    client: str = ""
    ends: Epoch | None = None
    reused: Count = 0
    revoked: Epoch | None = None
    reason: Text = ""


@register("enrolment.create.v1", Kind.COMMAND, PILOT_AUTHORITY, lifetime=HOUR)
class CreateEnrolments(Message, frozen=True, kw_only=True):
    """Whoever proves that he holds one of these keys may become a pilot, once. Answer: ``enrolment.listing.v1``.

    The keys are the public halves of one-time secrets; the secrets themselves never travel to us.

    Attributes:
        keys: public keys, one for each pilot.
        site: where these pilots run; they are bound to it.
        group: group of pilots; empty takes the only one there is.
        not_before: the secrets are worth nothing before; 0 for now.
        expires: the secrets are worth nothing after.
        life_seconds: longest life of each identity from its enrolment on, renewals included.
    """

    keys: Annotated[tuple[PublicKeyDer, ...], Meta(min_length=1, max_length=MAX_ENROLMENTS)]
    site: SiteName
    group: Annotated[str, Meta(max_length=256)] = ""
    not_before: Annotated[Epoch, Meta(ge=0)] = 0.0
    expires: Annotated[Epoch, Meta(ge=0)]
    life_seconds: Annotated[float, Meta(ge=60, le=MAX_LIFE)]


@register("enrolment.query.v1", Kind.QUERY, PILOT_AUTHORITY, lifetime=5 * MINUTE)
class QueryEnrolments(Message, frozen=True, kw_only=True):
    """Which enrolments are there, newest first? ``before`` is a number, 0 for the first page."""

    site: Annotated[str, Meta(max_length=256)] = ""
    before: Count = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


@register("enrolment.revoke.v1", Kind.COMMAND, PILOT_AUTHORITY, lifetime=HOUR)
class RevokeEnrolments(Message, frozen=True, kw_only=True):
    """These pilots, and these secrets, are not trusted any more. Answer: ``enrolment.listing.v1`` with what was found.

    Attributes:
        whom: ids of enrolments or DNs of pilots.
        reason: why.
    """

    whom: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MAX_ENROLMENTS)]
    reason: Text = ""


@register("enrolment.listing.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=4 << 20)
class EnrolmentListing(Message, frozen=True, kw_only=True):
    """Enrolments; ``more`` if another page follows."""

    enrolments: tuple[EnrolmentInfo, ...]
    more: bool = False


@register("pilot.enrolling.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class PilotEnrolling(Message, frozen=True, kw_only=True):
    """A pilot used its enrolment secret and waits for its certificate: a hint; the store is the truth.

    What the pilot signed is not in here: events are read by many.
    """

    enrolment: EnrolmentId
    identity: Name
    site: SiteName
    client: Name
    time: Epoch


@register("pilot.renew.v1", Kind.COMMAND, PILOT_AUTHORITY, lifetime=10 * MINUTE)
class RenewIdentity(Message, frozen=True, kw_only=True):
    """My certificate ends soon: a new one for this certificate request, please. Answer: ``pilot.enrolled.v1``.

    Attributes:
        life_seconds: for so long; 0 for as long as it may be.
    """

    csr: CsrDer
    life_seconds: Annotated[float, Meta(ge=0, le=MAX_LIFE)] = 0.0


@register("pilot.enrolled.v1", Kind.REPLY, CLIENT, lifetime=10 * MINUTE)
class PilotEnrolled(Message, frozen=True, kw_only=True):
    """The certificate of a pilot's own identity; or why there is none.

    Attributes:
        identity: its canonical DN.
        chain: PEM, leaf first; empty if refused.
        not_after: end of the certificate.
        ends: until then it is renewed when asked for.
        reason: why it was refused.
    """

    identity: Name
    chain: str = ""
    not_after: Epoch = 0.0
    ends: Epoch = 0.0
    reason: Text = ""
