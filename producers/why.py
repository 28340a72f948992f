"""Why jobs wait: the Python side of ``job explain``, ``queue`` and ``submit --dry-run``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from schemas.messages.why import (
    MAX_QUEUES,
    ExplainJob,
    InspectQueue,
    JobExplained,
    JobsWeighed,
    QueryQueues,
    QueueDetail,
    QueueListing,
    QueueSummary,
    WeighJobs,
)
from schemas.registry import Message

from .submission import Description, Prepared, prepare

M = TypeVar("M", bound=Message)


class Ask(Protocol):
    """Sends a question and gives its answer."""

    def __call__(self, message: Message, answer: type[M], timeout: float | None = None) -> M:
        """Ask."""
        ...


class Why:
    """Questions about waiting jobs.

    Args:
        ask: how to ask.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def job(self, job: int) -> JobExplained:
        """Why a job is where it is.

        Raises:
            NotFoundError: there is none that may be seen.
        """
        return self._ask(ExplainJob(job=job), JobExplained)

    def queues(self, *, owner: str = "", group: str = "", site: str = "", limit: int = 25) -> QueueListing:
        """Task queues with waiting jobs, those that wait longest first.

        Args:
            owner: canonical DN, or its common name; empty: of all that may be seen.
            group: only of this group.
            site: only those whose jobs may run there.
            limit: at most so many.
        """
        found: list[QueueSummary] = []
        while True:
            page = QueryQueues(
                owner=owner, group=group, site=site, skip=len(found), limit=min(MAX_QUEUES, limit - len(found))
            )
            listing = self._ask(page, QueueListing)
            found.extend(listing.queues)
            if not listing.more or not listing.queues or len(found) >= limit:
                return QueueListing(queues=tuple(found), more=listing.more, as_of=listing.as_of)

    def queue(self, queue: int) -> QueueDetail:
        """Everything about one task queue.

        Raises:
            NotFoundError: there is none with waiting jobs that may be seen.
        """
        return self._ask(InspectQueue(queue=queue), QueueDetail)

    def weigh(self, descriptions: Sequence[Description]) -> JobsWeighed:
        """What would become of these jobs if they were submitted now; nothing is.

        Raises:
            InvalidJobError: with all errors.
        """
        prepared = prepare(descriptions, "dry-run")
        return self._ask(weighing(prepared), JobsWeighed)


def weighing(prepared: Prepared) -> WeighJobs:
    """The question that goes with a submission: its texts, and the names of its files but not what is in them."""
    message = prepared.message
    return WeighJobs(descriptions=message.descriptions, files=tuple(file.name for file in message.files))
