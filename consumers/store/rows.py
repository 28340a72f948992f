"""What the job tables hold, as values. Field names are column names; JSON stays encoded."""

from __future__ import annotations

import msgspec

from schemas.job import DEFAULT_RUN_LEASE, JobStatus


class JobRow(msgspec.Struct, frozen=True, gc=False):
    """Where a job is (``jobs``). The names that ``consumers.domain.decision.JobView`` has mean the same here.

    Attributes:
        matched: when the latest attempt was given to its pilot.
        steps: how many steps of the latest attempt's reports are in the history.
        changed: time of the last history line.
        started: when a payload last started.
        ended: when the job became final.
    """

    id: int
    submission: int
    owner: str
    grp: str
    name: str = ""
    job_group: str = ""
    job_type: str = ""
    site: str = ""
    status: JobStatus = JobStatus.RECEIVED
    minor: str = ""
    attempt: int = 0
    pilot: str = ""
    matched: float | None = None
    lease_until: float | None = None
    lease_seconds: float = DEFAULT_RUN_LEASE
    accepted: bool = False
    sequence: int = 0
    steps: int = 0
    heartbeat: float | None = None
    stalled_from: JobStatus | None = None
    kill_requested: str = ""
    delete_requested: bool = False
    reschedules: int = 0
    infra_failures: int = 0
    changed: float = 0.0
    class_id: int | None = None
    queue_id: int | None = None
    priority: int = 0
    submitted: float = 0.0
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_mb: float = 0.0
    disk_mb: float = 0.0
    processors: int = 1


class JobState(msgspec.Struct, frozen=True, gc=False):
    """The few columns of a job that its followers hear of."""

    id: int
    status: JobStatus
    minor: str
    attempt: int
    changed: float
    owner: str
    grp: str
    site: str
    pilot: str


class JobDetails(msgspec.Struct, frozen=True, gc=False):
    """What a job is (``job_details``).

    Attributes:
        description: the job description, canonical JSON.
        files: its input sandbox, JSON array of ``SandboxFile`` without contents.
        data: its resolved input data, JSON array of ``InputFile``.
        candidate_sites: JSON array of names; absent if any will do.
    """

    job: int
    description: bytes
    files: bytes = b"[]"
    data: bytes = b"[]"
    candidate_sites: bytes | None = None


class Claim(msgspec.Struct, frozen=True, gc=False):
    """Give this job to this pilot until then."""

    job: int
    client: str
    site: str
    lease_until: float


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """A claim that succeeded, with all that the pilot needs.

    Attributes:
        own_proxy: its submission has a proxy of its own: no other will do.
    """

    job: int
    attempt: int
    client: str
    owner: str
    grp: str
    submission: int
    lease_until: float
    lease_seconds: float
    queue_id: int | None
    priority: int
    description: bytes
    files: bytes
    data: bytes
    own_proxy: bool = False


class AttemptRow(msgspec.Struct, frozen=True, gc=False):
    """One execution (``attempts``)."""

    job: int
    attempt: int
    pilot: str
    site: str
    matched: float
    started: float | None = None
    ended: float | None = None
    outcome: str = ""
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_mb: float = 0.0
    disk_mb: float = 0.0
    processors: int = 1


class HistoryRow(msgspec.Struct, frozen=True, gc=False):
    """One change of a job (``history``).

    Attributes:
        source: the service that decided it.
        cause: why, for people.
    """

    job: int
    attempt: int
    time: float
    status: JobStatus
    minor: str = ""
    source: str = ""
    cause: str = ""


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs a listing wants. Empty fields do not restrict, but Deleted jobs are left out unless asked for.

    Attributes:
        before: only ids below this one (the next page); 0 for the first page.
    """

    ids: tuple[int, ...] = ()
    owner: str = ""
    grp: str = ""
    status: tuple[JobStatus, ...] = ()
    site: str = ""
    job_group: str = ""
    before: int = 0
    limit: int = 100
