"""Values that several messages share, and the bounds on what may be said."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_INLINE_BYTES = 64 * 1024
"""Sandbox files up to this many bytes in total travel inside a message; larger ones go in chunks before it."""

CHUNK_BYTES = 256 * 1024
"""Bytes of one sandbox chunk: 350 kB in JSON, so that 8 in flight stay below 3 MB per client."""

MAX_SANDBOX_BYTES = 10 * 1024 * 1024
"""Largest sandbox file, and largest sum of an output sandbox (DIRAC's limit)."""

MAX_CHUNKS = MAX_SANDBOX_BYTES // CHUNK_BYTES

MAX_SANDBOX_FILES = 1000
"""Files of one sandbox; more belong into an archive."""

MAX_ATTEMPTS = 10_000
"""Highest attempt number: no honest job comes near it. One that reaches it ends there: a number beyond would be refused
by every reader."""

MAX_JOBS_PER_MESSAGE = 10_000
"""Job ids in one command or query."""

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
"""``$`` alone would let a newline at the end pass."""
Adler32 = Annotated[str, Meta(pattern="^([0-9a-f]{8})?$", max_length=8)]
"""Checksum in hex; empty if unknown."""
JobId = Annotated[int, Meta(ge=1, le=2**53)]
"""Job ids stay exact in every JSON reader (2**53)."""
Count = Annotated[int, Meta(ge=0, le=2**53)]
"""A number that a database keeps: an unbounded one would be refused there, and the message with it."""
ExitCode = Annotated[int, Meta(ge=-(2**31), lt=2**32)]
Attempt = Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)]
Text = Annotated[str, Meta(max_length=4096)]
"""Free text for people: reasons, minor states."""
Name = Annotated[str, Meta(min_length=1, max_length=1024)]
Epoch = float
"""Seconds since 1970-01-01 UTC."""


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the values inside messages."""


class SandboxFile(Value, frozen=True, kw_only=True):
    """A small file that travels with a job.

    Attributes:
        name: the name it has in the work directory (output) or the InputSandbox entry it stands for (input).
        sha256: content address.
        size: bytes.
        mode: permission bits; only the owner's execute bit matters.
        content: the bytes where they travel inside; otherwise absent and fetched by ``sandbox.get``.
    """

    name: Name
    sha256: Sha256
    size: Annotated[int, Meta(ge=0, le=MAX_SANDBOX_BYTES)]
    mode: Annotated[int, Meta(ge=0, le=0o777)] = 0o644
    content: Annotated[bytes, Meta(max_length=MAX_INLINE_BYTES)] | None = None


class JobRef(Value, frozen=True, kw_only=True):
    """One execution of a job."""

    job: JobId
    attempt: Attempt


class Usage(Value, frozen=True, kw_only=True):
    """What a payload used so far.

    Attributes:
        cpu_seconds: user and system time of the whole process tree.
        wall_seconds: since the payload's start.
        memory_mb: peak resident memory of the tree, MB (10**6 bytes).
        disk_mb: of the work directory, MB.
        processors: given to the payload.
    """

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_mb: float = 0.0
    disk_mb: float = 0.0
    processors: Count = 1


class Replica(Value, frozen=True, kw_only=True):
    """One copy of a file on a storage element."""

    se: Name
    pfn: Name


class InputFile(Value, frozen=True, kw_only=True):
    """Input data of a job, resolved through the replica catalog."""

    lfn: Name
    size: Count
    adler32: Adler32 = ""
    replicas: tuple[Replica, ...]
