"""The proxyCertInfo extension (RFC 3820 §3.8): what a proxy may do and how far it may be passed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from . import der
from .errors import IdentityError

INHERIT_ALL: Final = "1.3.6.1.5.5.7.21.1"
INDEPENDENT: Final = "1.3.6.1.5.5.7.21.2"
# Globus's limited proxy: all rights but starting jobs; its language and the two of the RFC are all that we know.
LIMITED: Final = "1.3.6.1.4.1.3536.1.1.1.9"


@dataclass(frozen=True, slots=True)
class ProxyCertInfo:
    """Policy language and path length of one proxy."""

    language: str
    path_length: int | None = None

    @classmethod
    def decode(cls, value: bytes) -> ProxyCertInfo:
        """Decode and judge the extension's value.

        Raises:
            IdentityError: malformed, an unknown policy language, or a policy where none may be.
        """
        try:
            parts = der.read_exactly(value, der.SEQUENCE).children()
            path_length = der.integer(parts.pop(0)) if parts and parts[0].tag == der.INTEGER else None
            (policy,) = parts
            language, *text = policy.expect(der.SEQUENCE).children()
            name = der.oid(language)
            if len(text) > 1 or (text and text[0].tag != der.OCTET_STRING):
                raise der.DerError
        except (der.DerError, ValueError):
            raise IdentityError("malformed proxyCertInfo") from None
        if path_length is not None and path_length < 0:
            raise IdentityError("malformed proxyCertInfo: negative path length")
        if name not in {INHERIT_ALL, INDEPENDENT, LIMITED}:
            raise IdentityError(f"policy language not understood: {name}")
        if text and name != LIMITED:
            # RFC 3820 §3.8.2: the policy field MUST NOT be present with these two languages.
            raise IdentityError("policy field beside a policy language that takes none")
        return cls(name, path_length)

    def encode(self) -> bytes:
        """Encode the extension's value."""
        length = b"" if self.path_length is None else der.encode_integer(self.path_length)
        return der.encode(der.SEQUENCE, length, der.encode(der.SEQUENCE, der.encode_oid(self.language)))
