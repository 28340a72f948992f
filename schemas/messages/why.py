"""Why does my job wait? Questions about what the matcher sees, and their answers.

Everything is told of one moment (``as_of``): what is known is gathered once for many questions, at most some seconds
before. Counts are of pilots, sites and jobs; a count that says ``more`` stopped there. Nothing here names another
owner or another owner's job to somebody who may not see it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..job import JobStatus
from ..registry import HOUR, MINUTE, Kind, Message, register
from .common import Count, Epoch, JobId, Text, Value
from .service import CLIENT, RefusalDetail
from .user import MAX_DESCRIPTIONS

MAX_WEIGHED = 50
"""Distinct classes of one submission that are weighed; more than anybody reads."""

MAX_QUEUES = 200
"""Task queues in one page: their jobs are counted one by one, up to 10,000 each."""


@register("job.explain.v1", Kind.QUERY, "job-monitor", lifetime=5 * MINUTE)
class ExplainJob(Message, frozen=True, kw_only=True):
    """Why does this job wait? Answer: ``job.explained.v1``."""

    job: JobId


@register("job.weigh.v1", Kind.QUERY, "job-monitor", lifetime=5 * MINUTE)
class WeighJobs(Message, frozen=True, kw_only=True):
    """If I submitted these, where would they run, and what would hold them? Nothing is submitted.

    Answer: ``job.weighed.v1``, or ``request.refused.v1`` with all errors as a submission would get.

    Attributes:
        descriptions: JDL texts as in ``job.submit``.
        files: names of the local files that their InputSandboxes name.
    """

    descriptions: Annotated[
        tuple[Annotated[str, Meta(max_length=65_536)], ...], Meta(min_length=1, max_length=MAX_DESCRIPTIONS)
    ]
    files: Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(max_length=1000)] = ()


@register("queue.query.v1", Kind.QUERY, "job-monitor", lifetime=5 * MINUTE)
class QueryQueues(Message, frozen=True, kw_only=True):
    """Which task queues have waiting jobs? Answer: ``queue.listing.v1``, those that wait longest first.

    Attributes:
        owner: canonical DN; empty: of all that may be seen.
        group: only of this group.
        site: only those whose jobs may run there.
        skip: leave out so many: the next page.
    """

    owner: Annotated[str, Meta(max_length=1024)] = ""
    group: Annotated[str, Meta(max_length=256)] = ""
    site: Annotated[str, Meta(max_length=256)] = ""
    skip: Count = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_QUEUES)] = 25


@register("queue.inspect.v1", Kind.QUERY, "job-monitor", lifetime=5 * MINUTE)
class InspectQueue(Message, frozen=True, kw_only=True):
    """Everything about one task queue. Answer: ``queue.detail.v1``."""

    queue: JobId


class Sight(Value, frozen=True, kw_only=True):
    """How many of the pilots and sites there are, and how many of them fit.

    Attributes:
        pilots: that are alive and get work at all.
        parked: of these, those that ask for a job at this moment.
        fitting: pilots whose last offer fits.
        fitting_parked: of these, those that ask at this moment.
        sites: that are registered; 0 if the deployment checks no site names.
        usable: of these, those that may run ordinary jobs.
        fitting_sites: sites with a pilot that fits.
        possible_sites: sites that might take it, pilots or none: usable, wanted, and no CE queue of theirs too small.
    """

    pilots: Count = 0
    parked: Count = 0
    fitting: Count = 0
    fitting_parked: Count = 0
    sites: Count = 0
    usable: Count = 0
    fitting_sites: Count = 0
    possible_sites: Count = 0


class Obstacle(Value, frozen=True, kw_only=True):
    """One condition that keeps it from pilots or sites.

    Attributes:
        condition: its stable name, such as ``memory``.
        needs: what the job needs or the pilot demands, for people.
        pilots: that fail at it, whatever else they fail at.
        parked: of these, those that ask for a job at this moment.
        only: pilots that fail at this alone: so many more would fit without it.
        only_parked: of these, those that ask for a job at this moment.
        sites: that fail at it by what the registry says of them and of their CE queues.
        closest: the nearest misses, for people.
    """

    condition: Annotated[str, Meta(max_length=64)]
    needs: Text = ""
    pilots: Count = 0
    parked: Count = 0
    only: Count = 0
    only_parked: Count = 0
    sites: Count = 0
    closest: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()


class Hold(Value, frozen=True, kw_only=True):
    """Something else than pilots that holds it now.

    Attributes:
        kind: stable word: ``matcher``, ``owner``, ``proxy``, ``rule``, ``limit``, ``sites``, ``background``.
        text: with its figures, for people.
        whole: nothing at all can run until it is gone; otherwise it holds some pilots only.
    """

    kind: Annotated[str, Meta(max_length=32)]
    text: Text
    whole: bool = True


class Place(Value, frozen=True, kw_only=True):
    """Where it stands in the order.

    Attributes:
        group: whose turn counts first.
        group_share: of the computing, against other groups.
        group_used: processors that it was given lately: each counts half after a half-life (a day).
        groups_waiting: groups with waiting jobs.
        groups_before: of these, those whose turn is before.
        owners_waiting: owners with waiting jobs in the group.
        owners_before: of these, those whose turn is before.
        owner_share: of the group's computing, against other owners.
        owner_used: processors that the owner was given lately.
        priority: user priority.
        before: jobs of the same owner and group that go first.
        more: there are more of these than ``before`` says.
        background: its group gets only what others leave.
        sharing: the group's jobs are in one order, whoever's they are: ``before`` counts them all.
    """

    group: str
    group_share: float = 1.0
    groups_waiting: Count = 0
    groups_before: Count = 0
    owners_waiting: Count = 0
    owners_before: Count = 0
    priority: int = 0
    before: Count = 0
    more: bool = False
    background: bool = False
    sharing: bool = False
    group_used: float = 0.0
    owner_share: float = 1.0
    owner_used: float = 0.0


class Estimate(Value, frozen=True, kw_only=True):
    """How long it may still wait.

    Attributes:
        seconds: absent: it cannot be told.
        basis: what it rests on, or why it cannot be told; for people.
    """

    seconds: float | None = None
    basis: Text = ""


class Outlook(Value, frozen=True, kw_only=True):
    """What keeps jobs of one requirements class and owner from pilots.

    Attributes:
        requirements: the class in words, a line each.
        sight: pilots and sites.
        obstacles: those that keep most pilots away first.
        holds: what else holds it.
        verdict: all of it in one sentence.
        advice: which single change would help most; empty if none would.
    """

    requirements: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    sight: Sight = Sight()
    obstacles: Annotated[tuple[Obstacle, ...], Meta(max_length=64)] = ()
    holds: Annotated[tuple[Hold, ...], Meta(max_length=64)] = ()
    verdict: Text = ""
    advice: Text = ""


@register("job.explained.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class JobExplained(Message, frozen=True, kw_only=True):
    """Why a job is where it is.

    Attributes:
        verdict: in one sentence.
        since: since when it has this status.
        queue: its task queue, while it waits.
        outlook: of a waiting job.
        place: in the order, of a waiting job.
        as_of: the moment of which this tells.
    """

    job: JobId
    status: JobStatus
    verdict: Text
    since: Epoch
    queue: Count = 0
    outlook: Outlook | None = None
    place: Place | None = None
    estimate: Estimate | None = None
    as_of: Epoch = 0.0


class Weighed(Value, frozen=True, kw_only=True):
    """What would become of some jobs of one class.

    Attributes:
        jobs: so many.
        first: the first of them, counted from 1 in the order of the submission.
        name: of that one.
        refused: why they could never run; then there is nothing else.
    """

    jobs: Count
    first: Count = 1
    name: str = ""
    refused: Text = ""
    outlook: Outlook | None = None
    place: Place | None = None
    estimate: Estimate | None = None


@register("job.weighed.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=2 << 20)
class JobsWeighed(Message, frozen=True, kw_only=True):
    """What would become of these jobs; nothing was submitted.

    Attributes:
        jobs: so many there would be.
        looked_at: of these, the first so many were looked at.
        classes: most jobs first.
        more: there are more classes than are told.
        limit: the limit that would refuse the submission now; empty if none.
        warnings: as a submission would get.
        as_of: the moment of which this tells.
    """

    jobs: Count
    looked_at: Count = 0
    classes: Annotated[tuple[Weighed, ...], Meta(max_length=MAX_WEIGHED)] = ()
    more: bool = False
    limit: Text = ""
    warnings: tuple[RefusalDetail, ...] = ()
    as_of: Epoch = 0.0


class QueueSummary(Value, frozen=True, kw_only=True):
    """One task queue: requirements class × group × owner.

    Attributes:
        requirements: its class in words, in one line.
        waiting: jobs; ``more``: there are more than that.
        oldest: submission time of the job that waits longest.
        priority: user priority of its next job.
        share: of its group.
        fitting: pilots whose last offer fits.
        fitting_parked: of these, those that ask for a job at this moment.
    """

    queue: JobId
    requirements: Text
    group: str
    owner: str
    waiting: Count = 0
    more: bool = False
    oldest: Epoch = 0.0
    priority: int = 0
    share: float = 1.0
    fitting: Count = 0
    fitting_parked: Count = 0


@register("queue.listing.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=2 << 20)
class QueueListing(Message, frozen=True, kw_only=True):
    """Task queues with waiting jobs, those that wait longest first.

    Attributes:
        more: others follow.
        as_of: the moment of which this tells.
    """

    queues: Annotated[tuple[QueueSummary, ...], Meta(max_length=MAX_QUEUES)]
    more: bool = False
    as_of: Epoch = 0.0


class QueuedJob(Value, frozen=True, kw_only=True):
    """A waiting job, as its queue orders it."""

    job: JobId
    priority: int = 0
    submitted: Epoch = 0.0


@register("queue.detail.v1", Kind.REPLY, CLIENT, lifetime=HOUR)
class QueueDetail(Message, frozen=True, kw_only=True):
    """Everything about one task queue.

    Attributes:
        next: its first jobs, in order.
        outlook: why nothing takes them.
        place: of its next job in the order.
        estimate: for its next job.
        as_of: the moment of which this tells.
    """

    queue: QueueSummary
    next: Annotated[tuple[QueuedJob, ...], Meta(max_length=100)] = ()
    outlook: Outlook = Outlook()
    place: Place | None = None
    estimate: Estimate | None = None
    as_of: Epoch = 0.0
