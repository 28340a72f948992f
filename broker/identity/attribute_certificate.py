"""The bytes of VOMS attribute certificates (RFC 5755 §4.1, OGF GFD.182 §3): reading only, nothing is proven here.

Promises: what does not have exactly the expected form raises; counts and sizes are bounded. Trust, holder and
signature are ``voms``'s matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import InvalidInputError
from schemas.identity import Rdn, format_dn

from . import der
from .certificate import MAX_CERTIFICATES, Extension, read_extensions, read_name

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

OID_FQANS = "1.3.6.1.4.1.8005.100.100.4"
OID_AC_CERTIFICATES = "1.3.6.1.4.1.8005.100.100.10"
OID_GENERIC_ATTRIBUTES = "1.3.6.1.4.1.8005.100.100.11"
OID_NO_REVOCATION = "2.5.29.56"
OID_AUTHORITY_KEY = "2.5.29.35"
OID_TARGETS = "2.5.29.55"
# What we process in an AC.
_UNDERSTOOD = {OID_AC_CERTIFICATES, OID_GENERIC_ATTRIBUTES, OID_NO_REVOCATION, OID_AUTHORITY_KEY}
# One AC with its issuer's chain; the largest seen have 12 KiB.
MAX_AC_BYTES = 64 * 1024
# The largest real lists of groups and roles have about a hundred.
MAX_FQANS = 1024
MAX_GENERIC_ATTRIBUTES = 1024

_VO = re.compile(r"[A-Za-z0-9._-]{1,255}")


@dataclass(frozen=True, slots=True)
class GenericAttribute:
    """A named value that the VO keeps about a member, such as a nickname."""

    name: str
    value: str
    qualifier: str


@dataclass(frozen=True, slots=True)
class AttributeCertificate:
    """The content of one attribute certificate, unproven."""

    signed: bytes
    algorithm: str
    signature: bytes
    holder_name: tuple[Rdn, ...]
    holder_serial: int
    holder_entity_name: tuple[Rdn, ...] | None
    issuer: tuple[Rdn, ...]
    not_before: dt.datetime
    not_after: dt.datetime
    vo: str
    fqans: tuple[str, ...]
    generic: tuple[GenericAttribute, ...]
    certificates: tuple[bytes, ...]
    never_revoked: bool
    """It says that nobody revokes it (noRevAvail)."""
    authority_key: bytes | None
    """Key identifier of its issuer; empty where it names him in another way, None where it does not."""
    unknown_critical: str | None

    @property
    def issuer_dn(self) -> str:
        """The issuer in canonical form."""
        return format_dn(self.issuer)


def read_acs(value: bytes, limit: int) -> list[AttributeCertificate]:
    """Read the proxy extension: SEQUENCE OF SEQUENCE OF AttributeCertificate.

    Raises:
        DerError: malformed or above a limit.
    """
    if len(value) > MAX_AC_BYTES:
        raise der.DerError(f"AC extension larger than {MAX_AC_BYTES} bytes")
    items = [
        item
        for group in der.read_exactly(value, der.SEQUENCE).children()
        for item in group.expect(der.SEQUENCE).children()
    ]
    if len(items) > limit:
        raise der.DerError(f"more than {limit} attribute certificates in a proxy")
    return [_read_explained(item) for item in items]


def read_ac(encoded: bytes) -> AttributeCertificate:
    """Read one attribute certificate by itself.

    Raises:
        DerError: malformed or above a limit.
    """
    if len(encoded) > MAX_AC_BYTES:
        raise der.DerError(f"AC larger than {MAX_AC_BYTES} bytes")
    return _read_explained(der.read_exactly(encoded, der.SEQUENCE))


def encode_acs(encoded: Sequence[bytes], limit: int) -> bytes:
    """Write the proxy extension from attribute certificates; what could not be read again is refused.

    Raises:
        DerError: malformed or above a limit.
    """
    if len(encoded) > limit:
        raise der.DerError(f"more than {limit} attribute certificates in a proxy")
    for item in encoded:
        read_ac(item)
    value = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, *encoded))
    if len(value) > MAX_AC_BYTES:
        raise der.DerError(f"AC extension larger than {MAX_AC_BYTES} bytes")
    return value


def _read_explained(element: der.Element) -> AttributeCertificate:
    try:
        return _read_ac(element)
    except der.DerError as error:
        raise der.DerError(f"AC malformed: {error}") from None
    except (ValueError, IndexError, InvalidInputError):
        raise der.DerError("AC malformed") from None


def _read_ac(element: der.Element) -> AttributeCertificate:
    info, outer_algorithm, signature = element.expect(der.SEQUENCE).children()
    fields = info.expect(der.SEQUENCE).children()
    version, holder, issuer, algorithm, _serial, validity, attributes, *rest = fields
    if der.integer(version) != 1:
        raise der.DerError("not version 2")
    der.integer(_serial)
    if algorithm.encoded != outer_algorithm.encoded:
        raise der.DerError("two different signature algorithms")
    holder_name, holder_serial, entity_name = _read_holder(holder)
    not_before, not_after = (der.generalized_time(item) for item in validity.expect(der.SEQUENCE).children())
    vo, fqans = _read_fqans(attributes)
    extensions: dict[str, Extension] = {}
    for item in rest:
        # issuerUniqueID, a BIT STRING, may stand before the extensions; nobody uses it.
        if item.tag != der.BIT_STRING:
            read_extensions(item, extensions)
    # A restriction to targets must be critical (RFC 5755 §4.3.2); one that forgot to be is one all the same.
    unknown = [
        name for name, item in extensions.items() if (item.critical or name == OID_TARGETS) and name not in _UNDERSTOOD
    ]
    return AttributeCertificate(
        signed=info.encoded,
        algorithm=der.oid(algorithm.expect(der.SEQUENCE).children()[0]),
        signature=der.bit_string(signature),
        holder_name=holder_name,
        holder_serial=holder_serial,
        holder_entity_name=entity_name,
        issuer=_read_issuer(issuer),
        not_before=not_before,
        not_after=not_after,
        vo=vo,
        fqans=fqans,
        generic=_read_generic(extensions.get(OID_GENERIC_ATTRIBUTES)),
        certificates=_read_certificates(extensions.get(OID_AC_CERTIFICATES)),
        never_revoked=_read_no_revocation(extensions.get(OID_NO_REVOCATION)),
        authority_key=_read_authority_key(extensions.get(OID_AUTHORITY_KEY)),
        unknown_critical=unknown[0] if unknown else None,
    )


def _read_holder(holder: der.Element) -> tuple[tuple[Rdn, ...], int, tuple[Rdn, ...] | None]:
    """Holder: baseCertificateID [0], and possibly entityName [1]; a bare name or digest names no certificate."""
    base, *more = holder.expect(der.SEQUENCE).children()
    names, serial, *_unique_id = base.expect(0xA0).children()
    entity_name = None
    for item in more:
        entity_name = _directory_name(item.expect(0xA1).children())
    return _directory_name(names.expect(der.SEQUENCE).children()), der.integer(serial), entity_name


def _read_issuer(issuer: der.Element) -> tuple[Rdn, ...]:
    """AttCertIssuer: v2Form [0] with issuerName only (RFC 5755 §4.2.3); old VOMS wrote the bare v1 form."""
    if issuer.tag == der.SEQUENCE:
        return _directory_name(issuer.children())
    (names,) = issuer.expect(0xA0).children()
    return _directory_name(names.expect(der.SEQUENCE).children())


def _directory_name(names: list[der.Element]) -> tuple[Rdn, ...]:
    """Read GeneralNames that must be exactly one directoryName [4]."""
    (name,) = names
    return read_name(der.read_exactly(name.expect(0xA4).content, der.SEQUENCE))


def _read_fqans(attributes: der.Element) -> tuple[str, tuple[str, ...]]:
    """Read the one FQAN attribute: its VO from the policy authority ``vo://host:port``, and the values."""
    found = []
    for attribute in attributes.expect(der.SEQUENCE).children():
        name, values = attribute.expect(der.SEQUENCE).children()
        if der.oid(name) == OID_FQANS:
            found.append(values)
    (values,) = found
    (syntax,) = values.expect(der.SET).children()
    authority, texts = syntax.expect(der.SEQUENCE).children()
    vo = _read_authority(authority.expect(0xA0).children())
    items = texts.expect(der.SEQUENCE).children()
    if not 1 <= len(items) <= MAX_FQANS:
        raise der.DerError("no FQAN, or far too many")
    return vo, tuple(item.expect(der.OCTET_STRING).content.decode("ascii") for item in items)


