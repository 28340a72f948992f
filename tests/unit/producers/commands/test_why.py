"""``job explain``, ``queue`` and ``submit --dry-run``: what they ask, print, and how they end."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from producers.commands import job, queue, submit, why_printing
from producers.errors import NotFoundError
from schemas.job import JobStatus
from schemas.messages.service import RefusalDetail, Refused
from schemas.messages.why import (
    Estimate,
    ExplainJob,
    Hold,
    InspectQueue,
    JobExplained,
    JobsWeighed,
    Obstacle,
    Outlook,
    Place,
    QueryQueues,
    QueueDetail,
    QueuedJob,
    QueueListing,
    QueueSummary,
    Sight,
    Weighed,
    WeighJobs,
)
from tests.support.fake_deployment import FakeDeployment

NOW = time.time()
ADA = "/O=Test/CN=Ada"
OUTLOOK = Outlook(
    requirements=("CPU time 86400 s (24 h)", "8000 MB of memory"),
    sight=Sight(pilots=3, parked=2, fitting=0, sites=4, usable=3, possible_sites=2),
    obstacles=(
        Obstacle(condition="memory", needs="8000 MB of memory", pilots=3, parked=2, only=3, sites=1,
                 closest=("3 pilots: the node has 4000 MB of memory free; it needs 8000 MB (site \x1b[31mA)",)),
    ),
    holds=(Hold(kind="limit", text="5 of 5 jobs run at site A", whole=False),),
    verdict="None of the 3 pilots that are alive fits: 3 of them fail at memory.",
    advice="Without memory 3 pilots would fit.",
)  # fmt: skip
PLACE = Place(group="users", group_share=2.0, groups_waiting=3, groups_before=1, owners_waiting=2, owners_before=1,
              priority=1, before=12)  # fmt: skip
EXPLAINED = JobExplained(
    job=42, status=JobStatus.WAITING, verdict=OUTLOOK.verdict, since=NOW - 200, queue=7, outlook=OUTLOOK, place=PLACE,
    estimate=Estimate(seconds=7200, basis="5 jobs matched in the last 1 h"), as_of=NOW,
)  # fmt: skip
QUEUE = QueueSummary(queue=7, requirements="CPU time 360 s", group="users", owner=ADA, waiting=10_000, more=True,
                     oldest=NOW - 7200, priority=3, share=0.5, fitting=4, fitting_parked=1)  # fmt: skip


def run(app: typer.Typer, deployment: FakeDeployment, *words: str) -> Result:
    return CliRunner().invoke(app, list(words), obj=deployment.settings)


def test_explain_says_first_why_then_what_helps_then_the_figures(deployment: FakeDeployment) -> None:
    deployment.answer(ExplainJob, EXPLAINED)
    done = run(job.app, deployment, "explain", "42")
    assert done.exit_code == 0
    assert deployment.take(ExplainJob) == ExplainJob(job=42)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["Job:", "Status:", "Why:", "What"]
    text = done.stdout
    assert "Wait:        about 2h: 5 jobs matched in the last 1 h" in text
    assert (
        "Place:       after 12 jobs of the same owner (priority 1); its owner's turn is 2nd of 2 in users; the t"
        in text
    )
    assert "turn of users (share 2) is 2nd of 3" in text
    assert "Task queue:  7 (pilotage queue show 7)" in text
    assert "Pilots:      3 alive, 2 ask for a job now; 0 of them fit" in text
    assert "Sites:       4 registered, 3 usable; 2 could run it, 0 have a pilot that fits" in text
    assert "Held by:     5 of 5 jobs run at site A (holds it in part)" in text
    assert "FAILS AT  PILOTS  IDLE  ONLY THIS  SITES  BECAUSE" in text
    assert "3 pilots: the node has 4000 MB" in text
    assert "\x1b" not in text


def test_explain_for_programs(deployment: FakeDeployment) -> None:
    deployment.answer(ExplainJob, EXPLAINED)
    assert json.loads(run(job.app, deployment, "explain", "42", "-o", "json").stdout)["outlook"]["sight"]["pilots"] == 3
    assert run(job.app, deployment, "explain", "42", "-o", "quiet").stdout == f"{OUTLOOK.verdict}\n"


def test_a_job_that_does_not_wait_has_no_figures(deployment: FakeDeployment) -> None:
    deployment.answer(
        ExplainJob, JobExplained(job=1, status=JobStatus.RUNNING, verdict="It runs.", since=NOW, as_of=NOW)
    )
    text = run(job.app, deployment, "explain", "1").stdout
    assert "Why:         It runs." in text
    assert "Pilots:" not in text


def test_no_such_job(deployment: FakeDeployment) -> None:
    deployment.answer(ExplainJob, Refused(code="not-found", reason="no such job", type="job.explain.v1"))
    assert isinstance(run(job.app, deployment, "explain", "1").exception, NotFoundError)


def test_a_terminal_gets_no_line_too_long(deployment: FakeDeployment, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(why_printing, "terminal_width", lambda: 70)
    why_printing.print_explained(EXPLAINED)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 70


def test_queues_are_listed(deployment: FakeDeployment) -> None:
    deployment.answer(QueryQueues, QueueListing(queues=(QUEUE,), more=True, as_of=NOW))
    done = run(queue.app, deployment, "list", "--group", "users", "--site", "A", "--limit", "1")
    assert deployment.take(QueryQueues) == QueryQueues(group="users", site="A", limit=1)
    cells = done.stdout.splitlines()[1].split()
    assert cells[:3] == ["7", ">", "10000"]
    assert "Ada" in cells
    assert "There are more" in done.stderr
    assert run(queue.app, deployment, "list", "-o", "quiet", "--limit", "1").stdout == "7\n"
    assert (
        json.loads(run(queue.app, deployment, "list", "-o", "json", "--limit", "1").stdout)["queues"][0]["queue"] == 7
    )


def test_long_lists_come_in_pages(deployment: FakeDeployment) -> None:
    asked: list[QueryQueues] = []

    def page(verified: object) -> list[QueueListing]:
        question = verified.message  # type: ignore[attr-defined]  # a verified question
        asked.append(question)
        return [QueueListing(queues=(QUEUE,) * min(question.limit, 150), more=question.skip < 150, as_of=NOW)]

    deployment.answers[QueryQueues] = page
    assert len(run(queue.app, deployment, "list", "--limit", "300", "-o", "quiet").stdout.splitlines()) == 300
    assert [(one.skip, one.limit) for one in asked] == [(0, 200), (150, 150)]


def test_nothing_waits(deployment: FakeDeployment) -> None:
    deployment.answer(QueryQueues, QueueListing(queues=(), as_of=NOW))
    assert run(queue.app, deployment, "list").stderr == "Nothing is waiting.\n"
    assert run(queue.app, deployment, "list", "--group", "none").stderr == "Nothing such is waiting.\n"


def test_one_queue(deployment: FakeDeployment) -> None:
    detail = QueueDetail(
        queue=QUEUE, next=(QueuedJob(job=5), QueuedJob(job=6)), outlook=OUTLOOK, place=PLACE, as_of=NOW
    )
    deployment.answer(InspectQueue, detail)
    text = run(queue.app, deployment, "show", "7").stdout
    assert "Waiting:     > 10000 jobs" in text
    assert "First jobs:  5, 6" in text
    assert run(queue.app, deployment, "show", "7", "-o", "quiet").stdout == "5\n6\n"


# -- dry runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def jdl(tmp_path: Path) -> str:
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    file = tmp_path / "a.jdl"
    file.write_text('Executable = "run.sh"; InputSandbox = "run.sh"; Parameters = 3;')
    return str(file)


def weighed(*classes: Weighed, limit: str = "", jobs: int = 3) -> JobsWeighed:
    return JobsWeighed(jobs=jobs, looked_at=3, classes=classes, limit=limit, as_of=NOW)


FITS = Weighed(jobs=3, name="many", place=PLACE,
               outlook=Outlook(verdict="1 pilot fits.", sight=Sight(pilots=1, fitting=1)))  # fmt: skip
FITS_NOT = Weighed(jobs=1, first=4, outlook=OUTLOOK)


def test_a_dry_run_sends_texts_and_names_and_nothing_else(deployment: FakeDeployment, jdl: str) -> None:
    deployment.answer(WeighJobs, weighed(FITS))
    done = run(submit.app, deployment, jdl, "--dry-run")
    assert done.exit_code == 0, done.output
    assert deployment.take(WeighJobs).files == ("run.sh",)
    deployment.assert_nothing_else_sent()
    assert "Jobs:        3 jobs, the first is job 1 'many' of 3" in done.stdout
    assert done.stdout.endswith("Nothing was submitted.\n")


@pytest.mark.parametrize(
    "answer",
    [
        weighed(FITS, FITS_NOT),
        weighed(FITS, limit="limit jobs-per-hour: 3 jobs"),
        weighed(FITS, Weighed(jobs=1, refused="Unknown site: no such site: X")),
    ],
)
def test_a_dry_run_that_finds_a_hitch_ends_with_a_no(deployment: FakeDeployment, jdl: str, answer: JobsWeighed) -> None:
    deployment.answer(WeighJobs, answer)
    assert run(submit.app, deployment, jdl, "--dry-run").exit_code == 1
    assert json.loads(run(submit.app, deployment, jdl, "--dry-run", "-o", "json").stdout)["jobs"] == 3


def test_a_brief_dry_run_is_a_line_for_each_class(deployment: FakeDeployment, jdl: str) -> None:
    deployment.answer(WeighJobs, weighed(FITS, FITS_NOT))
    assert run(submit.app, deployment, jdl, "--dry-run", "-o", "quiet").stdout.splitlines() == [
        "3 1 pilot fits.", f"1 {OUTLOOK.verdict}",
    ]  # fmt: skip


def test_what_was_not_looked_at_is_told(deployment: FakeDeployment, jdl: str) -> None:
    deployment.answer(WeighJobs, weighed(FITS, jobs=9000))
    assert "first 3 of 9000 jobs" in run(submit.app, deployment, jdl, "--dry-run").stderr


def test_errors_that_only_the_service_finds(deployment: FakeDeployment, jdl: str) -> None:
    errors = (RefusalDetail(message="too long", line=1, column=1, attribute="Executable"),)
    refused = Refused(code="invalid", reason="1 error", type="job.weigh.v1", errors=errors)
    deployment.answer(WeighJobs, refused)
    done = run(submit.app, deployment, jdl, "--dry-run")
    assert done.exit_code == 2
    assert "too long" in done.stderr
    assert "nothing was submitted" in done.stderr


def test_errors_that_are_found_here_are_not_sent(deployment: FakeDeployment, tmp_path: Path) -> None:
    (tmp_path / "bad.jdl").write_text("Executable = ;")
    assert run(submit.app, deployment, str(tmp_path / "bad.jdl"), "--dry-run").exit_code == 2
    deployment.assert_nothing_else_sent()


def test_a_place_tells_what_was_had_lately(deployment: FakeDeployment) -> None:
    place = msgspec.structs.replace(PLACE, group_used=1234.4, owner_share=3.0, owner_used=12.0)
    deployment.answer(ExplainJob, msgspec.structs.replace(EXPLAINED, place=place))
    text = " ".join(run(job.app, deployment, "explain", "42").stdout.split())
    assert "its owner's turn (share 3, 12 processors lately) is 2nd of 2 in users" in text
    assert "the turn of users (share 2, 1,234 processors lately) is 2nd of 3" in text
