"""Jobs put straight into a store."""

from __future__ import annotations

from collections.abc import Mapping

from consumers.store import Store, jobs
from consumers.store.rows import JobDetails, JobRow
from schemas.job import JobStatus
from tests.support.messages import Sender, description, user


def put_job(
    store: Store,
    job: int,
    owner: Sender | None = None,
    *,
    status: JobStatus = JobStatus.WAITING,
    details: Mapping[str, bytes] | None = None,
    **fields: object,
) -> JobRow:
    """One job with a plain description, unless others are given."""
    owner = owner or user()
    values = {
        "submission": 1,
        "owner": owner.identity,
        "grp": owner.group,
        "submitted": 10.0,
        "changed": 10.0,
        **fields,
    }
    row = JobRow(id=job, status=status, **(values | fields))  # type: ignore[arg-type]  # any column, as the test wants it
    what = {"description": description(), **(details or {})}
    with store.transaction() as tx:
        jobs.insert(tx, [row], [JobDetails(job, **what)])
    return row


def job_of(store: Store, job: int) -> JobRow:
    """A job as it stands."""
    with store.reading() as tx:
        return jobs.load(tx, [job], for_update=False)[job]


def details_of(store: Store, job: int) -> JobDetails:
    """What a job is."""
    with store.reading() as tx:
        return jobs.details(tx, [job])[job]
