"""Name constraints of authorities on directory names and e-mail addresses (RFC 5280 §4.2.1.10).

The library applies constraints to subjectAltName only: those of DNS names and addresses. A critical constraint on
directory names makes its newer versions refuse the chain; else it passes over them. Grid identities are subject
names, so directory names are applied here to every subject below the constraining authority, and those of e-mail
addresses to the emailAddress in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import der
from .certificate import Certificate, read_name
from .errors import IdentityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.identity import Rdn

OID_NAME_CONSTRAINTS = "2.5.29.30"
_DIRECTORY_NAME = 0xA4
_EMAIL = 0x81


@dataclass(frozen=True, slots=True)
class _Subtrees:
    """What an authority permits, or what it excludes; folded for matching."""

    names: list[tuple[Rdn, ...]] = field(default_factory=list)
    emails: list[str] = field(default_factory=list)

    def hold_name(self, name: tuple[Rdn, ...]) -> bool:
        return any(name[: len(base)] == base for base in self.names)

    def hold_email(self, address: str) -> bool:
        """One mailbox, all of a host, or (with a dot in front) all of a domain."""
        host = address.rpartition("@")[2]
        return any(
            address == base if "@" in base else host.endswith(base) if base[:1] == "." else host == base
            for base in self.emails
        )


def check_name_constraints(chain: Sequence[Certificate]) -> None:
    """Check every subject of a chain (end entity first) against the constraints of the authorities above it.

    Raises:
        IdentityError: a subject lies outside, or a constraint is malformed.
    """
    for position, authority in enumerate(chain):
        extension = authority.extensions.get(OID_NAME_CONSTRAINTS)
        if extension is None:
            continue
        permitted, excluded = _read_subtrees(extension.value)
        for below in chain[:position]:
            # Self-issued intermediates are exempt, the end entity never is (RFC 5280 §6.1.3 b).
            if below is not chain[0] and below.is_self_issued:
                continue
            name = _folded(below.subject)
            emails = [value for rdn in name for kind, value in rdn if kind == "emailAddress"]
            if (permitted.names and not permitted.hold_name(name)) or (
                permitted.emails and not all(map(permitted.hold_email, emails))
            ):
                raise IdentityError(f"the name constraints of {authority.dn} do not permit {below.dn}")
            if excluded.hold_name(name) or any(map(excluded.hold_email, emails)):
                raise IdentityError(f"the name constraints of {authority.dn} exclude {below.dn}")


def _read_subtrees(value: bytes) -> tuple[_Subtrees, _Subtrees]:
    found = {0xA0: _Subtrees(), 0xA1: _Subtrees()}
    try:
        for trees in der.read_exactly(value, der.SEQUENCE).children():
            for tree in trees.children():
                parts = tree.expect(der.SEQUENCE).children()
                if len(parts) != 1:
                    raise der.DerError("a subtree with minimum or maximum")
                into, base = found[trees.tag], parts[0]
                if base.tag == _DIRECTORY_NAME:
                    into.names.append(_folded(read_name(der.read_exactly(base.content, der.SEQUENCE))))
                elif base.tag == _EMAIL:
                    into.emails.append(base.content.decode("ascii").casefold())
    except (der.DerError, KeyError, UnicodeDecodeError):
        raise IdentityError("malformed name constraints") from None
    return found[0xA0], found[0xA1]


def _folded(name: tuple[Rdn, ...]) -> tuple[Rdn, ...]:
    """Fold case and spaces for matching (RFC 5280 §7.1)."""
    return tuple(tuple((kind, " ".join(value.split()).casefold()) for kind, value in rdn) for rdn in name)
