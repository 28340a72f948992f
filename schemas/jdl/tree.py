"""The tree of a parsed description: each node knows where it stands in the text.

Pure data; ``parser`` makes it, ``evaluate`` and ``reading`` say what it means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, number or boolean; None is ClassAd's ``undefined``."""

    offset: int
    value: str | int | float | bool | None
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Name:
    """A reference to another attribute."""

    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class Bare:
    """An unquoted word as a whole value: an expression if it can be evaluated, else text (DIRAC's habit)."""

    offset: int
    text: str
    inner: Node | None


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list in braces."""

    offset: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """Statements in brackets."""

    offset: int
    fields: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments."""

    offset: int
    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Unary:
    """Prefix operators, outermost first."""

    offset: int
    operators: tuple[str, ...]
    operand: Node


@dataclass(frozen=True, slots=True)
class Chain:
    """Operands joined from the left by operators of one precedence: flat, so that long sums need no deep recursion."""

    offset: int
    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """``condition ? then : otherwise``."""

    offset: int
    condition: Node
    then: Node | None
    otherwise: Node


@dataclass(frozen=True, slots=True)
class Index:
    """``base[subscript]`` or ``base.name``."""

    offset: int
    base: Node
    subscript: Node


Node: TypeAlias = Literal | Name | Bare | ListOf | Record | Call | Unary | Chain | Choice | Index


@dataclass(frozen=True, slots=True)
class Statement:
    """``name = value``.

    Attributes:
        offset: Where the name stands.
        name: The name as written.
        value: The value; None when it could not be read (the error is reported already).
        written: The text of the value.
    """

    offset: int
    name: str
    value: Node | None
    written: str = ""
