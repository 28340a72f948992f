"""A small strict DER reader and writer, for what the X.509 library does not parse: proxies, ACs, raw names.

Promises: definite minimal lengths only, nothing read beyond the enclosing element, ``DerError`` for whatever is
malformed. It knows no schema; callers walk the elements (X.690 §10). Sizes are bounded by the callers.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from typing import Final, NamedTuple

from .errors import IdentityError

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OID: Final = 0x06
UTF8_STRING: Final = 0x0C
SEQUENCE: Final = 0x30
SET: Final = 0x31
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18


class DerError(IdentityError):
    """Malformed DER."""


class Element(NamedTuple):
    """One TLV: its tag byte, its content, and the whole encoding (a tuple: thousands are made per second)."""

    tag: int
    content: bytes
    encoded: bytes

    def children(self) -> list[Element]:
        """Return the elements inside a constructed one."""
        if not self.tag & 0x20:
            raise DerError("a primitive value where a structure is needed")
        return read_all(self.content)

    def expect(self, tag: int) -> Element:
        """Return this element if it has the tag."""
        if self.tag != tag:
            raise DerError(f"unexpected element: tag {self.tag:#04x} instead of {tag:#04x}")
        return self


def read_one(data: bytes, start: int = 0) -> tuple[Element, int]:
    """Read the element at a position; return it with the position behind it."""
    end = len(data)
    if start + 2 > end:
        raise DerError("truncated")
    tag, length, position = data[start], data[start + 1], start + 2
    if tag & 0x1F == 0x1F:
        raise DerError("a multi-byte tag")
    if length >= 0x80:
        size = length & 0x7F
        # 4 length bytes cover any input that our size limits let through; 0 would be BER's indefinite form.
        if not 1 <= size <= 4 or position + size > end:
            raise DerError("bad length")
        length = int.from_bytes(data[position : position + size], "big")
        position += size
        if length < 0x80 or length >> (8 * (size - 1)) == 0:
            raise DerError("a length that is not minimal")
    if position + length > end:
        raise DerError("truncated")
    stop = position + length
    return Element(tag, data[position:stop], data[start:stop]), stop


def read_all(data: bytes) -> list[Element]:
    """Read a run of elements that fills the data exactly."""
    elements, position = [], 0
    while position < len(data):
        element, position = read_one(data, position)
        elements.append(element)
    return elements


def read_exactly(data: bytes, tag: int) -> Element:
    """Read one element of the tag with nothing behind it."""
    element, end = read_one(data)
    if end != len(data):
        raise DerError("data behind the end of a structure")
    return element.expect(tag)


def integer(element: Element) -> int:
    """Decode an INTEGER, which must be minimal."""
    content = element.expect(INTEGER).content
    if not content or (len(content) > 1 and content[0] in {0, 0xFF} and (content[0] >> 7) == (content[1] >> 7)):
        raise DerError("an integer that is not minimal")
    return int.from_bytes(content, "big", signed=True)


def boolean(element: Element) -> bool:
    """Decode a BOOLEAN (DER: 00 or FF)."""
    content = element.expect(BOOLEAN).content
    if content not in {b"\x00", b"\xff"}:
        raise DerError("a bad boolean")
    return content == b"\xff"


def oid(element: Element) -> str:
    """Decode an OBJECT IDENTIFIER to dotted text."""
    return _dotted(element.expect(OID).content)


@functools.lru_cache(maxsize=1024)
def _dotted(content: bytes) -> str:
    """Decode an identifier's content; the same few dozen occur in every certificate, hence the cache."""
    # 64 bytes hold any OID in use; longer ones would only make huge numbers.
    if not content or len(content) > 64 or content[-1] & 0x80:
        raise DerError("a bad object identifier")
    arcs, value, fresh = [], 0, True
    for byte in content:
        if fresh and byte == 0x80:
            raise DerError("a bad object identifier")
        value, fresh = value << 7 | byte & 0x7F, not byte & 0x80
        if fresh:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def bit_string(element: Element) -> bytes:
    """Decode a BIT STRING of whole bytes."""
    content = element.expect(BIT_STRING).content
    if not content or content[0] != 0:
        raise DerError("a bit string that is not whole bytes")
    return content[1:]


_GENERALIZED = re.compile(rb"[0-9]{14}Z")


def generalized_time(element: Element) -> dt.datetime:
    """Decode a GeneralizedTime of the RFC 5280 form YYYYMMDDHHMMSSZ."""
    content = element.expect(GENERALIZED_TIME).content
    try:
        if not _GENERALIZED.fullmatch(content):
            raise ValueError
        return dt.datetime.strptime(content.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC)
    except ValueError:
        raise DerError("a bad time") from None


def encode(tag: int, *contents: bytes) -> bytes:
    """Encode one element."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def encode_integer(value: int) -> bytes:
    """Encode a non-negative INTEGER."""
    return encode(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def encode_oid(dotted: str) -> bytes:
    """Encode an OBJECT IDENTIFIER."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    content = bytearray()
    for arc in (40 * first + second, *rest):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(arc & 0x7F | 0x80)
        content += bytes(reversed(septets))
    return encode(OID, bytes(content))
