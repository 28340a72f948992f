"""Small files (sandboxes, by content address) and the replica catalog."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, LargeBinary, PrimaryKeyConstraint, Table, Text

from .base import metadata, number, real, text

blobs = Table(
    "blobs",
    metadata,
    text("sha256", key=True),
    number("size"),
    number("chunks"),
    real("created"),
    real("expires"),
    Index(None, "expires"),
    comment="Complete files whose hash was checked.",
)

blob_chunks = Table(
    "blob_chunks",
    metadata,
    Column("sha256", Text, ForeignKey("blobs.sha256", ondelete="CASCADE"), nullable=False),
    number("idx"),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("sha256", "idx"),
    comment="The bytes of complete files.",
)

uploads = Table(
    "uploads",
    metadata,
    text("sha256"),
    text("owner"),
    number("size"),
    number("chunks"),
    Column("complete", Boolean, nullable=False),
    real("created"),
    real("expires"),
    PrimaryKeyConstraint("sha256", "owner"),
    Index(None, "expires"),
    Index(None, "owner"),
    comment="Who sent a file in full and so may refer to it: knowing a hash is no right to the bytes.",
)

upload_chunks = Table(
    "upload_chunks",
    metadata,
    text("sha256"),
    text("owner"),
    number("idx"),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("sha256", "owner", "idx"),
    comment="Chunks on their way, apart by owner, so that nobody can spoil another's upload.",
)

input_files = Table(
    "input_files",
    metadata,
    number("submission"),
    text("sha256"),
    PrimaryKeyConstraint("submission", "sha256"),
    Index(None, "sha256"),
    comment="Which files the jobs of a submission may read.",
)

output_files = Table(
    "output_files",
    metadata,
    number("job"),
    number("attempt"),
    text("name"),
    text("sha256"),
    number("size"),
    number("mode"),
    PrimaryKeyConstraint("job", "attempt", "name"),
    Index(None, "sha256"),
    comment="Output sandboxes, bound by an accepted report of the live attempt.",
)

files = Table(
    "files",
    metadata,
    text("lfn", key=True),
    number("size"),
    text("adler32"),
    comment="Replica catalog: files.",
)

replicas = Table(
    "replicas",
    metadata,
    text("lfn"),
    text("se"),
    text("pfn"),
    PrimaryKeyConstraint("lfn", "se"),
    comment="Replica catalog: copies.",
)
