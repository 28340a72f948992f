"""Certificates as we look at them: bounded parsing, raw names and extensions beside the library's object.

Promises: sizes and counts are checked before anything is parsed; a certificate with a duplicate extension, data
behind its end or a malformed name does not come out of here. It proves nothing about signatures or trust.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509

from schemas.identity import Rdn, attribute_name, format_dn

from . import der
from .errors import IdentityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# 64 KiB hold a proxy chain of depth 10 with VOMS attributes; larger input is an attack or a mistake.
MAX_CHAIN_BYTES = 64 * 1024
# Deeper delegation than this does not occur; each certificate costs a signature check.
MAX_CERTIFICATES = 16
# Real names stay below 300 bytes; the bound also keeps the cache of decoded names small.
MAX_NAME_BYTES = 4096

OID_SUBJECT_KEY = "2.5.29.14"
OID_KEY_USAGE = "2.5.29.15"
OID_SUBJECT_ALT_NAME = "2.5.29.17"
OID_ISSUER_ALT_NAME = "2.5.29.18"
OID_BASIC_CONSTRAINTS = "2.5.29.19"
OID_EXTENDED_KEY_USAGE = "2.5.29.37"
OID_PROXY_CERT_INFO = "1.3.6.1.5.5.7.1.14"
OID_EC_KEY = "1.2.840.10045.2.1"

_PEM_BLOCK = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----[ \t]*\r?\n([A-Za-z0-9+/=\s]*?)-----END (?:X509 )?CERTIFICATE-----"
)
_PEM_BEGIN = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_STRING_CODECS = {0x0C: "utf-8", 0x12: "ascii", 0x13: "ascii", 0x16: "ascii", 0x1A: "ascii"} | {
    0x14: "latin-1",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension as it stands in the certificate."""

    critical: bool
    value: bytes


@dataclass(frozen=True, eq=False)
class Certificate:
    """A parsed certificate: the library's object and what we read ourselves."""

    der: bytes
    x509: x509.Certificate
    serial: int
    issuer: tuple[Rdn, ...]
    issuer_der: bytes
    subject: tuple[Rdn, ...]
    subject_der: bytes
    spki: bytes
    extensions: dict[str, Extension] = field(repr=False)
    is_ca: bool
    may_sign: bool
    """Whether keyUsage allows digitalSignature (also where there is no keyUsage)."""

    @functools.cached_property
    def dn(self) -> str:
        """The subject in canonical form."""
        return format_dn(self.subject)

    @functools.cached_property
    def issuer_dn(self) -> str:
        """The issuer in canonical form."""
        return format_dn(self.issuer)

    @property
    def is_proxy(self) -> bool:
        """Whether the certificate carries proxyCertInfo; names say nothing (a user's DN may end in CN=12345)."""
        return OID_PROXY_CERT_INFO in self.extensions

    @property
    def is_self_issued(self) -> bool:
        """Whether subject and issuer are one name."""
        return self.subject == self.issuer


def split_chain(source: bytes | str | Sequence[bytes]) -> list[bytes]:
    """Return the DER certificates of PEM text (other blocks are passed over) or of a sequence of DER values.

    Raises:
        IdentityError: nothing there, malformed PEM, or above the limits.
    """
    if isinstance(source, str):
        source = source.encode("utf-8", "replace")
    if not isinstance(source, bytes):
        return _bounded(source)
    if len(source) > MAX_CHAIN_BYTES:
        raise IdentityError(f"a certificate chain may have at most {MAX_CHAIN_BYTES} bytes")
    begins = len(_PEM_BEGIN.findall(source))
    if begins > MAX_CERTIFICATES:
        raise IdentityError(f"a certificate chain may have at most {MAX_CERTIFICATES} certificates")
    blocks = _PEM_BLOCK.findall(source)
    if len(blocks) != begins:
        raise IdentityError("malformed PEM")
    try:
        return _bounded([base64.b64decode(b"".join(block.split()), validate=True) for block in blocks])
    except binascii.Error:
        raise IdentityError("malformed PEM") from None


def _bounded(ders: Sequence[bytes]) -> list[bytes]:
    if not ders:
        raise IdentityError("no certificate found")
    if len(ders) > MAX_CERTIFICATES:
        raise IdentityError(f"a certificate chain may have at most {MAX_CERTIFICATES} certificates")
    if sum(map(len, ders)) > MAX_CHAIN_BYTES:
        raise IdentityError(f"a certificate chain may have at most {MAX_CHAIN_BYTES} bytes")
    return list(ders)


def parse_certificate(encoded: bytes) -> Certificate:
    """Parse one DER certificate.

    Raises:
        IdentityError: malformed, not version 3, or with an extension twice.
    """
    try:
        return _read(encoded)
    except der.DerError as error:
        raise IdentityError(f"malformed certificate: {error}") from None
    except (ValueError, TypeError, x509.InvalidVersion):
        # The library's messages may quote the input; the reason stays ours.
        raise IdentityError("malformed certificate") from None


