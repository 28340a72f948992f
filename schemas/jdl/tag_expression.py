"""Tag expressions: what must be true of a node's tags, such as ``gpu && (cvmfs || squid) && !slow``.

A name is true if the node has that tag. ``!`` binds most, then ``&&``, then ``||``; a name with one of ``&|!()`` in it
stands in single quotes. Promises: time and size are bounded whatever the text; :func:`settle` gives equal wishes one
text, however they were written, and refuses what no node can ever fulfil.

Equal wishes are found by meaning: the expression becomes a binary decision diagram, and its text is then the sum of all
its prime implicants or the product of all its prime implicates (the Blake canonical form and its dual), whichever names
fewer tags. Both depend on the meaning only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from ..errors import PilotageError

MAX_LENGTH: Final = 2048
"""Characters, of what is read and of the canonical text: a screenful."""
MAX_DEPTH: Final = 20
"""Parentheses inside each other."""
MAX_DISTINCT: Final = 32
"""Different tags in one expression."""
MAX_TERMS: Final = 64
"""Terms of the canonical text. Sensible wishes have a handful; the number can grow exponentially with the tags."""
MAX_NODES: Final = 4000
"""Of the diagram: about 20 ms at worst. A hundred are many for a sensible wish."""

_TOKEN = re.compile(
    r"""(?P<blank>\s+)|(?P<operator>&&|\|\||[!()])|'(?P<quoted>[^\s,;"'{}\[\]\x00-\x1f\x7f]+)'"""
    r"""|(?P<name>[^\s,;"'{}\[\]&|!()\x00-\x1f\x7f]+)"""
)
_PLAIN = re.compile(r"[^&|!()]+")
_WORDS: Final = {"and": "&&", "or": "||", "not": "!"}

Tree: TypeAlias = "str | tuple[str, tuple[Tree, ...]]"
"""A name, or an operator with what it joins."""

Test: TypeAlias = Callable[[Collection[str]], bool]
"""Whether an expression is true of these tags."""


class TagExpressionError(PilotageError):
    """A tag expression that cannot be read, or that no node can fulfil.

    Attributes:
        offset: the character at which the trouble shows; 0 if it is the whole.
    """

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


@lru_cache(maxsize=4096)
def settle(tags: tuple[str, ...], expression: str) -> tuple[tuple[str, ...], str]:
    """Tags and an expression that both must hold, in one canonical form.

    Tags that the expression demands in any case move to the tags; what is left is the canonical text, empty if nothing.

    Raises:
        TagExpressionError: it cannot be read, is too complicated, or contradicts itself or the tags.
    """
    wanted = set(tags)
    if not expression.strip():
        return tuple(sorted(wanted)), ""
    tree = parse(expression)
    diagram = _Diagram(list(dict.fromkeys(_names(tree))))
    meaning = diagram.of(tree)
    if meaning == _NEVER:
        raise TagExpressionError("no node can fulfil it: it contradicts itself")
    for name in diagram.names:
        if name in wanted:
            meaning = diagram.given(meaning, name)
    if meaning == _NEVER:
        raise TagExpressionError("no node can fulfil it: it contradicts Tags")
    for name in diagram.names:
        if diagram.both(meaning, diagram.without(name)) == _NEVER:
            wanted.add(name)
            meaning = diagram.given(meaning, name)
    return tuple(sorted(wanted)), diagram.text(meaning)


def holds(expression: str, tags: Collection[str]) -> bool:
    """Whether an expression is true of a node with these tags; the empty one always is, an unreadable one never."""
    test = _test(expression)
    return (not expression) if test is None else test(tags)


@lru_cache(maxsize=4096)
def named(expression: str) -> frozenset[str]:
    """The tags that a canonical expression names without negation."""
    tree = _parsed(expression)
    return frozenset() if tree is None else frozenset(_affirmed(tree, affirmed=True))


@lru_cache(maxsize=4096)
def _parsed(expression: str) -> Tree | None:
    try:
        return parse(expression) if expression else None
    except TagExpressionError:
        return None


def names_of(expression: str) -> tuple[str, ...]:
    """Every tag that an expression names, in order.

    Raises:
        TagExpressionError: it cannot be read.
    """
    return tuple(dict.fromkeys(_names(parse(expression))))


