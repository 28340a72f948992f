"""Submissions, jobs, their requirements classes and task queues, attempts and history."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy import text as sql

from .base import Encoded, Status, metadata, number, real, serial, text

WAITING_ONLY = sql("status = 'Waiting'")
LEASED_ONLY = sql("status IN ('Matched', 'Running', 'Completing', 'Stalled')")
ACTIVE_ONLY = sql(
    "status IN ('Received', 'Checking', 'Staging', 'Waiting', 'Matched', 'Running', 'Completing', 'Stalled', "
    "'Rescheduled')"
)
"""Predicates of partial indexes. Queries repeat them as literals: a planner cannot prove them from parameters."""

submissions = Table(
    "submissions",
    metadata,
    number("id", key=True),
    text("owner"),
    text("grp"),
    text("key"),
    text("digest"),
    number("first"),
    number("count"),
    number("expanded"),
    Column("descriptions", Encoded, nullable=False),
    Column("files", Encoded, nullable=False),
    text("client"),
    real("created"),
    Index(
        "uq_submissions_key",
        "owner",
        "grp",
        "key",
        unique=True,
        postgresql_where=sql("key <> ''"),
        sqlite_where=sql("key <> ''"),
    ),
    Index(
        "ix_submissions_unexpanded",
        "id",
        postgresql_where=sql("expanded < count"),
        sqlite_where=sql("expanded < count"),
    ),
    Index("ix_submissions_owner", "owner", "id"),
    comment="What a user sent in one message: an atomic range of job ids, expanded in slices.",
)

jobs = Table(
    "jobs",
    metadata,
    number("id", key=True),
    number("submission"),
    text("owner"),
    text("grp"),
    text("name"),
    text("job_group"),
    text("job_type"),
    text("site"),
    Column("status", Status, nullable=False),
    text("minor"),
    number("attempt"),
    text("pilot"),
    real("matched", null=True),
    real("lease_until", null=True),
    real("lease_seconds"),
    Column("accepted", Boolean, nullable=False),
    number("sequence"),
    number("steps"),
    real("heartbeat", null=True),
    Column("stalled_from", Status, nullable=True),
    text("kill_requested"),
    Column("delete_requested", Boolean, nullable=False),
    number("reschedules"),
    number("infra_failures"),
    real("changed"),
    number("class_id", null=True),
    number("queue_id", null=True),
    number("priority"),
    real("submitted"),
    real("started", null=True),
    real("ended", null=True),
    number("exit_code", null=True),
    number("signal", null=True),
    real("cpu_seconds"),
    real("wall_seconds"),
    real("memory_mb"),
    real("disk_mb"),
    number("processors"),
    # A queue's jobs of one priority, oldest first: how the matcher pages ids.
    Index(
        "ix_jobs_waiting",
        "queue_id",
        "priority",
        "submitted",
        "id",
        postgresql_where=WAITING_ONLY,
        sqlite_where=WAITING_ONLY,
    ),
    # The heartbeat rides along, so that the search for silent jobs reads live ones only.
    Index("ix_jobs_leases", "lease_until", "heartbeat", postgresql_where=LEASED_ONLY, sqlite_where=LEASED_ONLY),
    Index("ix_jobs_pilot", "pilot", postgresql_where=LEASED_ONLY, sqlite_where=LEASED_ONLY),
    Index("ix_jobs_owner", "owner", "id"),
    # How many jobs of an owner, or of a group, are not final: read when a limit seems reached.
    Index("ix_jobs_active", "grp", "owner", postgresql_where=ACTIVE_ONLY, sqlite_where=ACTIVE_ONLY),
    # Rows are updated about five times in their life: leave room for it on the page.
    postgresql_with={"fillfactor": 70},
    comment="Where each job is: everything that decisions need. Narrow, because it is updated often.",
)

usage = Table(
    "usage",
    metadata,
    text("owner"),
    text("grp"),
    number("active"),
    real("counted"),
    number("minute"),
    number("submissions"),
    number("hour"),
    number("jobs"),
    number("bytes"),
    PrimaryKeyConstraint("owner", "grp"),
    Index(None, "grp"),
    comment="What each owner has and asked for in each group, for the limits; `active` is never below the truth.",
)

job_details = Table(
    "job_details",
    metadata,
    number("job", key=True),
    Column("description", Encoded, nullable=False),
    Column("files", Encoded, nullable=False),
    Column("data", Encoded, nullable=False),
    Column("candidate_sites", Encoded, nullable=True),
    comment="What a job is (canonical JSON), its input sandbox, its resolved input data; written once or twice.",
)

classes = Table(
    "requirements_classes",
    metadata,
    serial(),
    text("digest"),
    Column("requirements", Encoded, nullable=False),
    UniqueConstraint("digest"),
    comment="One set of requirements each.",
)

task_queues = Table(
    "task_queues",
    metadata,
    serial(),
    number("class_id"),
    text("owner"),
    text("grp"),
    UniqueConstraint("class_id", "owner", "grp"),
    comment="Requirements class × group × owner.",
)

attempts = Table(
    "attempts",
    metadata,
    number("job"),
    number("attempt"),
    text("pilot"),
    text("site"),
    real("matched"),
    real("started", null=True),
    real("ended", null=True),
    text("outcome"),
    text("reason"),
    number("exit_code", null=True),
    number("signal", null=True),
    real("cpu_seconds"),
    real("wall_seconds"),
    real("memory_mb"),
    real("disk_mb"),
    number("processors"),
    PrimaryKeyConstraint("job", "attempt"),
    Index(None, "pilot"),
    # What started lately, for limits with a delay: rows come in that order, so a summary of each page is all it takes.
    Index(None, "matched", postgresql_using="brin"),
    comment="Each execution of a job.",
)

history = Table(
    "history",
    metadata,
    serial(),
    number("job"),
    number("attempt"),
    real("time"),
    Column("status", Status, nullable=False),
    text("minor"),
    text("source"),
    text("cause"),
    Index(None, "job"),
    comment="Every change of a job, with its cause.",
)
