"""INDIGO IAM's users and groups in the words of VOMS: subjects as DNs, groups and roles as FQANs.

Whatever IAM may leave out may be absent or null here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from schemas.errors import InvalidInputError
from schemas.identity import MAX_DN_LENGTH, format_dn, parse_dn

from .synchronization import SourceUser

ROLE_LABEL = "voms.role"
"""IAM's label of groups that VOMS shows as roles."""


class ScimValue(msgspec.Struct, frozen=True):
    """A reference: an id, with a name for people."""

    value: str | None = None
    display: str | None = None
    primary: bool | None = None


class ScimCertificate(msgspec.Struct, frozen=True, rename="camel"):
    """A certificate of a user; its subject in the form of RFC 4514, most special part first."""

    subject_dn: str | None = None


class IndigoUser(msgspec.Struct, frozen=True):
    """IAM's own part of a user."""

    certificates: tuple[ScimCertificate, ...] | None = None


class ScimUser(msgspec.Struct, frozen=True, rename="camel"):
    """A user, as far as we look at him; one of whom it is not said that he is active is not."""

    id: str
    user_name: str | None = None
    active: bool | None = None
    emails: tuple[ScimValue, ...] | None = None
    groups: tuple[ScimValue, ...] | None = None
    indigo: IndigoUser = msgspec.field(name="urn:indigo-dc:scim:schemas:IndigoUser", default_factory=IndigoUser)


class ScimLabel(msgspec.Struct, frozen=True):
    """A label of a group."""

    name: str | None = None
    prefix: str | None = None


class IndigoGroup(msgspec.Struct, frozen=True):
    """IAM's own part of a group."""

    labels: tuple[ScimLabel, ...] | None = None


class ScimGroup(msgspec.Struct, frozen=True, rename="camel"):
    """A group; its name is its path, ``lhcb/production``."""

    id: str
    display_name: str | None = None
    indigo: IndigoGroup = msgspec.field(name="urn:indigo-dc:scim:schemas:IndigoGroup", default_factory=IndigoGroup)


def members(users: Iterable[ScimUser], groups: Iterable[ScimGroup]) -> list[SourceUser]:
    """Each certificate of each user as a member of the VO; whoever has none cannot come to us."""
    fqans = {group.id: fqan for group in groups if (fqan := fqan_of(group))}
    return [
        SourceUser(
            dn=slash_form(certificate.subject_dn or ""),
            nickname=_shown(user.user_name or ""),
            mail=_shown(_mail(user.emails or ())),
            suspended=not user.active,
            reason="" if user.active else "not active in IAM",
            fqans=tuple(_fqans(user, fqans)),
        )
        for user in users
        for certificate in user.indigo.certificates or ()
    ]


def fqan_of(group: ScimGroup) -> str:
    """``lhcb/production`` as ``/lhcb/production``, or with the label of roles as ``/lhcb/Role=production``."""
    name = (group.display_name or "").strip("/")
    if not name:
        return ""
    parent, slash, last = name.rpartition("/")
    is_role = any(label.name == ROLE_LABEL and not label.prefix for label in group.indigo.labels or ())
    return f"/{parent}/Role={last}" if is_role and slash else f"/{name}"


def _fqans(user: ScimUser, fqans: Mapping[str, str]) -> Iterable[str]:
    # A group that the list of groups does not name was made between the two questions: the next look has it.
    return (fqans[name] for group in user.groups or () if (name := group.value or "") in fqans)


def slash_form(subject: str) -> str:
    """A subject in the form of RFC 4514 (``CN=Jane,DC=org``) as a DN in slash form; what is no subject stays as it is.

    The reader of the DN refuses what this leaves alone, and says so.
    """
    if subject.startswith("/") or len(subject) > MAX_DN_LENGTH:
        return subject
    rdns = [_split(rdn, "+") for rdn in reversed(_split(subject, ","))]
    try:
        return format_dn([[_attribute(part) for part in rdn] for rdn in rdns])
    except (InvalidInputError, ValueError):
        return subject


def _attribute(text: str) -> tuple[str, str]:
    kind, equals, value = text.partition("=")
    if not equals:
        raise ValueError(text)
    ((name, _),) = parse_dn(f"/{kind.strip()}=x")[0]  # its canonical spelling
    return name, _unescaped(_stripped(value))


def _stripped(value: str) -> str:
    """Without blanks around it, but for one at its end that is escaped."""
    bare = value.strip(" ")
    escapes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if escapes % 2 and value.endswith(" ") else bare


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators that are neither escaped nor quoted."""
    parts, quoted, start, place = [], False, 0, 0
    while place < len(text):
        letter = text[place]
        if letter == "\\":
            place += 1
        elif letter == '"':
            quoted = not quoted
        elif letter == separator and not quoted:
            parts.append(text[start:place])
            start = place + 1
        place += 1
    return [*parts, text[start:]]


def _unescaped(value: str) -> str:
    """RFC 4514 §3: a backslash before a special character, or before two hex digits of UTF-8."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    out = bytearray()
    place = 0
    while place < len(value):
        if value[place] != "\\":
            out += value[place].encode("utf-8", "surrogatepass")
            place += 1
            continue
        pair = value[place + 1 : place + 3]
        if len(pair) == 2 and all(digit in "0123456789abcdefABCDEF" for digit in pair):
            out.append(int(pair, 16))
            place += 3
        elif pair:
            out += pair[0].encode("utf-8", "surrogatepass")
            place += 2
        else:
            raise ValueError(value)
    return out.decode("utf-8")


def _mail(emails: tuple[ScimValue, ...]) -> str:
    ordered = sorted(emails, key=lambda mail: not mail.primary)
    return next((mail.value for mail in ordered if mail.value), "")


def _shown(text: str) -> str:
    return "".join(letter for letter in text[:255] if letter.isprintable())
