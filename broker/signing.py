"""Signed envelopes: a detached JWS over the exact payload bytes (RFC 7515, RFC 7797 with ``b64: false``).

Promises: :func:`open_envelope` is the only maker of :class:`Verified`; it checks sizes, header, signing chain,
signature, times and audience before it parses the payload. Refuses: every algorithm but ES256 and PS256, keys that do
not fit the algorithm, headers with unknown critical fields. Lies elsewhere: who may send what
(:mod:`broker.authorization`), replay (the receiver's inbox), how chains become known (:mod:`broker.login`).
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

import schemas.messages  # noqa: F401 - importing it registers every message type
from schemas.envelope import CLOCK_SKEW, MAX_JWS_BYTES, Header, reply_queue
from schemas.errors import InvalidInputError
from schemas.identity import Fqan, client_id_prefix
from schemas.registry import Message, MessageType, by_name

from .refusal import RefusalError

if TYPE_CHECKING:
    from .identity import VerifiedChain

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_P256_BYTES = 32
_ECDSA = ec.ECDSA(hashes.SHA256())
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256.digest_size)
_CRIT = ("b64",)
_header_decoder = msgspec.json.Decoder(Header)
_header_encoder = msgspec.json.Encoder()

M_co = TypeVar("M_co", bound=Message, covariant=True)


class KnownChain(Protocol):
    """What is known of a signing chain since its login."""

    @property
    def identity(self) -> str:
        """Canonical DN of the end entity."""
        ...

    @property
    def limited(self) -> bool:
        """Whether it ends in a limited proxy."""
        ...

    @property
    def not_before(self) -> float:
        """Start of its validity, seconds since the epoch."""
        ...

    @property
    def not_after(self) -> float:
        """End of its validity, seconds since the epoch."""
        ...

    @property
    def fqans(self) -> tuple[str, ...]:
        """VOMS groups and roles that it carries, proven, in canonical form."""
        ...

    @property
    def key(self) -> PublicKey:
        """Public key of the signing certificate."""
        ...


class ChainResolver(Protocol):
    """Finds a signing chain by thumbprint; what stores chains implements it."""

    def __call__(self, thumbprint: str, /) -> KnownChain | None:
        """The chain, or None if it is unknown or revoked."""
        ...


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """A plain :class:`KnownChain`. Times are seconds since the epoch."""

    identity: str
    limited: bool
    not_before: float
    not_after: float
    key: PublicKey
    fqans: tuple[str, ...] = ()


def facts_of(chain: VerifiedChain) -> ChainFacts:
    """What verification of messages needs of a verified chain.

    Raises:
        IdentityError: nobody may act by this chain.
    """
    chain.check_may_act()
    return ChainFacts(
        chain.identity,
        chain.limited,
        chain.not_before.timestamp(),
        chain.not_after.timestamp(),
        chain.public_key,
        tuple(dict.fromkeys(str(Fqan.parse(text)) for text in chain.fqans)),
    )


class _Seal:
    """Held by this module alone, so that nobody else makes a :class:`Verified`."""


_SEAL = _Seal()


@dataclass(frozen=True)
class Verified(Generic[M_co]):
    """A message whose signature, times and audience were checked. Only :func:`open_envelope` makes one.

    Attributes:
        limited: the signing chain has a limited proxy.
        fqans: VOMS groups and roles that it carries, proven.
        ends: end of its validity, seconds since the epoch.
    """

    message: M_co
    header: Header
    type: MessageType
    limited: bool
    fqans: tuple[str, ...]
    payload: bytes
    ends: float
    _seal: _Seal

    def __post_init__(self) -> None:
        if self._seal is not _SEAL:
            raise TypeError("only open_envelope() makes a Verified message")

    @property
    def issuer(self) -> str:
        """Canonical DN of the sender."""
        return self.header.iss

    @property
    def client(self) -> str:
        """Client id of the sender."""
        return self.header.cli


def b64url(data: bytes) -> str:
    """BASE64URL without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """Decode BASE64URL strictly: no padding, no foreign characters.

    Raises:
        ValueError: not BASE64URL.
    """
    if len(text) % 4 == 1 or "=" in text:
        raise ValueError("not base64url")
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64url") from error
    if b64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def uuid7(now: float | None = None) -> str:
    """A UUIDv7 (RFC 9562 §5.7): time-ordered, so that database keys stay local."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    value = bytearray(milliseconds.to_bytes(6, "big") + os.urandom(10))
    value[6] = 0x70 | value[6] & 0x0F
    value[8] = 0x80 | value[8] & 0x3F
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def sign_bytes(key: PrivateKey, data: bytes) -> bytes:
    """A JWS signature: ES256 as r||s (RFC 7518 §3.4) or PS256."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, _PSS, hashes.SHA256())
    r, s = utils.decode_dss_signature(key.sign(data, _ECDSA))
    return r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")


