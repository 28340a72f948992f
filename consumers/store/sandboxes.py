"""Small files by content address: sent by their owners, bound to submissions and attempts, read by chunks.

A file can be read under its hash only after all its bytes came and had that hash. Who wants to refer to one must have
sent it in full himself: knowing a hash gives no right to the bytes. Chunks of different senders never mix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from functools import cache

import msgspec
import sqlalchemy as sa

from schemas.job import JobStatus

from . import sql
from .engine import DialectName, Reading, Transaction
from .errors import StoreRejected
from .tables.files import blob_chunks, blobs, input_files, output_files, upload_chunks, uploads
from .tables.jobs import jobs, submissions


class Upload(StrEnum):
    """How an upload stands after a chunk."""

    PARTIAL = "partial"
    COMPLETE = "complete"
    MISMATCH = "mismatch"
    """The bytes do not have the hash or the size that was said: the upload starts from nothing."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk on its way in."""

    sha256: str
    owner: str
    size: int
    count: int
    index: int
    data: bytes


class Whole(msgspec.Struct, frozen=True):
    """A whole file that travelled inside a message of ``owner``."""

    owner: str
    sha256: str
    data: bytes


class Blob(msgspec.Struct, frozen=True):
    """A complete file."""

    sha256: str
    size: int
    chunks: int


class OutputRow(msgspec.Struct, frozen=True):
    """A file of an attempt's output sandbox."""

    job: int
    attempt: int
    name: str
    sha256: str
    size: int
    mode: int


def put_small(tx: Transaction, owner: str, contents: Mapping[str, bytes], now: float, expires: float) -> None:
    """Keep whole files that one sender put inside a message: SHA-256 (hex) → bytes. See :func:`put_whole`."""
    put_whole(tx, [Whole(owner, sha256, data) for sha256, data in contents.items()], now, expires)


def put_whole(tx: Transaction, wholes: Sequence[Whole], now: float, expires: float) -> None:
    """Keep whole files that travelled inside messages.

    Args:
        tx: where.
        wholes: the files, of any number of senders.
        now: the time.
        expires: when they may be dropped, if nothing refers to them.

    Raises:
        StoreRejected: bytes do not have their hash.
    """
    contents = {one.sha256: one.data for one in wholes}
    for one in wholes:
        if hashlib.sha256(one.data).hexdigest() != one.sha256:
            raise StoreRejected(f"content does not have the hash {one.sha256}")
    times = {"created": now, "expires": expires}
    facts = {name: {"sha256": name, "size": len(data), "chunks": 1} for name, data in sorted(contents.items())}
    _insert_blobs(tx, [{**fact, **times} for fact in facts.values()])
    parts = [{"sha256": name, "idx": 0, "data": contents[name]} for name in facts]
    sql.insert(tx, blob_chunks, parts, conflict="ignore")
    senders = sorted({(one.sha256, one.owner) for one in wholes})
    mine = [{**facts[sha256], "owner": owner, "complete": True, **times} for sha256, owner in senders]
    sql.insert(tx, uploads, mine, conflict="replace", replace=("complete", "size", "chunks", "expires"))


def put_chunk(tx: Transaction, chunk: Chunk, now: float, expires: float) -> Upload:
    """Take one chunk; with the last one the hash is checked and the file is there. Chunks may come in any order."""
    key = (uploads.c.sha256 == chunk.sha256, uploads.c.owner == chunk.owner)
    head = {"sha256": chunk.sha256, "owner": chunk.owner, "size": chunk.size, "chunks": chunk.count}
    row = {**head, "complete": False, "created": now, "expires": expires}
    sql.insert(tx, uploads, [row], conflict="replace", replace=("expires",))
    known = sql.fetch_one(tx, sa.select(uploads.c.complete, uploads.c.size, uploads.c.chunks).where(*key))
    if known is not None and known[0]:
        return Upload.COMPLETE
    if known is None or (known[1], known[2]) != (chunk.size, chunk.count) or chunk.index >= chunk.count:
        _drop_upload(tx, chunk)
        return Upload.MISMATCH
    part = {"sha256": chunk.sha256, "owner": chunk.owner, "idx": chunk.index, "data": chunk.data}
    tx.connection.execute(_put_chunk(tx.dialect), part)
    c = upload_chunks.c
    mine = (c.sha256 == chunk.sha256, c.owner == chunk.owner)
    counted = sql.fetch_one(tx, sa.select(sa.func.count(), sa.func.sum(sa.func.length(c.data))).where(*mine))
    if counted is None or (counted[0] < chunk.count and counted[1] <= chunk.size):
        return Upload.PARTIAL
    digest = hashlib.sha256()
    for (data,) in sql.fetch(tx, sa.select(c.data).where(*mine).order_by(c.idx)):
        digest.update(data)
    if counted[1] != chunk.size or digest.hexdigest() != chunk.sha256:
        _drop_upload(tx, chunk)
        return Upload.MISMATCH
    _insert_blobs(tx, [{"sha256": chunk.sha256, "size": chunk.size, "chunks": chunk.count, "created": now,
                        "expires": expires}])  # fmt: skip
    _keep_chunks(tx, chunk)
    sql.run(tx, sa.update(uploads).where(*key).values(complete=True))
    return Upload.COMPLETE


