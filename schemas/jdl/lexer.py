"""Words of the job description language: ClassAd lexing with DIRAC's habits.

Promises: :func:`read_token` finds the token at a place in time linear in its length and never raises; what cannot be
a token is a token of kind ``bad`` with a message, and ends where reading can go on. Follows the ClassAd language
reference (string escapes, numbers with size suffixes, ``//`` and ``/* */`` comments); besides, ``#`` starts a comment,
``0.`` is a number, single quotes make a string, and names may have dots.
"""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

MAX_INTEGER: Final = 2**63 - 1
"""ClassAd integers have 64 bits."""

SIZE_FACTORS: Final = {"B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}

NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*", re.ASCII)
_BLANK = re.compile(r"\s+|//[^\r\n]*|#[^\r\n]*")
_STRING_BODY = {quote: re.compile(rf"[^{quote}\\]*(?:\\.[^{quote}\\]*)*", re.DOTALL) for quote in "\"'"}
_NUMBER = re.compile(
    r"(?:0[xX][0-9a-fA-F]+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?P<size>[BbKkMmGgTt])?(?![\w.])", re.ASCII
)
_OPERATOR = re.compile(r"=\?=|=!=|>>>|<<|>>|==|!=|<=|>=|&&|\|\||\?:|[-+*/%<>=!~&|^?:;,.(){}\[\]]")
_ESCAPE = re.compile(r"\\([0-3][0-7]{2}|[0-7]{1,2}|.)", re.DOTALL)
_SIMPLE_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
_SELF_ESCAPES = frozenset("\"'\\?/\n")
# What a string ends with when its closing quote is really the opening quote of the next statement's value.
_NEXT_STATEMENT = re.compile(r"\s*[A-Za-z_][\w.]*\s*=\s*[{(\[]*\s*")
_STATEMENT_END = re.compile(r";[ \t]*(?=[\r\n]|\]|[A-Za-z_][\w.]*[ \t]*=|//|#|/\*|\Z)|[\r\n]|\Z")
# One unquoted word where a value stands: DIRAC takes it as text. Not '//' and '/*', unless in '://'.
_BARE = re.compile(r"(?:%\([\w.]+\)s|[\w.:+*@~$%^-]|(?<=:)//|/(?![/*]))+")


class Token(NamedTuple):
    """One token.

    Attributes:
        kind: ``string``, ``number``, ``name``, ``op``, ``bad`` or ``end``.
        start: Offset of its first character.
        end: Offset after its last character.
        text: The text as written; for ``bad`` the message.
        value: The value of a string or number.
        notes: Warnings about it: (offset, message).
    """

    kind: str
    start: int
    end: int
    text: str
    value: str | int | float | None = None
    notes: tuple[tuple[int, str], ...] = ()


def skip_blank(text: str, position: int) -> int:
    """Return the offset of the next token; an unclosed block comment counts as a token."""
    while True:
        match = _BLANK.match(text, position)
        if match is not None:
            position = match.end()
        elif text.startswith("/*", position):
            end = text.find("*/", position + 2)
            if end < 0:
                return position
            position = end + 2
        else:
            return position


def read_token(text: str, position: int) -> Token:
    """Read the token that starts at or after a place."""
    start = skip_blank(text, position)
    if start >= len(text):
        return Token("end", len(text), len(text), "")
    character = text[start]
    if character in "\"'":
        return _read_string(text, start)
    if character.isdecimal() or (character == "." and text[start + 1 : start + 2].isdecimal()):
        return _read_number(text, start)
    match = NAME.match(text, start)
    if match is not None:
        return Token("name", start, match.end(), match.group())
    if text.startswith("/*", start):
        return Token("bad", start, len(text), "The comment that starts here is never closed")
    match = _OPERATOR.match(text, start)
    if match is not None:
        return Token("op", start, match.end(), match.group())
    hint = '; quotes are " here' if character in "\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb" else ""
    return Token("bad", start, start + 1, f"Unexpected character {character!r}{hint}")


def read_bare_word(text: str, position: int) -> str | None:
    """Return the unquoted word at a place, if a value ends right behind it."""
    match = _BARE.match(text, position)
    if match is None:
        return None
    following = read_token(text, match.end()) if match.end() < len(text) else None
    if following is None or following.kind == "end" or following.text in {";", ",", "}", "]"}:
        return match.group()
    if following.kind == "name" and following.start > match.end() and is_assignment(text, following.end):
        return match.group()
    return None


def is_assignment(text: str, position: int) -> bool:
    """Return whether an equals sign (and no comparison) comes next."""
    position = skip_blank(text, position)
    return text.startswith("=", position) and text[position + 1 : position + 2] not in {"=", "?", "!"}


def _read_string(text: str, start: int) -> Token:
    quote = text[start]
    match = _STRING_BODY[quote].match(text, start + 1)
    end = match.end() if match is not None else start + 1
    body = text[start + 1 : end]
    if end >= len(text) or text[end] != quote:
        return _unclosed(text, start)
    if _runs_into_next(text, body, end + 1):
        return _unclosed(text, start)
    if "\\" not in body:
        return Token("string", start, end + 1, text[start : end + 1], body)
    return _unescape(text, start, end + 1, body)


def _runs_into_next(text: str, body: str, after: int) -> bool:
    """Tell ``"run.sh; Arguments = "x"`` (first string not closed) from a string that holds a semicolon."""
    cut = max(body.rfind(";"), body.rfind("\n"), body.rfind("\r"))
    if cut < 0 or _NEXT_STATEMENT.fullmatch(body, cut + 1) is None:
        return False
    after = skip_blank(text, after)
    return after < len(text) and text[after] not in ";,}])"


def _unclosed(text: str, start: int) -> Token:
    match = _STATEMENT_END.search(text, start + 1)
    end = match.start() if match is not None else len(text)
    return Token("bad", start, end, "The string that starts here is never closed")


def _unescape(text: str, start: int, end: int, body: str) -> Token:
    notes: list[tuple[int, str]] = []
    nul = False

    def replace(match: re.Match[str]) -> str:
        nonlocal nul
        escape = match.group(1)
        if escape[0] in "01234567":
            code = int(escape, 8)
            nul = nul or code == 0
            # Octal escapes are bytes of UTF-8; they are put together below.
            return chr(code) if code < 0x80 else chr(0xDC00 + code)
        if escape not in _SIMPLE_ESCAPES and escape not in _SELF_ESCAPES:
            place = start + 1 + match.start()
            notes.append((place, f"\\{escape} means just {escape!r}; write \\\\{escape} to keep the backslash"))
        return _SIMPLE_ESCAPES.get(escape, escape)

    value = _ESCAPE.sub(replace, body)
    if nul:
        return Token("bad", start, end, "A string cannot hold a NUL character")
    try:
        value = value.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError:
        return Token("bad", start, end, "The octal escapes of this string are not UTF-8")
    return Token("string", start, end, text[start:end], value, tuple(notes))


def _read_number(text: str, start: int) -> Token:
    match = _NUMBER.match(text, start)
    if match is None:
        word = re.compile(r"[\w.]+").match(text, start)
        end = word.end() if word is not None else start + 1
        return Token("bad", start, end, f"{text[start : min(end, start + 40)]} is neither a number nor a name")
    written, size = match.group(), match.group("size")
    try:
        value = _number_value(written[:-1]) * SIZE_FACTORS[size.upper()] if size else _number_value(written)
    except ValueError as error:
        return Token("bad", start, match.end(), str(error))
    if abs(value) > MAX_INTEGER and isinstance(value, int):
        return Token("bad", start, match.end(), "The number is larger than 64 bits")
    return Token("number", start, match.end(), written, value)


def _number_value(digits: str) -> int | float:
    if digits[:2] in ("0x", "0X"):
        return int(digits, 16)
    if digits.isdecimal():
        if len(digits) > 1 and digits[0] == "0":
            raise ValueError(
                f"{digits[:40]} has leading zeros (octal to ClassAd, decimal to DIRAC): leave them out, or use quotes"
            )
        if len(digits) > len(str(MAX_INTEGER)):
            raise ValueError("The number is larger than 64 bits")
        return int(digits)
    value = float(digits)
    if math.isinf(value):
        raise ValueError("The number is too large")
    return value