def _read_authority(names: list[der.Element]) -> str:
    (uri,) = names
    vo, separator, _host = uri.expect(0x86).content.decode("ascii").partition("://")
    if not separator or not _VO.fullmatch(vo):
        raise der.DerError("a policy authority that is not vo://host:port")
    return vo


def _read_generic(extension: Extension | None) -> tuple[GenericAttribute, ...]:
    """Read SEQUENCE OF TagList { policyAuthority, SEQUENCE OF Tag { name, value, qualifier } }."""
    if extension is None:
        return ()
    found = []
    for containers in der.read_exactly(extension.value, der.SEQUENCE).children():
        for tag_list in containers.expect(der.SEQUENCE).children():
            _authority, tags = tag_list.expect(der.SEQUENCE).children()
            for tag in tags.expect(der.SEQUENCE).children():
                name, text, qualifier = (item.expect(der.OCTET_STRING).content for item in tag.children())
                found.append(GenericAttribute(name.decode("utf-8"), text.decode("utf-8"), qualifier.decode("utf-8")))
                if len(found) > MAX_GENERIC_ATTRIBUTES:
                    raise der.DerError("far too many generic attributes")
    return tuple(found)


def _read_no_revocation(extension: Extension | None) -> bool:
    """RFC 5755 §4.3.6: a NULL."""
    if extension is None:
        return False
    return not der.read_exactly(extension.value, der.NULL).content


def _read_authority_key(extension: Extension | None) -> bytes | None:
    """RFC 5280 §4.2.1.1: SEQUENCE { keyIdentifier [0], authorityCertIssuer [1], authorityCertSerialNumber [2] }."""
    if extension is None:
        return None
    parts = der.read_exactly(extension.value, der.SEQUENCE).children()
    return next((part.content for part in parts if part.tag == 0x80), b"")


def _read_certificates(extension: Extension | None) -> tuple[bytes, ...]:
    """Read ACCerts: SEQUENCE { SEQUENCE OF Certificate }."""
    if extension is None:
        return ()
    (sequence,) = der.read_exactly(extension.value, der.SEQUENCE).children()
    items = sequence.expect(der.SEQUENCE).children()
    if len(items) > MAX_CERTIFICATES:
        raise der.DerError("far too many certificates")
    return tuple(item.encoded for item in items)