def may_refer(tx: Reading, owner: str, hashes: Collection[str]) -> set[str]:
    """Of these files those that the owner has sent in full."""
    return {sha256 for _, sha256 in may_refer_many(tx, [(owner, sha256) for sha256 in hashes])}


def may_refer_many(tx: Reading, pairs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of these (owner, hash) those where the owner has sent the file in full."""
    if not pairs:
        return set()
    rows = sql.encoded([{"owner": owner, "sha256": sha256} for owner, sha256 in set(pairs)])
    return {(row[0], row[1]) for row in sql.fetch(tx, _may_refer(tx.dialect), rows=rows)}


def describe(tx: Reading, hashes: Collection[str]) -> dict[str, Blob]:
    """Complete files by hash; unknown ones are absent."""
    found = sql.fetch(tx, _describe(tx.dialect), ids=sql.listed(tx, hashes)) if hashes else []
    return {row[0]: Blob(*row) for row in found}


def contents(tx: Reading, hashes: Collection[str], max_bytes: int) -> dict[str, bytes]:
    """The bytes of files of at most so many bytes each and one chunk; the others are absent."""
    if not hashes:
        return {}
    found = sql.fetch(tx, _contents(tx.dialect), ids=sql.listed(tx, hashes), most=max_bytes)
    return {row[0]: row[1] for row in found}


def read_chunks(tx: Reading, sha256: str, first: int, count: int) -> list[tuple[int, bytes]]:
    """Chunks ``first`` … ``first + count - 1`` of a file: (index, bytes)."""
    c = blob_chunks.c
    statement = sa.select(c.idx, c.data).where(c.sha256 == sha256, c.idx >= first, c.idx < first + count)
    return [(idx, data) for idx, data in sql.fetch(tx, statement.order_by(c.idx))]


def is_known(tx: Reading, owner: str, sha256: str) -> bool:
    """Whether the owner has sent at least a part of a file."""
    c = uploads.c
    return sql.fetch_one(tx, sa.select(c.sha256).where(c.sha256 == sha256, c.owner == owner)) is not None


def unused(tx: Reading, owner: str) -> tuple[int, int]:
    """How many files the owner sent, or is sending, that no job refers to, and their bytes."""
    u = uploads.c
    unused = (
        ~sa.exists().where(input_files.c.sha256 == u.sha256),
        ~sa.exists().where(output_files.c.sha256 == u.sha256),
    )
    row = sql.fetch_one(tx, sa.select(sa.func.count(), sa.func.sum(u.size)).where(u.owner == owner, *unused))
    return (0, 0) if row is None else (int(row[0]), int(row[1] or 0))


def bind_inputs(tx: Transaction, pairs: Collection[tuple[int, str]]) -> None:
    """The jobs of these submissions may read these files: (submission, hash)."""
    rows = [{"submission": submission, "sha256": sha256} for submission, sha256 in sorted(pairs)]
    sql.insert(tx, input_files, rows, conflict="ignore")


def bind_outputs(tx: Transaction, rows: Sequence[OutputRow]) -> None:
    """These are the output sandboxes of attempts."""
    ordered = sorted(rows, key=lambda row: (row.job, row.attempt, row.name))
    sql.insert(tx, output_files, ordered, conflict="replace")


def outputs_of(tx: Reading, job: int, attempt: int | None = None) -> list[OutputRow]:
    """The output sandbox of a job: of this attempt, or of the latest one that has any."""
    c = output_files.c
    wanted: sa.ColumnElement[int] | int | sa.ScalarSelect[int]
    wanted = sa.select(sa.func.max(c.attempt)).where(c.job == job).scalar_subquery() if attempt is None else attempt
    statement = sa.select(*sql.picked(output_files, OutputRow)).where(c.job == job, c.attempt == wanted)
    return [OutputRow(*row) for row in sql.fetch(tx, statement.order_by(c.name))]


def belongs(tx: Reading, job: int, sha256: str) -> bool:
    """Whether a file is part of a job's input or output sandbox."""
    statement = sa.select(
        sa.exists()
        .where(jobs.c.id == job, input_files.c.submission == jobs.c.submission, input_files.c.sha256 == sha256)
        .correlate(None),
        sa.exists().where(output_files.c.job == job, output_files.c.sha256 == sha256).correlate(None),
    )
    row = sql.fetch_one(tx, statement)
    return row is not None and bool(row[0] or row[1])


def forget_outputs(tx: Transaction, ids: Collection[int]) -> None:
    """These jobs are deleted: nothing refers to their output files any more."""
    if ids:
        sql.run(tx, _forget_outputs(tx.dialect), ids=sql.listed(tx, ids))


def forget_inputs(tx: Transaction, submissions: Collection[int]) -> None:
    """All jobs of these submissions are deleted: nothing refers to their input files any more."""
    if submissions:
        sql.run(tx, _forget_inputs(tx.dialect), ids=sql.listed(tx, submissions))


def forget_deleted(tx: Transaction) -> None:
    """Nothing refers any more to output files of deleted jobs, nor to input files whose jobs are all deleted."""
    o, i, s = output_files.c, input_files.c, submissions.c
    sql.run(
        tx, sa.delete(output_files).where(sa.exists().where(jobs.c.id == o.job, jobs.c.status == JobStatus.DELETED))
    )
    living = sa.exists().where(
        jobs.c.id >= s.first, jobs.c.id < s.first + s["count"], jobs.c.status != JobStatus.DELETED
    )
    used = sa.exists().where(i.submission == s.id)
    over = sa.select(s.id).where(s.expanded >= s["count"], used.correlate(submissions), ~living.correlate(submissions))
    sql.run(tx, sa.delete(input_files).where(i.submission.in_(over)))


def purge(tx: Transaction, now: float) -> int:
    """Drop uploads that are over their time, and complete files that nothing refers to; how many files."""
    u, c = uploads.c, upload_chunks.c
    sql.run(tx, sa.delete(uploads).where(u.expires < now))
    sql.run(tx, sa.delete(upload_chunks).where(~sa.exists().where(u.sha256 == c.sha256, u.owner == c.owner)))
    unused = (
        blobs.c.expires < now,
        ~sa.exists().where(input_files.c.sha256 == blobs.c.sha256),
        ~sa.exists().where(output_files.c.sha256 == blobs.c.sha256),
        ~sa.exists().where(u.sha256 == blobs.c.sha256),
    )
    return sql.run(tx, sa.delete(blobs).where(*unused))


def _insert_blobs(tx: Transaction, rows: Sequence[Mapping[str, object]]) -> None:
    # Sent again: kept longer. The row lock also keeps a concurrent purge away from it.
    sql.insert(tx, blobs, rows, conflict="replace", replace=("expires",))


def _keep_chunks(tx: Transaction, chunk: Chunk) -> None:
    """The chunks of a checked upload become those of the file, unless another sender was first."""
    c = upload_chunks.c
    mine = (c.sha256 == chunk.sha256, c.owner == chunk.owner)
    first = sql.fetch_one(tx, sa.select(blob_chunks.c.idx).where(blob_chunks.c.sha256 == chunk.sha256).limit(1))
    if first is None:
        columns = [blob_chunks.c.sha256, blob_chunks.c.idx, blob_chunks.c.data]
        kept = sa.select(c.sha256, c.idx, c.data).where(*mine)
        sql.run(tx, sa.insert(blob_chunks).from_select(columns, kept))
    sql.run(tx, sa.delete(upload_chunks).where(*mine))


def _drop_upload(tx: Transaction, chunk: Chunk) -> None:
    for table in (upload_chunks, uploads):
        sql.run(tx, sa.delete(table).where(table.c.sha256 == chunk.sha256, table.c.owner == chunk.owner))


@cache
def _put_chunk(dialect: DialectName) -> sa.Executable:
    statement = sql.dialect_insert(dialect, upload_chunks)
    return statement.on_conflict_do_update(
        index_elements=["sha256", "owner", "idx"], set_={"data": statement.excluded.data}
    )


@cache
def _may_refer(dialect: DialectName) -> sa.Executable:
    c, v = uploads.c, sql.batch(dialect, {"owner": sa.Text(), "sha256": sa.Text()})
    statement = sa.select(c.owner, c.sha256).where(c.sha256 == v["sha256"], c.owner == v["owner"], c.complete)
    # A purge waits until the caller has bound what he asked for.
    return statement.with_for_update(read=True, of=uploads) if dialect == "postgresql" else statement


@cache
def _describe(dialect: DialectName) -> sa.Executable:
    return sa.select(*sql.picked(blobs, Blob)).where(sql.among(dialect, blobs.c.sha256))


@cache
def _contents(dialect: DialectName) -> sa.Executable:
    most = sa.bindparam("most", type_=sa.BigInteger)
    return (
        sa.select(blobs.c.sha256, blob_chunks.c.data)
        .join_from(blobs, blob_chunks, blobs.c.sha256 == blob_chunks.c.sha256)
        .where(sql.among(dialect, blobs.c.sha256), blobs.c.chunks == 1, blobs.c.size <= most)
    )


@cache
def _forget_outputs(dialect: DialectName) -> sa.Executable:
    return sa.delete(output_files).where(sql.among(dialect, output_files.c.job))


@cache
def _forget_inputs(dialect: DialectName) -> sa.Executable:
    return sa.delete(input_files).where(sql.among(dialect, input_files.c.submission))