def algorithm_of(key: PrivateKey | PublicKey) -> str:
    """The one algorithm that a key signs with.

    Raises:
        RefusalError: neither P-256 nor RSA.
    """
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return "PS256"
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256"
    raise RefusalError("invalid", "only P-256 and RSA keys may sign messages")


def check_signature(key: PublicKey, algorithm: str, signature: bytes, data: bytes) -> None:
    """Check a JWS signature.

    Raises:
        RefusalError: wrong algorithm for the key, or wrong signature.
    """
    if algorithm != algorithm_of(key):
        raise RefusalError("invalid", f"algorithm {algorithm[:16]!r} does not fit the signing key")
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, _PSS, hashes.SHA256())
        else:
            if len(signature) != 2 * _P256_BYTES:
                raise InvalidSignature
            r, s = (int.from_bytes(half, "big") for half in (signature[:_P256_BYTES], signature[_P256_BYTES:]))
            key.verify(utils.encode_dss_signature(r, s), data, _ECDSA)
    except InvalidSignature:
        raise RefusalError("forged", "the signature does not fit the message") from None


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs messages as one identity.

    Attributes:
        key: private key of the signing certificate; never leaves the process.
        thumbprint: of that certificate.
        issuer: canonical DN of its chain's end entity.
        client: client id, the broker user.
        group: group acted for; empty for services.
        x5c: the chain in base64 DER, sent only where the receiver cannot know it (``session.welcome``).
    """

    key: PrivateKey
    thumbprint: str
    issuer: str
    client: str
    group: str = ""
    x5c: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Signer({self.issuer!r}, {self.client!r})"

    def sign(
        self,
        row: MessageType,
        payload: bytes,
        *,
        audience: str,
        now: float,
        message_id: str,
        expires: float | None = None,
        correlation: str = "",
        with_reply: bool = False,
        with_chain: bool = False,
    ) -> str:
        """The detached JWS of a payload: ``header..signature``."""
        header = _header_encoder.encode(
            Header(
                alg=algorithm_of(self.key),
                b64=False,
                crit=_CRIT,
                typ=row.name,
                jti=message_id,
                iss=self.issuer,
                thumbprint=self.thumbprint,
                cli=self.client,
                grp=self.group,
                aud=audience,
                iat=now,
                exp=now + row.lifetime if expires is None else expires,
                rpl=reply_queue(self.client) if with_reply else "",
                cid=correlation,
                x5c=self.x5c if with_chain else (),
            )
        )
        protected = base64.urlsafe_b64encode(header).rstrip(b"=")
        return f"{protected.decode()}..{b64url(sign_bytes(self.key, protected + b'.' + payload))}"


def peek(jws: object) -> tuple[Header, bytes, bytes]:
    """Take a detached JWS apart without believing it.

    Returns:
        The header, the signing input's first part, and the signature.

    Raises:
        RefusalError: too large or not of the form.
    """
    if isinstance(jws, bytes):
        jws = jws.decode("latin-1")
    if not isinstance(jws, str):
        raise RefusalError("invalid", "the message carries no signature")
    if len(jws) > MAX_JWS_BYTES:
        raise RefusalError("invalid", "the signed header is too large")
    protected, dots, signature = jws.partition("..")
    try:
        if not dots:
            raise ValueError("no detached form")
        header = _header_decoder.decode(unb64url(protected))
        raw = unb64url(signature)
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise RefusalError("invalid", f"the signed header cannot be read: {error}") from None
    return header, protected.encode("ascii"), raw


def open_envelope(
    jws: object,
    payload: bytes,
    *,
    resolve: ChainResolver,
    audiences: Collection[str],
    now: float,
    user_id: str | None,
    admitted_before: bool = False,
) -> Verified[Message]:
    """Verify an envelope and parse its payload, in this order.

    Args:
        jws: value of the AMQP header ``jws``.
        payload: AMQP body.
        resolve: finds the signing chain.
        audiences: the names that the receiver answers to.
        now: server time.
        user_id: AMQP ``user_id``, validated by the broker; it must be the signed client id. None only where no
            broker stands between.
        admitted_before: an operator's readmission: times are not checked again, all the rest is.

    Raises:
        RefusalError: with a stable code; ``proven`` tells whether the sender's identity was proven.
    """
    header, protected, signature = peek(jws)
    row = _row_of(header, payload)
    chain = resolve(header.thumbprint)
    if chain is None:
        raise RefusalError("chain-unknown", "the signing chain is not known here", header=header)
    check_signature(chain.key, header.alg, signature, protected + b"." + payload)
    _check_identity(header, chain, user_id)
    if header.aud not in audiences:
        raise RefusalError("misaddressed", f"addressed to {header.aud[:80]!r}", header=header, proven=True)
    if not admitted_before:
        _check_times(header, chain, row, now)
    try:
        message = row.decode(payload)
    except InvalidInputError as error:
        raise RefusalError("invalid", str(error), header=header, proven=True) from None
    return Verified(message, header, row, chain.limited, chain.fqans, payload, chain.not_after, _SEAL)


def _row_of(header: Header, payload: bytes) -> MessageType:
    if header.b64 or header.crit != _CRIT:
        raise RefusalError(
            "invalid", 'the header must say "b64": false and "crit": ["b64"] and nothing more', header=header
        )
    try:
        row = by_name(header.typ)
    except InvalidInputError as error:
        raise RefusalError("invalid", str(error), header=header) from None
    if len(payload) > row.max_bytes:
        raise RefusalError(
            "invalid", f"{row.name}: {len(payload)} bytes, at most {row.max_bytes} are allowed", header=header
        )
    return row


def _check_identity(header: Header, chain: KnownChain, user_id: str | None) -> None:
    if header.iss != chain.identity:
        raise RefusalError("forged", "the issuer is not the signing chain's identity", header=header)
    if user_id is not None and user_id != header.cli:
        raise RefusalError("forged", "the client id is not the broker user", header=header)
    if header.rpl and header.rpl != reply_queue(header.cli):
        raise RefusalError("forged", "the reply queue is another client's", header=header)
    if header.grp and not header.cli.startswith(client_id_prefix(header.iss)):
        raise RefusalError("forged", "the client id is not one of this identity", header=header)


def _check_times(header: Header, chain: KnownChain, row: MessageType, now: float) -> None:
    def refuse(reason: str) -> RefusalError:
        return RefusalError("expired", reason, header=header, proven=True)

    if header.exp < now:
        raise refuse("the message has expired")
    if header.iat > now + CLOCK_SKEW:
        raise refuse("the message is signed in the future: check the clock")
    if header.exp > header.iat + row.lifetime + 1:
        raise refuse(f"a {row.name} lives at most {row.lifetime} s")
    if not chain.not_before - CLOCK_SKEW <= header.iat <= chain.not_after:
        raise refuse("it was signed outside the validity of the signing chain")
