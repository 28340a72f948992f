"""From a value in the tree to plain data for one attribute: the habits of the language.

Takes an unquoted word as text, one text where a list is expected, a record or a list for the environment. Raises
:class:`~schemas.jdl.evaluate.EvaluationError` when a value has no such form; if it is acceptable lies in ``checks``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .attributes import LISTS, Attribute, Kind
from .description import unparse_value
from .evaluate import MAX_NESTING, EvaluationError, Evaluator, Value, is_nested_deeper, kind_of
from .functions import as_text
from .tree import Bare, ListOf, Literal, Node, Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from .checks import Plain

_SEVERAL_VARIABLES = re.compile(r"\s*[A-Za-z_]\w*=[^;]*(?:;\s*[A-Za-z_]\w*=[^;]*)+;?\s*", re.ASCII)


class Reader:
    """Reads the values of one description."""

    def __init__(self, evaluator: Evaluator, warn: Callable[[int, str, str], None]) -> None:
        self._evaluator = evaluator
        self._warn = warn

    def read(self, attribute: Attribute, node: Node) -> tuple[Plain | None, list[int]]:
        """Return a value as plain data and, for a list, where its items stand; None is ``undefined``.

        Raises:
            EvaluationError: The value has no form that this kind of attribute knows.
        """
        if attribute.kind in LISTS:
            items = self._environment(node) if attribute.kind is Kind.ENVIRONMENT else self._items(attribute, node)
            return tuple(text for _, text in items), [offset for offset, _ in items]
        if attribute.kind in {Kind.INTEGER, Kind.BOOLEAN}:
            return self._scalar(attribute, node), []
        return self._text(attribute.name, node), []

    def read_extra(self, node: Node, written: str) -> tuple[object, str | None]:
        """Return the value of an attribute without meaning here: evaluated, or its text and why it is only text."""
        try:
            value = self._evaluator.evaluate(node)
        except EvaluationError as error:
            if error.final:
                raise
            return written, error.message
        _refuse_deep(value, node.offset)
        return (written, "it cannot be computed here") if value is None else (value, None)

    def _text(self, name: str, node: Node) -> str | None:
        if isinstance(node, Bare) and (node.inner is None or isinstance(node.inner, Literal)):
            undefined = isinstance(node.inner, Literal) and node.inner.value is None
            return None if undefined else node.text
        references = self._evaluator.resolved_references
        value = self._evaluate(node)
        if isinstance(value, str):
            return value
        if isinstance(node, Bare) and self._evaluator.resolved_references == references:
            return node.text  # an unquoted 2024-11-30 is meant as text
        if value is None and isinstance(node, Literal):
            return None
        try:
            return as_text(value)
        except TypeError:
            raise EvaluationError(node.offset, f"{name} is text, not {kind_of(value)}") from None

    def _scalar(self, attribute: Attribute, node: Node) -> str | int | float | bool | None:
        value = self._evaluate(node)
        if isinstance(value, (list, dict)):
            raise EvaluationError(node.offset, f"{attribute.name} is one value, not {kind_of(value)}")
        return value

    def _evaluate(self, node: Node) -> Value:
        self._evaluator.unresolved = None
        value = self._evaluator.evaluate(node)
        missing = self._evaluator.unresolved
        if value is None and missing is not None:
            message = f"{missing.text} is not an attribute of this description; put text in double quotes"
            raise EvaluationError(missing.offset, message)
        return value

    def _items(self, attribute: Attribute, node: Node) -> list[tuple[int, str]]:
        if isinstance(node, ListOf):
            return [(item.offset, self._item(attribute, item)) for item in node.items]
        text = self._one_or_many(attribute, node)
        if isinstance(text, list):
            return [(node.offset, item) for item in text]
        if not text.strip():
            return []
        if attribute.kind in {Kind.NAMES, Kind.MODELS}:
            return [(node.offset, name.strip()) for name in text.split(",") if name.strip()]
        if "," in text:
            message = f"{attribute.name} is one name with a comma in it; several go into a list: {{…, …}}"
            self._warn(node.offset, message, attribute.name)
        return [(node.offset, text)]

    def _item(self, attribute: Attribute, node: Node) -> str:
        text = self._text(f"An item of {attribute.name}", node)
        if text is None:
            raise EvaluationError(node.offset, f"An item of {attribute.name} is undefined")
        return text

    def _one_or_many(self, attribute: Attribute, node: Node) -> str | list[str]:
        value = None if isinstance(node, (Bare, Literal)) else self._evaluate(node)
        if isinstance(node, Bare) and not isinstance(node.inner, Literal) and node.inner is not None:
            value = self._evaluator.evaluate(node)
        if not isinstance(value, list):
            return self._text(attribute.name, node) or ""
        try:
            return [as_text(item) for item in value]
        except TypeError:
            raise EvaluationError(node.offset, f"{attribute.name} is a list of texts") from None

    def _environment(self, node: Node) -> list[tuple[int, str]]:
        if isinstance(node, Record):
            return [
                (field.offset, f"{field.name}={self._variable(field.name, field.value)}")
                for field in node.fields
                if field.value is not None
            ]
        if isinstance(node, ListOf):
            return [(item.offset, self._pair(item)) for item in node.items]
        value = None if isinstance(node, (Bare, Literal)) else self._evaluate(node)
        if isinstance(value, dict):
            return [(node.offset, f"{name}={_as_variable(item, node.offset)}") for name, item in value.items()]
        text = self._text("Environment", node) or ""
        parts = text.split(";") if _SEVERAL_VARIABLES.fullmatch(text) else [text]
        return [(node.offset, part.strip()) for part in parts if part.strip()]

    def _pair(self, node: Node) -> str:
        return self._text("An item of Environment", node) or ""

    def _variable(self, name: str, node: Node) -> str:
        if isinstance(node, (Record, ListOf)):
            value = self._evaluator.evaluate(node)
            self._warn(node.offset, f"{name} is {kind_of(value)}; the variable will hold its text", "Environment")
            return _as_variable(value, node.offset)
        return self._text(name, node) or ""


def _as_variable(value: Value, offset: int) -> str:
    _refuse_deep(value, offset)
    return unparse_value(value) if isinstance(value, (list, dict)) else as_text("" if value is None else value)


def _refuse_deep(value: Value, offset: int) -> None:
    if is_nested_deeper(value, MAX_NESTING):
        raise EvaluationError(offset, f"Lists and records are nested more than {MAX_NESTING} levels deep")
