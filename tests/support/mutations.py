"""Damaged inputs made from real samples: structure-aware mutations of DER, JSON and text, as Hypothesis strategies.

Purely random bytes die in the first check of a parser. What is made here is nearly right: one place of a real sample
lies about its length, has another tag, is missing, comes a hundred times, or is nested a thousand deep.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from broker.identity import der

seeds = st.integers(0, 2**32)
"""A whole mutation is drawn from one seed: cheap to make, and a failure names the seed."""

CONSTRUCTED = 0x20
TAGS = bytes.fromhex("0102030405060c131617181e1f30318086a0a1a3a4")
DEEPEST = 3000
"""Levels of nesting: three times Python's own limit."""


# -- DER ---------------------------------------------------------------------------------------------------------


@dataclass
class Node:
    """One element of a tree that may be broken: ``raw`` replaces its whole encoding."""

    tag: int
    content: bytes
    children: list[Node]
    prefix: bytes = b""
    raw: bytes | None = None

    def encode(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return der.encode(self.tag, self.body())

    def body(self) -> bytes:
        return self.prefix + b"".join(child.encode() for child in self.children) if self.children else self.content

    def walk(self) -> Iterator[tuple[Node, Node | None]]:
        yield from _walk(self, None)


def _walk(node: Node, parent: Node | None) -> Iterator[tuple[Node, Node | None]]:
    yield node, parent
    for child in node.children:
        yield from _walk(child, node)


def tree(data: bytes) -> Node:
    """The elements of sound DER, with what is wrapped in octet strings and bit strings."""
    return _node(der.read_one(data)[0])


def _node(element: der.Element) -> Node:
    if element.tag & CONSTRUCTED:
        return Node(element.tag, element.content, [_node(child) for child in element.children()])
    prefix = element.content[:1] if element.tag == der.BIT_STRING else b""
    if element.tag in {der.OCTET_STRING, der.BIT_STRING} and element.content[len(prefix) :][:1] in {b"\x30", b"\x03"}:
        try:
            return Node(
                element.tag, element.content, [_node(i) for i in der.read_all(element.content[len(prefix) :])], prefix
            )
        except der.DerError:
            pass
    return Node(element.tag, element.content, [])


def _lie(node: Node, _parent: Node | None, some: random.Random) -> None:
    body = node.body()
    length = some.choice([len(body) + 1, max(0, len(body) - 1), 0, 2**31, 2**32 - 1, 2**63, 0x7F, 0x80])
    size = some.choice([1, 2, 3, 4, 5, 8, 126])
    short = bytes([length]) if length < 0x80 else b""
    node.raw = bytes([node.tag]) + (short or bytes([0x80 | size]) + (length % 256**size).to_bytes(size, "big")) + body


def _indefinite(node: Node, _parent: Node | None, some: random.Random) -> None:
    node.raw = bytes([node.tag | CONSTRUCTED, 0x80]) + node.body() + b"\0\0"


def _retag(node: Node, _parent: Node | None, some: random.Random) -> None:
    node.tag = some.choice([*TAGS, some.randrange(256)])


def _drop(node: Node, parent: Node | None, some: random.Random) -> None:
    if parent is not None:
        parent.children.remove(node)
    else:
        node.raw = b""


def _repeat(node: Node, parent: Node | None, some: random.Random) -> None:
    if parent is not None:
        place = parent.children.index(node)
        parent.children[place:place] = [node] * some.choice([1, 2, 17, 1100])


def _fill(node: Node, _parent: Node | None, some: random.Random) -> None:
    node.children = []
    node.content = some.choice(
        [b"", b"\0", b"\x80", b"\xff" * 9, b"\x7f" * some.choice([20, 70, 3000]), some.randbytes(some.randrange(40)),
         b"\x80" * 70 + b"\x01", b"99999999999999Z", b"20260230000000Z", b"\x00\x00" * 20, b"/" * 50, b"x" * 5000]
    )  # fmt: skip


def _bury(node: Node, _parent: Node | None, some: random.Random) -> None:
    inner, tag = node.encode(), some.choice([0x30, 0x31, 0xA0, 0x24])
    for _ in range(some.choice([1, 2, 40, DEEPEST])):
        inner = der.encode(tag, inner)
        if len(inner) > 40_000:
            break
    node.raw = inner


def _flip(node: Node, _parent: Node | None, some: random.Random) -> None:
    if node.content and not node.children:
        changed = bytearray(node.content)
        changed[some.randrange(len(changed))] ^= 1 << some.randrange(8)
        node.content = bytes(changed)


_DER_CHANGES: Sequence[Callable[[Node, Node | None, random.Random], None]] = (
    _lie, _indefinite, _retag, _drop, _repeat, _fill, _bury, _flip, _flip
)  # fmt: skip


def mutate_der(sample: bytes, some: random.Random) -> bytes:
    """Change one to three places of sound DER."""
    root = tree(sample)
    for _ in range(some.choice([1, 1, 1, 2, 3])):
        node, parent = some.choice(list(root.walk()))
        some.choice(_DER_CHANGES)(node, parent, some)
    data = root.encode()
    return data[: some.randrange(len(data))] if data and some.random() < 0.03 else data


def damaged_der(samples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """DER that was sound once."""
    return st.builds(lambda which, seed: mutate_der(which, random.Random(seed)), st.sampled_from(samples), seeds)


# -- JSON --------------------------------------------------------------------------------------------------------

NUMBERS = ["1e400", "-1e400", "1e308", "5e-324", "-0", "NaN", "Infinity", "-Infinity", "01", "1.", "1E+2", "0.1"]
NUMBERS += ["-1", "1e5", "18446744073709551616", "-9223372036854775809", "9007199254740993", "9" * 400]
NUMBERS += ["1" + "0" * 5000]
TEXTS = ['""', r'"\u0000"', r'"\ud800"', r'"\ud800\udc00"', r'"\u202e"', r'"\uZZZZ"', r'"\/"', '"../../etc/passwd"']
TEXTS += ['"2026-02-30T00:00:00Z"', '"="', '"ÿ"', '"\0"', '"\x7f"', '"' + "x" * 70_000 + '"']
OTHERS = ["null", "true", "false", "[]", "{}", "[[]]", "[null]", '{"":null}', "", ",", "[" * 100_000]
OTHERS += ["[" * DEEPEST + "]" * DEEPEST, '{"a":' * DEEPEST + "1" + "}" * DEEPEST, "[" + "0," * 20_000 + "0]"]


def mutate_json(sample: bytes, some: random.Random) -> bytes:
    """Change one or two values, keys or bytes of a JSON text; duplicate keys and impossible numbers included."""
    pairs = json.loads(sample, object_pairs_hook=lambda found: _Object(found))
    text = pairs
    for _ in range(some.choice([1, 1, 2])):
        text = _change(text, some)
    data = _dump(text).encode("utf-8", "surrogatepass")
    return _spoil(data, some) if some.random() < 0.1 else data


class _Object(list[tuple[str, object]]):
    """A JSON object whose keys may repeat."""


class _Raw(str):
    """Text that goes out as it is."""

    __slots__ = ()


def _change(value: object, some: random.Random) -> object:
    if isinstance(value, _Object) and value and some.random() < 0.85:
        place = some.randrange(len(value))
        key, inner = value[place]
        kind = some.randrange(10)
        changed = _Object(value)
        if kind == 0:
            del changed[place]
        elif kind == 1:
            changed.append((key, _anything(some)))
        elif kind == 2:
            changed[place] = (some.choice([key.upper(), key + "\0", "", "b64", "__class__", "x" * 300]), inner)
        elif kind == 3:
            changed += [(f"k{number}", number) for number in range(some.choice([1, 1, 1, 1000]))]
        else:
            changed[place] = (key, _change(inner, some))
        return changed
    if isinstance(value, list) and not isinstance(value, _Object) and value and some.random() < 0.7:
        place = some.randrange(len(value))
        kind = some.randrange(4)
        if kind == 0:
            return value * (some.choice([2, 1001]) if len(value) < 4 else 2)
        return [*value[:place], _change(value[place], some), *value[place + 1 :]]
    if isinstance(value, str) and some.random() < 0.3:
        return value + some.choice(["\0", " ", "\n", "é", "\u202e", "x" * 5000, "/CN=x", "="])
    return _anything(some)


def _anything(some: random.Random) -> object:
    return _Raw(some.choice(some.choice([NUMBERS, TEXTS, OTHERS])))


def _dump(value: object) -> str:
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, _Object):
        return "{" + ",".join(f"{json.dumps(key)}:{_dump(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dump, value)) + "]"
    return json.dumps(value)


def damaged_json(samples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """JSON that was a real message once."""
    return st.builds(lambda which, seed: mutate_json(which, random.Random(seed)), st.sampled_from(samples), seeds)


# -- text and bytes ----------------------------------------------------------------------------------------------


def _spoil(data: bytes, some: random.Random, tokens: Sequence[bytes] = ()) -> bytes:
    begin = some.randrange(len(data) + 1)
    end = min(len(data), begin + some.choice([0, 1, 2, 10, 100]))
    pieces = [b"\0", b"\xff", b"\n", b"\r", b" ", b"'", b'"', b"\\", b"-", b"/", b"=", b"\xe2\x80\xae", *tokens]
    new = some.choice(
        [b"", some.choice(pieces), some.choice(pieces) * some.choice([2, 1000]), data[begin:end] * 3, some.randbytes(4)]
    )
    return data[:begin] + new + data[end:]


def mutate_bytes(sample: bytes, some: random.Random, tokens: Sequence[bytes] = ()) -> bytes:
    """Cut, repeat, insert words of the format, overwrite: one to four times."""
    for _ in range(some.choice([1, 1, 2, 4])):
        sample = _spoil(sample, some, tokens)
    return sample


def damaged_bytes(samples: Sequence[bytes], tokens: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """Bytes that were a sound file once; ``tokens`` are words that mean something in it."""
    return st.builds(
        lambda which, seed: mutate_bytes(which, random.Random(seed), tokens), st.sampled_from(samples), seeds
    )


def damaged_text(samples: Sequence[str], tokens: Sequence[str] = ()) -> st.SearchStrategy[str]:
    """Text that was a sound file once."""
    encoded = [sample.encode("utf-8", "surrogatepass") for sample in samples]
    words = [token.encode() for token in tokens]
    return damaged_bytes(encoded, words).map(lambda data: data.decode("utf-8", "replace"))
