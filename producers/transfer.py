"""Sandbox files in chunks: up before a submission, down after a job. Windows bound what is in flight.

Promises: a downloaded file is whole and has the promised hash, or an error is raised; nothing larger than promised is
kept.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from schemas.messages.common import CHUNK_BYTES, SandboxFile
from schemas.messages.service import ChainUnknown, JobProgress, Refused, SandboxChunk
from schemas.messages.user import GetSandbox, PutSandbox

from .errors import OutputError, TimedOutError

if TYPE_CHECKING:
    from broker.session import Incoming, Session

    from .submission import LocalFile

WINDOW = 8
"""Chunks in flight: 2 MiB of data, below 3 MB on the wire."""

CHUNK_PATIENCE = 20.0
"""Seconds without any chunk of a window before it is asked for again."""

TRIES = 3

Progress = Callable[[str, int, int], None]
"""Told (file name, bytes done, bytes in all)."""


def chunk_count(size: int) -> int:
    """Chunks of a file; an empty file is one empty chunk."""
    return max(1, -(-size // CHUNK_BYTES))


def upload(session: Session, files: Sequence[LocalFile], timeout: float, progress: Progress | None = None) -> None:
    """Store files at the service, by content address."""
    for file in files:
        count = chunk_count(len(file.content))
        digest = file.sha256
        for first in range(0, count, WINDOW):
            last = min(count, first + WINDOW)
            session.request_many(
                [
                    PutSandbox(
                        sha256=digest,
                        size=len(file.content),
                        index=index,
                        count=count,
                        data=file.content[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES],
                    )
                    for index in range(first, last)
                ],
                timeout,
            )
            if progress is not None:
                progress(file.entry, min(len(file.content), last * CHUNK_BYTES), len(file.content))


def download(
    session: Session,
    job: int,
    file: SandboxFile,
    keep: Callable[[Incoming], None],
    progress: Progress | None = None,
) -> bytes:
    """Fetch one output file.

    Args:
        session: the login.
        job: whose output it is.
        file: what was promised.
        keep: takes answers that belong to somebody else (progress of jobs).
        progress: told after each window.

    Raises:
        OutputError: what came is not what was promised.
        TimedOutError: chunks are missing after several tries.
    """
    count = chunk_count(file.size)
    parts: dict[int, bytes] = {}
    tries = 0
    while len(parts) < count:
        first = next(index for index in range(count) if index not in parts)
        before = len(parts)
        _fetch_window(session, GetSandbox(job=job, sha256=file.sha256, first=first, count=min(WINDOW, count - first)),
                      file, parts, keep)  # fmt: skip
        tries = 0 if len(parts) > before else tries + 1
        if tries >= TRIES:
            raise TimedOutError(f"{file.name}: the sandbox store does not answer; try again later")
        if progress is not None:
            progress(file.name, min(file.size, len(parts) * CHUNK_BYTES), file.size)
    return checked(file, b"".join(parts[index] for index in range(count)))


def _fetch_window(
    session: Session, query: GetSandbox, file: SandboxFile, parts: dict[int, bytes], keep: Callable[[Incoming], None]
) -> None:
    from broker.session import RequestRefusedError

    asked = session.send(query)
    wanted = set(range(query.first, query.first + query.count)) - parts.keys()
    deadline = time.monotonic() + CHUNK_PATIENCE
    while wanted and (left := deadline - time.monotonic()) > 0:
        for incoming in session.receive(WINDOW, left):
            message = incoming.message
            if isinstance(message, JobProgress):
                keep(incoming)
                continue
            session.ack([incoming])
            if isinstance(message, ChainUnknown):
                session.renew()
                return
            if isinstance(message, Refused) and incoming.verified.header.cid == asked:
                raise RequestRefusedError(message)
            if isinstance(message, SandboxChunk) and message.sha256 == file.sha256 and message.index in wanted:
                parts[message.index] = message.data
                wanted.discard(message.index)
                deadline = time.monotonic() + CHUNK_PATIENCE


def checked(file: SandboxFile, content: bytes) -> bytes:
    """The content, if it is what was promised.

    Raises:
        OutputError: another size or hash.
    """
    if len(content) != file.size or hashlib.sha256(content).hexdigest() != file.sha256:
        raise OutputError(f"{file.name}: what came is not what the job produced (size or hash differ)")
    return content
