"""Job ids on the command line: ``12``, ``12-20``, ``12,14``, ``-`` (standard input), ``@file``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import InvalidInputError
from schemas.messages.common import MAX_JOBS_PER_MESSAGE

IdsArgument = Annotated[
    list[str],
    typer.Argument(metavar="JOBS", help="Ids: 12, 12-20, 12,14, '-' for standard input, @FILE.", show_default=False),
]

MAX_ID = 2**53
MAX_INPUT_BYTES = 4 << 20
"""Ten thousand ids take 170 kB; more than this is another file by mistake."""

_RANGE = re.compile(r"([0-9]{1,16})(?:(?:-|\.\.)([0-9]{1,16}))?")


def parse_ids(words: Sequence[str]) -> list[int]:
    """All ids in order, each once.

    Raises:
        InvalidInputError: not an id or range, none at all, or more than one command may name.
    """
    found: dict[int, None] = {}
    for word in _expand(words):
        match = _RANGE.fullmatch(word)
        if match is None:
            raise InvalidInputError(f"{word[:40]!r} is no job id; write 12, 12-20 or 12,14")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= MAX_ID:
            raise InvalidInputError(f"{word!r} is no range of job ids")
        if last - first + 1 + len(found) > MAX_JOBS_PER_MESSAGE:
            raise InvalidInputError(f"more than {MAX_JOBS_PER_MESSAGE} jobs in one command")
        found.update(dict.fromkeys(range(first, last + 1)))
    if not found:
        raise InvalidInputError("no job ids given")
    return list(found)


def _expand(words: Sequence[str]) -> Iterable[str]:
    for word in words:
        if word == "-":
            yield from _words(sys.stdin.read(MAX_INPUT_BYTES + 1), "standard input")
        elif word.startswith("@"):
            try:
                with Path(word[1:]).open(encoding="utf-8", errors="replace") as file:
                    yield from _words(file.read(MAX_INPUT_BYTES + 1), word[1:])
            except OSError as error:
                raise InvalidInputError(f"cannot read {word[1:]}: {error.strerror}") from None
        else:
            yield from (part for part in word.split(",") if part)


def _words(text: str, source: str) -> list[str]:
    if len(text) > MAX_INPUT_BYTES:
        raise InvalidInputError(f"{source} is too large for a list of job ids")
    return text.replace(",", " ").split()
