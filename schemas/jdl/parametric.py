"""Several jobs of one description: vectors of values and the placeholders that take them.

Follows DIRAC: ``Parameters`` is a number of jobs or a list of values; with a number, next value = value x
``ParameterFactor`` + ``ParameterStep``, beginning with ``ParameterStart``. A name behind a dot (``Parameters.A``)
makes a named vector. ``%s`` is the job's value of the plain vector, ``%(A)s`` of a named one, ``%n`` the job's number
from 0, padded with zeros to equal width. ``%j``, the id of the job, stays until the server knows it. Values are not
searched for placeholders again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Final, TypeAlias

from .evaluate import EvaluationError, Evaluator, kind_of
from .functions import as_text
from .lexer import MAX_INTEGER
from .tree import Bare, ListOf, Literal, Statement

if TYPE_CHECKING:
    from .checks import Plain
    from .source import Problems
    from .tree import Node

MAX_PARAMETRIC_JOBS: Final = 100_000
"""Jobs of one description: what a production submits at once; one row in the store, expanded in slices."""

PLACEHOLDER: Final = re.compile(r"%(?:(?P<plain>[sn])|\((?P<name>[\w.]+)\)s)")

Element: TypeAlias = str | tuple[str, ...]
"""One value of a vector; a tuple stands for several items of a list."""

_DEFAULTS: Final = {"parameterstart": 1, "parameterstep": 0, "parameterfactor": 1}


class ExpansionError(Exception):
    """A placeholder cannot be filled in."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The values of every job.

    Attributes:
        count: Number of jobs.
        values: Vector by name; the plain one under the empty name. Names are in lower case.
    """

    count: int
    values: dict[str, tuple[Element, ...]]

    def unknown(self, text: str) -> list[str]:
        """Return the placeholders of a text for which there is no vector."""
        return [
            match.group()
            for match in PLACEHOLDER.finditer(text)
            if match["name"] is not None and match["name"].lower() not in self.values
        ]

    def touches(self, text: str) -> bool:
        """Return whether a text has a placeholder that changes from job to job."""
        return any(match["plain"] != "s" or "" in self.values for match in PLACEHOLDER.finditer(text))

    def fill(self, text: str, number: int) -> str:
        """Return a text with the values of one job.

        Raises:
            ExpansionError: A placeholder within the text stands for a list.
        """

        def value(match: re.Match[str]) -> str:
            if match["plain"] == "n":
                return str(number).zfill(len(str(self.count - 1)))
            vector = self.values.get((match["name"] or "").lower())
            if vector is None:
                return match.group()
            element = vector[number]
            if isinstance(element, tuple):
                raise ExpansionError(f"{match.group()} stands for a list, which can only be a whole item of a list")
            return element

        return PLACEHOLDER.sub(value, text)

    def fill_item(self, text: str, number: int) -> tuple[str, ...]:
        """Return what an item of a list becomes in one job: one item, or those of a list that it stands for."""
        match = PLACEHOLDER.fullmatch(text)
        if match is not None and match["plain"] != "n":
            vector = self.values.get((match["name"] or "").lower())
            if vector is not None and isinstance(vector[number], tuple):
                return tuple(vector[number])
        return (self.fill(text, number),)


@dataclass(slots=True)
class _Given:
    """The statements about one vector."""

    listed: tuple[Element, ...] | None = None
    count: int | None = None
    numbers: dict[str, int | float] | None = None
    offset: int = 0
    spelling: str = "Parameters"


def read_vectors(statements: list[Statement], evaluator: Evaluator, problems: Problems) -> Vectors | None:
    """Read the parametric attributes of a description.

    Returns:
        The vectors; None when the description is not parametric, or when an error was reported.
    """
    if not statements:
        return None
    reader = _Reader(evaluator, problems)
    for statement in statements:
        reader.read(statement)
    return reader.result(statements[0])


class _Reader:
    def __init__(self, evaluator: Evaluator, problems: Problems) -> None:
        self._evaluator = evaluator
        self._problems = problems
        self._given: dict[str, _Given] = {}
        self._failed = False

    def _error(self, offset: int, message: str, name: str) -> None:
        self._failed = True
        self._problems.error(offset, message, name)

    def read(self, statement: Statement) -> None:
        key, _, vector = statement.name.lower().partition(".")
        given = self._given.setdefault(vector, _Given(numbers={}))
        if statement.value is None:
            self._failed = True
            return
        try:
            if key == "parameters":
                self._read_values(statement, statement.value, given, named=bool(vector))
            else:
                value = self._number(statement, statement.value)
                if value is not None and given.numbers is not None:
                    given.numbers[key] = value
        except EvaluationError as error:
            self._error(error.offset, error.message, statement.name)

    def _read_values(self, statement: Statement, node: Node, given: _Given, *, named: bool) -> None:
        given.offset, given.spelling = node.offset, statement.name
        items = self._listed(node)
        if items is not None:
            given.listed = items
            if not items:
                self._error(node.offset, f"{statement.name} has no values", statement.name)
            self._check_count(len(items), statement, node)
            return
        number = self._number(statement, node)
        if number is None:
            return
        if named:
            message = f"{statement.name} is a list; for numbers give Parameters = {number} and ParameterStart, …"
            self._error(node.offset, message, statement.name)
        elif not isinstance(number, int) or number < 1:
            self._error(node.offset, "Parameters is a number of jobs from 1, or a list of values", statement.name)
        else:
            given.count = number
            self._check_count(number, statement, node)

    def _check_count(self, count: int, statement: Statement, node: Node) -> None:
        if count > MAX_PARAMETRIC_JOBS:
            message = f"{count} jobs are more than {MAX_PARAMETRIC_JOBS} of one description"
            self._error(node.offset, message, statement.name)

    def _listed(self, node: Node) -> tuple[Element, ...] | None:
        if isinstance(node, ListOf):
            return tuple(self._element(item) for item in node.items)
        value = self._evaluator.evaluate(node)
        if not isinstance(value, list):
            return None
        scalars = [None if isinstance(item, (list, dict)) else item for item in value]
        return tuple(self._element(Literal(node.offset, scalar)) for scalar in scalars)

    def _element(self, node: Node) -> Element:
        if isinstance(node, ListOf):
            items = [self._element(item) for item in node.items]
            if any(isinstance(item, tuple) for item in items):
                raise EvaluationError(node.offset, "A value of Parameters is a text, a number or a list of these")
            return tuple(str(item) for item in items)
        if isinstance(node, Bare) and (node.inner is None or isinstance(node.inner, Literal)):
            return node.text
        value = self._evaluator.evaluate(node)
        try:
            return as_text(value)
        except TypeError:
            raise EvaluationError(node.offset, "A value of Parameters is a text, a number or a list of these") from None

    def _number(self, statement: Statement, node: Node) -> int | float | None:
        value = self._evaluator.evaluate(node)
        if isinstance(value, str):
            value = _number_in(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            what = "a number of jobs or a list of values" if statement.name.lower() == "parameters" else "a number"
            self._error(node.offset, f"{statement.name} is {what}, not {kind_of(value)}", statement.name)
            return None
        return value

    def result(self, first: Statement) -> Vectors | None:
        sized = [given for given in self._given.values() if given.listed is not None or given.count is not None]
        if self._failed:
            return None
        if not sized:
            message = f"{first.name} has no effect without Parameters"
            self._error(first.offset, message, first.name)
            return None
        count = self._common_count(sized)
        values: dict[str, tuple[Element, ...]] = {}
        for name, given in self._given.items():
            listed = given.listed
            values[name] = listed if listed is not None else self._progression(given.numbers or {}, count, first)
        return None if self._failed else Vectors(count, values)

    def _common_count(self, sized: list[_Given]) -> int:
        count, model = 0, sized[0]
        for given in sized:
            size = len(given.listed) if given.listed is not None else given.count or 0
            if given is model:
                count = size
            elif size != count:
                message = f"Different numbers of values: {given.spelling} has {size}, {model.spelling} has {count}"
                self._error(given.offset, message, given.spelling)
        return count

    def _progression(self, numbers: dict[str, int | float], count: int, first: Statement) -> tuple[str, ...]:
        start, step, factor = (numbers.get(key, default) for key, default in _DEFAULTS.items())
        # All values are of one type, as with DIRAC: a real step makes the first value real as well.
        value = start * type(factor)(1) + type(step)(0)
        found = []
        for number in range(count):
            if not isfinite(value) or (isinstance(value, int) and abs(value) > MAX_INTEGER):
                self._error(first.offset, f"The value of job {number} does not fit into 64 bits", first.name)
                break
            found.append(str(value))
            value = value * factor + step
        return tuple(found)


def _number_in(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            value: int | float = kind(text)
        except ValueError:
            continue
        if isfinite(value):
            return value
    return text


def expand_plain(value: Plain, vectors: Vectors, number: int) -> Plain:
    """Return the value of an attribute in one job; items of a list may become several.

    Raises:
        ExpansionError: A placeholder for a list stands where one text is wanted.
    """
    if isinstance(value, str):
        return vectors.fill(value, number)
    if isinstance(value, tuple):
        return tuple(part for item in value for part in vectors.fill_item(item, number))
    return value
