"""Login without passwords: a short-lived assertion, signed by the proxy's key, in place of the password.

``SASL PLAIN`` user name = client id, password = a compact JWS (RFC 7515) with the chain in ``x5c``, for one broker
(``aud``), at most 60 s long. RabbitMQ hands it to the gatekeeper, which calls :func:`check_assertion`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from schemas.envelope import CLOCK_SKEW, MessageId
from schemas.identity import client_id_belongs_to

from .refusal import RefusalError
from .signing import algorithm_of, b64url, check_signature, sign_bytes, unb64url, uuid7

if TYPE_CHECKING:
    from .identity import Credential, VerifiedChain

ASSERTION_SECONDS = 60
"""Life of an assertion: one login, no more."""

MAX_ASSERTION_BYTES = 56 * 1024
"""Bound before parsing; below RabbitMQ's ``initial_frame_max`` of 65536."""

MAX_CHAIN = 16
TYPE = "pilotage-login+jwt"


class AssertionHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Protected header of a login assertion."""

    alg: str
    typ: str
    x5c: tuple[str, ...]


class Assertion(msgspec.Struct, frozen=True, kw_only=True):
    """Claims of a login assertion.

    Attributes:
        sub: client id that logs in.
        aud: name of the broker (its deployment), so that it is worth nothing elsewhere.
        grp: group to act for.
        jti: unique id; the gatekeeper remembers it.
    """

    sub: Annotated[str, Meta(max_length=128)]
    aud: Annotated[str, Meta(max_length=256)]
    grp: Annotated[str, Meta(max_length=256)]
    iat: float
    exp: float
    jti: Annotated[MessageId, Meta(min_length=1)]


def make_assertion(
    credential: Credential, *, client: str, audience: str, group: str, now: float, login: str = ""
) -> str:
    """The password of one login; ``login`` is its id, which the welcome names."""
    header = AssertionHeader(
        alg=algorithm_of(credential.key),
        typ=TYPE,
        x5c=tuple(base64.b64encode(der).decode() for der in credential.ders),
    )
    ends = now + ASSERTION_SECONDS
    claims = Assertion(sub=client, aud=audience, grp=group, iat=now, exp=ends, jti=login or uuid7(now))
    signing_input = f"{b64url(msgspec.json.encode(header))}.{b64url(msgspec.json.encode(claims))}"
    return f"{signing_input}.{b64url(sign_bytes(credential.key, signing_input.encode()))}"


def check_assertion(
    text: str,
    *,
    client: str,
    audience: str,
    now: float,
    verify: Callable[[list[bytes]], VerifiedChain],
) -> tuple[Assertion, VerifiedChain]:
    """Check an assertion.

    Args:
        text: the password that the broker was given.
        client: the user name that it was given.
        audience: this broker's name.
        now: server time.
        verify: verifies a chain of DER certificates (trust anchors, proxies, VOMS).

    Raises:
        RefusalError: why the login is refused.
        IdentityError: the chain is not valid.
    """
    if len(text) > MAX_ASSERTION_BYTES:
        raise RefusalError("invalid", "the login assertion is too large")
    parts = text.split(".")
    if len(parts) != 3:
        raise RefusalError("invalid", "not a login assertion")
    try:
        header = msgspec.json.decode(unb64url(parts[0]), type=AssertionHeader)
        claims = msgspec.json.decode(unb64url(parts[1]), type=Assertion)
        signature = unb64url(parts[2])
        if not 1 <= len(header.x5c) <= MAX_CHAIN:
            raise ValueError("x5c must hold 1 to 16 certificates")
        ders = [base64.b64decode(item, validate=True) for item in header.x5c]
    except (ValueError, msgspec.DecodeError, binascii.Error, RecursionError) as error:
        raise RefusalError("invalid", f"the login assertion cannot be read: {error}") from None
    if header.typ != TYPE:
        raise RefusalError("invalid", "not a login assertion")
    if claims.sub != client or claims.aud != audience:
        raise RefusalError("misaddressed", "the login assertion is for another client or broker")
    if claims.exp < now - CLOCK_SKEW or claims.iat > now + CLOCK_SKEW or claims.exp > claims.iat + ASSERTION_SECONDS:
        raise RefusalError("expired", "the login assertion is not valid now: check the clock")
    chain = verify(ders)
    check_signature(chain.public_key, header.alg, signature, f"{parts[0]}.{parts[1]}".encode())
    if not client_id_belongs_to(client, chain.identity):
        raise RefusalError("forged", "the client id is not one of this identity")
    return claims, chain
