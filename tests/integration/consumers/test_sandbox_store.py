"""Files in chunks: who may put, refer and read."""

from __future__ import annotations

import hashlib
import os

import pytest

from consumers import sandbox_store
from consumers.directory import Directory
from consumers.sandbox_store import SandboxStore
from consumers.store import Store, jobs, sandboxes, submissions
from consumers.store.sandboxes import OutputRow
from consumers.store.submissions import NewSubmission
from schemas.access import Limit, Measure
from schemas.job import JobStatus as S
from schemas.messages.common import CHUNK_BYTES
from schemas.messages.service import Refused, SandboxChunk, SandboxStored
from schemas.messages.user import GetSandbox, PutSandbox
from schemas.registry import Message
from tests.support.jobs import put_job
from tests.support.messages import Sender, admitted, chores, pilot, private_pilot, tell, user
from tests.support.rules import set_limits

pytestmark = pytest.mark.integration

ADA, BOB, PILOT = user("ada"), user("bob"), pilot("1")
DATA = os.urandom(2 * CHUNK_BYTES + 5)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def consumer(directory: Directory) -> SandboxStore:
    return SandboxStore(directory)


def chunks(data: bytes = DATA, sha256: str = SHA) -> list[PutSandbox]:
    count = max(1, -(-len(data) // CHUNK_BYTES))
    return [
        PutSandbox(
            sha256=sha256, size=len(data), index=index, count=count,
            data=data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES],
        )
        for index in range(count)
    ]  # fmt: skip


def ask(store: Store, consumer: SandboxStore, message: Message, sender: Sender = ADA) -> list[Message]:
    heard = tell(store, consumer, [admitted(message, sender)])
    assert not heard.letters
    return heard.said


def upload(store: Store, consumer: SandboxStore, sender: Sender = ADA) -> None:
    for chunk in chunks():
        ask(store, consumer, chunk, sender)


def test_chunks_come_in_any_order(store: Store, consumer: SandboxStore) -> None:
    answers = [ask(store, consumer, chunk)[0] for chunk in reversed(chunks())]
    assert answers == [SandboxStored(sha256=SHA, index=index, complete=index == 0) for index in (2, 1, 0)]
    with store.reading() as tx:
        assert sandboxes.may_refer(tx, ADA.identity, [SHA]) == {SHA}
        assert not sandboxes.may_refer(tx, BOB.identity, [SHA])


def test_an_empty_file_is_one_empty_chunk(store: Store, consumer: SandboxStore) -> None:
    sha256 = hashlib.sha256(b"").hexdigest()
    assert ask(store, consumer, chunks(b"", sha256)[0]) == [SandboxStored(sha256=sha256, index=0, complete=True)]


def test_other_bytes_than_promised_are_refused(store: Store, consumer: SandboxStore) -> None:
    (answer,) = ask(store, consumer, chunks(b"short", "0" * 64)[0])
    assert isinstance(answer, Refused)
    assert answer.code == "invalid"


def test_nobody_stores_without_bound(store: Store, consumer: SandboxStore) -> None:
    set_limits(store, Limit(who="*", measure=Measure.SANDBOX_BYTES, value=len(DATA) + 10))
    upload(store, consumer)
    small = chunks(b"x" * 20, hashlib.sha256(b"x" * 20).hexdigest())[0]
    (answer,) = ask(store, consumer, small)
    assert isinstance(answer, Refused)
    assert answer.code == "limit"
    assert answer.reason.startswith(f"limit sandbox-bytes: {len(DATA):,} bytes of your files wait")
    assert f"at most {len(DATA) + 10:,} (set for everybody)" in answer.reason
    assert ask(store, consumer, small, BOB) == [SandboxStored(sha256=small.sha256, index=0, complete=True)]
    with store.transaction() as tx:
        sandboxes.bind_inputs(tx, {(1, SHA)})
    assert isinstance(ask(store, consumer, small)[0], SandboxStored), "what a job refers to does not count"


def test_nobody_stores_small_files_without_bound(store: Store, consumer: SandboxStore, monkeypatch) -> None:
    monkeypatch.setattr(sandbox_store, "MAX_UNUSED", 3)
    files = [chunks(data, hashlib.sha256(data).hexdigest())[0] for data in (b"a", b"b", b"c", b"d")]
    assert [type(ask(store, consumer, file)[0]) for file in files] == [SandboxStored] * 3 + [Refused]
    assert isinstance(ask(store, consumer, files[0])[0], SandboxStored)
    assert isinstance(ask(store, consumer, files[3], BOB)[0], SandboxStored)


def test_who_may_read(store: Store, consumer: SandboxStore) -> None:
    upload(store, consumer)
    put_job(store, 1, ADA, status=S.RUNNING, pilot=PILOT.cli)
    put_job(store, 2, ADA, status=S.DONE, pilot=PILOT.cli)
    with store.transaction() as tx:
        sandboxes.bind_inputs(tx, {(1, SHA)})
    want = GetSandbox(job=1, sha256=SHA)
    for sender in (ADA, PILOT):
        parts = [part for part in ask(store, consumer, want, sender) if isinstance(part, SandboxChunk)]
        assert b"".join(part.data for part in parts) == DATA
        assert {(part.size, part.count) for part in parts} == {(len(DATA), 3)}
    refused = [Refused(code="not-found", reason="no such job, or no such file of it", type="sandbox.get.v1")]
    for job, sha256, sender in (
        (1, SHA, BOB), (1, SHA, pilot("2")), (2, SHA, PILOT), (99, SHA, ADA), (1, "0" * 64, ADA),
    ):  # fmt: skip
        assert ask(store, consumer, GetSandbox(job=job, sha256=sha256), sender) == refused


def test_a_private_pilot_reads_its_owners_files_only(store: Store, consumer: SandboxStore) -> None:
    """Even if it held another's lease, which it never gets."""
    upload(store, consumer)
    mine, others = private_pilot("ada"), private_pilot("bob")
    put_job(store, 1, ADA, status=S.RUNNING, pilot=mine.cli)
    put_job(store, 2, ADA, status=S.RUNNING, pilot=others.cli)
    with store.transaction() as tx:
        sandboxes.bind_inputs(tx, {(1, SHA), (2, SHA)})
    assert isinstance(ask(store, consumer, GetSandbox(job=1, sha256=SHA), mine)[0], SandboxChunk)
    (answer,) = ask(store, consumer, GetSandbox(job=2, sha256=SHA), others)
    assert isinstance(answer, Refused)


def test_a_window_of_chunks(store: Store, consumer: SandboxStore) -> None:
    upload(store, consumer)
    put_job(store, 1, ADA)
    with store.transaction() as tx:
        sandboxes.bind_outputs(tx, [OutputRow(1, 1, "out", SHA, len(DATA), 0o644)])
    parts = ask(store, consumer, GetSandbox(job=1, sha256=SHA, first=1, count=1))
    assert [part.index for part in parts if isinstance(part, SandboxChunk)] == [1]
    (answer,) = ask(store, consumer, GetSandbox(job=1, sha256=SHA, first=3))
    assert isinstance(answer, Refused)
    assert answer.code == "invalid"


def test_pilots_store_each_for_itself(store: Store, consumer: SandboxStore) -> None:
    upload(store, consumer, PILOT)
    with store.reading() as tx:
        assert sandboxes.may_refer(tx, PILOT.cli, [SHA]) == {SHA}
        assert not sandboxes.may_refer(tx, pilot("2").cli, [SHA])


def test_the_files_of_deleted_jobs_go_in_time(store: Store, consumer: SandboxStore) -> None:
    upload(store, consumer)
    out = hashlib.sha256(b"out").hexdigest()
    new = NewSubmission(ADA.identity, ADA.group, "", "d", 2, b"[]", b"[]", ADA.cli, 1.0)
    with store.transaction() as tx:
        whole, half = submissions.create(tx, [new, new])
        submissions.mark_expanded(tx, {whole.id: 2, half.id: 1})
        sandboxes.put_small(tx, PILOT.cli, {out: b"out"}, 1.0, 2.0)
        sandboxes.bind_inputs(tx, {(whole.id, SHA), (half.id, SHA)})
        sandboxes.bind_outputs(tx, [OutputRow(job, 1, "out", out, 3, 0o644) for job in (whole.first, half.first)])
    put_job(store, whole.first, ADA, submission=whole.id, status=S.DELETED)
    put_job(store, whole.first + 1, ADA, submission=whole.id, status=S.DONE)
    put_job(store, half.first, ADA, submission=half.id, status=S.DELETED)

    def left() -> list[bool]:
        chores(store, consumer, 1e11)
        with store.reading() as tx:
            return [sandboxes.belongs(tx, whole.first + 1, SHA), sandboxes.belongs(tx, half.first, SHA),
                    bool(sandboxes.describe(tx, [SHA])), bool(sandboxes.describe(tx, [out]))]  # fmt: skip

    assert left() == [True, True, True, False], "a job of the first lives; one of the second is not even written"
    with store.transaction() as tx:
        jobs.update_many(tx, {whole.first + 1: {"status": S.DELETED}})
        submissions.mark_expanded(tx, {half.id: 2})
    assert left() == [False, False, False, False]


def test_what_nothing_refers_to_goes_in_time(store: Store, consumer: SandboxStore) -> None:
    upload(store, consumer)
    chores(store, consumer)
    with store.reading() as tx:
        assert sandboxes.describe(tx, [SHA])
    chores(store, consumer, 1e11)
    with store.reading() as tx:
        assert not sandboxes.describe(tx, [SHA])