def _read(encoded: bytes) -> Certificate:
    outer = der.read_exactly(encoded, der.SEQUENCE).children()
    if len(outer) != 3:
        raise der.DerError("not a certificate")
    # No signature covers this last part; the library would take unused bits there as another writing of the same.
    der.bit_string(outer[2])
    fields = outer[0].expect(der.SEQUENCE).children()
    if len(fields) < 7 or fields[0].encoded != b"\xa0\x03\x02\x01\x02":
        raise der.DerError("not version 3")
    serial = der.integer(fields[1])
    # RFC 5280 §4.1.2.2: positive, at most 20 octets.
    if serial <= 0 or serial.bit_length() > 160:
        raise der.DerError("serial number out of range")
    check_named_curve(fields[6])
    extensions = _read_extensions(fields[7:])
    return Certificate(
        der=encoded,
        x509=x509.load_der_x509_certificate(encoded),
        serial=serial,
        issuer=read_name(fields[3]),
        issuer_der=fields[3].encoded,
        subject=read_name(fields[5]),
        subject_der=fields[5].encoded,
        spki=fields[6].encoded,
        extensions=extensions,
        is_ca=_says_ca(extensions.get(OID_BASIC_CONSTRAINTS)),
        may_sign=_allows_signature(extensions.get(OID_KEY_USAGE)),
    )


def check_named_curve(spki: der.Element) -> None:
    """Check that the key of a SubjectPublicKeyInfo, if of a curve, names it (RFC 5480 §2.1.1: MUST).

    The library knows a curve by its parameters, too; a key of ours has one writing only.

    Raises:
        DerError: a curve written out, or none.
    """
    algorithm, _key = spki.expect(der.SEQUENCE).children()
    kind, *parameters = algorithm.expect(der.SEQUENCE).children()
    if der.oid(kind) == OID_EC_KEY and [item.tag for item in parameters] != [der.OID]:
        raise der.DerError("an EC key without the name of its curve")


def _says_ca(basic_constraints: Extension | None) -> bool:
    """RFC 5280 §4.2.1.9: SEQUENCE { cA BOOLEAN DEFAULT FALSE, pathLenConstraint INTEGER OPTIONAL }."""
    if basic_constraints is None:
        return False
    parts = der.read_exactly(basic_constraints.value, der.SEQUENCE).children()
    flag = der.boolean(parts.pop(0)) if parts and parts[0].tag == der.BOOLEAN else False
    if len(parts) > 1 or (parts and der.integer(parts[0]) < 0):
        raise der.DerError("bad basicConstraints")
    return flag


def _allows_signature(key_usage: Extension | None) -> bool:
    """RFC 5280 §4.2.1.3: a BIT STRING whose first bit is digitalSignature."""
    if key_usage is None:
        return True
    bits = der.read_exactly(key_usage.value, der.BIT_STRING).content
    if not 1 <= len(bits) <= 3 or bits[0] > 7:
        raise der.DerError("bad keyUsage")
    return len(bits) > 1 and bool(bits[1] & 0x80)


def _read_extensions(rest: Iterable[der.Element]) -> dict[str, Extension]:
    extensions: dict[str, Extension] = {}
    for element in rest:
        if element.tag == 0xA3:
            read_extensions(der.read_exactly(element.content, der.SEQUENCE), extensions)
    return extensions


def read_extensions(sequence: der.Element, into: dict[str, Extension]) -> None:
    """Read an Extensions structure (RFC 5280 §4.1) into a mapping; an OID twice is an error."""
    for element in sequence.expect(der.SEQUENCE).children():
        parts = element.expect(der.SEQUENCE).children()
        if not 2 <= len(parts) <= 3:
            raise der.DerError("a bad extension")
        name = der.oid(parts[0])
        if name in into:
            raise der.DerError(f"extension {name} occurs twice")
        critical = len(parts) == 3 and der.boolean(parts[1])
        into[name] = Extension(critical, parts[-1].expect(der.OCTET_STRING).content)


def read_name(element: der.Element) -> tuple[Rdn, ...]:
    """Decode a Name (RDNSequence) to (type, text) pairs, most general first."""
    if len(element.encoded) > MAX_NAME_BYTES:
        raise der.DerError(f"a name of more than {MAX_NAME_BYTES} bytes")
    return _decode_name(element.expect(der.SEQUENCE).encoded)


@functools.lru_cache(maxsize=1024)
def _decode_name(encoded: bytes) -> tuple[Rdn, ...]:
    """Decode a name; a pure function whose few hot values (authorities, services) recur, hence the cache."""
    rdns = []
    for rdn in der.read_exactly(encoded, der.SEQUENCE).children():
        pairs = tuple(_attribute(item) for item in rdn.expect(der.SET).children())
        if not pairs:
            raise der.DerError("an empty part of a name")
        rdns.append(pairs)
    return tuple(rdns)


def _attribute(element: der.Element) -> tuple[str, str]:
    parts = element.expect(der.SEQUENCE).children()
    if len(parts) != 2:
        raise der.DerError("a bad name")
    codec = _STRING_CODECS.get(parts[1].tag)
    if codec is None:
        # Any hex notation for them could also be someone's literal text, and two names must never look alike.
        raise der.DerError("a name with an unusual string type")
    try:
        return attribute_name(der.oid(parts[0])), parts[1].content.decode(codec)
    except UnicodeDecodeError:
        raise der.DerError("a bad text in a name") from None


def pem_chain(ders: Iterable[bytes]) -> bytes:
    """Write DER certificates as PEM, in the given order."""
    return b"".join(_pem_block(item) for item in ders)


def _pem_block(encoded: bytes) -> bytes:
    text = base64.b64encode(encoded)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join((b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""))
