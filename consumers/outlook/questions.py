"""From a question to its answer, and who may hear it.

Promises: a job or queue that may not be seen and one that is not there get the same answer; everything is read, nothing
is written.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.authorization import Principal, Property, may_see_job
from schemas.job import JobStatus
from schemas.messages.service import Refused
from schemas.messages.why import (
    ExplainJob,
    InspectQueue,
    JobExplained,
    QueryQueues,
    QueueDetail,
    QueuedJob,
    QueueListing,
    QueueSummary,
    WeighJobs,
)
from schemas.registry import Message, type_of

from ..domain.index import Queue
from ..domain.obstacles import in_a_line
from ..domain.requirements import Requirements
from ..store import Reading, jobs, queues, sights, submission_proxies
from ..store.rows import JobRow
from .imagined import weigh
from .outlooks import MAX_BEFORE, Outlooks, Subject, head_of, moment
from .snapshot import Snapshot

NO_SUCH_JOB = "no such job"
NO_SUCH_QUEUE = "no such task queue, or nothing waits in it"

SEES_ALL = frozenset({Property.JOB_MONITOR, Property.OPERATOR, Property.JOB_ADMINISTRATOR})

FIRST_JOBS = 10
"""Jobs named of a queue."""

MAX_WORDS = 300
"""Characters of a class in a list."""

QUESTIONS = (ExplainJob, WeighJobs, QueryQueues, InspectQueue)


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        principal: who asks.
        client: his client.
        message: what he asks.
        correlation: of the question, for the answer.
    """

    principal: Principal
    client: str
    message: Message
    correlation: str


class Answering:
    """Answers questions at one moment.

    Args:
        tx: the store, to read.
        snapshot: the moment.
        now: server time.
    """

    def __init__(self, tx: Reading, snapshot: Snapshot, now: float) -> None:
        self._tx = tx
        self._shot = snapshot
        self._now = now
        self._outlooks = Outlooks(tx, snapshot, now)

    def answer(self, question: Question) -> Message:
        """The answer."""
        match question.message:
            case ExplainJob() as asked:
                return self._explain(question.principal, asked)
            case WeighJobs() as asked:
                return weigh(self._tx, self._shot, self._outlooks, question.principal, asked, self._now)
            case QueryQueues() as asked:
                return self._list(question.principal, asked)
            case InspectQueue() as asked:
                return self._inspect(question.principal, asked)
        return refused(question.message, "invalid", "no such question")

    # -- jobs -----------------------------------------------------------------------------------------------------

    def _explain(self, principal: Principal, asked: ExplainJob) -> Message:
        row = jobs.load(self._tx, [asked.job], for_update=False).get(asked.job)
        if row is None or not may_see_job(principal, row.owner, row.grp):
            return refused(asked, "not-found", NO_SUCH_JOB)
        if row.status is not JobStatus.WAITING or row.queue_id is None:
            return JobExplained(
                job=row.id, status=row.status, verdict=why_not_waiting(row), since=row.changed, as_of=self._now
            )
        known = queues.load(self._tx, [row.queue_id])
        if not known:
            return refused(asked, "failed", "its task queue is not there: tell the operators")
        own = bool(submission_proxies.having(self._tx, [row.submission]))
        subject = Subject(Requirements.from_json(known[0].requirements), row.owner, row.grp, own)
        outlook = self._outlooks.of(subject)
        place = self._outlooks.place(subject, row.priority, row.submitted, row.id)
        return JobExplained(
            job=row.id,
            status=row.status,
            verdict=outlook.verdict,
            since=row.changed,
            queue=row.queue_id,
            outlook=outlook,
            place=place,
            estimate=self._outlooks.estimate(subject, outlook, place),
            as_of=self._shot.taken,
        )

    # -- queues ---------------------------------------------------------------------------------------------------

    def _list(self, principal: Principal, asked: QueryQueues) -> Message:
        index = self._shot.index
        found = [
            queue
            for queue in map(index.queue, index)
            if queue.levels
            and may_see_queue(principal, queue)
            and _is_of(queue.owner.name, asked.owner)
            and asked.group in {"", queue.group.name}
            and (not asked.site or _may_run_at(queue.requirements, asked.site))
        ]
        found.sort(key=lambda queue: (_oldest(queue), queue.id))
        page = found[asked.skip : asked.skip + asked.limit]
        counts = sights.counted(self._tx, [queue.id for queue in page], MAX_BEFORE + 1)
        return QueueListing(
            queues=tuple(self._summary(queue, counts[queue.id]) for queue in page),
            more=len(found) > asked.skip + asked.limit,
            as_of=self._shot.taken,
        )

    def _inspect(self, principal: Principal, asked: InspectQueue) -> Message:
        index = self._shot.index
        if asked.queue not in index:
            return refused(asked, "not-found", NO_SUCH_QUEUE)
        queue = index.queue(asked.queue)
        if not queue.levels or not may_see_queue(principal, queue):
            return refused(asked, "not-found", NO_SUCH_QUEUE)
        subject = Subject(queue.requirements, queue.owner.name, queue.group.name)
        outlook = self._outlooks.of(subject)
        first = head_of(self._tx, queue.id, sorted(queue.levels), FIRST_JOBS)
        place = self._outlooks.place(subject, first[0][1], first[0][2], first[0][0]) if first else None
        return QueueDetail(
            queue=self._summary(queue, sights.counted(self._tx, [queue.id], MAX_BEFORE + 1)[queue.id]),
            next=tuple(QueuedJob(job=job, priority=priority, submitted=at) for job, priority, at in first),
            outlook=outlook,
            place=place,
            estimate=self._outlooks.estimate(subject, outlook, place) if place is not None else None,
            as_of=self._shot.taken,
        )

    def _summary(self, queue: Queue, waiting: int) -> QueueSummary:
        group = self._shot.registry.groups.get(queue.group.name)
        fitting, parked = self._shot.fitting(queue.id)
        words = in_a_line(queue.requirements)
        return QueueSummary(
            queue=queue.id,
            requirements=words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…",
            group=queue.group.name,
            owner=queue.owner.name,
            waiting=min(waiting, MAX_BEFORE),
            more=waiting > MAX_BEFORE,
            oldest=_oldest(queue),
            priority=queue.head(),
            share=group.share if group is not None else 1.0,
            fitting=fitting,
            fitting_parked=parked,
        )


