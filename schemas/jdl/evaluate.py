"""Constant expressions: what a value of a description means before any job runs.

Promises: evaluation ends, within :data:`MAX_STEPS` steps and :data:`MAX_REFERENCES` nested references, and raises
nothing but :class:`EvaluationError`. Follows the ClassAd language: 64-bit integers, division towards zero, strings
compared without regard to case by ``==`` and exactly by ``=?=``, ``undefined`` for what is not there. Only attributes
of the same description can be referred to: nothing is known of any node here, so ``other.X`` stays undefined.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Final, TypeAlias

from .lexer import MAX_INTEGER
from .tree import Bare, Call, Chain, Choice, Index, ListOf, Literal, Name, Node, Record, Unary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .tree import Statement

MAX_STEPS: Final = 100_000
"""Work per description: several times what the largest text needs, and an end for values that double at each step."""

MAX_REFERENCES: Final = 20
"""How deep attributes may refer to each other: real texts need two or three."""

MAX_EVALUATION_DEPTH: Final = 100
"""Nesting of one value through all its references: three Python frames each, far below the recursion limit."""

MAX_NESTING: Final = 8
"""Lists and records within each other in a result, so that its canonical text can be parsed again."""

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"
"""A value; None is ClassAd's ``undefined``."""

_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_BIT_OPERATIONS: Final[dict[str, Callable[[int, int], int]]] = {
    "&": operator.and_, "|": operator.or_, "^": operator.xor,
}  # fmt: skip


