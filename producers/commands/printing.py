"""How results look: tables of at most 80 columns, local times with their age, JSON, coloured statuses on a terminal.

Plain text rather than a library: a table of a hundred jobs must not cost more than asking for it. Everything foreign
is made harmless for terminals before it is printed.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from schemas.job import JobStatus

if TYPE_CHECKING:
    from ..errors import Fault

WIDTH = 80
"""Tables fit so many columns when nobody says how wide the terminal is."""

_COLOURS = {
    JobStatus.DONE: "green",
    JobStatus.FAILED: "red",
    JobStatus.KILLED: "magenta",
    JobStatus.RUNNING: "cyan",
    JobStatus.COMPLETING: "cyan",
    JobStatus.MATCHED: "blue",
    JobStatus.STALLED: "yellow",
    JobStatus.RESCHEDULED: "yellow",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: heading.
        right: numbers stand right.
        elastic: gives way when the table is too wide.
    """

    title: str
    right: bool = False
    elastic: bool = False


def print_json(value: object) -> None:
    """One JSON document (UTF-8, two spaces)."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_json_line(value: object) -> None:
    """One JSON document in one line, flushed: for streams."""
    import msgspec

    typer.echo(msgspec.json.encode(value))
    sys.stdout.flush()


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A table as wide as the terminal allows."""
    for line in layout(columns, rows, terminal_width()):
        typer.echo(line)


def terminal_width() -> int:
    """Columns of the terminal, so that wider ones let long names stand in full; without one nothing is cut."""
    return max(40, shutil.get_terminal_size((WIDTH, 24)).columns) if sys.stdout.isatty() else sys.maxsize


def layout(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The lines of a table; elastic columns share what the others leave, cut with an ellipsis."""
    cells = [[harmless(cell) for cell in row] for row in rows]
    widths = [max([cells_wide(c.title), *(cells_wide(row[i]) for row in cells)]) for i, c in enumerate(columns)]
    excess = sum(widths) + 2 * (len(columns) - 1) - width
    while excess > 0:
        index = max((i for i, c in enumerate(columns) if c.elastic), key=lambda i: widths[i], default=None)
        if index is None or widths[index] <= max(6, cells_wide(columns[index].title)):
            break
        widths[index] -= 1
        excess -= 1
    lines = [_line(columns, [column.title for column in columns], widths)]
    return [*lines, *(_line(columns, row, widths) for row in cells)]


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        text = cut(cell, width)
        blank = " " * (width - cells_wide(text))
        shown = paint(text) if column.title == "STATUS" else text
        parts.append(blank + shown if column.right else shown + blank)
    return "  ".join(parts).rstrip()


def cells_wide(text: str) -> int:
    """Terminal cells of a text: East Asian wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """Text shortened to so many cells, with an ellipsis."""
    if cells_wide(text) <= width:
        return text
    while text and cells_wide(text) > width - 1:
        text = text[:-1]
    return text + "…"


def harmless(text: str) -> str:
    """Text without characters that steer a terminal or turn its direction."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}" for c in text)


def paint(text: str) -> str:
    """A status, coloured if this is a terminal that wants colours."""
    colour = _COLOURS.get(text.strip())  # type: ignore[call-overload]  # a StrEnum is equal to its text
    return typer.style(text, fg=colour) if colour and coloured() else text


def coloured() -> bool:
    """Whether to colour: a terminal, and nobody said no (https://no-color.org)."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def when(moment: float | None, now: float) -> str:
    """A local ISO time with its age: ``2026-11-23 14:40 (3m)``; empty if it has not happened."""
    if moment is None:
        return ""
    import datetime as dt

    local = dt.datetime.fromtimestamp(moment, dt.UTC).astimezone()
    return f"{local:%Y-%m-%d %H:%M} ({age(now - moment)})"


def both(minor: str, cause: str) -> str:
    """A minor state with its cause, each said once."""
    return f"{minor} ({cause})" if minor and cause and minor != cause else minor or cause


def clock(moment: float) -> str:
    """A local ISO time to the millisecond, for histories."""
    import datetime as dt

    local = dt.datetime.fromtimestamp(moment, dt.UTC).astimezone()
    return local.isoformat(sep=" ", timespec="milliseconds")[:23]


def age(seconds: float) -> str:
    """A duration in its largest sensible unit: ``12s``, ``3m``, ``5h``, ``2d``."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def print_fault(fault: Fault, name: str, text: str | None, *, kind: str = "error") -> None:
    """A fault as a compiler shows it: place, message, the line and a caret; on standard error."""
    place = f"{name}:{fault.line}:{fault.column}: " if fault.line else f"{name}: " if name else ""
    typer.echo(f"{place}{kind}: {harmless(fault.message)}", err=True)
    lines = text.splitlines() if text is not None else []
    if 0 < fault.line <= len(lines):
        line, column = _window(lines[fault.line - 1], fault.column)
        typer.echo(f"  {line}\n  {' ' * cells_wide(line[: column - 1])}^", err=True)


def _window(line: str, column: int) -> tuple[str, int]:
    """The part of a line around a column, and the column in it."""
    text = harmless(line.replace("\t", " "))
    column = min(column, len(text) + 1)
    if len(text) <= WIDTH - 4:
        return text, column
    start = max(0, column - WIDTH // 2)
    return text[start : start + WIDTH - 4], column - start
