"""Answers stay below their message's bound, whatever they tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

T = TypeVar("T")

MAX_WORDS = 2000
"""Characters of one text in an answer; its type allows twice that."""


def within(items: Sequence[T], size: int) -> list[T]:
    """The first of them that fit into so many bytes of JSON."""
    kept: list[T] = []
    for item in items:
        size -= len(msgspec.json.encode(item)) + 1
        if size < 0:
            break
        kept.append(item)
    return kept


def cut(text: str) -> str:
    """A text no longer than an answer may say."""
    return text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…"
