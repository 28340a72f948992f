"""Enrolment of pilots: a one-time secret, and what a pilot proves with it.

The secret is a private key of its own (P-256). Only its public half is known to the deployment, so that neither a
stolen database nor a broker can enrol anybody. The secret does not travel: the pilot signs an *enrolment assertion*
with it, a compact JWS (RFC 7515) that stands in place of the password of one login, as in :mod:`broker.login`. It holds
a certificate request for the pilot's own key, which the pilot has made itself and keeps.

Text of a secret: ``pilotage-enrol-1.<id>.<private scalar, base64url>``; the id is the fingerprint of the public key.
Lies elsewhere: whether an enrolment is still good (the store), who issues certificates (the pilot authority).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from msgspec import Meta

from schemas.envelope import CLOCK_SKEW, MessageId
from schemas.errors import InvalidInputError, PermanentError

from .identity import PublicKey, make_csr, new_key, read_csr
from .identity.keys import public_bytes
from .login import ASSERTION_SECONDS
from .refusal import RefusalError
from .signing import Signer, algorithm_of, b64url, check_signature, sign_bytes, unb64url, uuid7

if TYPE_CHECKING:
    from .identity import PrivateKey

TYPE = "pilotage-enrolment+jwt"
PREFIX = "pilotage-enrol-1"
ID_LENGTH = 20
"""Base32 characters: 100 bits of a SHA-256, as in client ids."""

MAX_ASSERTION_BYTES = 16 * 1024
"""Bound before parsing. With a P-256 key it is about 1 kB, with RSA-4096 below 3 kB."""

MAX_CSR_BYTES = 4096
MAX_SECRET_BYTES = 1024
"""A secret has 82 characters; more than this is no secret of ours."""

_SCALAR_BYTES = 32
_ID = re.compile(r"[a-z2-7]{20}")


class EnrolmentSecretError(InvalidInputError):
    """This is no enrolment secret, or a damaged one."""


def enrolment_id(public_key: bytes) -> str:
    """The id of an enrolment: fingerprint of its public key (SubjectPublicKeyInfo, DER)."""
    digest = hashlib.sha256(public_key).digest()
    return base64.b32encode(digest).decode("ascii")[:ID_LENGTH].lower()


def load_public_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """Read the public key of an enrolment.

    Raises:
        InvalidInputError: it is no P-256 key.
    """
    try:
        key = load_der_public_key(der)
    except Exception:  # noqa: BLE001 - the library raises several kinds for foreign bytes
        raise InvalidInputError("not a public key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInputError("the key of an enrolment must be of the curve P-256")
    if public_bytes(key) != der:
        raise InvalidInputError("the public key is not in its one form")  # or one key would have several ids
    return key


@dataclass(frozen=True, slots=True)
class EnrolmentSecret:
    """A one-time secret."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls) -> Self:
        """Make a new one."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a secret.

        Raises:
            EnrolmentSecretError: it is none, or damaged. The text is not repeated.
        """
        parts = text.strip().split(".") if len(text) <= MAX_SECRET_BYTES else []
        if len(parts) != 3 or parts[0] != PREFIX:
            raise EnrolmentSecretError("this is no enrolment secret")
        try:
            scalar = unb64url(parts[2])
            if len(scalar) != _SCALAR_BYTES:
                raise ValueError
            secret = cls(ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1()))
        except ValueError:
            raise EnrolmentSecretError("the enrolment secret is damaged") from None
        if secret.id != parts[1]:
            raise EnrolmentSecretError("the enrolment secret is damaged: key and id do not fit")
        return secret

    @property
    def public_key(self) -> bytes:
        """What the deployment is told: SubjectPublicKeyInfo, DER."""
        return public_bytes(self.key.public_key())

    @property
    def id(self) -> str:
        """Its id."""
        return enrolment_id(self.public_key)

    def text(self) -> str:
        """What the pilot's job gets."""
        scalar = self.key.private_numbers().private_value.to_bytes(_SCALAR_BYTES, "big")
        return f"{PREFIX}.{self.id}.{b64url(scalar)}"


class AssertionHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Protected header of an enrolment assertion; ``kid`` is the enrolment's id."""

    alg: str
    typ: str
    kid: str


class EnrolmentClaims(msgspec.Struct, frozen=True, kw_only=True):
    """Claims of an enrolment assertion.

    Attributes:
        sub: client id that logs in.
        aud: name of the deployment.
        site: where the pilot says that it is.
        csr: certificate request of the pilot's own key (DER, base64url).
        life: seconds for which the pilot wants its first certificate; 0 for as long as it may be.
        jti: unique id.
    """

    sub: Annotated[str, Meta(max_length=128)]
    aud: Annotated[str, Meta(max_length=256)]
    site: Annotated[str, Meta(max_length=256)]
    csr: str
    iat: float
    exp: float
    jti: Annotated[MessageId, Meta(min_length=1)]
    life: float = 0.0


@dataclass(frozen=True, slots=True)
class Enrolling:
    """A proven wish to be enrolled.

    Attributes:
        enrolment: id.
        key: the pilot's own public key.
    """

    enrolment: str
    claims: EnrolmentClaims
    csr: bytes
    key: PublicKey

    @property
    def key_hash(self) -> str:
        """What tells one pilot's key from another's."""
        return hashlib.sha256(public_bytes(self.key)).hexdigest()


