"""What users' tools send: submission, commands, queries, delegation, sandboxes and replicas."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..job import JobStatus
from ..registry import DAY, HOUR, MINUTE, Kind, Message, register
from .common import (
    CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_JOBS_PER_MESSAGE,
    MAX_SANDBOX_BYTES,
    MAX_SANDBOX_FILES,
    Adler32,
    Count,
    JobId,
    Name,
    SandboxFile,
    Sha256,
    Text,
)

MAX_DESCRIPTIONS = 1000
"""JDL texts in one submission; for more, use a parametric job."""

JobIds = Annotated[tuple[JobId, ...], Meta(min_length=1, max_length=MAX_JOBS_PER_MESSAGE)]


@register("job.submit.v1", Kind.COMMAND, "job-manager", lifetime=7 * DAY)
class SubmitJobs(Message, frozen=True, kw_only=True):
    """Run these jobs: all of them or none (atomic). Answer: ``job.submitted.v1`` or ``request.refused.v1``.

    Attributes:
        descriptions: JDL texts; each may be parametric. Ids are given in this order.
        files: the local files that the InputSandbox entries name, each once.
        key: idempotency key, unique per (DN, group) for 30 days; the same key with another content is refused.
        proxy: id of a delegation made for this submission; empty: its jobs use the account's proxy.
    """

    descriptions: Annotated[
        tuple[Annotated[str, Meta(max_length=65_536)], ...], Meta(min_length=1, max_length=MAX_DESCRIPTIONS)
    ]
    files: Annotated[tuple[SandboxFile, ...], Meta(max_length=MAX_SANDBOX_FILES)] = ()
    key: Annotated[str, Meta(max_length=128)] = ""
    proxy: Annotated[str, Meta(max_length=64)] = ""


@register("job.kill.v1", Kind.COMMAND, "job-manager", lifetime=DAY)
class KillJobs(Message, frozen=True, kw_only=True):
    """Stop these jobs wherever they are. Answer: ``job.commanded.v1``."""

    jobs: JobIds


@register("job.delete.v1", Kind.COMMAND, "job-manager", lifetime=DAY)
class DeleteJobs(Message, frozen=True, kw_only=True):
    """Forget these jobs; those that still live are killed first. Answer: ``job.commanded.v1``."""

    jobs: JobIds


@register("job.reschedule.v1", Kind.COMMAND, "job-manager", lifetime=DAY)
class RescheduleJobs(Message, frozen=True, kw_only=True):
    """Run these ended jobs again as new attempts. Answer: ``job.commanded.v1``."""

    jobs: JobIds


@register("job.query.v1", Kind.QUERY, "job-monitor", lifetime=5 * MINUTE)
class QueryJobs(Message, frozen=True, kw_only=True):
    """Which jobs are there? Answer: ``job.listing.v1``, by descending id.

    Attributes:
        jobs: only these ids; empty means all that may be seen.
        owner: canonical DN; empty means the asker's own, ``*`` all that his group may see.
        status: only these; empty means all but Deleted.
        before: only ids below this one: the next page.
    """

    jobs: Annotated[tuple[JobId, ...], Meta(max_length=MAX_JOBS_PER_MESSAGE)] = ()
    owner: Annotated[str, Meta(max_length=1024)] = ""
    status: Annotated[tuple[JobStatus, ...], Meta(max_length=20)] = ()
    site: Annotated[str, Meta(max_length=256)] = ""
    job_group: Annotated[str, Meta(max_length=256)] = ""
    before: Count = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


@register("job.inspect.v1", Kind.QUERY, "job-monitor", lifetime=5 * MINUTE)
class InspectJob(Message, frozen=True, kw_only=True):
    """Everything about one job. Answer: ``job.detail.v1``."""

    job: JobId


@register("job.follow.v1", Kind.QUERY, "job-monitor", lifetime=5 * MINUTE)
class FollowJobs(Message, frozen=True, kw_only=True):
    """Tell me each change of these jobs for some time: ``job.progress.v1``, first with their present states.

    A follower asks again before ``seconds`` are over (that also heals a restart of the receiver).

    Attributes:
        first: first job id.
        count: how many ids from there.
    """

    first: JobId
    count: Annotated[int, Meta(ge=1, le=100_000)] = 1
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 60.0


@register("delegation.request.v1", Kind.COMMAND, "proxy-manager", lifetime=5 * MINUTE)
class RequestDelegation(Message, frozen=True, kw_only=True):
    """I want to delegate a proxy: make a key and send me its certificate request (``delegation.csr.v1``).

    Attributes:
        purpose: empty: the account's proxy, kept while jobs are active; ``submission``: a longer one for the jobs of a
            single submission, which must name it (``proxy`` of ``job.submit``) within the hour.
    """

    purpose: Annotated[str, Meta(pattern="^(submission)?$", max_length=16)] = ""


@register("delegation.put.v1", Kind.COMMAND, "proxy-manager", lifetime=HOUR)
class PutDelegation(Message, frozen=True, kw_only=True):
    """Here is the proxy for that request. Answer: ``delegation.stored.v1``.

    Attributes:
        delegation: id given with the certificate request.
        chain: PEM, leaf first, without any key.
    """

    delegation: Annotated[str, Meta(max_length=64)]
    chain: Annotated[str, Meta(max_length=65_536)]


@register("sandbox.put.v1", Kind.COMMAND, "sandbox-store", lifetime=DAY)
class PutSandbox(Message, frozen=True, kw_only=True):
    """One chunk of a file, by content address. Answer: ``sandbox.stored.v1``."""

    sha256: Sha256
    size: Annotated[int, Meta(ge=0, le=MAX_SANDBOX_BYTES)]
    index: Annotated[int, Meta(ge=0, lt=MAX_CHUNKS)]
    count: Annotated[int, Meta(ge=1, le=MAX_CHUNKS)]
    data: Annotated[bytes, Meta(max_length=CHUNK_BYTES)]


@register("sandbox.get.v1", Kind.QUERY, "sandbox-store", lifetime=5 * MINUTE)
class GetSandbox(Message, frozen=True, kw_only=True):
    """Send me these chunks of a file of this job (a window). Answer: ``sandbox.chunk.v1`` each."""

    job: JobId
    sha256: Sha256
    first: Annotated[int, Meta(ge=0, lt=MAX_CHUNKS)] = 0
    count: Annotated[int, Meta(ge=1, le=8)] = 8


@register("replica.register.v1", Kind.COMMAND, "replica-catalog", lifetime=DAY)
class RegisterReplica(Message, frozen=True, kw_only=True):
    """A file has a copy on a storage element. Answer: ``replica.listing.v1`` with all copies of it."""

    lfn: Name
    se: Name
    pfn: Name
    size: Count
    adler32: Adler32 = ""


@register("replica.query.v1", Kind.QUERY, "replica-catalog", lifetime=5 * MINUTE)
class QueryReplicas(Message, frozen=True, kw_only=True):
    """Where are these files? Answer: ``replica.listing.v1``."""

    lfns: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=500)]


__all__ = [
    "DeleteJobs",
    "FollowJobs",
    "GetSandbox",
    "InspectJob",
    "JobIds",
    "KillJobs",
    "PutDelegation",
    "PutSandbox",
    "QueryJobs",
    "QueryReplicas",
    "RegisterReplica",
    "RequestDelegation",
    "RescheduleJobs",
    "SubmitJobs",
    "Text",
]
