"""The signed header of every message: a detached JWS (RFC 7515, RFC 7797 with ``b64: false``) over the body.

The AMQP header ``jws`` holds ``BASE64URL(header) .. BASE64URL(signature)``; the body is the payload itself.
Pure data: making and checking signatures is ``broker.signing``.
"""

from __future__ import annotations

import msgspec

JWS_HEADER = "jws"
"""Name of the AMQP header that carries the detached JWS."""

MAX_JWS_BYTES = 48 * 1024
"""Bound before anything is parsed. A header is below 1 KiB; with ``x5c`` (``session.welcome`` only) a chain of up to
16 certificates may ride along."""

CLOCK_SKEW = 300
"""Seconds by which clocks may differ: ``iat`` may lie that far in the future (grid custom: five minutes)."""

ALGORITHMS = ("ES256", "PS256")
"""ES256 for P-256 keys, PS256 for the RSA keys of grid certificates; nothing else, never ``none``."""


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The protected header. Everything that gives a message its meaning is in here and signed."""

    alg: str
    typ: str
    """Registered message name and version."""
    jti: str
    """UUIDv7 of the message; kept by every republication."""
    iss: str
    """Canonical DN of the signing chain's end entity."""
    thumbprint: str = msgspec.field(name="x5t#S256")
    """BASE64URL(SHA-256(DER of the signing certificate)) (RFC 7515 §4.1.8)."""
    cli: str
    """Client id = broker user = AMQP ``user_id``."""
    aud: str
    """Logical receiver, checked against the receiver's own name."""
    iat: float
    """Seconds since the epoch, when it was signed (server time as the client learned it)."""
    exp: float
    """Last moment of admission. An admitted message is never checked for time again."""
    grp: str = ""
    """Group acted for; empty for services."""
    rpl: str = ""
    """Reply queue; must be ``reply.<cli>``."""
    cid: str = ""
    """Correlation: the ``jti`` of the message that this one answers."""
    b64: bool = True
    """Must be false on the wire (RFC 7797); the default makes an absent field invalid."""
    crit: tuple[str, ...] = ()
    """Must be exactly ``("b64",)``."""
    x5c: tuple[str, ...] = ()
    """Signing chain in base64 DER, leaf first: only where the receiver cannot know the chain yet."""


def reply_queue(client: str) -> str:
    """Name of a client's one reply queue."""
    return f"reply.{client}"