def parse(expression: str) -> Tree:
    """The tree of an expression.

    Raises:
        TagExpressionError: it is none, or too large.
    """
    if len(expression) > MAX_LENGTH:
        raise TagExpressionError(f"it is {len(expression)} characters long, at most {MAX_LENGTH} are allowed")
    tree = _Parser(expression).whole()
    distinct = len(set(_names(tree)))
    if distinct > MAX_DISTINCT:
        raise TagExpressionError(f"it names {distinct} different tags, at most {MAX_DISTINCT} are allowed")
    return tree


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    offset: int
    is_name: bool


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._end = len(text)
        self._at = 0
        self._depth = 0

    def whole(self) -> Tree:
        tree = self._either()
        if self._at < len(self._tokens):
            self._refuse(self._tokens[self._at])
        return tree

    def _refuse(self, token: _Token) -> None:
        if token.text == ")":
            raise TagExpressionError("a ) closes nothing", token.offset)
        word = _WORDS.get(token.text.lower())
        hint = f"write {word} for {token.text}" if word else "write && (both) or || (one of them) between two tags"
        raise TagExpressionError(f"'{token.text}' follows without an operator: {hint}", token.offset)

    def _take(self, operator: str) -> bool:
        if self._at < len(self._tokens) and not (token := self._tokens[self._at]).is_name and token.text == operator:
            self._at += 1
            return True
        return False

    def _either(self) -> Tree:
        parts = [self._all()]
        while self._take("||"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else ("||", tuple(parts))

    def _all(self) -> Tree:
        parts = [self._one()]
        while self._take("&&"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else ("&&", tuple(parts))

    def _one(self) -> Tree:
        negated = False
        while self._take("!"):
            negated = not negated
        tree = self._positive()
        return ("!", (tree,)) if negated else tree

    def _positive(self) -> Tree:
        if self._at >= len(self._tokens):
            raise TagExpressionError("a tag is missing at the end", self._end)
        token = self._tokens[self._at]
        if token.is_name:
            self._at += 1
            return token.text
        if not self._take("("):
            raise TagExpressionError(f"a tag is missing before {token.text}", token.offset)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TagExpressionError(f"parentheses are nested more than {MAX_DEPTH} deep", token.offset)
        tree = self._either()
        self._depth -= 1
        if not self._take(")"):
            if self._at < len(self._tokens):
                self._refuse(self._tokens[self._at])
            raise TagExpressionError("this ( is not closed", token.offset)
        return tree


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            hint = f"write {text[at] * 2}" if text[at] in "&|" else "tags are joined by &&, ||, ! and parentheses"
            raise TagExpressionError(f"{text[at]!r} does not belong here: {hint}", at)
        if found.lastgroup == "operator":
            yield _Token(found.group(), at, is_name=False)
        elif found.lastgroup != "blank":
            yield _Token(found["quoted"] or found["name"], at, is_name=True)
        at = found.end()


def _names(tree: Tree) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    else:
        for part in tree[1]:
            yield from _names(part)


def _affirmed(tree: Tree, *, affirmed: bool) -> Iterator[str]:
    if isinstance(tree, str):
        if affirmed:
            yield tree
    else:
        for part in tree[1]:
            yield from _affirmed(part, affirmed=affirmed != (tree[0] == "!"))


@lru_cache(maxsize=4096)
def _test(expression: str) -> Test | None:
    tree = _parsed(expression)
    return None if tree is None else _made(tree)


def _made(tree: Tree) -> Test:
    """A function that tests the tree: matching asks each new list of tags against every expression in use."""
    if isinstance(tree, str):
        return lambda tags: tree in tags
    operator, parts = tree
    if operator == "!":
        inner = _made(parts[0])
        return lambda tags: not inner(tags)
    affirmed = frozenset(part for part in parts if isinstance(part, str))
    denied: set[str] = set()
    others: list[Test] = []
    for part in parts:
        if isinstance(part, str):
            continue
        if part[0] == "!" and isinstance(part[1][0], str):
            denied.add(part[1][0])
        else:
            others.append(_made(part))
    if operator == "&&":
        if not others:
            return lambda tags: affirmed.issubset(tags) and denied.isdisjoint(tags)
        return lambda tags: affirmed.issubset(tags) and denied.isdisjoint(tags) and all(one(tags) for one in others)
    if not others:
        return lambda tags: not (affirmed.isdisjoint(tags) and denied.issubset(tags))
    return lambda tags: not (affirmed.isdisjoint(tags) and denied.issubset(tags)) or any(one(tags) for one in others)


_NEVER: Final = 0
_ALWAYS: Final = 1

_Term: TypeAlias = tuple[int, int]
"""Literals that must all be true: the names (bits) that are affirmed, and those that are denied."""


class _TooManyError(Exception):
    """More terms than the text may have."""


class _Diagram:
    """A reduced ordered binary decision diagram: equal functions are equal numbers.

    Names stand in the order of their first use, which keeps what is written together close and the diagram small; its
    size alone depends on the order.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._levels = {name: level for level, name in enumerate(names)}
        self._nodes: list[tuple[int, int, int]] = [(len(names), 0, 0), (len(names), 1, 1)]
        self._known: dict[tuple[int, int, int], int] = {}
        self._chosen: dict[tuple[int, int, int], int] = {}
        self._primes: dict[int, frozenset[_Term]] = {}

    def of(self, tree: Tree) -> int:
        """The function of a tree."""
        if isinstance(tree, str):
            return self._node(self._levels[tree], _NEVER, _ALWAYS)
        operator, parts = tree
        found = self.of(parts[0])
        if operator == "!":
            return self.choose(found, _NEVER, _ALWAYS)
        for part in parts[1:]:
            other = self.of(part)
            found = self.both(found, other) if operator == "&&" else self.choose(found, _ALWAYS, other)
        return found

    def without(self, name: str) -> int:
        """The function that is true where the name is not."""
        return self._node(self._levels[name], _ALWAYS, _NEVER)

    def both(self, first: int, second: int) -> int:
        """First and second."""
        return self.choose(first, second, _NEVER)

    def given(self, function: int, name: str) -> int:
        """What is left of a function if the name is true."""
        level = self._levels[name]
        at, low, high = self._nodes[function]
        if at > level:
            return function
        return high if at == level else self._node(at, self.given(low, name), self.given(high, name))

    def choose(self, condition: int, then: int, otherwise: int) -> int:
        """``then`` where the condition is true, else ``otherwise``."""
        if condition <= _ALWAYS:
            return then if condition else otherwise
        if then == otherwise:
            return then
        key = condition, then, otherwise
        found = self._chosen.get(key)
        if found is None:
            level = min(self._nodes[one][0] for one in key)
            sides = [self.choose(*(self._side(one, level, side) for one in key)) for side in (1, 2)]
            found = self._chosen[key] = self._node(level, *sides)
        return found

    def _side(self, function: int, level: int, side: int) -> int:
        node = self._nodes[function]
        return node[side] if node[0] == level else function

    def _node(self, level: int, low: int, high: int) -> int:
        if low == high:
            return low
        key = level, low, high
        found = self._known.get(key)
        if found is None:
            if len(self._nodes) >= MAX_NODES:
                raise TagExpressionError("it is too complicated; say it with fewer tags")
            found = self._known[key] = len(self._nodes)
            self._nodes.append(key)
        return found

    def text(self, function: int) -> str:
        """The canonical text; empty if it is always true.

        Raises:
            TagExpressionError: it would be too long.
        """
        if function == _ALWAYS:
            return ""
        forms = [self._form(function, "||"), self._form(self.choose(function, _NEVER, _ALWAYS), "&&")]
        texts = [text for _, text in sorted(form for form in forms if form is not None) if len(text) <= MAX_LENGTH]
        if not texts:
            raise TagExpressionError("it is too complicated; say it with fewer tags")
        return texts[0]

    def _form(self, function: int, outer: str) -> tuple[int, str] | None:
        """Its prime implicants joined by ``outer`` (if that is ``&&``, turned round) and how many names they have."""
        try:
            terms = self._prime_terms(function)
        except _TooManyError:
            return None
        inner = "&&" if outer == "||" else "||"
        written = sorted(self._written(term if outer == "||" else term[::-1]) for term in terms)
        joined = [f" {inner} ".join(name for _, name in term) for term in written]
        if inner == "||" and len(joined) > 1:
            joined = [f"({text})" if len(term) > 1 else text for text, term in zip(joined, written, strict=True)]
        return sum(map(len, written)), f" {outer} ".join(joined)

    def _written(self, term: _Term) -> list[tuple[str, str]]:
        literals = []
        for level, name in enumerate(self.names):
            if (term[0] | term[1]) >> level & 1:
                shown = name if _PLAIN.fullmatch(name) else f"'{name}'"
                literals.append((name, shown if term[0] >> level & 1 else "!" + shown))
        return sorted(literals)

    def _prime_terms(self, function: int) -> frozenset[_Term]:
        """All prime implicants (Coudert and Madre). No part has more than the whole, so giving up is by meaning too."""
        if function == _NEVER:
            return frozenset()
        if function == _ALWAYS:
            return frozenset({(0, 0)})
        found = self._primes.get(function)
        if found is None:
            level, low, high = self._nodes[function]
            common = self._prime_terms(self.both(low, high))
            bit = 1 << level
            denied = ((yes, no | bit) for yes, no in self._prime_terms(low) - common)
            affirmed = ((yes | bit, no) for yes, no in self._prime_terms(high) - common)
            found = self._primes[function] = _bounded(common, denied, affirmed)
        return found


def _bounded(common: frozenset[_Term], *more: Iterable[_Term]) -> frozenset[_Term]:
    terms = common.union(*more)
    if len(terms) > MAX_TERMS:
        raise _TooManyError
    return terms
