"""The text of a job description, and what is wrong with it and where.

Promises: any str or bytes becomes a :class:`Source` without an exception; every place is a 1-based (line, column)
inside the text, columns counted in characters. :class:`Problems` collects errors and warnings, bounded in number.
Understanding the text lies elsewhere (``lexer``, ``parser``).
"""

from __future__ import annotations

import re
from bisect import bisect_right

import msgspec

MAX_JDL_BYTES = 64 * 1024
"""The largest text read. Real ones have a few KiB; 500 long LFNs fit; the worst takes under half a second."""

MAX_PROBLEMS = 50
"""Errors reported per text: more than anybody repairs in one go, and bounded output for hostile texts."""

_LINE_END = re.compile(r"\r\n|\r|\n")
_UNPRINTABLE = re.compile("[\x00\ud800-\udfff]")


class JdlError(msgspec.Struct, frozen=True):
    """One error or warning.

    Attributes:
        line: Line, from 1.
        column: Column in characters, from 1.
        attribute: The attribute concerned, None when none can be named.
        message: What is wrong and what to do, one sentence.
    """

    line: int
    column: int
    attribute: str | None
    message: str


class Source:
    """A text and its line starts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0, *(match.end() for match in _LINE_END.finditer(text))]

    def place(self, offset: int) -> tuple[int, int]:
        """Return the (line, column) of a character offset."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


class Problems:
    """The errors and warnings of one text, in the order of their places."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._errors: list[tuple[int, JdlError]] = []
        self._warnings: list[tuple[int, JdlError]] = []

    def error(self, offset: int, message: str, attribute: str | None = None) -> None:
        """Add an error, unless the same one is there already."""
        self._add(self._errors, offset, message, attribute)

    def warn(self, offset: int, message: str, attribute: str | None = None) -> None:
        """Add a warning, unless the same one is there already."""
        self._add(self._warnings, offset, message, attribute)

    def _add(self, into: list[tuple[int, JdlError]], offset: int, message: str, attribute: str | None) -> None:
        if len(into) >= MAX_PROBLEMS:
            return
        line, column = self.source.place(offset)
        entry = (offset, JdlError(line, column, attribute, message))
        if entry not in into:
            into.append(entry)

    @property
    def full(self) -> bool:
        """Whether no further error would be kept, so that going on is useless."""
        return len(self._errors) >= MAX_PROBLEMS

    @property
    def errors(self) -> tuple[JdlError, ...]:
        """The errors, by place."""
        return tuple(entry for _, entry in sorted(self._errors, key=lambda pair: pair[0]))

    @property
    def warnings(self) -> tuple[JdlError, ...]:
        """The warnings, by place."""
        return tuple(entry for _, entry in sorted(self._warnings, key=lambda pair: pair[0]))


def read_source(text: str | bytes) -> Problems:
    """Take in a text of any origin and report what makes it unreadable.

    A byte order mark is dropped; lines may end in LF, CRLF or CR. Bytes must be UTF-8; NUL and lone surrogates are
    errors. What can be read is kept, so that the other errors of the text are found as well.

    Returns:
        The problems found so far, with the source in them.
    """
    too_long = len(text) > MAX_JDL_BYTES or (
        isinstance(text, str) and len(text.encode("utf-8", "surrogatepass")) > MAX_JDL_BYTES
    )
    if too_long:
        problems = Problems(Source(""))
        problems.error(0, f"The job description is larger than {MAX_JDL_BYTES // 1024} KiB; nothing was read")
        return problems
    if isinstance(text, bytes):
        return _read_bytes(text)
    return _read_text(text, None)


def _read_bytes(data: bytes) -> Problems:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        problems = Problems(Source(""))
        problems.error(0, "The text is UTF-16; save it as UTF-8")
        return problems
    try:
        return _read_text(data.decode("utf-8"), None)
    except UnicodeDecodeError as error:
        offset = len(data[: error.start].decode("utf-8").removeprefix("\ufeff"))
        return _read_text(data.decode("utf-8", "replace"), (offset, data[error.start]))


def _read_text(text: str, bad_byte: tuple[int, int] | None) -> Problems:
    text = text.removeprefix("\ufeff")
    readable = _UNPRINTABLE.sub("\ufffd", text)
    problems = Problems(Source(readable))
    if bad_byte is not None:
        offset, byte = bad_byte
        problems.error(offset, f"Byte 0x{byte:02x} is not UTF-8; save the text as UTF-8")
    for match in _UNPRINTABLE.finditer(text):
        what = "A NUL character" if match.group() == "\x00" else "A character that is not valid Unicode"
        problems.error(match.start(), f"{what} cannot be part of a job description")
        if problems.full:
            break
    return problems
