"""sandbox-store: small files in signed chunks, up before they are referred to and down to who may read them.

Promises: a file can be read only when all its bytes came and had its hash; only whoever sent a file may refer to it,
only who may see a job (or holds its live lease) may read its files. What a sender stores without any job referring to
it is bounded. Answers are not kept: who misses a chunk asks again.
"""

from __future__ import annotations

from typing import ClassVar

from broker.authorization import is_pilot, may_see_job, may_serve
from broker.subscriber import Admitted
from schemas.access import Measure
from schemas.job import LEASED
from schemas.messages.common import CHUNK_BYTES
from schemas.messages.service import Refused, SandboxChunk, SandboxStored
from schemas.messages.user import GetSandbox, PutSandbox

from .batch import Batch, Consumer
from .changes import SANDBOX_SECONDS
from .directory import Directory
from .domain.ceilings import ceiling
from .outcome import ACK, DeadLetter, Outcome
from .store import jobs, sandboxes
from .store.rows import JobRow
from .store.sandboxes import Chunk, Upload

PURGE_SECONDS = 3600.0

MAX_UNUSED = 20_000
"""Files of one sender that no job refers to: empty ones cost a row each, too, and all are counted with each new one."""

NOT_THERE = "no such job, or no such file of it"


class SandboxStore(Consumer):
    """The consumer.

    Args:
        directory: registry (limits).
    """

    name = "sandbox-store"
    handlers: ClassVar = {PutSandbox: "on_put", GetSandbox: "on_get"}
    batch_size = 16
    """An answer may have 8 chunks, 2.8 MB: 45 MB for a batch."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._next_purge = 0.0

    def on_put(self, batch: Batch, message: Admitted) -> Outcome:
        """Take one chunk."""
        asked = message.verified.message
        if not isinstance(asked, PutSandbox):
            return DeadLetter("not sandbox.put")
        wrong = what_is_wrong(asked)
        if wrong:
            return _refuse(batch, message, "invalid", wrong)
        owner = sender_of(message)
        if not sandboxes.is_known(batch.tx, owner, asked.sha256):
            too_much = self._too_much(batch, message, owner, asked.size)
            if too_much:
                return _refuse(batch, message, "limit", too_much)
        chunk = Chunk(
            sha256=asked.sha256, owner=owner, size=asked.size, count=asked.count, index=asked.index, data=asked.data
        )
        state = sandboxes.put_chunk(batch.tx, chunk, batch.now, batch.now + SANDBOX_SECONDS)
        if state is Upload.MISMATCH:
            reason = f"the file does not have the hash {asked.sha256[:12]}… or not the size that was said: send it anew"
            return _refuse(batch, message, "invalid", reason)
        complete = state is Upload.COMPLETE
        batch.say(message, SandboxStored(sha256=asked.sha256, index=asked.index, complete=complete))
        return ACK

    def _too_much(self, batch: Batch, message: Admitted, owner: str, size: int) -> str:
        """Why a sender may not store so much more; empty if he may."""
        sender = message.principal
        top = ceiling(self._directory.registry().limits, Measure.SANDBOX_BYTES, sender.identity, sender.group)
        files, used = sandboxes.unused(batch.tx, owner)
        if files >= MAX_UNUSED:
            return f"{files:,} of your files wait for a job that refers to them; at most {MAX_UNUSED:,}"
        if used + size <= top.value:
            return ""
        return (
            f"limit {top.measure}: {used:,} bytes of your files wait for a job that refers to them, and this file has "
            f"{size:,}; at most {top.value:,} ({top.source}): submit the jobs that need them, or try again when they "
            f"are dropped, {SANDBOX_SECONDS // 86_400:.0f} days after you sent them"
        )

    def on_get(self, batch: Batch, message: Admitted) -> Outcome:
        """Send some chunks of a file of a job."""
        asked = message.verified.message
        if not isinstance(asked, GetSandbox):
            return DeadLetter("not sandbox.get")
        row = jobs.load(batch.tx, [asked.job], for_update=False).get(asked.job)
        if row is None or not may_read(message, row) or not sandboxes.belongs(batch.tx, row.id, asked.sha256):
            return _refuse(batch, message, "not-found", NOT_THERE)
        blob = sandboxes.describe(batch.tx, [asked.sha256]).get(asked.sha256)
        if blob is None:
            return _refuse(batch, message, "not-found", NOT_THERE)
        if asked.first >= blob.chunks:
            return _refuse(batch, message, "invalid", f"the file has {blob.chunks} chunks only")
        for index, data in sandboxes.read_chunks(batch.tx, asked.sha256, asked.first, asked.count):
            chunk = SandboxChunk(sha256=blob.sha256, size=blob.size, index=index, count=blob.chunks, data=data)
            batch.say(message, chunk)
        return ACK

    def due_in(self, now: float) -> float | None:
        """Once an hour."""
        return self._next_purge - now

    def chores(self, batch: Batch) -> None:
        """Drop the files of deleted jobs, and what nothing refers to and is over its time."""
        self._next_purge = batch.now + PURGE_SECONDS
        sandboxes.forget_deleted(batch.tx)
        sandboxes.purge(batch.tx, batch.now)


def what_is_wrong(asked: PutSandbox) -> str:
    """Why a chunk cannot be one of such a file; empty if it can."""
    count = max(1, -(-asked.size // CHUNK_BYTES))
    if asked.count != count:
        return f"a file of {asked.size} bytes has {count} chunks, not {asked.count}"
    if asked.index >= count:
        return f"chunk {asked.index} of {count}: they are counted from 0"
    length = CHUNK_BYTES if asked.index < count - 1 else asked.size - (count - 1) * CHUNK_BYTES
    if len(asked.data) != length:
        return f"chunk {asked.index} has {len(asked.data)} bytes, not {length}"
    return ""


def sender_of(message: Admitted) -> str:
    """As whom a sender stores files: people by their name, pilots each for itself (as outputs are looked up)."""
    return message.client if _is_pilot(message) else message.principal.identity


def may_read(message: Admitted, row: JobRow) -> bool:
    """Whether the sender may read the files of a job."""
    if _is_pilot(message):
        held = row.pilot == message.client and row.status in LEASED
        return held and may_serve(message.principal, row.owner)
    return may_see_job(message.principal, row.owner, row.grp)


def _is_pilot(message: Admitted) -> bool:
    return is_pilot(message.principal.properties)


def _refuse(batch: Batch, message: Admitted, code: str, reason: str) -> Outcome:
    batch.say(message, Refused(code=code, reason=reason, type=message.verified.header.typ))
    return ACK
