"""Loads a running stack and times it from the submitter's side: throughput, stages, idle to start, the command line."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from producers import Client
from producers.client import Submission
from producers.connect import open_session
from producers.submission import prepare, read_description
from schemas.job import JobStatus
from schemas.messages.event import JobChange
from schemas.messages.service import JobDetail, JobsSubmitted
from tests.benchmarks.stack import Cpu, Memory, Stack

TRUE = 'Executable = "/bin/true";'
# What the payload itself sees of the clock is the honest moment of its start.
CLOCK = 'Executable = "/bin/date"; Arguments = "+%s.%N"; StdOutput = "std.out"; OutputSandbox = {"std.out"};'
PATIENCE = 120.0
WINDOW = 32
"""Single submissions that are on their way at once."""
DETAILED = 100
"""Jobs whose histories are read for the stages."""
STAGES = (
    ("submit", "submit called → accepted, as the submitter sees it"),
    ("queued", "received by job-manager → matched"),
    ("match", "matched → the pilot begins with it"),
    ("prepare", "work directory, input, proxy file, start of the process"),
    ("payload", "the payload itself, from its start to its end being noticed"),
    ("collect", "outputs, wipe, report written"),
    ("record", "reported → Done committed"),
    ("tell", "Done committed → seen by the submitter"),
)


@dataclass
class Throughput:
    """One way of submitting, measured once.

    Attributes:
        wall: seconds from the first submit call until Done was seen of every job.
        cpu: CPU milliseconds per job of each part.
        stages: milliseconds, median over jobs.
    """

    jobs: int
    wall: float
    cpu: dict[str, float]
    stages: dict[str, float]

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return self.jobs / self.wall


@dataclass
class Row:
    """One row of the table: a way of submitting on a store, measured several times."""

    store: str
    submission: str
    serving: int
    runs: list[Throughput] = field(default_factory=list)

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
    """What the submitter saw of its jobs, on its own clock."""

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


def warm_up(client: Client) -> None:
    """Every process has done everything once, and the pilots have learned how short the payloads are."""
    for text in (TRUE, f"{TRUE} Parameters = 100;"):
        client.wait(client.submit([text]).ids, PATIENCE)


def bulk(client: Client, count: int, course: Course) -> None:
    """One parametric submission."""
    called = time.time()
    course.submitted(client.submit([f"{TRUE} Parameters = {count};"]), called)


def one_by_one(client: Client, count: int, course: Course) -> None:
    """Each submission waits for its answer before the next one is sent."""
    for _ in range(count):
        called = time.time()
        course.submitted(client.submit([TRUE]), called)


def pipelined(stack: Stack) -> Callable[[Client, int, Course], None]:
    """A window of single submissions on their way at once, over a login of its own."""

    def submit(client: Client, count: int, course: Course) -> None:
        session = open_session(stack.settings, stack.credential, PATIENCE)
        try:
            for start in range(0, count, WINDOW):
                keys = [f"{time.time_ns()}.{number}" for number in range(start, min(count, start + WINDOW))]
                messages = [prepare([read_description(TRUE)], key).message for key in keys]
                called = time.time()
                for answer in session.request_many(messages, PATIENCE):
                    assert isinstance(answer, JobsSubmitted)
                    course.submitted(answer, called)
        finally:
            session.close()

    return submit


def throughput(stack: Stack, client: Client, count: int, submit: Callable[[Client, int, Course], None]) -> Throughput:
    """Submit jobs and wait until Done was seen of each."""
    course = Course()
    before, begun = stack.cpu(), time.time()
    submit(client, count, course)
    ended = client.wait(course.called, PATIENCE, course.on_change)
    wall, after = time.time() - begun, stack.cpu()
    bad = {job: status for job, status in ended.items() if status is not JobStatus.DONE}
    assert not bad, f"{len(bad)} of {count} jobs did not end well: {list(bad.items())[:3]}"
    return Throughput(count, wall, _per_job(before, after, count), stages(client, course))


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
        (output,) = client.job(submission.first).outputs
        found.seconds.append(float(output.content or b"nan") - called)
    return found


# -- stages -----------------------------------------------------------------------------------------------------


def stages(client: Client, course: Course) -> dict[str, float]:
    """Milliseconds that each stage took, median over some of the jobs."""
    ids = sorted(course.called)
    details = [client.job(job) for job in ids[:: max(1, len(ids) // DETAILED)]]
    ahead = clocks_ahead(details)
    each = [spans(detail, course, ahead[detail.summary.pilot]) for detail in details]
    return {
        name: statistics.median(values) * 1000
        for name, _ in STAGES
        if (values := [span[name] for span in each if name in span])
    }


def spans(detail: JobDetail, course: Course, ahead: float) -> dict[str, float]:
    """Seconds of each stage of one job."""
    job, (attempt,) = detail.summary.job, detail.attempts
    begun, executing, told = _pilot_times(detail)
    payload = attempt.usage.wall_seconds
    found = {
        "submit": course.accepted[job] - course.called[job],
        "queued": attempt.matched - detail.summary.submitted,
        "match": begun - ahead - attempt.matched,
        "prepare": executing - begun,
        "payload": payload,
        "collect": max(0.0, told - executing - payload),
        "record": detail.summary.updated - (told - ahead),
    }
    if job in course.seen:  # those that were Done before anybody looked were not told of
        found["tell"] = course.seen[job] - detail.summary.updated
    return found


def _pilot_times(detail: JobDetail) -> tuple[float, float, float]:
    """On the pilot's clock: begun, about to start the payload, Done said."""
    running = [line.time for line in detail.history if line.status is JobStatus.RUNNING]
    done = next(line.time for line in detail.history if line.status is JobStatus.DONE)
    return running[0], running[-1], done


def clocks_ahead(details: Iterable[JobDetail]) -> dict[str, float]:
    """By how much each pilot's idea of server time is ahead (it is never behind), as NTP tells: half the difference
    between the quickest way there and the quickest way back."""
    there: dict[str, list[float]] = {}
    back: dict[str, list[float]] = {}
    for detail in details:
        begun, _, told = _pilot_times(detail)
        there.setdefault(detail.summary.pilot, []).append(begun - detail.attempts[0].matched)
        back.setdefault(detail.summary.pilot, []).append(detail.summary.updated - told)
    return {pilot: (min(there[pilot]) - min(back[pilot])) / 2 for pilot in there}


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
