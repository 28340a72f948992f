"""The signed header of every message: a detached JWS (RFC 7515, RFC 7797 with ``b64: false``) over the body.

The AMQP header ``jws`` holds ``BASE64URL(header) .. BASE64URL(signature)``; the body is the payload itself.
Pure data: making and checking signatures is ``broker.signing``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

JWS_HEADER = "jws"
"""Name of the AMQP header that carries the detached JWS."""

MAX_JWS_BYTES = 48 * 1024
"""Bound before anything is parsed. A header is below 1 KiB; with ``x5c`` (``session.welcome`` only) a chain of up to
16 certificates may ride along."""

CLOCK_SKEW = 300
"""Seconds by which clocks may differ: ``iat`` may lie that far in the future (grid custom: five minutes)."""

ALGORITHMS = ("ES256", "PS256")
"""ES256 for P-256 keys, PS256 for the RSA keys of grid certificates; nothing else, never ``none``."""


MAX_NAME = 4096
"""Longest DN or other name in a header."""

MessageId = Annotated[str, Meta(max_length=64, pattern="^[0-9A-Za-z._-]*$")]
"""A UUID has 36 characters. Bounded, because receivers keep it as a key: a database's index refuses long ones."""


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The protected header. Everything that gives a message its meaning is in here and signed."""

    alg: str
    typ: Annotated[str, Meta(max_length=128)]
    """Registered message name and version."""
    jti: Annotated[MessageId, Meta(min_length=1)]
    """UUIDv7 of the message; kept by every republication."""
    iss: Annotated[str, Meta(max_length=MAX_NAME)]
    """Canonical DN of the signing chain's end entity."""
    thumbprint: MessageId = msgspec.field(name="x5t#S256")
    """BASE64URL(SHA-256(DER of the signing certificate)) (RFC 7515 §4.1.8)."""
    cli: Annotated[str, Meta(max_length=128)]
    """Client id = broker user = AMQP ``user_id``."""
    aud: Annotated[str, Meta(max_length=128)]
    """Logical receiver, checked against the receiver's own name."""
    iat: float
    """Seconds since the epoch, when it was signed (server time as the client learned it)."""
    exp: float
    """Last moment of admission. An admitted message is never checked for time again."""
    grp: Annotated[str, Meta(max_length=256)] = ""
    """Group acted for; empty for services."""
    rpl: Annotated[str, Meta(max_length=256)] = ""
    """Reply queue; must be ``reply.<cli>``."""
    cid: MessageId = ""
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
