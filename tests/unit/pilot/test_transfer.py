"""Chunks: each asked for once unless lost, in windows, and whole or not at all."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.transfer import MAX_TRIES, RETRY_SECONDS, WINDOW, Download, TransferFailedError, Upload, chunk_count
from schemas.messages.common import CHUNK_BYTES, SandboxFile
from schemas.messages.service import SandboxChunk, SandboxStored
from schemas.messages.user import GetSandbox, PutSandbox

CONTENT = b"".join(bytes([number]) * CHUNK_BYTES for number in range(19)) + b"end"
SHA = hashlib.sha256(CONTENT).hexdigest()
TOTAL = 20


def download(content: bytes = CONTENT) -> Download:
    file = SandboxFile(name="f", sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    return Download(1, file)


def chunk(index: int, content: bytes = CONTENT) -> SandboxChunk:
    data = content[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
    sha256 = hashlib.sha256(content).hexdigest() if content is not CONTENT else SHA
    return SandboxChunk(sha256=sha256, size=len(content), index=index, count=chunk_count(len(content)), data=data)


def test_counts() -> None:
    assert [chunk_count(size) for size in (0, 1, CHUNK_BYTES, CHUNK_BYTES + 1)] == [1, 1, 1, 2]


@given(st.randoms(use_true_random=False))
def test_download_asks_for_every_chunk_once_in_whatever_order_they_come(random: object) -> None:
    mine = download()
    asked: list[int] = []
    while mine.content() is None:
        message = mine.ask(0.0)
        assert isinstance(message, GetSandbox)
        assert message.count <= WINDOW
        window = list(range(message.first, message.first + message.count))
        asked += window
        random.shuffle(window)  # type: ignore[attr-defined]
        for number, index in enumerate(window):
            mine.take(chunk(index))
            if number < len(window) - 1:
                assert mine.ask(0.0) is None, "asked again while the window is on its way"
    assert asked == list(range(TOTAL))
    assert mine.content() == CONTENT
    assert mine.ask(0.0) is None


def test_download_asks_again_for_what_is_missing_and_goes_on_at_once_after_it() -> None:
    mine = download()
    mine.ask(0.0)
    for index in (0, 1, 2, 4, 5, 6, 7):
        mine.take(chunk(index))
    assert mine.ask(RETRY_SECONDS - 1) is None
    again = mine.ask(RETRY_SECONDS)
    assert isinstance(again, GetSandbox)
    assert (again.first, again.count) == (3, WINDOW)
    for index in range(3, 11):
        mine.take(chunk(index))
    following = mine.ask(RETRY_SECONDS)
    assert isinstance(following, GetSandbox)
    assert following.first == 11


def test_download_gives_up() -> None:
    mine = download()
    for number in range(MAX_TRIES):
        assert mine.ask(number * RETRY_SECONDS) is not None
    with pytest.raises(TransferFailedError):
        mine.ask(MAX_TRIES * RETRY_SECONDS)


def test_download_of_something_else_fails() -> None:
    mine = download(b"good")
    mine.ask(0.0)
    mine.take(SandboxChunk(sha256=mine.file.sha256, size=4, index=0, count=1, data=b"evil"))
    with pytest.raises(TransferFailedError, match="another content"):
        mine.content()


def test_chunks_out_of_range_or_of_another_file_are_not_kept() -> None:
    mine = download(b"good")
    mine.take(SandboxChunk(sha256=mine.file.sha256, size=4, index=1, count=1, data=b"x" * 10))
    mine.take(chunk(0, b"other"))
    assert mine.chunks == {}


def test_an_empty_file_is_one_empty_chunk() -> None:
    mine = download(b"")
    assert mine.content() is None
    assert mine.ask(0.0) is not None
    mine.take(chunk(0, b""))
    assert mine.content() == b""


def stored(index: int, *, complete: bool = False) -> SandboxStored:
    return SandboxStored(sha256=SHA, index=index, complete=complete)


@given(st.randoms(use_true_random=False))
def test_upload_sends_every_chunk_once_in_whatever_order_they_are_stored(random: object) -> None:
    mine = Upload(SHA, CONTENT)
    sent: list[int] = []
    while not mine.complete:
        window = [one.index for one in mine.next_chunks(0.0) if isinstance(one, PutSandbox)]
        assert 0 < len(window) <= WINDOW
        sent += window
        random.shuffle(window)  # type: ignore[attr-defined]
        for number, index in enumerate(window):
            mine.take(stored(index, complete=len(mine.stored) == TOTAL - 1))
            if number < len(window) - 1:
                assert mine.next_chunks(0.0) == [], "sent again while the window is on its way"
    assert sent == list(range(TOTAL))
    assert mine.next_chunks(0.0) == []


def test_upload_sends_the_right_bytes() -> None:
    mine = Upload(SHA, CONTENT)
    pieces: dict[int, bytes] = {}
    while len(pieces) < TOTAL:
        for one in mine.next_chunks(0.0):
            assert isinstance(one, PutSandbox)
            assert (one.size, one.count) == (len(CONTENT), TOTAL)
            pieces[one.index] = one.data
            mine.take(stored(one.index))
    assert b"".join(pieces[index] for index in sorted(pieces)) == CONTENT


def test_upload_sends_again_only_what_is_missing() -> None:
    mine = Upload(SHA, CONTENT)
    mine.next_chunks(0.0)
    mine.take(stored(0))
    mine.take(stored(3))
    again = [one.index for one in mine.next_chunks(RETRY_SECONDS) if isinstance(one, PutSandbox)]
    assert again == [1, 2, 4, 5, 6, 7, 8, 9]


def test_upload_gives_up() -> None:
    mine = Upload(SHA, CONTENT)
    for number in range(MAX_TRIES):
        assert mine.next_chunks(number * RETRY_SECONDS) != []
    with pytest.raises(TransferFailedError):
        mine.next_chunks(MAX_TRIES * RETRY_SECONDS)


def test_upload_that_is_never_called_complete_gives_up() -> None:
    mine = Upload(SHA, b"x")
    mine.next_chunks(0.0)
    mine.take(stored(0))
    assert mine.next_chunks(1.0) == []
    with pytest.raises(TransferFailedError):
        mine.next_chunks(RETRY_SECONDS)


def test_answers_for_other_files_mean_nothing() -> None:
    mine = Upload(SHA, b"x")
    mine.take(SandboxStored(sha256="0" * 64, index=0, complete=True))
    assert not mine.complete
