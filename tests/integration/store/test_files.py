"""Sandboxes by content address, and the replica catalog."""

from __future__ import annotations

import hashlib

import pytest

from consumers.store import Store, StoreRejected, Transaction, catalog, jobs, sandboxes
from consumers.store.rows import JobDetails, JobRow
from consumers.store.sandboxes import Chunk, OutputRow, Upload
from schemas.messages.common import InputFile, Replica

pytestmark = pytest.mark.integration

PARTS = [b"a" * 1000, b"\x00" * 1000, b"end"]
WHOLE = b"".join(PARTS)
HASH = hashlib.sha256(WHOLE).hexdigest()


def chunk(index: int, *, owner: str = "jane", data: bytes | None = None, count: int = 3, size: int = 2003) -> Chunk:
    return Chunk(sha256=HASH, owner=owner, size=size, count=count, index=index,
                 data=PARTS[index] if data is None else data)  # fmt: skip


def put(tx: Transaction, *chunks: Chunk) -> list[Upload]:
    return [sandboxes.put_chunk(tx, one, 1.0, 100.0) for one in chunks]


def test_a_file_is_there_when_all_its_chunks_are(store: Store) -> None:
    with store.transaction() as tx:
        assert put(tx, chunk(2), chunk(0), chunk(0)) == [Upload.PARTIAL] * 3
        assert sandboxes.describe(tx, [HASH]) == {}
        assert sandboxes.may_refer(tx, "jane", [HASH]) == set()
        assert put(tx, chunk(1), chunk(1)) == [Upload.COMPLETE] * 2
        assert sandboxes.describe(tx, [HASH]) == {HASH: sandboxes.Blob(HASH, 2003, 3)}
        assert sandboxes.read_chunks(tx, HASH, 0, 2) == [(0, PARTS[0]), (1, PARTS[1])]
        assert sandboxes.read_chunks(tx, HASH, 2, 8) == [(2, PARTS[2])]
        assert sandboxes.contents(tx, [HASH], 10_000) == {}  # several chunks: not a small file


def test_knowing_a_hash_gives_no_right_to_the_bytes(store: Store) -> None:
    with store.transaction() as tx:
        put(tx, *(chunk(i) for i in range(3)))
        assert sandboxes.may_refer(tx, "jane", [HASH, "0" * 64]) == {HASH}
        assert sandboxes.may_refer(tx, "joe", [HASH]) == set()
        assert put(tx, *(chunk(i, owner="joe") for i in range(3)))[-1] is Upload.COMPLETE
        assert sandboxes.may_refer(tx, "joe", [HASH]) == {HASH}


@pytest.mark.parametrize(
    "wrong",
    [
        [chunk(0), chunk(1), chunk(2, data=b"eNd")],
        [chunk(0), chunk(1, data=b"\x00" * 1001)],
        [chunk(0), chunk(1, size=9)],
        [chunk(0), chunk(1, count=4)],
    ],
)
def test_wrong_bytes_spoil_only_their_sender(store: Store, wrong: list[Chunk]) -> None:
    with store.transaction() as tx:
        put(tx, chunk(0, owner="joe"))
        answers = put(tx, *wrong)
        assert Upload.COMPLETE not in answers
        assert sandboxes.describe(tx, [HASH]) == {}
        assert put(tx, chunk(1, owner="joe"), chunk(2, owner="joe"))[-1] is Upload.COMPLETE
        assert put(tx, *(chunk(i) for i in range(3)))[-1] is Upload.COMPLETE


def test_small_files_travel_whole(store: Store) -> None:
    small = {hashlib.sha256(data).hexdigest(): data for data in (b"", b"one", b"\xfftwo")}
    with store.transaction() as tx:
        sandboxes.put_small(tx, "jane", small, 1.0, 100.0)
        sandboxes.put_small(tx, "jane", small, 2.0, 200.0)
        assert sandboxes.may_refer(tx, "jane", small) == set(small)
        assert sandboxes.contents(tx, small, 3) == {sha: data for sha, data in small.items() if len(data) <= 3}
        with pytest.raises(StoreRejected):
            sandboxes.put_small(tx, "jane", {"0" * 64: b"x"}, 1.0, 100.0)


def test_files_belong_to_jobs_and_stay_while_they_do(store: Store) -> None:
    out = hashlib.sha256(b"out").hexdigest()
    with store.transaction() as tx:
        jobs.insert(
            tx, [JobRow(1, 5, "jane", "vo"), JobRow(2, 6, "jane", "vo")], [JobDetails(1, b"{}"), JobDetails(2, b"{}")]
        )
        put(tx, *(chunk(i) for i in range(3)))
        sandboxes.put_small(tx, "pilot", {out: b"out"}, 1.0, 100.0)
        sandboxes.bind_inputs(tx, [(5, HASH), (5, HASH)][:1])
        sandboxes.bind_inputs(tx, {(5, HASH)})
        sandboxes.bind_outputs(tx, [OutputRow(1, 1, "old", out, 3, 0o644), OutputRow(1, 2, "new", out, 3, 0o600)])
        assert sandboxes.belongs(tx, 1, HASH)
        assert sandboxes.belongs(tx, 1, out)
        assert not sandboxes.belongs(tx, 2, HASH)
        assert not sandboxes.belongs(tx, 2, out)
        assert [o.name for o in sandboxes.outputs_of(tx, 1)] == ["new"]
        assert [o.name for o in sandboxes.outputs_of(tx, 1, 1)] == ["old"]
        assert sandboxes.purge(tx, 500.0) == 0
        assert sandboxes.may_refer(tx, "jane", [HASH]) == set()
        sandboxes.forget_outputs(tx, [1])
        assert sandboxes.purge(tx, 500.0) == 1
        sandboxes.forget_inputs(tx, [5])
        assert sandboxes.purge(tx, 500.0) == 1
        assert sandboxes.read_chunks(tx, HASH, 0, 9) == []


def entry(lfn: str, size: int = 5, adler32: str = "", **copies: str) -> InputFile:
    replicas = tuple(Replica(se=se, pfn=pfn) for se, pfn in copies.items())
    return InputFile(lfn=lfn, size=size, adler32=adler32, replicas=replicas)


def test_the_catalog_finds_all_copies(store: Store) -> None:
    with store.transaction() as tx:
        assert catalog.register(tx, [entry("/a", A="pa"), entry("/a", B="pb"), entry("/b", A="pba")]) == set()
        assert catalog.register(tx, [entry("/a", adler32="0000abcd", A="moved")]) == set()
        assert catalog.register(tx, [entry("/a", 6, C="pc"), entry("/b", B="pbb")]) == {"/a"}
        assert catalog.register(tx, [entry("/a", adler32="ffffffff", C="pc")]) == {"/a"}
        assert catalog.find(tx, ["/a", "/b", "/c"]) == {
            "/a": entry("/a", adler32="0000abcd", A="moved", B="pb"),
            "/b": entry("/b", A="pba", B="pbb"),
        }
        catalog.forget(tx, ["/a"])
        assert set(catalog.find(tx, ["/a", "/b"])) == {"/b"}
