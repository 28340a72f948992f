"""One attempt's way on the node: input, output, trouble. Always: one last word, no work directory left."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.payload import PayloadStartError
from pilot.sandbox import SandboxError
from pilot.spawn import NodeTroubleError
from schemas.job import JobStatus
from schemas.messages.common import CHUNK_BYTES, MAX_INLINE_BYTES, InputFile, Replica, SandboxFile
from schemas.messages.pilot import Report, ReportJobs
from schemas.messages.service import ControlJobs, Lease, LeasesRenewed, Order, SandboxChunk, SandboxStored
from schemas.messages.user import GetSandbox, PutSandbox
from schemas.registry import encode
from tests.support.pilot_desk import Desk
from tests.support.wait import wait_until


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    (tmp_path / "se").mkdir()
    made = Desk(tmp_path, monkeypatch, stores={"SE1": tmp_path / "se"})
    yield made
    made.close()


def file_of(name: str, content: bytes, *, inline: bool, mode: int = 0o644) -> SandboxFile:
    return SandboxFile(
        name=name,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        mode=mode,
        content=content if inline else None,
    )


def renew(desk: Desk, job: int = 1, seconds: float = 250) -> None:
    desk.say(LeasesRenewed(leases=(Lease(job=job, attempt=1, until=desk.session.now() + seconds),)))


def ended(desk: Desk, job: int = 1) -> Report:
    word = desk.last_word(job)
    assert desk.directories() == []
    assert len(desk.attempts) == 0
    assert desk.attempts.busy_processors() == 0
    return word


# -- input ------------------------------------------------------------------------------------------------------


def test_small_input_is_written_before_the_payload_starts(desk: Desk) -> None:
    files = [file_of("run.sh", b"echo", inline=True, mode=0o755), file_of("a.txt", b"a", inline=True)]
    payload = desk.run(1, files=files, InputSandbox=["run.sh", "a.txt"])
    assert (payload.spec.directory / "a.txt").read_bytes() == b"a"
    assert (payload.spec.directory / "run.sh").stat().st_mode & 0o100


def chunks_of(content: bytes) -> list[SandboxChunk]:
    pieces = [content[start : start + CHUNK_BYTES] for start in range(0, max(1, len(content)), CHUNK_BYTES)]
    sha256 = hashlib.sha256(content).hexdigest()
    return [
        SandboxChunk(sha256=sha256, size=len(content), index=index, count=len(pieces), data=piece)
        for index, piece in enumerate(pieces)
    ]


def test_large_input_is_fetched_before_the_payload_starts(desk: Desk) -> None:
    content = b"x" * (CHUNK_BYTES + 5)
    asked = desk.give(desk.match(1, files=[file_of("big", content, inline=False)]))
    desk.issue(asked)
    assert desk.take(GetSandbox) == [GetSandbox(job=1, sha256=hashlib.sha256(content).hexdigest(), first=0, count=2)]
    one, two = chunks_of(content)
    desk.say(two)
    assert desk.runner.started == []
    desk.say(one)
    assert (desk.payload(1).spec.directory / "big").read_bytes() == content
    assert desk.take(GetSandbox) == []


def test_input_that_does_not_come_is_the_infrastructures_fault(desk: Desk) -> None:
    desk.give(desk.match(1, files=[file_of("big", b"x", inline=False)]))
    for _ in range(7):
        renew(desk)
        desk.turn(after=20)
    word = ended(desk)
    assert (word.status, word.infrastructure) == (JobStatus.FAILED, True)
    assert len(desk.take(GetSandbox)) == 6


def test_kill_while_input_is_fetched(desk: Desk) -> None:
    content = b"x" * 10
    desk.give(desk.match(1, files=[file_of("big", content, inline=False)]))
    desk.say(ControlJobs(orders=(Order(job=1, attempt=1, action="kill"),)))
    assert ended(desk).status is JobStatus.KILLED
    desk.say(chunks_of(content)[0])
    assert desk.runner.started == []


def data_of(desk: Desk, content: bytes, adler32: str = "") -> InputFile:
    folder = desk.agent._settings.stores["SE1"]
    (folder / "f").write_bytes(content)
    replica = Replica(se="SE1", pfn=f"file://{folder}/f")
    return InputFile(lfn="/vo/f", size=len(content), adler32=adler32, replicas=(replica,))


def test_input_data_is_copied_before_the_payload_starts(desk: Desk) -> None:
    desk.issue(desk.give(desk.match(1, data=[data_of(desk, b"data", f"{zlib.adler32(b'data'):08x}")])))
    wait_until(lambda: desk.turn() or desk.runner.started, 10, "the payload")
    assert (desk.payload(1).spec.directory / "f").read_bytes() == b"data"


def test_broken_input_data_is_the_infrastructures_fault(desk: Desk) -> None:
    desk.issue(desk.give(desk.match(1, data=[data_of(desk, b"data", "00000000")])))
    wait_until(lambda: desk.turn() or not len(desk.attempts), 10, "the end")
    word = ended(desk)
    assert (word.status, word.infrastructure) == (JobStatus.FAILED, True)
    assert desk.attempts._copies == {}


# -- trouble at the start ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "infrastructure"),
    [(PayloadStartError("no file"), False), (NodeTroubleError("no forks"), True), (OSError(28, "full"), True)],
)
def test_a_payload_that_cannot_start(desk: Desk, error: Exception, infrastructure: bool) -> None:
    def fail(*_: object) -> None:
        raise error

    desk.runner.start = fail  # type: ignore[method-assign, assignment]  # it fails
    desk.issue(desk.give(desk.match(1)))
    word = ended(desk)
    assert (word.status, word.infrastructure) == (JobStatus.FAILED, infrastructure)
    assert word.reason


def test_a_bad_input_name_fails_that_job_alone(desk: Desk) -> None:
    desk.issue(desk.give(desk.match(1, files=[file_of("..", b"", inline=True)]), desk.match(2)))
    assert desk.last_word(1).status is JobStatus.FAILED
    assert desk.payload(2)


def test_a_work_directory_that_is_taken_fails_that_attempt_alone(desk: Desk) -> None:
    desk.area.fresh("1", 1)
    desk.issue(desk.give(desk.match(1), desk.match(2)))
    word = desk.last_word(1)
    assert (word.status, word.infrastructure) == (JobStatus.FAILED, True)
    assert desk.payload(2)


def test_trouble_with_outputs_fails_that_attempt_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SandboxError("it changed")

    monkeypatch.setattr("pilot.stagehand.pick_output", fail)
    payload = desk.run(1, OutputSandbox=["std.out"])
    payload.end()
    desk.turn()
    assert ended(desk).status is JobStatus.FAILED


# -- output -----------------------------------------------------------------------------------------------------


def test_small_output_travels_in_the_final_report(desk: Desk) -> None:
    payload = desk.run(1, OutputSandbox=["std.out", "gone"])
    (payload.spec.directory / "std.out").write_bytes(b"hello")
    payload.end()
    desk.turn()
    word = ended(desk)
    assert [(file.name, file.content) for file in word.outputs] == [("std.out", b"hello")]
    assert any("gone" in step.minor for step in word.steps)


def upload(desk: Desk, size: int = MAX_INLINE_BYTES + 1) -> str:
    content = b"y" * size
    payload = desk.run(1, OutputSandbox=["big", "std.out"])
    (payload.spec.directory / "big").write_bytes(content)
    (payload.spec.directory / "std.out").write_bytes(b"hello")
    payload.end()
    desk.turn()
    return hashlib.sha256(content).hexdigest()


def stored(desk: Desk, sha256: str, index: int = 0, *, complete: bool = True) -> None:
    desk.say(SandboxStored(sha256=sha256, index=index, complete=complete))


def test_large_output_is_stored_before_the_final_report(desk: Desk) -> None:
    sha256 = upload(desk)
    [chunk] = desk.take(PutSandbox)
    assert isinstance(chunk, PutSandbox)
    assert (chunk.sha256, chunk.index, chunk.count) == (sha256, 0, 1)
    [report] = desk.reports(1)
    assert report.status is JobStatus.COMPLETING
    desk.turn(after=5)
    assert desk.reports(1) == []
    stored(desk, sha256)
    word = ended(desk)
    assert word.status is JobStatus.DONE
    assert {file.name: file.content for file in word.outputs} == {"big": None, "std.out": b"hello"}


def test_an_upload_without_progress_fails_the_attempt_as_infrastructure(desk: Desk) -> None:
    upload(desk)
    desk.reports(1)
    for _ in range(7):
        desk.turn(after=20.5)
    word = ended(desk)
    assert (word.status, word.infrastructure, word.exit_code) == (JobStatus.FAILED, True, 0)
    assert len(desk.take(PutSandbox)) == 6


def test_a_kill_while_output_is_sent_comes_too_late(desk: Desk) -> None:
    sha256 = upload(desk)
    desk.reports(1)
    desk.say(ControlJobs(orders=(Order(job=1, attempt=1, action="kill"),)))
    stored(desk, sha256)
    assert ended(desk).status is JobStatus.DONE


def test_abandon_while_output_is_sent(desk: Desk) -> None:
    upload(desk)
    desk.take(ReportJobs)
    desk.say(ControlJobs(orders=(Order(job=1, attempt=1, action="abandon"),)))
    assert desk.reports(1) == []
    assert desk.directories() == []
    assert desk.attempts._uploads == {}


def test_two_attempts_with_the_same_output_send_it_once(desk: Desk) -> None:
    content = b"z" * (MAX_INLINE_BYTES + 1)
    asked = desk.give(desk.match(1, OutputSandbox=["big"]), desk.match(2, OutputSandbox=["big"]))
    desk.issue(asked)
    for job in (1, 2):
        (desk.payload(job).spec.directory / "big").write_bytes(content)
        desk.payload(job).end()
        desk.turn()
    assert len(desk.take(PutSandbox)) == 1
    desk.deployment.say(SandboxStored(sha256=hashlib.sha256(content).hexdigest(), index=0, complete=True))
    desk.turn()
    reports = [report for one in desk.take(ReportJobs) if isinstance(one, ReportJobs) for report in one.reports]
    assert {report.job for report in reports if report.status is JobStatus.DONE} == {1, 2}
    assert len(desk.attempts) == 0


def test_a_report_fits_its_message_whatever_the_payload_left(desk: Desk) -> None:
    payload = desk.run(1, OutputSandbox=["*"])
    for number in range(1200):
        (payload.spec.directory / f"{number:04}").write_bytes(b"%d" % number)
    payload.end()
    desk.turn()
    word = ended(desk)
    assert len(word.outputs) <= 1000
    assert len(word.steps) <= 64
    assert len(encode(ReportJobs(reports=(word,)))) < 1 << 20


def test_closing_ends_the_copying(desk: Desk) -> None:
    desk.attempts.close()
    with pytest.raises(RuntimeError):
        desk.attempts._pool.submit(print)
