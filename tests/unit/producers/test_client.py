"""The client over the real wire: what it sends, what it makes of the answers."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from pathlib import Path

import pytest

from broker.identity import make_csr, new_key, verify_chain
from broker.transport import Confirm
from producers import Client, InvalidJobError
from producers.errors import (
    AwayError,
    NoProxyError,
    NotAllowedError,
    NotConfiguredError,
    NotFoundError,
    OutputError,
    ProxyExpiredError,
    ServiceRefusedError,
    TimedOutError,
)
from producers.settings import UserSettings
from schemas.errors import InvalidInputError
from schemas.job import JobStatus
from schemas.messages.admin import DiscardDead, QueryDead, ReplayDead
from schemas.messages.common import CHUNK_BYTES, MAX_INLINE_BYTES, InputFile, Replica, SandboxFile
from schemas.messages.event import JobChange, JobsChanged, WorkWaiting
from schemas.messages.service import (
    ChainUnknown,
    CommandOutcome,
    DeadLetter,
    DeadListing,
    DelegationCsr,
    DelegationStored,
    JobDetail,
    JobListing,
    JobProgress,
    JobsCommanded,
    JobsSubmitted,
    JobSummary,
    RefusalDetail,
    Refused,
    ReplicaListing,
    SandboxChunk,
    SandboxStored,
)
from schemas.messages.user import (
    DeleteJobs,
    FollowJobs,
    GetSandbox,
    InspectJob,
    KillJobs,
    PutDelegation,
    PutSandbox,
    QueryJobs,
    QueryReplicas,
    RegisterReplica,
    RequestDelegation,
    RescheduleJobs,
    SubmitJobs,
)
from tests.support.fake_deployment import GROUP, USER, FakeDeployment

JDL = '[ Executable = "/bin/true"; ]'


def summary(job: int, status: JobStatus = JobStatus.RUNNING) -> JobSummary:
    return JobSummary(job=job, status=status, owner=USER, group=GROUP, submitted=1.0, updated=2.0)


def change(job: int, status: JobStatus, at: float = 1.0) -> JobChange:
    return JobChange(job=job, status=status, time=at, owner=USER, group=GROUP)


def sandbox_file(name: str, content: bytes, *, inline: bool = True, mode: int = 0o644) -> SandboxFile:
    digest = hashlib.sha256(content).hexdigest()
    return SandboxFile(name=name, sha256=digest, size=len(content), mode=mode, content=content if inline else None)


class TestSubmit:
    def test_sends_one_message_and_gives_ids(self, deployment: FakeDeployment, client: Client) -> None:
        deployment.answer(SubmitJobs, JobsSubmitted(first=7, count=1))
        submission = client.submit([JDL])
        assert (submission.first, submission.count, list(submission.ids)) == (7, 1, [7])
        message = deployment.take(SubmitJobs)
        assert message.descriptions == (JDL,)
        assert message.key == submission.key
        assert len(message.key) == 32

    def test_takes_files_beside_the_description(
        self, deployment: FakeDeployment, client: Client, tmp_path: Path
    ) -> None:
        folder = tmp_path / "work"
        folder.mkdir()
        (folder / "run.sh").write_text("#!/bin/sh\n")
        (folder / "run.sh").chmod(0o755)
        (folder / "job.jdl").write_text('[ Executable = "run.sh"; InputSandbox = {"run.sh", "LFN:/vo/x"}; ]')
        deployment.answer(SubmitJobs, JobsSubmitted(first=1, count=1))
        client.submit([folder / "job.jdl"])
        (file,) = deployment.take(SubmitJobs).files
        assert (file.name, file.mode, file.content) == ("run.sh", 0o755, b"#!/bin/sh\n")

    def test_invalid_description_sends_nothing(self, client: Client) -> None:
        with pytest.raises(InvalidJobError) as caught:
            client.submit(['[ Executable = "a"; Priority = 99; CPUTime = 1; ]'])
        assert [fault.attribute for fault in caught.value.faults] == ["Priority", "CPUTime"]

    def test_missing_file_is_named_with_its_place(self, client: Client) -> None:
        with pytest.raises(InvalidJobError) as caught:
            client.submit(['[\n Executable = "a";\n InputSandbox = {"nowhere.txt"};\n]'])
        (fault,) = caught.value.faults
        assert (fault.line, fault.column, fault.attribute) == (3, 18, "InputSandbox")

    def test_large_files_go_before_in_chunks(self, deployment: FakeDeployment, client: Client, tmp_path: Path) -> None:
        content = bytes(range(256)) * (CHUNK_BYTES * 9 // 256) + b"tail"
        (tmp_path / "big").write_bytes(content)
        (tmp_path / "job.jdl").write_text('[ Executable = "x"; InputSandbox = {"big"}; ]')
        deployment.answer(SubmitJobs, JobsSubmitted(first=1, count=1))
        deployment.answer_with(
            PutSandbox,
            lambda asked: [SandboxStored(sha256=asked.message.sha256, index=asked.message.index, complete=False)],  # type: ignore[attr-defined]
        )
        told: list[int] = []
        client.submit([tmp_path / "job.jdl"], progress=lambda _name, done, _all: told.append(done))
        chunks = [deployment.take(PutSandbox) for _ in range(10)]
        assert b"".join(chunk.data for chunk in chunks) == content
        assert len(content) > MAX_INLINE_BYTES
        assert deployment.take(SubmitJobs).files[0].content is None
        assert told == [CHUNK_BYTES * 8, len(content)]

    def test_two_descriptions_with_different_files_of_one_name(self, client: Client, tmp_path: Path) -> None:
        paths = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "data").write_text(name)
            paths.append(tmp_path / name / "job.jdl")
            paths[-1].write_text('[ Executable = "x"; InputSandbox = "data"; ]')
        with pytest.raises(InvalidJobError, match="another file"):
            client.submit(paths)

    def test_lost_answer_is_asked_for_with_the_same_key(self, deployment: FakeDeployment) -> None:
        answers = iter([(), (JobsSubmitted(first=3, count=1),)])
        deployment.answer_with(SubmitJobs, lambda _asked: next(answers))
        with Client(deployment.settings, timeout=1.0) as client:
            assert client.submit([JDL]).first == 3
        assert deployment.take(SubmitJobs).key == deployment.take(SubmitJobs).key

    def test_refusal_of_the_service_names_all_errors(self, deployment: FakeDeployment, client: Client) -> None:
        details = (RefusalDetail(message="no such site", line=1, column=2, attribute="Site"),)
        deployment.answer(SubmitJobs, Refused(code="invalid", reason="not valid", errors=details))
        with pytest.raises(InvalidJobError, match="not valid") as caught:
            client.submit([JDL])
        assert caught.value.faults[0].message == "no such site"
        deployment.take(SubmitJobs)

    def test_conflict_is_not_tried_again(self, deployment: FakeDeployment, client: Client) -> None:
        deployment.answer(SubmitJobs, Refused(code="conflict", reason="same key, other content"))
        with pytest.raises(ServiceRefusedError, match="same key"):
            client.submit([JDL], key="mine")
        assert deployment.take(SubmitJobs).key == "mine"

    def test_unknown_chain_means_a_new_login(self, deployment: FakeDeployment, client: Client) -> None:
        answers = iter([ChainUnknown(), JobsSubmitted(first=4, count=1)])
        deployment.answer_with(SubmitJobs, lambda _asked: [next(answers)])
        assert client.submit([JDL]).first == 4
        assert deployment.logins == 2
        assert deployment.take(SubmitJobs) == deployment.take(SubmitJobs)


class TestDelegation:
    def delegating(self, deployment: FakeDeployment) -> None:
        deployment.answer(RequestDelegation, DelegationCsr(delegation="d1", csr=make_csr(new_key())))
        deployment.answer(PutDelegation, DelegationStored(not_after=time.time() + 1000))

    def test_no_proxy_there_yet(self, deployment: FakeDeployment) -> None:
        deployment.delegated_until = None
        self.delegating(deployment)
        deployment.answer(SubmitJobs, JobsSubmitted(first=1, count=1))
        with Client(deployment.settings, timeout=20.0) as client:
            client.submit([JDL])
            client.submit([JDL])
        deployment.take(RequestDelegation)
        put = deployment.take(PutDelegation)
        chain = verify_chain(put.chain, deployment.trust, None, dt.datetime.now(dt.UTC))
        assert (chain.identity, chain.limited, chain.depth) == (USER, False, 2)
        assert "PRIVATE KEY" not in put.chain
        deployment.take(SubmitJobs)
        deployment.take(SubmitJobs)
        deployment.assert_nothing_else_sent()

    def test_service_says_that_it_has_none(self, deployment: FakeDeployment, client: Client) -> None:
        self.delegating(deployment)
        answers = iter([Refused(code="no-proxy", reason="expired"), JobsSubmitted(first=1, count=1)])
        deployment.answer_with(SubmitJobs, lambda _asked: [next(answers)])
        assert client.submit([JDL]).first == 1
        deployment.take(SubmitJobs)
        deployment.take(RequestDelegation)
        deployment.take(PutDelegation)
        deployment.take(SubmitJobs)


class TestQueries:
    def test_pages(self, deployment: FakeDeployment, client: Client) -> None:
        pages = {0: JobListing(jobs=tuple(summary(i) for i in range(3000, 2000, -1)), more=True)}
        pages[2001] = JobListing(jobs=tuple(summary(i) for i in range(2000, 1500, -1)), more=True)
        deployment.answer_with(QueryJobs, lambda asked: [pages[asked.message.before]])  # type: ignore[attr-defined]
        assert len(client.jobs(status=[JobStatus.RUNNING], limit=1500)) == 1500
        first, second = deployment.take(QueryJobs), deployment.take(QueryJobs)
        assert (first.limit, second.limit, second.before) == (1000, 500, 2001)
        assert second.status == (JobStatus.RUNNING,)

    def test_not_found(self, deployment: FakeDeployment, client: Client) -> None:
        deployment.answer(InspectJob, Refused(code="not-found", reason="no job 9"))
        with pytest.raises(NotFoundError, match="no job 9"):
            client.job(9)
        assert deployment.take(InspectJob).job == 9

    def test_commands_tell_for_each_job(self, deployment: FakeDeployment, client: Client) -> None:
        outcomes = (CommandOutcome(job=1, ok=True), CommandOutcome(job=2, ok=False, reason="has ended"))
        for kind, method in ((KillJobs, client.kill), (DeleteJobs, client.delete), (RescheduleJobs, client.reschedule)):
            deployment.answer(kind, JobsCommanded(outcomes=outcomes))
            assert method([1, 2, 1]) == list(outcomes)
            assert deployment.take(kind).jobs == (1, 2)

    def test_what_no_message_can_say_is_not_sent(self, client: Client) -> None:
        for call in (
            lambda: client.replicas([""]),
            lambda: client.jobs(site="x" * 300),
            lambda: client.submit([JDL], key="k" * 129),
            lambda: client.job(0),
        ):
            with pytest.raises(InvalidInputError):
                call()

    def test_silence_is_a_timeout(self, deployment: FakeDeployment) -> None:
        with Client(deployment.settings, timeout=0.1) as client, pytest.raises(TimedOutError, match="service running"):
            client.job(1)

    def test_replicas(self, deployment: FakeDeployment, client: Client) -> None:
        file = InputFile(lfn="/vo/a", size=3, adler32="0000abcd", replicas=(Replica(se="SE", pfn="file:///a"),))
        deployment.answer(RegisterReplica, ReplicaListing(files=(file,)))
        deployment.answer(QueryReplicas, ReplicaListing(files=(file,)))
        assert client.register_replica("/vo/a", "SE", "file:///a", 3, "0000abcd") == file
        assert client.replicas(["/vo/a", "/vo/b"]) == {"/vo/a": file}
        assert deployment.take(RegisterReplica).size == 3
        assert deployment.take(QueryReplicas).lfns == ("/vo/a", "/vo/b")

    def test_dead_letters(self, deployment: FakeDeployment, client: Client) -> None:
        listing = DeadListing(letters=(DeadLetter(id=4, time=1.0, queue="reports", reason="poison"),))
        for kind in (QueryDead, ReplayDead, DiscardDead):
            deployment.answer(kind, listing)
        assert client.dead_letters(limit=5) == client.replay([4]) == client.discard([4], "old") == listing
        assert deployment.take(QueryDead).limit == 5
        assert deployment.take(ReplayDead).ids == (4,)
        assert deployment.take(DiscardDead).reason == "old"


class TestFollow:
    def test_each_change_once(self, deployment: FakeDeployment, client: Client) -> None:
        deployment.answer(FollowJobs, JobProgress(changes=(change(5, JobStatus.WAITING), change(6, JobStatus.DONE, 2))))
        seen = []
        for progress in client.follow(5, 2, timeout=5):
            seen.append((progress.job, progress.status))
            if len(seen) == 2:
                again = (change(5, JobStatus.WAITING), change(99, JobStatus.DONE), change(5, JobStatus.RUNNING, 3))
                deployment.say(JobProgress(changes=again))
                deployment.say(JobProgress(changes=(change(5, JobStatus.WAITING, 1),)))
                deployment.say(JobProgress(changes=(change(5, JobStatus.DONE, 4),)))
            if progress.status is JobStatus.DONE and progress.job == 5:
                break
        assert seen == [(5, "Waiting"), (6, "Done"), (5, "Running"), (5, "Done")]
        assert (deployment.take(FollowJobs).first, len(deployment.sent)) == (5, 0)

    def test_asks_again_when_the_broker_did_not_take_it(self, deployment: FakeDeployment, client: Client) -> None:
        from collections import deque

        deployment.confirms[FollowJobs] = deque([Confirm.RETURNED])
        deployment.answer(FollowJobs, JobProgress(changes=(change(5, JobStatus.DONE),)))
        assert next(client.follow(5, timeout=5)).status is JobStatus.DONE
        deployment.take(FollowJobs)

    def test_wait(self, deployment: FakeDeployment, client: Client) -> None:
        deployment.answer(QueryJobs, JobListing(jobs=(summary(9, JobStatus.DONE), summary(8), summary(2))))
        deployment.answer(FollowJobs, JobProgress(changes=(change(8, JobStatus.FAILED), change(2, JobStatus.DONE))))
        told: list[int] = []
        statuses = client.wait([2, 8, 9], 5, lambda change: told.append(change.job))
        assert statuses == {2: JobStatus.DONE, 8: JobStatus.FAILED, 9: JobStatus.DONE}
        assert told == [8, 2]
        assert deployment.take(QueryJobs).jobs == (9, 8, 2)
        follow = deployment.take(FollowJobs)
        assert (follow.first, follow.count) == (2, 7)

    def test_wait_for_what_does_not_exist(self, deployment: FakeDeployment, client: Client) -> None:
        deployment.answer(QueryJobs, JobListing(jobs=()))
        with pytest.raises(NotFoundError, match="no job 2 "):
            client.wait([2, 3])
        deployment.take(QueryJobs)

    def test_wait_for_a_large_submission_that_is_still_being_written(
        self, deployment: FakeDeployment, client: Client
    ) -> None:
        slices = iter([[1, 2], [], [3]])
        deployment.answer_with(
            QueryJobs,
            lambda _asked: [JobListing(jobs=tuple(summary(job, JobStatus.DONE) for job in next(slices)))],
        )
        assert client.wait([1, 2, 3], 5) == dict.fromkeys([1, 2, 3], JobStatus.DONE)
        assert [deployment.take(QueryJobs).jobs for _ in range(3)] == [(3, 2, 1), (3,), (3,)]

    def test_wait_for_one_that_is_missing_in_between(self, deployment: FakeDeployment, client: Client) -> None:
        deployment.answer(QueryJobs, JobListing(jobs=(summary(3), summary(1))))
        with pytest.raises(NotFoundError, match="no job 2 "):
            client.wait([1, 2, 3])
        deployment.take(QueryJobs)

    def test_wait_in_vain(self, deployment: FakeDeployment, client: Client) -> None:
        deployment.answer(QueryJobs, JobListing(jobs=(summary(1),)))
        with pytest.raises(TimedOutError, match="1 of 1"):
            client.wait([1], timeout=0.05)
        deployment.take(QueryJobs)
        deployment.take(FollowJobs)


class TestOutput:
    def detail(self, *files: SandboxFile) -> JobDetail:
        return JobDetail(summary=summary(3, JobStatus.DONE), outputs=files)

    def test_small_files_come_with_the_detail(self, deployment: FakeDeployment, client: Client, tmp_path: Path) -> None:
        files = (sandbox_file("std.out", b"hello\n"), sandbox_file("sub/tool", b"x", mode=0o755))
        deployment.answer(InspectJob, self.detail(*files))
        paths = client.output(3, tmp_path / "out")
        assert paths == [tmp_path / "out" / "3" / "std.out", tmp_path / "out" / "3" / "sub" / "tool"]
        assert paths[0].read_bytes() == b"hello\n"
        assert paths[1].stat().st_mode & 0o100
        assert client.output(3, tmp_path / "out") == paths  # again: nothing changes
        deployment.take(InspectJob)
        deployment.take(InspectJob)

    def test_large_files_come_in_windows(self, deployment: FakeDeployment, client: Client, tmp_path: Path) -> None:
        content = b"0123456789abcdef" * (CHUNK_BYTES * 9 // 16) + b"end"
        file = sandbox_file("big", content, inline=False)
        deployment.answer(InspectJob, self.detail(file))

        def chunks(asked: object) -> list[SandboxChunk]:
            query = asked.message  # type: ignore[attr-defined]
            return [
                SandboxChunk(
                    sha256=file.sha256,
                    size=file.size,
                    index=index,
                    count=10,
                    data=content[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES],
                )
                for index in reversed(range(query.first, query.first + query.count))
            ]

        deployment.answer_with(GetSandbox, chunks)
        (path,) = client.output(3, tmp_path)
        assert path.read_bytes() == content
        deployment.take(InspectJob)
        assert [(w.first, w.count) for w in (deployment.take(GetSandbox), deployment.take(GetSandbox))] == [
            (0, 8),
            (8, 2),
        ]

    @pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..", "nul\0", "new\nline"])
    def test_names_stay_inside(self, deployment: FakeDeployment, client: Client, tmp_path: Path, name: str) -> None:
        deployment.answer(InspectJob, self.detail(sandbox_file(name, b"evil")))
        with pytest.raises(OutputError):
            client.output(3, tmp_path / "out")
        assert not list(tmp_path.rglob("evil"))
        deployment.take(InspectJob)

    def test_symbolic_links_do_not_lead_out(self, deployment: FakeDeployment, client: Client, tmp_path: Path) -> None:
        (tmp_path / "out" / "3").mkdir(parents=True)
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out" / "3" / "sub").symlink_to(tmp_path / "elsewhere")
        deployment.answer(InspectJob, self.detail(sandbox_file("sub/file", b"x")))
        with pytest.raises(OutputError, match="leads out"):
            client.output(3, tmp_path / "out")
        deployment.take(InspectJob)

    def test_nothing_is_overwritten(self, deployment: FakeDeployment, client: Client, tmp_path: Path) -> None:
        (tmp_path / "3").mkdir()
        (tmp_path / "3" / "std.out").write_text("mine")
        deployment.answer(InspectJob, self.detail(sandbox_file("std.out", b"theirs")))
        with pytest.raises(OutputError, match="exists"):
            client.output(3, tmp_path)
        assert (tmp_path / "3" / "std.out").read_text() == "mine"
        deployment.take(InspectJob)

    def test_wrong_content_is_refused(self, deployment: FakeDeployment, client: Client, tmp_path: Path) -> None:
        good = sandbox_file("a", b"good")
        bad = SandboxFile(name="a", sha256=good.sha256, size=4, content=b"evil")
        deployment.answer(InspectJob, self.detail(bad))
        with pytest.raises(OutputError, match="differ"):
            client.output(3, tmp_path)
        deployment.take(InspectJob)


class TestWatch:
    def test_reads_verified_events_from_a_time_on(self, deployment: FakeDeployment, client: Client) -> None:
        now = time.time()
        deployment.happen(JobsChanged(changes=(change(1, JobStatus.DONE),)), 1, at=now - 7200)
        deployment.happen(WorkWaiting(queues=(1,)), 2, at=now - 3700)
        deployment.happen(JobsChanged(changes=(change(2, JobStatus.DONE),)), 3, at=now - 60)
        deployment.happen(JobsChanged(changes=(change(3, JobStatus.DONE),)), 4, service="sandbox-store")
        events = list(client.watch("1h", stop=lambda: True))
        assert [(event.offset, event.type, event.source) for event in events] == [(3, "job.changed.v1", "job-state")]
        queue, arguments = deployment.subscribed[-1]
        assert queue == "monitoring"
        assert abs(arguments["x-stream-offset"].timestamp() - (now - 3600)) < 5  # type: ignore[attr-defined]


class TestLogin:
    def test_not_configured(self) -> None:
        with pytest.raises(NotConfiguredError, match="pilotage up"):
            Client(UserSettings()).open()

    def test_no_proxy(self, deployment: FakeDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("X509_USER_PROXY", "/nowhere/proxy")
        with pytest.raises(NoProxyError, match="pilotage proxy init"):
            Client(deployment.settings).open()

    def test_expired_proxy(self, deployment: FakeDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
        from broker.identity import create_proxy, save_credential

        past = deployment.now + dt.timedelta(seconds=1)
        proxy = create_proxy(
            deployment.user.ders, deployment.user.key, lifetime=dt.timedelta(seconds=1), limited=False, now=past
        )
        save_credential(proxy, deployment.folder / "old.pem")
        monkeypatch.setenv("X509_USER_PROXY", str(deployment.folder / "old.pem"))
        from producers.connect import load_proxy

        with pytest.raises(ProxyExpiredError, match="pilotage proxy init"):
            load_proxy(deployment.settings, past + dt.timedelta(seconds=5))

    def test_a_group_without_the_right(self, deployment: FakeDeployment) -> None:
        deployment.properties = ("JobMonitor",)
        with Client(deployment.settings, timeout=1.0) as client, pytest.raises(NotAllowedError, match="NormalUser"):
            client.kill([1])
        deployment.assert_nothing_else_sent()

    def test_a_deployment_that_takes_nothing(self, deployment: FakeDeployment, client: Client) -> None:
        from collections import deque

        deployment.confirms[InspectJob] = deque([Confirm.RETURNED])
        with pytest.raises(AwayError, match="no queue"):
            client.job(1)