class NoSignerError(PermanentError):
    """Who is not enrolled yet signs nothing."""


class Applicant:
    """A pilot before it has an identity: how it logs in. Its own key is made here and is in memory only.

    Args:
        secret: of its enrolment.
        site: where it is.
        life: seconds for which it wants its certificate; 0 for as long as it may be.
    """

    def __init__(self, secret: EnrolmentSecret, site: str, life: float = 0.0) -> None:
        self._secret = secret
        self._site = site
        self._life = life
        self.key: PrivateKey = new_key()
        self._csr = make_csr(self.key)
        self.identity = ""
        self.client = f"{secret.id}.{os.urandom(8).hex()}"

    def password(self, *, audience: str, group: str, now: float, login: str) -> str:  # noqa: ARG002 - the enrolment has its group
        """The enrolment assertion of one login."""
        header = AssertionHeader(alg=algorithm_of(self._secret.key), typ=TYPE, kid=self._secret.id)
        claims = EnrolmentClaims(
            sub=self.client,
            aud=audience,
            site=self._site,
            csr=b64url(self._csr),
            iat=now,
            exp=now + ASSERTION_SECONDS,
            jti=login or uuid7(now),
            life=self._life,
        )
        signing_input = f"{b64url(msgspec.json.encode(header))}.{b64url(msgspec.json.encode(claims))}"
        return f"{signing_input}.{b64url(sign_bytes(self._secret.key, signing_input.encode()))}"

    def signer(self, group: str) -> Signer:  # noqa: ARG002 - a session asks so
        """It has none.

        Raises:
            NoSignerError: always.
        """
        raise NoSignerError


def is_enrolment(text: str) -> bool:
    """Whether a password says that it is an enrolment assertion; nothing about it is checked yet."""
    head = text[:512].partition(".")[0]  # the header has three short fields
    try:
        return msgspec.json.decode(unb64url(head), type=AssertionHeader).typ == TYPE
    except (ValueError, msgspec.DecodeError, RecursionError):
        return False


def check_enrolment(
    text: str,
    *,
    audience: str,
    now: float,
    find: Callable[[str], bytes | None],
    client: str = "",
    seconds: float = ASSERTION_SECONDS,
) -> Enrolling:
    """Check an enrolment assertion.

    Args:
        text: the assertion.
        audience: this deployment's name.
        now: server time.
        find: the public key (DER) of an enrolment, by its id; None if there is none.
        client: the user name that logs in with it; empty if it is looked at later.
        seconds: how old it may be.

    Raises:
        RefusalError: why it is refused.
    """
    header, claims, signing_input, signature = _read(text)
    if claims.aud != audience or (client and claims.sub != client):
        raise RefusalError("misaddressed", "the enrolment assertion is for another client or broker")
    if claims.sub.partition(".")[0] != header.kid:
        raise RefusalError("forged", "the client id is not one of this enrolment")
    fresh = claims.iat <= now + CLOCK_SKEW and now <= claims.iat + seconds + CLOCK_SKEW
    if not fresh or claims.exp > claims.iat + ASSERTION_SECONDS:
        raise RefusalError("expired", "the enrolment assertion is not valid now: check the clock")
    der = find(header.kid)
    if der is None:
        raise RefusalError("denied", "there is no such enrolment")
    try:
        key = load_public_key(der)
    except InvalidInputError as error:
        raise RefusalError("invalid", str(error)) from None
    check_signature(key, header.alg, signature, signing_input)
    csr, own = _own_key(claims)
    algorithm_of(own)  # what cannot sign messages is of no use to a pilot
    if public_bytes(own) == der:
        raise RefusalError("invalid", "a pilot needs a key of its own, not the enrolment's")
    return Enrolling(header.kid, claims, csr, own)


def _read(text: str) -> tuple[AssertionHeader, EnrolmentClaims, bytes, bytes]:
    if len(text) > MAX_ASSERTION_BYTES:
        raise RefusalError("invalid", "the enrolment assertion is too large")
    parts = text.split(".")
    if len(parts) != 3:
        raise RefusalError("invalid", "not an enrolment assertion")
    try:
        header = msgspec.json.decode(unb64url(parts[0]), type=AssertionHeader)
        claims = msgspec.json.decode(unb64url(parts[1]), type=EnrolmentClaims)
        signature = unb64url(parts[2])
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise RefusalError("invalid", f"the enrolment assertion cannot be read: {error}") from None
    if header.typ != TYPE or not _ID.fullmatch(header.kid):
        raise RefusalError("invalid", "not an enrolment assertion")
    return header, claims, f"{parts[0]}.{parts[1]}".encode(), signature


def _own_key(claims: EnrolmentClaims) -> tuple[bytes, PublicKey]:
    try:
        csr = unb64url(claims.csr) if len(claims.csr) <= 2 * MAX_CSR_BYTES else b""
        return csr, read_csr(csr)
    except (ValueError, PermanentError) as error:
        raise RefusalError("invalid", f"the certificate request: {error}") from None
