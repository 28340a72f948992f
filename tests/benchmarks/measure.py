"""Loads a running stack and times it from the submitter's side: throughput, stages, idle to start, the command line."""

from __future__ import annotations

import datetime as dt
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from producers import Client
from producers.client import Submission
from producers.connect import open_session
from producers.submission import prepare, read_description
from schemas.job import JobStatus
from schemas.messages.event import JobChange
from schemas.messages.service import JobDetail, JobsSubmitted
from tests.benchmarks.bench_verify import Cost
from tests.benchmarks.stack import Cpu, Memory, Stack

TRUE = 'Executable = "/bin/true";'
# What the payload itself sees of the clock is the honest moment of its start.
CLOCK = 'Executable = "/bin/date"; Arguments = "--rfc-3339=ns"; StdOutput = "std.out"; OutputSandbox = {"std.out"};'
PATIENCE = 120.0
WINDOW = 32
"""Single submissions that are on their way at once."""
DETAILED = 100
"""Jobs whose histories are read for the stages."""
STAGES = (
    ("submit", "submit called → accepted, as the submitter sees it"),
    ("queue", "received by job-manager → matched"),
    ("start", "matched → the payload runs: the answer's way, waiting for a slot, work directory, proxy file, spawning"),
    ("payload", "the payload itself, until the pilot has noticed its end"),
    ("record", "outputs picked, work directory wiped, reported → Done committed"),
    ("tell", "Done committed → seen by the submitter"),
)


@dataclass
class Throughput:
    """One way of submitting, measured once.

    Attributes:
        wall: seconds from the first submit call until Done was seen of every job.
        cpu: CPU milliseconds per job of each part.
    """

    jobs: int
    wall: float
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return self.jobs / self.wall


