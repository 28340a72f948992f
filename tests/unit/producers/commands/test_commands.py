"""The commands over the real wire: what they print, and how they end."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from producers.commands import dead, job, printing, replica, submit, watch
from producers.commands.exit_codes import ExitCode
from producers.errors import NotFoundError
from schemas.errors import InvalidInputError
from schemas.job import JobStatus
from schemas.messages.admin import DiscardDead, QueryDead, ReplayDead
from schemas.messages.common import InputFile, Replica, Usage
from schemas.messages.event import JobChange, JobsChanged, MessageRefused, PilotChanged
from schemas.messages.service import (
    AttemptInfo,
    CommandOutcome,
    DeadLetter,
    DeadListing,
    HistoryLine,
    JobDetail,
    JobListing,
    JobProgress,
    JobsCommanded,
    JobsSubmitted,
    JobSummary,
    RefusalDetail,
    Refused,
    ReplicaListing,
)
from schemas.messages.user import (
    FollowJobs,
    InspectJob,
    KillJobs,
    QueryJobs,
    QueryReplicas,
    RegisterReplica,
    SubmitJobs,
)
from tests.support.fake_deployment import GROUP, USER, FakeDeployment

NOW = time.time()


class Result:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(deployment: FakeDeployment):
    def call(app: typer.Typer, *words: str) -> Result:
        result = CliRunner().invoke(app, list(words), obj=deployment.settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Result(result.exit_code, result.stdout, result.stderr)

    return call


def summary(number: int, status: JobStatus, **changes: object) -> JobSummary:
    now = time.time()  # not the module's: a table shows ages
    values: dict[str, object] = {
        "name": "mandel", "owner": USER, "group": GROUP, "site": "LCG.CERN.ch", "submitted": now - 7200,
        "started": now - 3600, "updated": now - 180, "exit_code": 0, "usage": Usage(cpu_seconds=90.0),
    }  # fmt: skip
    return JobSummary(job=number, status=status, **(values | changes))  # type: ignore[arg-type]


class TestSubmit:
    def test_table(self, deployment: FakeDeployment, run, tmp_path: Path) -> None:
        (tmp_path / "a.jdl").write_text("[ Executable = x; ]")
        deployment.answer(SubmitJobs, JobsSubmitted(first=5, count=1))
        result = run(submit.app, str(tmp_path / "a.jdl"), "--key", "k1")
        assert (result.code, result.out.splitlines()[0]) == (0, "Job 5 submitted")
        assert deployment.take(SubmitJobs).key == "k1"

    def test_quiet_and_json(self, deployment: FakeDeployment, run, tmp_path: Path) -> None:
        (tmp_path / "a.jdl").write_text("[ Executable = x; Parameters = 3; ]")
        deployment.answer(SubmitJobs, JobsSubmitted(first=5, count=3))
        assert run(submit.app, str(tmp_path / "a.jdl"), "-o", "quiet").out == "5\n6\n7\n"
        document = json.loads(run(submit.app, str(tmp_path / "a.jdl"), "-o", "json", "--key", "k").out)
        assert document == {"first": 5, "count": 3, "key": "k"}

    def test_wait(self, deployment: FakeDeployment, run, tmp_path: Path) -> None:
        (tmp_path / "a.jdl").write_text("[ Executable = x; ]")
        deployment.answer(SubmitJobs, JobsSubmitted(first=5, count=1))
        deployment.answer(QueryJobs, JobListing(jobs=(summary(5, JobStatus.WAITING),)))
        ended = JobChange(job=5, status=JobStatus.FAILED, time=NOW)
        deployment.answer(FollowJobs, JobProgress(changes=(ended,)))
        result = run(submit.app, str(tmp_path / "a.jdl"), "--wait", "-o", "json")
        assert (result.code, json.loads(result.out)) == (ExitCode.NO, {"jobs": {"5": "Failed"}})

    def test_refused_by_the_service(self, deployment: FakeDeployment, run, tmp_path: Path) -> None:
        (tmp_path / "a.jdl").write_text('[ Executable = x;\n  Site = "Nowhere"; ]')
        details = (RefusalDetail(message="there is no site Nowhere", line=2, column=10, attribute="Site"),)
        deployment.answer(SubmitJobs, Refused(code="invalid", reason="not valid", errors=details))
        result = run(submit.app, str(tmp_path / "a.jdl"))
        assert result.code == ExitCode.USAGE
        assert "a.jdl:2:10: error: there is no site Nowhere" in result.err
        assert "nothing was submitted" in result.err


class TestList:
    def test_table_fits(self, deployment: FakeDeployment, run, monkeypatch: pytest.MonkeyPatch) -> None:
        jobs = (
            summary(1234567, JobStatus.RESCHEDULED, name="n" * 90, site="DIRAC.Site.Name.With.Many.Parts.org"),
            summary(3, JobStatus.WAITING, started=None, exit_code=None, site=""),
        )
        deployment.answer(QueryJobs, JobListing(jobs=jobs))
        words = ("list", "--status", "waiting,Running", "--site", "S", "--all")
        assert "n" * 90 in run(job.app, *words).out  # no terminal: nothing is cut
        monkeypatch.setattr(printing, "terminal_width", lambda: 80)
        deployment.answer(QueryJobs, JobListing(jobs=jobs))
        lines = run(job.app, *words).out.splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[0].split() == ["JOB", "STATUS", "OWNER", "NAME", "SITE", "UPDATED", "CPU", "EXIT"]
        assert "(3m)" in lines[2]
        query = deployment.take(QueryJobs)
        assert (query.status, query.site, query.owner) == ((JobStatus.WAITING, JobStatus.RUNNING), "S", "*")

    def test_json_and_quiet(self, deployment: FakeDeployment, run) -> None:
        deployment.answer(QueryJobs, JobListing(jobs=(summary(2, JobStatus.DONE), summary(1, JobStatus.DONE))))
        document = json.loads(run(job.app, "list", "-o", "json").out)
        assert [entry["job"] for entry in document["jobs"]] == [2, 1]
        assert run(job.app, "list", "-o", "quiet").out == "2\n1\n"

    def test_nothing(self, deployment: FakeDeployment, run) -> None:
        deployment.answer(QueryJobs, JobListing(jobs=()))
        assert run(job.app, "list").out == ""
        assert run(job.app, "list", "-o", "quiet").out == ""

    def test_unknown_status(self, run) -> None:
        with pytest.raises(InvalidInputError, match="no status 'Dine'"):
            run(job.app, "list", "--status", "Dine")


class TestJob:
    def detail(self) -> JobDetail:
        return JobDetail(
            summary=summary(7, JobStatus.FAILED, attempt=2, minor="payload failed"),
            history=(HistoryLine(time=NOW, status=JobStatus.FAILED, attempt=2, source="job-state", cause="exit 3"),),
            attempts=(AttemptInfo(attempt=1, pilot="p", site="S", matched=1.0, outcome="Rescheduled", reason="lost"),),
        )

    def test_show(self, deployment: FakeDeployment, run) -> None:

        deployment.answer(
            InspectJob, msgspec.structs.replace(self.detail(), description=msgspec.Raw(b'{"Executable":"x"}'))
        )
        out = run(job.app, "show", "7").out
        assert "Status:     Failed (payload failed)" in out
        assert "Attempt 1: Rescheduled at S: lost" in out
        assert 'Executable = "x"' in out
        assert json.loads(run(job.app, "show", "7", "-o", "json").out)["description"] == {"Executable": "x"}
        assert run(job.app, "show", "7", "-o", "quiet").out == "Failed\n"

    def test_history(self, deployment: FakeDeployment, run) -> None:
        deployment.answer(InspectJob, self.detail())
        lines = run(job.app, "history", "7").out.splitlines()
        assert lines[0].split() == ["TIME", "STATUS", "TRY", "BY", "WHY"]
        assert lines[1].endswith("Failed    2  job-state  exit 3")

    def test_kill_tells_for_each_job(self, deployment: FakeDeployment, run) -> None:
        outcomes = (
            CommandOutcome(job=1, ok=True, status=JobStatus.KILLED),
            CommandOutcome(job=2, ok=False, status=JobStatus.DONE, reason="has ended"),
        )
        deployment.answer(KillJobs, JobsCommanded(outcomes=outcomes))
        result = run(job.app, "kill", "1-2")
        assert result.out.splitlines() == ["Job 1 killed (Killed)", "Job 2 not killed (Done): has ended"]
        assert result.code == ExitCode.NO
        assert run(job.app, "kill", "1,2", "-o", "quiet").out == "1\n"
        assert deployment.take(KillJobs).jobs == (1, 2)

    def test_output_without_output(self, deployment: FakeDeployment, run, tmp_path: Path) -> None:
        deployment.answer(InspectJob, JobDetail(summary=summary(7, JobStatus.DONE)))
        result = run(job.app, "output", "7", "--dir", str(tmp_path))
        assert (result.code, result.out) == (ExitCode.NO, "Job 7: no output (Done)\n")

    def test_wait_table(self, deployment: FakeDeployment, run) -> None:
        deployment.answer(QueryJobs, JobListing(jobs=(summary(2, JobStatus.DONE), summary(1, JobStatus.KILLED))))
        result = run(job.app, "wait", "1-2")
        assert (result.code, result.out) == (ExitCode.NO, "1 Done, 1 Killed\n")


class TestWatch:
    def test_lines(self, deployment: FakeDeployment, run) -> None:
        done = JobChange(job=4, status=JobStatus.DONE, time=NOW, site="S", cause="exit 0")
        deployment.happen(JobsChanged(changes=(done,)), 1)
        deployment.happen(PilotChanged(client="c", identity="/CN=p", status="lost", time=NOW, cause="silent"), 2)
        deployment.happen(
            MessageRefused(time=NOW, service="s", queue="q", client="abc.1", code="forged", reason="\x1b[2J"), 3
        )
        lines = run(watch.app, "--since", "first", "--until-now").out.splitlines()
        assert lines[0].endswith("job 4  Done  at S  exit 0")
        assert lines[1].endswith("pilot c  lost    silent")
        assert "\x1b" not in lines[2]
        assert "of abc.1: " in lines[2], "at least the broker knows who that was"

    def test_json_lines(self, deployment: FakeDeployment, run) -> None:
        deployment.happen(JobsChanged(changes=()), 9)
        document = json.loads(run(watch.app, "--since", "first", "--until-now", "-o", "json").out)
        assert (document["offset"], document["type"], document["data"]) == (9, "job.changed.v1", {"changes": []})


class TestDead:
    def test_commands(self, deployment: FakeDeployment, run) -> None:
        letter = DeadLetter(id=4, time=NOW, queue="reports", type="job.report.v1", reason="poison", body=b"{}")
        for kind in (QueryDead, ReplayDead, DiscardDead):
            deployment.answer(kind, DeadListing(letters=(letter,), more=True))
        listed = run(dead.app, "list")
        assert listed.out.splitlines()[1].split()[-1] == "poison"
        assert "--before 4" in listed.err
        assert "Reason:     poison" in run(dead.app, "show", "4").out
        assert run(dead.app, "replay", "4", "-o", "quiet").out == "4\n"
        assert json.loads(run(dead.app, "discard", "4", "--reason", "old", "-o", "json").out)["letters"][0]["id"] == 4

    def test_none(self, deployment: FakeDeployment, run) -> None:
        deployment.answer(QueryDead, DeadListing(letters=()))
        with pytest.raises(NotFoundError, match="no dead letter 9"):
            run(dead.app, "show", "9")


class TestReplica:
    def test_a_file_here_is_measured(self, deployment: FakeDeployment, run, tmp_path: Path) -> None:
        (tmp_path / "data").write_bytes(b"Wikipedia")
        file = InputFile(lfn="/vo/a", size=9, adler32="11e60398", replicas=(Replica(se="SE", pfn="file:///x"),))
        deployment.answer(RegisterReplica, ReplicaListing(files=(file,)))
        assert run(replica.app, "add", "LFN:/vo/a", "SE", str(tmp_path / "data")).code == 0
        message = deployment.take(RegisterReplica)
        assert (message.lfn, message.size, message.adler32) == ("/vo/a", 9, "11e60398")
        assert message.pfn == (tmp_path / "data").as_uri()

    def test_elsewhere_needs_a_size(self, run) -> None:
        with pytest.raises(InvalidInputError, match="--size"):
            run(replica.app, "add", "/vo/a", "SE", "root://se.example.org//a")

    def test_unknown_files(self, deployment: FakeDeployment, run) -> None:
        deployment.answer(QueryReplicas, ReplicaListing(files=()))
        result = run(replica.app, "list", "/vo/a", "-o", "json")
        assert (result.code, json.loads(result.out)) == (ExitCode.NO, {"files": []})
        assert result.err == "/vo/a: not in the catalog\n"
