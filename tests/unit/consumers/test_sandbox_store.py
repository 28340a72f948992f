"""Chunks that add up."""

from __future__ import annotations

import pytest

from consumers.sandbox_store import what_is_wrong
from schemas.messages.common import CHUNK_BYTES
from schemas.messages.user import PutSandbox


def chunk(size: int, index: int, count: int, length: int) -> PutSandbox:
    return PutSandbox(sha256="0" * 64, size=size, index=index, count=count, data=b"x" * length)


@pytest.mark.parametrize(
    "put",
    [
        chunk(0, 0, 1, 0),
        chunk(1, 0, 1, 1),
        chunk(CHUNK_BYTES, 0, 1, CHUNK_BYTES),
        chunk(CHUNK_BYTES + 1, 0, 2, CHUNK_BYTES),
        chunk(CHUNK_BYTES + 1, 1, 2, 1),
    ],
)
def test_sound_chunks(put: PutSandbox) -> None:
    assert not what_is_wrong(put)


@pytest.mark.parametrize(
    "put",
    [
        chunk(0, 0, 1, 1),
        chunk(1, 0, 2, 1),
        chunk(1, 1, 1, 1),
        chunk(CHUNK_BYTES + 1, 0, 1, CHUNK_BYTES),
        chunk(CHUNK_BYTES + 1, 0, 2, 1),
        chunk(CHUNK_BYTES + 1, 1, 2, 2),
        chunk(CHUNK_BYTES, 1, 2, 0),
    ],
)
def test_odd_chunks(put: PutSandbox) -> None:
    assert what_is_wrong(put)
