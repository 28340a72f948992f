"""File names of authorities in a grid trust directory: OpenSSL's subject hash, in Python."""

from __future__ import annotations

import hashlib
import re

from . import der
from .certificate import parse_certificate

# String types that OpenSSL folds to UTF-8 before hashing; others are hashed as they stand.
_FOLDED = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1A: "ascii"} | {
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
_SPACES = re.compile(r"[ \t\n\v\f\r]+")


def subject_hash(certificate: bytes) -> str:
    """Return the file name stem of an authority, as ``openssl x509 -subject_hash`` computes it.

    It is the first four bytes (little endian) of SHA-1 over the subject's parts with each text in UTF-8,
    trimmed, spaces folded to one, ASCII letters in lower case.

    Raises:
        IdentityError: not a certificate.
    """
    name = parse_certificate(certificate).subject_der
    parts = []
    for rdn in der.read_exactly(name, der.SEQUENCE).children():
        attributes = sorted(_canonical_attribute(item) for item in rdn.children())
        parts.append(der.encode(der.SET, *attributes))
    # Not for security: the hash only names a file.
    digest = hashlib.sha1(b"".join(parts), usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _canonical_attribute(element: der.Element) -> bytes:
    kind, value = element.children()
    encoded = value.encoded
    if value.tag in _FOLDED:
        text = _SPACES.sub(" ", value.content.decode(_FOLDED[value.tag])).strip(" ")
        lower = "".join(char.lower() if char.isascii() else char for char in text)
        encoded = der.encode(der.UTF8_STRING, lower.encode("utf-8"))
    return der.encode(der.SEQUENCE, kind.encoded, encoded)
