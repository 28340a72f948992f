"""What a chain's attribute certificates say, proven or not: for refusing, never for granting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import der
from .attribute_certificate import read_acs
from .certificate import parse_certificate
from .errors import IdentityError
from .voms import MAX_ACS, OID_VOMS_ACS

if TYPE_CHECKING:
    from collections.abc import Iterable


def claimed_fqans(chain: Iterable[bytes]) -> tuple[str, ...]:
    """FQANs of every attribute certificate in a chain (DER), whoever signed it and whenever it ended.

    A site may trust a VOMS server that we do not know: who wants to be sure that a proxy gives no right beyond a
    group's must look at all that it carries.

    Raises:
        IdentityError: attributes that cannot be read: nobody can tell what they give.
    """
    found: dict[str, None] = {}
    for item in chain:
        extension = parse_certificate(item).extensions.get(OID_VOMS_ACS)
        if extension is None:
            continue
        try:
            for ac in read_acs(extension.value, MAX_ACS):
                found |= dict.fromkeys(ac.fqans)
        except (der.DerError, ValueError):
            raise IdentityError("attributes that cannot be read") from None
    return tuple(found)
