r"""Names of people, services and groups: distinguished names, client ids, FQANs (pure values).

**The canonical DN** is the grid's slash form, ``/DC=org/OU=People/CN=Alice``, in the order of the certificate
(most general part first). It is the only form that is compared, signed, hashed or stored:

* attribute types are written by their OpenSSL short name (``CN``, ``emailAddress``, …), others as dotted OID;
* a multi-valued RDN joins its attributes with ``+`` in the order of the certificate (DER sorts them);
* values are the decoded text, compared exactly: no case folding, no space folding, no Unicode normalization, so
  that two certificates count as one person only where the authority wrote the same name;
* a ``/`` or ``+`` inside a value stays as it is (``/CN=host/ce.example.org``) unless the text behind it could be
  read as the next attribute (``TYPE=``): then it is written ``\/`` or ``\+``. A backslash is written ``\\``;
  control and direction-changing characters are written ``\u{hex}``, so a name cannot forge a log line.

Hence different names never share a canonical form, and ``parse_dn`` and ``format_dn`` are inverses.

**FQANs** (VOMS) are ``/vo/group/Role=x/Capability=y``; ``NULL`` role and capability mean none and vanish in the
canonical form.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TypeAndValue = tuple[str, str]
Rdn = tuple[TypeAndValue, ...]
"""One relative DN: (type, value) pairs, nearly always exactly one."""

# Longest DN text that we read; real ones stay below 300 characters, RFC 5280 upper bounds add up to about 2000.
MAX_DN_LENGTH = 4096
# Longest FQAN that we read; VOMS itself stores them in 255 characters.
MAX_FQAN_LENGTH = 512
# 20 base32 characters = 100 bits of SHA-256: no accidental collision, and short enough for queue names.
CLIENT_ID_PREFIX_LENGTH = 20

ATTRIBUTE_NAMES: dict[str, str] = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.17": "postalCode",
    "2.5.4.18": "postOfficeBox",
    "2.5.4.20": "telephoneNumber",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.51": "houseIdentifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.72": "role",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.3": "mail",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
    "1.2.840.113549.1.9.8": "unstructuredAddress",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
}
"""OID → the name that OpenSSL's one-line form uses."""

_ALIASES = {"e": "emailAddress", "email": "emailAddress", "userid": "UID", "s": "ST"}
_BY_LOWER_NAME = {name.lower(): name for name in ATTRIBUTE_NAMES.values()} | _ALIASES
_SEPARATOR = re.compile(r"[/+]([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)=")
_ESCAPE = re.compile(r"\\(?:([\\/+])|u\{([0-9a-f]{1,6})\})")
_FOREIGN_BYTES = re.compile(r"(?:\\x[0-9A-Fa-f]{2})+")
# C0, DEL, C1, soft hyphen, zero-width and direction marks, line separators, BOM, surrogates: a fixed list and not
# str.isprintable(), whose answer changes between Python versions and would change client ids with it.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def attribute_name(oid: str) -> str:
    """Return the canonical name of an attribute type: OpenSSL's short name, or the dotted OID itself."""
    return ATTRIBUTE_NAMES.get(oid, oid)


def format_dn(rdns: Iterable[Sequence[TypeAndValue]]) -> str:
    """Write a name in canonical form.

    Args:
        rdns: relative DNs, most general first; each a sequence of (canonical type or OID, decoded value).
    """
    return "".join("/" + "+".join(f"{kind}={_escape(value)}" for kind, value in rdn) for rdn in rdns)


def parse_dn(text: str) -> tuple[Rdn, ...]:
    r"""Read a DN in slash form; types may be written in any case or as ``E``, ``Email``, ``USERID``.

    What is not ASCII may be written as OpenSSL, the grid's tools and VOMS do, byte by byte: ``Zo\xC3\xAB`` is ``Zoë``.

    Raises:
        InvalidInputError: not a DN, too long, or an attribute type that is unknown.
    """
    if len(text) > MAX_DN_LENGTH:
        raise InvalidInputError(f"a DN may have at most {MAX_DN_LENGTH} characters")
    match = _SEPARATOR.match(text)
    if match is None or text[0] != "/":
        raise InvalidInputError("a DN must look like /DC=org/OU=People/CN=Some Name")
    rdns: list[list[TypeAndValue]] = []
    while match is not None:
        kind = _canonical_type(match[1])
        value, end = _read_value(text, match.end())
        if text[match.start()] == "/":
            rdns.append([])
        rdns[-1].append((kind, value))
        match = _SEPARATOR.match(text, end)
    return tuple(tuple(rdn) for rdn in rdns)


