"""From text to a tree with places.

Promises: :func:`parse_statements` never raises and takes linear time; a broken statement is reported at the place
where it breaks and reading goes on with the next one, so that all errors of a text come at once. Depth is bounded by
:data:`MAX_DEPTH`. What a value means lies in ``evaluate``; which attributes exist lies in ``attributes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .lexer import NAME, Token, is_assignment, read_bare_word, read_token, skip_blank
from .tree import Bare, Call, Chain, Choice, Index, ListOf, Literal, Name, Node, Record, Statement, Unary

if TYPE_CHECKING:
    from .source import Problems

MAX_DEPTH: Final = 24
"""Nested lists, records, parentheses and operators: far beyond any real text, far below Python's recursion limit."""

_BINARY: Final = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5,
    "==": 6, "!=": 6, "=?=": 6, "=!=": 6, "is": 6, "isnt": 6,
    "<": 7, "<=": 7, ">": 7, ">=": 7,
    "<<": 8, ">>": 8, ">>>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip


class _SyntaxProblem(Exception):  # noqa: N818 - internal control flow, never leaves this module
    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


def parse_statements(problems: Problems) -> tuple[Statement, ...]:
    """Parse a whole description, with or without its outer brackets, and report every error in it."""
    return _Parser(problems).document()


