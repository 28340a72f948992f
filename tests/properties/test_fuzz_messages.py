"""Payloads of every message type, and job descriptions, that were sound once: understood, or refused in words."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas.messages  # noqa: F401 - fills the register
from schemas.errors import InvalidInputError
from schemas.jdl import MAX_PARAMETRIC_JOBS, check
from schemas.registry import Message, encode, registered
from tests.support.effort import FACTOR, effort
from tests.support.hostile import calmly
from tests.support.mutations import DEEPEST, damaged_bytes, mutate_bytes, mutate_json

TESTS = Path(__file__).parents[1]
EACH = 12 * FACTOR
"""Damaged examples of each message type; there are about seventy types."""

JDL_MEMORY = 400
"""Bytes of objects per byte of a description: each problem names its place."""
JDL_BASE = 500 * MAX_PARAMETRIC_JOBS
"""A few words may ask for the largest number of parametric jobs: each is a description of its own (some 400 bytes)."""


@functools.cache
def example(name: str) -> bytes:
    return (TESTS / "golden" / "messages" / f"{name}.json").read_bytes()


NAMES = [name for name in sorted(registered()) if (TESTS / "golden" / "messages" / f"{name}.json").exists()]


@pytest.mark.parametrize("name", NAMES)
def test_every_type_of_message(name: str) -> None:
    row = registered()[name]
    some = random.Random(name + str(random.randrange(2**32)) if FACTOR > 1 else name)
    for _ in range(EACH):
        payload = mutate_json(example(name), some) if some.random() < 0.8 else mutate_bytes(example(name), some)
        found = calmly(functools.partial(row.decode, payload), len(payload), InvalidInputError)
        if isinstance(found, Message):
            assert row.decode(encode(found)) == found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "payload",
    [
        b"", b"null", b"[" * DEEPEST, b'{"a":' * DEEPEST, b"{" * 100_000, b'"' * 1000, b"\xff" * 10, b"0" * 5000,
        b'{"":0}',
    ],
    ids=["empty", "null", "arrays", "objects", "braces", "quotes", "no text", "zeros", "nameless"],
)  # fmt: skip
def test_no_messages(name: str, payload: bytes) -> None:
    calmly(functools.partial(registered()[name].decode, payload), len(payload), InvalidInputError)


def samples() -> list[bytes]:
    return [path.read_bytes() for path in sorted((TESTS / "fixtures" / "jdl").glob("*.jdl"))]


TOKENS = [
    b"Parameters = 100000;", b"%s" * 500, b"%(A)s",
    b"{" * 200, b"(" * 200, b"[" * 200, b"}", b'"', b"/*", b"//", b"\\",
    b"1e999", b"9" * 5000, b"-" * 300, b"!" * 300, b"1+" * 300, b"? :" * 100, b"strcat(" * 100, b'"a",' * 300,
    b"\xff\xfe", b"Executable", b"Parameters.A = {", b";" * 500, b"=" * 50, b"a.b.c.d", b"undefined", b"||", b"\r",
]  # fmt: skip


@given(damaged_bytes(samples(), TOKENS))
@effort(150)
def test_job_descriptions(text: bytes) -> None:
    found = calmly(lambda: check(text), len(text), factor=JDL_MEMORY, base=JDL_BASE)
    assert bool(found.jobs) != bool(found.errors)  # type: ignore[union-attr]  # no error is allowed to come out


@given(st.sampled_from(TOKENS), st.integers(0, 65_536))
@effort(30)
def test_descriptions_full_of_one_thing(token: bytes, size: int) -> None:
    text = b"Executable = x; Arguments = " + token * (size // len(token))
    calmly(lambda: check(text), len(text), factor=JDL_MEMORY, base=JDL_BASE)
