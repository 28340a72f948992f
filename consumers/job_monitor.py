"""job-monitor: questions about jobs, and telling followers what changes.

Promises: nobody hears of a job that :func:`broker.authorization.may_see_job` keeps from him; a job that may not be
seen and one that is not there get the same answer. Questions why jobs wait are answered beside it
(:mod:`consumers.outlook`). Answers are not kept: who misses one asks again. Follows live in
memory (:mod:`consumers.following`), and the states that they begin with are told in pages
(:mod:`consumers.owed_states`); every process hears every ``job.changed`` event by a queue of its own and so handles
each of them itself, without an inbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from broker.authorization import Principal, Property, may_see_job
from broker.subscriber import Admitted
from schemas.messages.common import MAX_INLINE_BYTES, SandboxFile, Usage
from schemas.messages.event import JobChange, JobsChanged
from schemas.messages.service import AttemptInfo, HistoryLine, JobDetail, JobListing, JobSummary, Refused
from schemas.messages.user import FollowJobs, InspectJob, QueryJobs

from .batch import Batch, Consumer
from .directory import Directory
from .domain.shares import Policy
from .following import Follow, Followers
from .outcome import ACK, DeadLetter, Outcome
from .outlook.desk import Desk
from .outlook.questions import QUESTIONS, Question
from .owed_states import MAX_UNCONFIRMED, OwedStates
from .store import attempts, history, jobs, sandboxes
from .store.rows import AttemptRow, JobFilter, JobRow

NO_SUCH_JOB = "no such job"

SEES_ALL = frozenset({Property.JOB_MONITOR, Property.OPERATOR, Property.JOB_ADMINISTRATOR})

PAGE = 1000
"""Rows read at once while ids that were asked for are sifted: at most ten pages for the largest question."""

MAX_HISTORY = 1000
MAX_ATTEMPTS = 500
MAX_CAUSE = 1000
"""Bounds of a detail: the latest lines and attempts, each reason cut, stay below 2 MB."""

OVERLAP_SECONDS = 60.0
"""A follow that is renewed gets the states that changed since so long before the last question: a change was committed
by then whatever the clocks of the services say, and an event that was lost is made good."""

EXPIRE_SECONDS = 5.0

CROWDED_SECONDS = 0.05
"""Pause before it is looked again whether the broker took what was told."""


class JobMonitor(Consumer):
    """The consumer.

    Args:
        directory: registry: whether a follower may still listen.
        fading: how the matcher remembers usage.
    """

    name = "job-monitor"
    inbox = False
    handlers: ClassVar = {
        QueryJobs: "on_query",
        InspectJob: "on_inspect",
        FollowJobs: "on_follow",
        JobsChanged: "",
        **dict.fromkeys(QUESTIONS, "on_why"),
    }

    def __init__(self, directory: Directory, fading: Policy | None = None) -> None:
        self._directory = directory
        self._followers = Followers()
        self._states = OwedStates()
        self._desk = Desk(directory, fading)
        self._next_look = 0.0

    def handle(self, batch: Batch, messages: Sequence[Admitted]) -> list[Outcome]:
        """Answer the questions, then tell followers of all changes of the batch together."""
        changes: list[JobChange] = []
        outcomes: list[Outcome] = []
        for message in messages:
            said = message.verified.message
            if isinstance(said, JobsChanged):
                changes.extend(said.changes)
                outcomes.append(ACK)
            else:
                outcomes.append(self.dispatch(batch, message))
        self._tell_states(batch)
        batch.unrecorded.extend(self._followers.letters(changes, batch.now, self._may_still))
        return outcomes

    # -- questions ----------------------------------------------------------------------------------------------

    def on_query(self, batch: Batch, message: Admitted) -> Outcome:
        """Which jobs are there?"""
        asked = message.verified.message
        if not isinstance(asked, QueryJobs):
            return DeadLetter("not job.query")
        scope = _scope(message.principal, asked)
        rows, more = _page(batch, message.principal, scope, asked.limit) if scope is not None else ([], False)
        batch.say(message, JobListing(jobs=tuple(summary_of(row) for row in rows), more=more))
        return ACK

    def on_inspect(self, batch: Batch, message: Admitted) -> Outcome:
        """Everything about one job."""
        asked = message.verified.message
        if not isinstance(asked, InspectJob):
            return DeadLetter("not job.inspect")
        row = jobs.load(batch.tx, [asked.job], for_update=False).get(asked.job)
        if row is None or not may_see_job(message.principal, row.owner, row.grp):
            _refuse(batch, message, "not-found", NO_SUCH_JOB)
            return ACK
        what = jobs.details(batch.tx, [row.id]).get(row.id)
        batch.say(
            message,
            JobDetail(
                summary=summary_of(row),
                description=msgspec.Raw(what.description if what is not None else b"{}"),
                history=tuple(
                    HistoryLine(
                        time=line.time,
                        status=line.status,
                        minor=line.minor,
                        attempt=line.attempt,
                        source=line.source,
                        cause=line.cause[:MAX_CAUSE],
                    )
                    for line in history.of(batch.tx, row.id)[-MAX_HISTORY:]
                ),
                attempts=tuple(_attempt(one) for one in attempts.of(batch.tx, row.id)[-MAX_ATTEMPTS:]),
                outputs=_outputs(batch, row.id),
            ),
        )
        return ACK

    def on_why(self, batch: Batch, message: Admitted) -> Outcome:
        """Why do jobs wait? Answered outside of the transaction (:mod:`.outlook`)."""
        header = message.verified.header
        question = Question(message.principal, message.client, message.verified.message, header.jti)
        no = self._desk.put(question, batch.now)
        if no is not None:
            batch.say(message, no)
        return ACK

    def look_again(self) -> None:
        """Answer the next such question from a fresh look at everything."""
        self._desk.forget()

    # -- following ----------------------------------------------------------------------------------------------

    def on_follow(self, batch: Batch, message: Admitted) -> Outcome:
        """Tell the present states, then each change for some time."""
        asked = message.verified.message
        if not isinstance(asked, FollowJobs):
            return DeadLetter("not job.follow")
        wanted = (asked.first, asked.first + asked.count)
        follow = Follow(message.principal, message.verified.header.jti, batch.now, batch.now + asked.seconds)
        try:
            before = self._followers.add(message.client, wanted, follow)
        except OverflowError as error:
            _refuse(batch, message, "limit", str(error))
            return ACK
        since = before.asked - OVERLAP_SECONDS if before is not None and before.until >= batch.now else 0.0
        self._states.promise(message.client, wanted, follow, since)
        return ACK

    def _tell_states(self, batch: Batch) -> None:
        if len(self._states) and self.unconfirmed < MAX_UNCONFIRMED:
            self._states.tell(batch, self._may_still)

    def _may_still(self, principal: Principal, client: str) -> bool:
        found = self._directory.principal(principal.identity, principal.group, client)
        return found is not None and found.properties == principal.properties

    def due_in(self, now: float) -> float | None:
        """At once while states or answers are to be told; from time to time forget follows that are over."""
        answers = self._desk.due_in()
        if len(self._states):
            states = 0.0 if self.unconfirmed < MAX_UNCONFIRMED else CROWDED_SECONDS
            return states if answers is None else min(states, answers)
        if answers is not None:
            return answers
        return self._next_look - now if len(self._followers) else None

    def chores(self, batch: Batch) -> None:
        """Tell answers that are ready, and some states; forget follows that are over."""
        batch.unrecorded.extend(self._desk.answers())
        if batch.now >= self._next_look:
            self._next_look = batch.now + EXPIRE_SECONDS
            self._followers.expire(batch.now)
            self._states.expire(batch.now)
        self._tell_states(batch)


def _scope(principal: Principal, asked: QueryJobs) -> JobFilter | None:
    """The largest set of jobs that this question may be about; None if there is none."""
    owner, group = asked.owner, ""
    if asked.jobs and not owner:
        owner = ""  # ids say which; each is looked at
    elif not owner or owner == principal.identity:
        owner = principal.identity
    elif principal.properties & SEES_ALL:
        owner = "" if owner == "*" else owner
    elif Property.JOB_SHARING in principal.properties:
        owner, group = "" if owner == "*" else owner, principal.group
    elif owner == "*":
        owner = principal.identity
    else:
        return None
    return JobFilter(
        ids=asked.jobs,
        owner=owner,
        grp=group,
        status=asked.status,
        site=asked.site,
        job_group=asked.job_group,
        before=asked.before,
        limit=max(asked.limit, PAGE) if asked.jobs else asked.limit,
    )


def _page(batch: Batch, principal: Principal, scope: JobFilter, limit: int) -> tuple[list[JobRow], bool]:
    """One page of those that may be seen; ids that may not are left out as if they were not there."""
    found: list[JobRow] = []
    more = True
    while more and len(found) <= limit:
        rows, more = jobs.query(batch.tx, scope)
        found.extend(row for row in rows if may_see_job(principal, row.owner, row.grp))
        if rows:
            scope = msgspec.structs.replace(scope, before=rows[-1].id)
        if not scope.ids:
            break  # all of these may be seen
    return found[:limit], more or len(found) > limit


def summary_of(row: JobRow) -> JobSummary:
    """A job in a list."""
    return JobSummary(
        job=row.id,
        status=row.status,
        minor=row.minor,
        name=row.name,
        job_group=row.job_group,
        job_type=row.job_type,
        owner=row.owner,
        group=row.grp,
        site=row.site,
        pilot=row.pilot,
        attempt=row.attempt,
        submitted=row.submitted,
        started=row.started,
        ended=row.ended,
        updated=row.changed,
        heartbeat=row.heartbeat,
        exit_code=row.exit_code,
        usage=_usage(row),
    )


def _usage(row: JobRow | AttemptRow) -> Usage:
    return Usage(
        cpu_seconds=row.cpu_seconds,
        wall_seconds=row.wall_seconds,
        memory_mb=row.memory_mb,
        disk_mb=row.disk_mb,
        processors=row.processors,
    )


def _attempt(row: AttemptRow) -> AttemptInfo:
    return AttemptInfo(
        attempt=row.attempt,
        pilot=row.pilot,
        site=row.site,
        matched=row.matched,
        started=row.started,
        ended=row.ended,
        outcome=row.outcome,
        reason=row.reason[:MAX_CAUSE],
        exit_code=row.exit_code,
        signal=row.signal,
        usage=_usage(row),
    )


def _outputs(batch: Batch, job: int) -> tuple[SandboxFile, ...]:
    """The output sandbox, with its contents if they are small in total."""
    rows = sandboxes.outputs_of(batch.tx, job)
    small = sum(row.size for row in rows) <= MAX_INLINE_BYTES
    contents = sandboxes.contents(batch.tx, {row.sha256 for row in rows}, MAX_INLINE_BYTES) if small else {}
    return tuple(
        SandboxFile(name=row.name, sha256=row.sha256, size=row.size, mode=row.mode, content=contents.get(row.sha256))
        for row in rows
    )


def _refuse(batch: Batch, message: Admitted, code: str, reason: str) -> None:
    batch.say(message, Refused(code=code, reason=reason, type=message.verified.header.typ))
