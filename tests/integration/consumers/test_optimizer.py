"""From facts in the store to task queues."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from consumers.directory import Directory
from consumers.optimizer import Optimizer
from consumers.store import Store, catalog, heads, history, sandboxes
from schemas.job import JobStatus as S
from schemas.messages.common import InputFile, Replica, SandboxFile
from schemas.messages.event import JobsChanged, JobsReceived, WorkWaiting
from tests.support.jobs import details_of, job_of, put_job
from tests.support.messages import Heard, admitted, description, service, tell, user

pytestmark = pytest.mark.integration

ADA, BOB = user("ada"), user("bob")


@pytest.fixture
def optimizer(directory: Directory) -> Optimizer:
    return Optimizer(directory=directory)


def register(store: Store, lfn: str, *elements: str) -> None:
    replicas = tuple(Replica(se=se, pfn=f"file:///{se}{lfn}") for se in elements)
    with store.transaction() as tx:
        catalog.register(tx, [InputFile(lfn=lfn, size=7, adler32="0000000a", replicas=replicas)])


def checking(store: Store, job: int, files: tuple[SandboxFile, ...] = (), **fields: object) -> None:
    details = {"description": description(**fields), "files": msgspec.json.encode(files)}
    put_job(store, job, ADA, status=S.CHECKING, details=details)


def received(store: Store, optimizer: Optimizer, *ranges: tuple[int, int]) -> Heard:
    sender = service("job-manager")
    messages = [admitted(JobsReceived(submission=1, first=first, count=count), sender) for first, count in ranges]
    return tell(store, optimizer, messages)


def test_input_data_lead_a_job_to_its_sites(store: Store, optimizer: Optimizer) -> None:
    register(store, "/vo/a", "SE-FAR", "SE2", "SE1")
    register(store, "/vo/b", "SE2")
    checking(store, 1, InputData=["/vo/a", "/vo/b"])
    heard = received(store, optimizer, (1, 1))
    row, what = job_of(store, 1), details_of(store, 1)
    assert row.status is S.WAITING
    assert row.queue_id is not None
    assert row.class_id is not None
    assert msgspec.json.decode(what.candidate_sites or b"") == ["S2", "S3"]
    data = msgspec.json.decode(what.data, type=list[InputFile])
    assert [(one.lfn, [copy.se for copy in one.replicas]) for one in data] == [
        ("/vo/a", ["SE2", "SE-FAR", "SE1"]),
        ("/vo/b", ["SE2"]),
    ]
    assert [type(one) for one in heard.said] == [JobsChanged, WorkWaiting]
    assert heard.said[1] == WorkWaiting(queues=(row.queue_id,))
    with store.reading() as tx:
        assert heads.scan(tx) == [(row.queue_id, 0, 10.0)]
        assert [line.status for line in history.of(tx, 1)] == [S.WAITING]


def test_a_file_that_is_nowhere_ends_the_job_with_a_reason(store: Store, optimizer: Optimizer) -> None:
    checking(store, 1, InputData=["/vo/none"])
    received(store, optimizer, (1, 1))
    row = job_of(store, 1)
    assert (row.status, row.minor) == (S.FAILED, "Input data not available")


def test_files_named_by_lfn_in_the_sandbox_are_fetched_as_data(store: Store, optimizer: Optimizer) -> None:
    register(store, "/vo/tool", "SE1")
    own = SandboxFile(name="run.sh", sha256="0" * 64, size=1)
    checking(store, 1, (own,), InputSandbox=["run.sh", "LFN:/vo/tool"])
    received(store, optimizer, (1, 1))
    what = details_of(store, 1)
    assert job_of(store, 1).status is S.WAITING
    assert what.candidate_sites is None
    assert [one.lfn for one in msgspec.json.decode(what.data, type=list[InputFile])] == ["/vo/tool"]
    assert msgspec.json.decode(what.files, type=list[SandboxFile]) == [own]


def test_a_reference_counts_only_for_who_sent_the_file(store: Store, optimizer: Optimizer) -> None:
    mine, others = b"mine", b"others"
    hashes = [hashlib.sha256(data).hexdigest() for data in (mine, others)]
    with store.transaction() as tx:
        sandboxes.put_small(tx, ADA.identity, {hashes[0]: mine}, 1.0, 1e12)
        sandboxes.put_small(tx, BOB.identity, {hashes[1]: others}, 1.0, 1e12)
    checking(store, 1, InputSandbox=[f"SB:{hashes[0]}"])
    checking(store, 2, InputSandbox=[f"SB:{hashes[1]}"])
    checking(store, 3, InputSandbox=["SB:../../etc/passwd"])
    received(store, optimizer, (1, 3))
    assert [job_of(store, job).status for job in (1, 2, 3)] == [S.WAITING, S.FAILED, S.FAILED]
    files = msgspec.json.decode(details_of(store, 1).files, type=list[SandboxFile])
    assert [(one.sha256, one.size) for one in files] == [(hashes[0], 4)]
    with store.reading() as tx:
        assert sandboxes.belongs(tx, 1, hashes[0]), "the pilot may read it now"
        assert not sandboxes.belongs(tx, 1, hashes[1])


def test_what_waits_already_is_left_alone(store: Store, optimizer: Optimizer) -> None:
    put_job(store, 1, ADA, status=S.RUNNING)
    assert not received(store, optimizer, (1, 1), (55, 3)).said
    assert job_of(store, 1).status is S.RUNNING


def test_a_description_of_another_time_does_not_stop_the_others(store: Store, optimizer: Optimizer) -> None:
    put_job(store, 1, ADA, status=S.CHECKING, details={"description": b'{"Executable": 5}'})
    checking(store, 2)
    received(store, optimizer, (1, 2))
    assert [job_of(store, job).status for job in (1, 2)] == [S.FAILED, S.WAITING]


def test_the_rest_of_a_large_range_comes_later(
    store: Store, optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.optimizer.SLICE", 3)
    for job in range(1, 6):
        checking(store, job)
    heard = received(store, optimizer, (1, 2), (3, 3))
    assert [job_of(store, job).status for job in range(1, 6)] == [S.WAITING] * 3 + [S.CHECKING] * 2
    assert JobsReceived(submission=1, first=4, count=2) in heard.said
