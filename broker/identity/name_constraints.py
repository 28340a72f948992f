"""Name constraints of authorities on directory names (RFC 5280 §4.2.1.10).

The library applies constraints to subjectAltName only: those of DNS names and addresses. A critical constraint on
directory names makes its newer versions refuse the chain; else it passes over them. Grid identities are subject
names, so directory names are applied here to every subject below the constraining authority.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import der
from .certificate import Certificate, read_name
from .errors import IdentityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.identity import Rdn

OID_NAME_CONSTRAINTS = "2.5.29.30"
_DIRECTORY_NAME = 0xA4


def check_name_constraints(chain: Sequence[Certificate]) -> None:
    """Check every subject of a chain (end entity first) against the constraints of the authorities above it.

    Raises:
        IdentityError: a subject lies outside, or a constraint is malformed.
    """
    for position, authority in enumerate(chain):
        extension = authority.extensions.get(OID_NAME_CONSTRAINTS)
        if extension is None:
            continue
        permitted, excluded = _directory_subtrees(extension.value)
        for below in chain[:position]:
            name = _folded(below.subject)
            # Self-issued intermediates are exempt, the end entity never is (RFC 5280 §6.1.3 b).
            if below is not chain[0] and below.is_self_issued:
                continue
            if permitted and not any(name[: len(base)] == base for base in permitted):
                raise IdentityError(f"the name constraints of {authority.dn} do not permit {below.dn}")
            if any(name[: len(base)] == base for base in excluded):
                raise IdentityError(f"the name constraints of {authority.dn} exclude {below.dn}")


def _directory_subtrees(value: bytes) -> tuple[list[tuple[Rdn, ...]], list[tuple[Rdn, ...]]]:
    found: dict[int, list[tuple[Rdn, ...]]] = {0xA0: [], 0xA1: []}
    try:
        for trees in der.read_exactly(value, der.SEQUENCE).children():
            for tree in trees.children():
                parts = tree.expect(der.SEQUENCE).children()
                if len(parts) != 1:
                    raise der.DerError("a subtree with minimum or maximum")
                if parts[0].tag == _DIRECTORY_NAME:
                    name = read_name(der.read_exactly(parts[0].content, der.SEQUENCE))
                    found[trees.tag].append(_folded(name))
    except (der.DerError, KeyError):
        raise IdentityError("malformed name constraints") from None
    return found[0xA0], found[0xA1]


def _folded(name: tuple[Rdn, ...]) -> tuple[Rdn, ...]:
    """Fold case and spaces for matching (RFC 5280 §7.1)."""
    return tuple(tuple((kind, " ".join(value.split()).casefold()) for kind, value in rdn) for rdn in name)
