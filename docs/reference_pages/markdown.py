"""Small pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")


def generated(source: str) -> str:
    """The line that says where a page comes from."""
    return f"<!-- Made by `make docs` from {source}; change that, not this page. -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are made harmless."""
    lines = [_row(head), _row(["---"] * len(head))]
    lines.extend(_row([cell.replace("|", "\\|").replace("\n", " ").strip() for cell in row]) for row in rows)
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def code(text: object) -> str:
    """Inline code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def codes(texts: Iterable[object]) -> str:
    """Several pieces of inline code."""
    return ", ".join(code(text) for text in texts)


def prose(docstring: str) -> str:
    """Docstring markup (reStructuredText roles and literals) as Markdown."""
    return _ROLE.sub(r"`\1`", docstring).replace("``", "`")


def seconds(number: float) -> str:
    """A span of time for people."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if number >= size and number % size == 0:
            count = int(number // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{number:g} s"


def size(number: int) -> str:
    """Bytes for people."""
    return f"{number >> 20} MiB" if number % (1 << 20) == 0 else f"{number >> 10} KiB"