def may_see_queue(principal: Principal, queue: Queue) -> bool:
    """Whether somebody may see a queue: whoever may see its jobs."""
    return may_see_job(principal, queue.owner.name, queue.group.name)


def refused(message: Message, code: str, reason: str) -> Refused:
    """A no to a question."""
    return Refused(code=code, reason=reason, type=type_of(message).name)


def _oldest(queue: Queue) -> float:
    return min(level.oldest for level in queue.levels.values())


def _may_run_at(want: Requirements, site: str) -> bool:
    return (not want.sites or site in want.sites) and site not in want.banned_sites


def _is_of(owner: str, asked: str) -> bool:
    """Whether a DN is the one asked for, or ends with it as common name: lists show no more of it."""
    return not asked or owner == asked or owner.endswith(f"/CN={asked}")


def why_not_waiting(row: JobRow) -> str:
    """Why a job that does not wait is where it is, and what to look at."""
    what = f" ({row.minor})" if row.minor else ""
    at = f" at {row.site}" if row.site else ""
    match row.status:
        case JobStatus.RECEIVED | JobStatus.CHECKING:
            return f"It is being checked{what}: input data and sandboxes are looked up before it can wait for a pilot."
        case JobStatus.STAGING:
            return f"Its input data is being staged{what}."
        case JobStatus.MATCHED:
            return f"It is not waiting: pilot {row.pilot}{at} has it and is preparing to start it."
        case JobStatus.RUNNING | JobStatus.COMPLETING:
            return f"It is not waiting: it runs{at}{what}."
        case JobStatus.STALLED:
            lease = f"; its lease ends at {moment(row.lease_until)}" if row.lease_until is not None else ""
            return f"Its pilot{at} has not been heard of lately{lease}, then it is tried again."
        case JobStatus.RESCHEDULED:
            return f"It was given back{what} and waits for its delay to be over."
        case JobStatus.DONE:
            return f"It is over: done{at}."
        case JobStatus.FAILED:
            return f"It is over: failed{at}{what}; pilotage job history {row.id} says why."
        case JobStatus.KILLED:
            return f"It is over: it was killed{what}."
    return f"It is {row.status}{what}."