class EvaluationError(Exception):
    """The value cannot be computed; ``final`` when an unquoted word may not be taken as text instead."""

    def __init__(self, offset: int, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message
        self.final = final


class Evaluator:
    """Evaluates the values of one description; results of attributes are kept."""

    def __init__(self, statements: Iterable[Statement]) -> None:
        self._scope = {s.name.lower(): s.value for s in statements if s.value is not None}
        self._known: dict[str, tuple[Value, int]] = {}
        self._active: list[str] = []
        self._steps = 0
        self._depth = 0
        self.unresolved: Name | None = None
        self.resolved_references = 0

    def evaluate(self, node: Node) -> Value:
        """Return the value of a node.

        Raises:
            EvaluationError: It has none: wrong types, division by zero, a circle of references, too much work.
        """
        self._spend(1, node)
        if self._depth >= MAX_EVALUATION_DEPTH:
            raise EvaluationError(node.offset, "The value is nested too deeply", final=True)
        self._depth += 1
        try:
            return self._evaluate(node)
        finally:
            self._depth -= 1

    def _evaluate(self, node: Node) -> Value:
        match node:
            case Literal():
                return self._literal(node)
            case Bare():
                return self._bare(node)
            case Name():
                return self._name(node)
            case ListOf():
                return [self.evaluate(item) for item in node.items]
            case Record():
                return {field.name: self.evaluate(field.value) for field in node.fields if field.value is not None}
            case Index():
                return self._index(node)
            case Unary():
                return self._unary(node)
            case Chain():
                return self._chain(node)
            case Choice():
                return self._choice(node)
            case Call():
                return self._call(node)

    def is_defined(self, name: str) -> bool:
        """Return whether the description has this attribute."""
        return name.lower() in self._scope

    def _spend(self, steps: int, node: Node) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise EvaluationError(node.offset, "The value takes too much work to compute", final=True)

    # Leaves

    def _literal(self, node: Literal) -> Value:
        if isinstance(node.value, str):
            self._spend(len(node.value) // 16, node)  # so that many references to a long text are seen as large
        return node.value

    def _bare(self, node: Bare) -> Value:
        if node.inner is None:
            return node.text
        if isinstance(node.inner, Literal):
            return node.inner.value
        try:
            value = self.evaluate(node.inner)
        except EvaluationError as error:
            if error.final:
                raise
            return node.text
        return node.text if value is None else value

    def _name(self, node: Name) -> Value:
        key = node.text.lower()
        if key in self._scope:
            return self._attribute(key, node)
        head, _, rest = key.partition(".")
        if rest and head in self._scope and isinstance(self._scope[head], Record):
            value: Value = self._attribute(head, node)
            for part in rest.split("."):
                value = _member(value, part)
            return value
        self.unresolved = node
        return None

    def _attribute(self, key: str, node: Node) -> Value:
        self.resolved_references += 1
        if key not in self._known:
            if key in self._active:
                raise EvaluationError(node.offset, f"The value refers to itself through {key}", final=True)
            if len(self._active) >= MAX_REFERENCES:
                message = f"The value refers on through more than {MAX_REFERENCES} attributes"
                raise EvaluationError(node.offset, message, final=True)
            before = self._steps
            self._active.append(key)
            try:
                value = self.evaluate(self._scope[key])
            except EvaluationError as error:  # told where the reader referred to it, not where it is defined
                raise EvaluationError(node.offset, error.message, final=error.final) from None
            finally:
                self._active.pop()
            self._known[key] = (value, self._steps - before)
            return value
        value, cost = self._known[key]
        self._spend(cost, node)
        return value

    # Structures

    def _index(self, node: Index) -> Value:
        base, subscript = self.evaluate(node.base), self.evaluate(node.subscript)
        if isinstance(base, list) and isinstance(subscript, int) and 0 <= subscript < len(base):
            return base[subscript]
        if isinstance(base, dict) and isinstance(subscript, str):
            return _member(base, subscript.lower())
        if base is None or subscript is None:
            return None
        raise EvaluationError(node.offset, "There is nothing at this subscript")

    # Operators

    def _unary(self, node: Unary) -> Value:
        value = self.evaluate(node.operand)
        for sign in reversed(node.operators):
            if value is None:
                return None
            if sign == "!":
                value = not _truth(value, node)
            elif sign == "~" and isinstance(value, int) and not isinstance(value, bool):
                value = ~value
            elif isinstance(value, (int, float)) and not isinstance(value, bool) and sign in "+-":
                value = _bounded(-value if sign == "-" else value, node)
            else:
                raise EvaluationError(node.offset, f"{sign} needs a number, not {kind_of(value)}")
        return value

    def _chain(self, node: Chain) -> Value:
        left = self.evaluate(node.first)
        for sign, right in node.rest:
            if sign in {"&&", "||"}:
                left = self._logical(sign, left, right, node)
                continue
            other = self.evaluate(right)
            if sign in {"=?=", "is", "=!=", "isnt"}:
                left = _identical(left, other) == (sign in {"=?=", "is"})
            elif left is None or other is None:
                left = None
            elif sign in _COMPARISONS:
                left = _compare(sign, left, other, node)
            else:
                left = _arithmetic(sign, left, other, node)
        return left

    def _logical(self, sign: str, left: Value, right: Node, node: Node) -> Value:
        decided = sign == "||"
        if left is not None and _truth(left, node) == decided:
            return decided
        other = self.evaluate(right)
        if other is not None and _truth(other, node) == decided:
            return decided
        return None if left is None or other is None else not decided

    def _choice(self, node: Choice) -> Value:
        condition = self.evaluate(node.condition)
        if node.then is None:
            return self.evaluate(node.otherwise) if condition is None else condition
        if condition is None:
            return None
        return self.evaluate(node.then if _truth(condition, node) else node.otherwise)

    def _call(self, node: Call) -> Value:
        from .functions import FUNCTIONS  # few texts call a function

        name = node.function.lower()
        if name == "ifthenelse" and len(node.arguments) == 3:
            return self._choice(Choice(node.offset, *node.arguments))
        function = FUNCTIONS.get(name)
        if function is None:
            known = ", ".join(sorted(FUNCTIONS))
            raise EvaluationError(node.offset, f"There is no function {node.function} here; known are {known}")
        arguments = [self.evaluate(argument) for argument in node.arguments]
        try:
            value = function(*arguments)
        except (TypeError, ValueError, OverflowError):
            raise EvaluationError(node.offset, f"{node.function} cannot be used with these arguments") from None
        if isinstance(value, str):
            self._spend(len(value) // 4, node)
        return _bounded(value, node) if _is_number(value) else value


def kind_of(value: Value) -> str:
    """Name the kind of a value for a message."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list"
    return "undefined" if value is None else "a record"


def is_nested_deeper(value: object, levels: int) -> bool:
    """Return whether lists and records of a value lie within each other more than so many levels deep."""
    if not isinstance(value, (list, dict)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_nested_deeper(item, levels - 1) for item in inner)


def _member(value: Value, key: str) -> Value:
    if not isinstance(value, dict):
        return None
    return next((member for name, member in value.items() if name.lower() == key), None)


def _is_integer(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _truth(value: Value, node: Node) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return value != 0
    raise EvaluationError(node.offset, f"A condition is true or false, not {kind_of(value)}")


def _identical(left: Value, right: Value) -> bool:
    return type(left) is type(right) and left == right


def _compare(sign: str, left: Value, right: Value, node: Node) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        first, second = left.lower(), right.lower()
        return _COMPARISONS[sign]((first > second) - (first < second), 0)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return _COMPARISONS[sign](left, right)
    raise EvaluationError(node.offset, f"Cannot compare {kind_of(left)} with {kind_of(right)}")


def _arithmetic(sign: str, left: Value, right: Value, node: Node) -> int | float:
    if _is_integer(left) and _is_integer(right):
        assert isinstance(left, int)  # noqa: S101 - for the type checker
        assert isinstance(right, int)  # noqa: S101 - for the type checker
        return int(_bounded(_integer_operation(sign, left, right, node), node))
    if not (_is_number(left) and _is_number(right)) or sign not in "+-*/":
        raise EvaluationError(node.offset, f"{sign} does not work on {kind_of(left)} and {kind_of(right)}")
    assert isinstance(left, (int, float))  # noqa: S101 - for the type checker
    assert isinstance(right, (int, float))  # noqa: S101 - for the type checker
    first, second = float(left), float(right)
    if sign == "/":
        if second == 0:
            raise EvaluationError(node.offset, "Division by zero")
        return _bounded(first / second, node)
    return _bounded({"+": first + second, "-": first - second, "*": first * second}[sign], node)


def _integer_operation(sign: str, left: int, right: int, node: Node) -> int:
    if sign in _BIT_OPERATIONS:
        return _BIT_OPERATIONS[sign](left, right)
    if sign in {"/", "%"}:
        if right == 0:
            raise EvaluationError(node.offset, "Division by zero")
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return quotient if sign == "/" else left - quotient * right
    if sign in {"<<", ">>", ">>>"}:
        if not 0 <= right < 64:
            raise EvaluationError(node.offset, "A shift goes over 0 to 63 bits")
        return left << right if sign == "<<" else (left >> right if sign == ">>" else (left % 2**64) >> right)
    return {"+": left + right, "-": left - right, "*": left * right}[sign]


def _bounded(value: Value, node: Node) -> int | float:
    assert isinstance(value, (int, float))  # noqa: S101 - for the type checker
    if isinstance(value, float) and not math.isfinite(value):
        raise EvaluationError(node.offset, "The result is not a finite number")
    if isinstance(value, int) and not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
        raise EvaluationError(node.offset, "The result needs more than 64 bits")
    return value
