"""Sandbox files too large to travel inside a message: fetched and sent in signed chunks, a window at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from schemas.messages.common import CHUNK_BYTES, SandboxFile
from schemas.messages.service import SandboxChunk, SandboxStored
from schemas.messages.user import GetSandbox, PutSandbox
from schemas.registry import Message

WINDOW = 8
"""Chunks asked for, or under way, at once: 3 MB in JSON."""

RETRY_SECONDS = 20.0
"""Without progress for so long a window is asked for, or sent, again."""

MAX_TRIES = 6
"""After so many windows without progress the transfer has failed: two minutes."""


class TransferFailedError(Exception):
    """A sandbox file could not be fetched or sent."""


def chunk_count(size: int) -> int:
    """Chunks of a file of this size; an empty file is one empty chunk."""
    return max(1, -(-size // CHUNK_BYTES))


@dataclass(slots=True)
class Download:
    """Fetches one file."""

    job: int
    file: SandboxFile
    chunks: dict[int, bytes] = field(default_factory=dict)
    asked_at: float = float("-inf")
    asked_to: int = 0
    tries: int = 0

    def take(self, chunk: SandboxChunk) -> None:
        """A chunk came."""
        if chunk.sha256 == self.file.sha256 and 0 <= chunk.index < chunk_count(self.file.size):
            self.chunks[chunk.index] = chunk.data
            self.tries = 0

    def ask(self, now: float) -> Message | None:
        """What to ask for next; None if an answer is awaited or all is here.

        Raises:
            TransferFailedError: nothing came for too long.
        """
        total = chunk_count(self.file.size)
        first = next((index for index in range(total) if index not in self.chunks), None)
        if first is None:
            return None
        if first < self.asked_to and now - self.asked_at < RETRY_SECONDS:
            return None
        self.tries += 1
        if self.tries > MAX_TRIES:
            raise TransferFailedError(f"{self.file.name} could not be fetched from the sandbox store")
        count = min(WINDOW, total - first)
        self.asked_at, self.asked_to = now, first + count
        return GetSandbox(job=self.job, sha256=self.file.sha256, first=first, count=count)

    def content(self) -> bytes | None:
        """The file, once all is here.

        Raises:
            TransferFailedError: what came is not the file.
        """
        if len(self.chunks) < chunk_count(self.file.size):
            return None
        data = b"".join(self.chunks[index] for index in sorted(self.chunks))
        if hashlib.sha256(data).hexdigest() != self.file.sha256:
            raise TransferFailedError(f"{self.file.name} came with another content than its hash says")
        return data


@dataclass(slots=True)
class Upload:
    """Sends one file."""

    sha256: str
    content: bytes
    stored: set[int] = field(default_factory=set)
    complete: bool = False
    sent: frozenset[int] = frozenset()
    sent_at: float = float("-inf")
    tries: int = 0

    def take(self, answer: SandboxStored) -> None:
        """A chunk is stored."""
        if answer.sha256 == self.sha256:
            self.stored.add(answer.index)
            self.complete = self.complete or answer.complete
            self.tries = 0

    def next_chunks(self, now: float) -> list[Message]:
        """Chunks to send now.

        Raises:
            TransferFailedError: nothing was stored for too long.
        """
        total = chunk_count(len(self.content))
        missing = [index for index in range(total) if index not in self.stored][:WINDOW]
        if self.complete:
            return []
        if not missing and now - self.sent_at >= RETRY_SECONDS:
            raise TransferFailedError("the sandbox store has every chunk of the output and does not call it complete")
        if not missing:
            return []
        if not self.sent <= self.stored and now - self.sent_at < RETRY_SECONDS:
            return []
        self.tries += 1
        if self.tries > MAX_TRIES:
            raise TransferFailedError("the output sandbox could not be sent to the sandbox store")
        self.sent_at, self.sent = now, frozenset(missing)
        return [
            PutSandbox(
                sha256=self.sha256,
                size=len(self.content),
                index=index,
                count=total,
                data=self.content[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES],
            )
            for index in missing
        ]