class _Parser:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._text = problems.source.text
        self._position = 0
        self._depth = 0
        self._attribute: str | None = None
        self._token: Token | None = None

    # Tokens

    def _peek(self) -> Token:
        if self._token is None:
            self._token = read_token(self._text, self._position)
        return self._token

    def _take(self) -> Token:
        token = self._peek()
        self._move(token.end)
        return token

    def _move(self, position: int) -> None:
        self._position = position
        self._token = None

    def _accept(self, *operators: str) -> Token | None:
        token = self._peek()
        return self._take() if token.kind == "op" and token.text in operators else None

    def _expect(self, operator: str, message: str) -> Token:
        token = self._accept(operator)
        if token is None:
            raise self._problem(message)
        return token

    def _problem(self, message: str) -> _SyntaxProblem:
        """Return the problem with the next token: its own, if it is none, else this one."""
        token = self._peek()
        return _SyntaxProblem(token.start, token.text if token.kind == "bad" else message)

    # Statements

    def document(self) -> tuple[Statement, ...]:
        opening = self._accept("[")
        statements = self._statements(inside=opening)
        if opening is not None:
            token = self._peek()
            if token.kind != "end" and not self._problems.full:
                self._problems.error(token.start, "Text after the closing bracket of the job description")
        return tuple(statements)

    def _statements(self, inside: Token | None) -> list[Statement]:
        """Read statements up to the end, or up to and with the bracket that closes ``inside``."""
        found: list[Statement] = []
        while not self._problems.full:
            token = self._peek()
            if token.kind == "end":
                if inside is not None:
                    self._problems.error(inside.start, "The bracket [ that opens here is never closed")
                break
            if token.text == "]" and token.kind == "op":
                self._take()
                if inside is not None:
                    break
                self._problems.error(token.start, "This ] closes nothing")
            elif self._accept(";") is None:
                statement = self._statement()
                if statement is not None:
                    found.append(statement)
        return found

    def _statement(self) -> Statement | None:
        start, name, depth, outer = self._peek().start, None, self._depth, self._attribute
        try:
            name = self._statement_name()
            self._attribute = outer or name
            self._expect("=", f"Expected = after {name}")
            self._reject_empty(name)
            value_start = self._peek().start
            value = self._value()
            written = self._text[value_start : self._position]
            self._end_statement(name)
        except _SyntaxProblem as problem:
            self._problems.error(problem.offset, problem.message, self._attribute)
            self._depth = depth
            self._recover(problem.offset)
            return Statement(start, name, None) if name is not None else None
        finally:
            self._attribute = outer
        return Statement(start, name, value, written)

    def _statement_name(self) -> str:
        token = self._peek()
        if token.kind == "string" and token.text[0] == "'":
            self._take()
            if NAME.fullmatch(str(token.value)) is None:
                raise _SyntaxProblem(token.start, f"{_shown(token)} is not the name of an attribute")
            return str(token.value)
        if token.kind != "name":
            raise self._problem(f"Expected the name of an attribute, found {_shown(token)}")
        return self._take().text

    def _reject_empty(self, name: str) -> None:
        token = self._peek()
        if token.kind == "end" or (token.kind == "op" and token.text in {";", "]"}):
            raise self._problem(f"{name} has no value")

    def _end_statement(self, name: str) -> None:
        """Accept what may follow a value; a forgotten semicolon is reported without losing the value."""
        token = self._peek()
        if token.kind == "end" or (token.kind == "op" and token.text in {";", "]"}):
            return
        if token.kind == "name" and is_assignment(self._text, token.end):
            self._problems.error(self._position, f"A semicolon is missing after the value of {name}", self._attribute)
            return
        raise self._problem(
            f"Unexpected {_shown(token)} after the value of {name}; put text with blanks in double quotes"
        )

    def _recover(self, offset: int) -> None:
        """Skip the rest of a broken statement: to its semicolon, its bracket, or a line that begins the next one."""
        position, depth = max(offset, self._position), 0
        while True:
            token = read_token(self._text, position)
            if token.kind == "end" or (depth == 0 and token.text == ";" and token.kind == "op"):
                break
            if token.kind == "op" and token.text == "[":
                depth += 1
            elif token.kind == "op" and token.text == "]":
                if depth == 0:
                    break
                depth -= 1
            elif token.kind == "bad" and token.start > offset:
                self._problems.error(token.start, token.text)
            elif token.kind == "name" and depth == 0 and token.start > offset and self._begins_line(token):
                break
            position = token.end
        self._move(token.start)

    def _begins_line(self, token: Token) -> bool:
        if not is_assignment(self._text, token.end):
            return False
        before = self._text[max(0, token.start - 80) : token.start].rstrip(" \t")
        return before.endswith(("\n", "\r"))

    # Values

    def _value(self) -> Node:
        """Read a whole value: an unquoted word, or any expression."""
        start = skip_blank(self._text, self._position)
        word = read_bare_word(self._text, start)
        if word is None:
            return self._expression()
        end = start + len(word)
        inner: Node | None = None
        depth = self._depth
        try:
            inner = self._expression()
            if self._position != end:
                inner = None
        except _SyntaxProblem:
            self._depth = depth
        self._move(end)
        return Bare(start, word, inner)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _SyntaxProblem(self._peek().start, f"The value is nested more than {MAX_DEPTH} levels deep")

    def _expression(self) -> Node:
        self._deeper()
        condition = self._binary(1)
        if self._accept("?:"):
            node: Node = Choice(condition.offset, condition, None, self._expression())
        elif self._accept("?"):
            then = self._expression()
            self._expect(":", "Expected : after the first branch of ?")
            node = Choice(condition.offset, condition, then, self._expression())
        else:
            node = condition
        self._depth -= 1
        return node

    def _binary(self, least: int) -> Node:
        """Read operands joined by operators that bind at least so tightly (precedence climbing)."""
        node = self._unary()
        while (level := self._operator_level()) >= least:
            rest: list[tuple[str, Node]] = []
            while self._operator_level() == level:
                operator = self._take().text.lower()
                rest.append((operator, self._binary(level + 1)))
            node = Chain(node.offset, node, tuple(rest))
        return node

    def _operator_level(self) -> int:
        token = self._peek()
        return _BINARY.get(token.text.lower(), 0) if token.kind in {"op", "name"} else 0

    def _unary(self) -> Node:
        start = self._peek().start
        operators: list[str] = []
        while (token := self._accept("-", "+", "!", "~")) is not None:
            operators.append(token.text)
        node = self._primary()
        depth = self._depth
        while True:
            self._deeper()
            if (token := self._accept("[")) is not None:
                node = Index(token.start, node, self._expression())
                self._expect("]", "Expected ] after the subscript")
            elif (token := self._accept(".")) is not None:
                if self._peek().kind != "name":
                    raise self._problem("Expected a name after the dot")
                node = Index(token.start, node, Literal(token.start, self._take().text, quoted=True))
            else:
                break
        self._depth = depth
        return Unary(start, tuple(operators), node) if operators else node

    def _primary(self) -> Node:
        token = self._peek()
        if token.kind in {"string", "number"}:
            self._take()
            for offset, note in token.notes:
                self._problems.warn(offset, note, self._attribute)
            return Literal(token.start, token.value, quoted=token.kind == "string")
        if token.kind == "name":
            return self._name()
        if token.kind == "op" and token.text == "{":
            return self._list()
        if token.kind == "op" and token.text == "[":
            return self._record()
        if self._accept("("):
            node = self._expression()
            self._expect(")", "The parenthesis is not closed here")
            return node
        raise self._problem(f"Expected a value, found {_shown(token)}")

    def _name(self) -> Node:
        token = self._take()
        word = token.text.lower()
        if word in {"true", "false"}:
            return Literal(token.start, word == "true")
        if word == "undefined":
            return Literal(token.start, None)
        if self._accept("("):
            return Call(token.start, token.text, self._items(")", token.start))
        return Name(token.start, token.text)

    def _list(self) -> Node:
        start = self._take().start
        self._deeper()
        items = self._items("}", start)
        self._depth -= 1
        return ListOf(start, items)

    def _items(self, closing: str, start: int) -> tuple[Node, ...]:
        """Read comma-separated values; a comma before the closing mark is accepted, as DIRAC does."""
        items: list[Node] = []
        while not self._accept(closing):
            items.append(self._value())
            if self._accept(","):
                continue
            token = self._peek()
            if token.kind == "end" or token.text == ";":
                raise _SyntaxProblem(start, f"This is never closed: {closing} is missing")
            if token.kind != "op" or token.text != closing:
                raise self._problem(f"A comma is missing before {_shown(token)}")
        return tuple(items)

    def _record(self) -> Node:
        opening = self._take()
        self._deeper()
        fields = self._statements(inside=opening)
        self._depth -= 1
        return Record(opening.start, tuple(fields))


def _shown(token: Token) -> str:
    if token.kind == "end":
        return "the end of the text"
    return token.text if len(token.text) <= 40 else token.text[:37] + "..."