@dataclass
class Row:
    """One row of the table: a way of submitting on a store, measured several times.

    Attributes:
        stages: milliseconds, median over the jobs of one more run.
    """

    store: str
    submission: str
    serving: int
    runs: list[Throughput] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def typical(self) -> Throughput:
        """The run with the median rate."""
        return sorted(self.runs, key=lambda run: run.rate)[(len(self.runs) - 1) // 2]


@dataclass
class Idle:
    """Seconds from the submit call until the payload's own clock reading, pilots idle, one job at a time."""

    store: str
    seconds: list[float]
    done: list[float]


@dataclass
class Course:
    """What to submit, and what the submitter saw of its jobs, on its own clock."""

    text: str
    called: dict[int, float] = field(default_factory=dict)
    accepted: dict[int, float] = field(default_factory=dict)
    seen: dict[int, float] = field(default_factory=dict)

    def submitted(self, submission: Submission | JobsSubmitted, called: float) -> None:
        now = time.time()
        for job in range(submission.first, submission.first + submission.count):
            self.called[job], self.accepted[job] = called, now

    def on_change(self, change: JobChange) -> None:
        if change.status is JobStatus.DONE:
            self.seen.setdefault(change.job, time.time())


def bare_rate(count: int) -> float:
    """Such payloads per second without any queue or pilot, one after the other: what this machine gives just now."""
    with tempfile.TemporaryDirectory(prefix="pilotage-bench-") as folder:
        begun = time.perf_counter()
        for number in range(count):
            directory = Path(folder) / str(number)
            directory.mkdir()
            with (directory / "std.out").open("wb") as out, (directory / "std.err").open("wb") as err:
                subprocess.run(["/bin/true"], cwd=directory, stdout=out, stderr=err, check=True)
            shutil.rmtree(directory)
        return count / (time.perf_counter() - begun)


def warm_up(client: Client) -> None:
    """Every process has done everything once, and the pilots have learned how short the payloads are."""
    for text in (TRUE, f"{TRUE} Parameters = 100;"):
        client.wait(client.submit([text]).ids, PATIENCE)


Submit = Callable[[Client, int, Course], None]


def bulk(client: Client, count: int, course: Course) -> None:
    """One parametric submission."""
    called = time.time()
    course.submitted(client.submit([f"{course.text} Parameters = {count};"]), called)


def one_by_one(client: Client, count: int, course: Course) -> None:
    """Each submission waits for its answer before the next one is sent."""
    for _ in range(count):
        called = time.time()
        course.submitted(client.submit([course.text]), called)


def pipelined(stack: Stack) -> Submit:
    """A window of single submissions on their way at once, over a login of its own."""

    def submit(client: Client, count: int, course: Course) -> None:
        session = open_session(stack.settings, stack.credential, PATIENCE)
        try:
            for start in range(0, count, WINDOW):
                keys = [f"{time.time_ns()}.{number}" for number in range(start, min(count, start + WINDOW))]
                messages = [prepare([read_description(course.text)], key).message for key in keys]
                called = time.time()
                for answer in session.request_many(messages, PATIENCE):
                    assert isinstance(answer, JobsSubmitted)
                    course.submitted(answer, called)
        finally:
            session.close()

    return submit


def throughput(stack: Stack, client: Client, count: int, submit: Submit) -> Throughput:
    """Submit jobs and wait until Done was seen of each."""
    before, begun = stack.cpu(), time.time()
    _run(client, count, submit, TRUE)
    wall, after = time.time() - begun, stack.cpu()
    return Throughput(count, wall, _per_job(before, after, count))


def _run(client: Client, count: int, submit: Submit, text: str) -> Course:
    course = Course(text)
    submit(client, count, course)
    ended = client.wait(course.called, PATIENCE, course.on_change)
    bad = {job: status for job, status in ended.items() if status is not JobStatus.DONE}
    assert not bad, f"{len(bad)} of {count} jobs did not end well: {list(bad.items())[:3]}"
    return course


def _per_job(before: Cpu, after: Cpu, count: int) -> dict[str, float]:
    return {name: (after[name] - before[name]) / count * 1000 for name in after}


def idle_to_start(stack: Stack, client: Client, count: int) -> Idle:
    """One job at a time to pilots that have nothing else to do."""
    found = Idle(stack.store, [], [])
    for _ in range(count):
        called = time.time()
        submission = client.submit([CLOCK])
        client.wait(submission.ids, PATIENCE)
        found.done.append(time.time() - called)
        found.seconds.append(_clock_reading(client.job(submission.first)) - called)
    return found


def stages(client: Client, count: int, submit: Submit) -> dict[str, float]:
    """Milliseconds that each stage takes, median over some of the jobs.

    Only of clocks that read the same on one machine: the services', the submitter's, and the payload's own reading. (A
    pilot's idea of server time is kept ahead, for the sake of its leases.)
    """
    course = _run(client, count, submit, CLOCK)
    ids = sorted(course.called)
    spans = [_spans(client.job(job), course) for job in ids[:: max(1, len(ids) // DETAILED)]]
    return {
        name: statistics.median(values) * 1000
        for name, _ in STAGES
        if (values := [span[name] for span in spans if name in span])
    }


def _spans(detail: JobDetail, course: Course) -> dict[str, float]:
    """Seconds of each stage of one job."""
    job, (attempt,) = detail.summary.job, detail.attempts
    runs, payload = _clock_reading(detail), attempt.usage.wall_seconds
    spans = {
        "submit": course.accepted[job] - course.called[job],
        "queue": attempt.matched - detail.summary.submitted,
        "start": runs - attempt.matched,
        "payload": payload,
        "record": detail.summary.updated - runs - payload,
    }
    if job in course.seen:  # those that were Done before anybody looked were not told of
        spans["tell"] = course.seen[job] - detail.summary.updated
    return spans


def _clock_reading(detail: JobDetail) -> float:
    (output,) = detail.outputs
    return dt.datetime.fromisoformat((output.content or b"").decode().strip()).timestamp()


# -- the command line -------------------------------------------------------------------------------------------


def command_line(stack: Stack, repeats: int) -> Iterator[tuple[str, list[float]]]:
    """Seconds that commands take, from start to exit."""
    program = str(Path(sys.executable).with_name("pilotage"))
    for arguments in (["--help"], ["job", "list"]):
        yield (
            " ".join(["pilotage", *arguments]),
            [_timed([program, *arguments], stack.environment) for _ in range(repeats)],
        )


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, env=dict(environment), check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.perf_counter() - begun


@dataclass
class Results:
    """All that was measured."""

    rows: list[Row] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    memory: dict[str, dict[str, Memory]] = field(default_factory=dict)
    commands: dict[str, list[float]] = field(default_factory=dict)
    verify: list[Cost] = field(default_factory=list)