def canonical_dn(text: str) -> str:
    """Return the canonical form of a DN that a person or another tool wrote in slash form."""
    return format_dn(parse_dn(text))


def _escape(value: str) -> str:
    value = value.replace("\\", "\\\\")
    value = _SEPARATOR.sub(lambda match: "\\" + match[0], value)
    return _UNSAFE.sub(lambda match: f"\\u{{{ord(match[0]):x}}}", value)


def _canonical_type(text: str) -> str:
    if text[0].isdigit():
        return attribute_name(text)
    try:
        return _BY_LOWER_NAME[text.lower()]
    except KeyError:
        raise InvalidInputError(f"unknown attribute type {text!r} in a DN; write its dotted OID") from None


def _decoded(escapes: str) -> str:
    r"""Decode a run of ``\xHH``: the bytes of UTF-8."""
    try:
        return bytes.fromhex(escapes.replace("\\x", "")).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInputError("the \\x escapes in a DN must be UTF-8") from None


def _read_value(text: str, start: int) -> tuple[str, int]:
    """Read one value up to the next unescaped separator; return it with the position where it ended."""
    parts: list[str] = []
    position = start
    while position < len(text) and _SEPARATOR.match(text, position) is None:
        if text[position] != "\\":
            parts.append(text[position])
            position += 1
            continue
        if foreign := _FOREIGN_BYTES.match(text, position):
            parts.append(_decoded(foreign[0]))
            position = foreign.end()
            continue
        escape = _ESCAPE.match(text, position)
        if escape is None or (escape[2] and int(escape[2], 16) > 0x10FFFF):
            raise InvalidInputError("a backslash in a DN must be written \\\\")
        parts.append(escape[1] or chr(int(escape[2], 16)))
        position = escape.end()
    return "".join(parts), position


@functools.lru_cache(maxsize=1024)  # asked with every message, of identities that are proven: few recur
def client_id_prefix(dn: str) -> str:
    """Return the part of a client id that belongs to one identity (lower case base32, 20 characters)."""
    digest = hashlib.sha256(dn.encode("utf-8")).digest()
    return base64.b32encode(digest).decode("ascii")[:CLIENT_ID_PREFIX_LENGTH].lower()


_SUFFIX = re.compile(r"[a-z0-9]{1,40}")


def make_client_id(dn: str, random_suffix: str) -> str:
    """Return ``<prefix of the DN>.<suffix>``, the broker user name of one session of this identity.

    Raises:
        InvalidInputError: the suffix is not 1 to 40 lower-case letters and digits.
    """
    if not _SUFFIX.fullmatch(random_suffix):
        raise InvalidInputError("the random part of a client id is 1 to 40 lower-case letters and digits")
    return f"{client_id_prefix(dn)}.{random_suffix}"


def client_id_belongs_to(client_id: str, dn: str) -> bool:
    """Tell whether a client id is well formed and carries this identity's prefix."""
    prefix, dot, suffix = client_id.partition(".")
    return bool(dot) and _SUFFIX.fullmatch(suffix) is not None and prefix == client_id_prefix(dn)


_FQAN = re.compile(
    r"(?P<group>(?:/(?!\.+(?:/|\Z))[A-Za-z0-9._-]+)+)"  # no part of dots alone: nobody shall take it for a path
    r"(?:/Role=(?P<role>[A-Za-z0-9._-]+))?(?:/Capability=(?P<cap>[A-Za-z0-9._ -]+))?"
)


@dataclass(frozen=True, slots=True, order=True)
class Fqan:
    """A fully qualified attribute name: a VO's group and possibly a role in it."""

    group: str
    role: str | None = None
    capability: str | None = None

    @classmethod
    def parse(cls, text: str) -> Fqan:
        """Read an FQAN; ``Role=NULL`` and ``Capability=NULL`` mean none.

        Raises:
            InvalidInputError: not an FQAN, or too long.
        """
        match = _FQAN.fullmatch(text) if len(text) <= MAX_FQAN_LENGTH else None
        if match is None:
            raise InvalidInputError("an FQAN must look like /vo/group/Role=name")
        role, capability = match["role"], match["cap"]
        return cls(match["group"], None if role == "NULL" else role, None if capability == "NULL" else capability)

    @property
    def vo(self) -> str:
        """The VO: the first part of the group."""
        return self.group.split("/", 2)[1]

    def belongs_to(self, vo: str) -> bool:
        """Tell whether this FQAN names the VO itself or a group of it (whole path components)."""
        return self.vo == vo

    def __str__(self) -> str:
        """Return the canonical text, without NULL parts."""
        role = f"/Role={self.role}" if self.role else ""
        return f"{self.group}{role}" + (f"/Capability={self.capability}" if self.capability else "")
