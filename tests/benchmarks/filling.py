"""Fills the real store with a workload: one row in ``jobs`` and ``job_details`` for each waiting job, in bulk.

Straight into the tables, because submitting ten million jobs would take hours; what comes out is what the submission
would have left: classes, queues, sandboxes by content address, statistics up to date, indexes whole. Each level of a
queue (one user priority) is one user's production: its jobs share a description and an input sandbox of one file.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

import msgspec
import psycopg

from consumers.store import Store, queues, sandboxes
from consumers.store.sandboxes import Whole
from schemas.messages.common import SandboxFile
from tests.benchmarks.workload import NOW, Workload

SCRIPT_BYTES = 2_000
"""Of the file in each input sandbox: it travels inside the match."""

LEASE_SECONDS = 7_200.0

Connection = psycopg.Connection[tuple[object, ...]]

LEVELS = """
CREATE TEMPORARY TABLE levels (first bigint, jobs bigint, queue bigint, class bigint, owner text, grp text,
  job_type text, priority bigint, oldest double precision, description text, files text)
"""
JOBS = """
INSERT INTO jobs (id, submission, owner, grp, name, job_group, job_type, site, status, minor, attempt, pilot,
  lease_seconds, accepted, sequence, steps, kill_requested, delete_requested, reschedules, infra_failures, changed,
  class_id, queue_id, priority, submitted, cpu_seconds, wall_seconds, memory_mb, disk_mb, processors)
SELECT first + n, first, owner, grp, 'production', '00001234', job_type, '', 'Waiting', '', 0, '',
  %(lease)s, false, 0, 0, '', false, 0, 0, oldest + n * (%(now)s - oldest) / jobs,
  class, queue, priority, oldest + n * (%(now)s - oldest) / jobs, 0, 0, 0, 0, 1
FROM levels, generate_series(0, jobs - 1) n
"""
DETAILS = """
INSERT INTO job_details (job, description, files, data)
SELECT first + n, description, files, '[]' FROM levels, generate_series(0, jobs - 1) n
"""
INDEXES = """
SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid IN ('jobs'::regclass, 'job_details'::regclass) AND NOT i.indisprimary
"""


def owner_dn(owner: str) -> str:
    """The identity of a workload's owner."""
    return f"/DC=org/DC=bench/CN={owner}"


def fill(url: str, workload: Workload) -> float:
    """Put a workload's jobs into the (new) store at a URL, all of them waiting; seconds it took."""
    begun = time.monotonic()
    with Store.open(url) as store, store.transaction() as tx:
        now = time.time()
        wanted = {str(queue.id): queue for queue in workload.queues}
        digests = {digest: queue.requirements.digest() for digest, queue in wanted.items()}
        classes = queues.class_ids(tx, {digests[name]: queue.requirements.to_json() for name, queue in wanted.items()})
        keys = {name: (classes[digests[name]], owner_dn(queue.owner), queue.group) for name, queue in wanted.items()}
        ids = queues.queue_ids(tx, keys.values())
        rows: list[tuple[object, ...]] = []
        first = 1
        for name, queue in wanted.items():
            for priority, jobs, oldest in queue.levels:
                script, file = _sandbox(f"{name}.{priority}")
                sandboxes.put_whole(tx, [Whole(owner_dn(queue.owner), file.sha256, script)], now, now + 1e8)
                description = _description(queue.requirements.job_type, queue.requirements.cpu_class, priority)
                rows.append((
                    first, jobs, ids[keys[name]], keys[name][0], owner_dn(queue.owner), queue.group,
                    queue.requirements.job_type, priority, now - (NOW - oldest), description,
                    msgspec.json.encode([file]).decode(),
                ))  # fmt: skip
                first += jobs
    _bulk(url.replace("+psycopg", ""), rows, now)
    return time.monotonic() - begun


def _bulk(url: str, rows: Iterable[tuple[object, ...]], now: float) -> None:
    with psycopg.connect(url) as connection:
        indexes = [(str(name), str(text)) for name, text in connection.execute(INDEXES)]
        for name, _ in indexes:  # building them afterwards is many times faster
            connection.execute(f'DROP INDEX "{name}"'.encode())
        connection.execute(LEVELS)
        with connection.cursor() as cursor, cursor.copy("COPY levels FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        connection.execute(JOBS, {"now": now, "lease": LEASE_SECONDS})
        connection.execute(DETAILS)
        for _, text in indexes:
            connection.execute(text.encode())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def leased(url: str) -> int:
    """How many jobs have a lease: the matches, as the store knows them."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        row = connection.execute("SELECT count(*) FROM jobs WHERE status = 'Matched'").fetchone()
    return 0 if row is None else int(str(row[0]))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sandbox(name: str) -> tuple[bytes, SandboxFile]:
    script = f"#!/bin/sh\n# {name}\n".encode().ljust(SCRIPT_BYTES, b"#")
    return script, SandboxFile(name="run.sh", sha256=_digest(script), size=len(script), mode=0o755)


def _description(job_type: str, cpu: int, priority: int) -> str:
    described = {
        "Executable": "run.sh",
        "Arguments": "--production 00001234 --events 500 --configuration MC/2018/Beam6500GeV-2018-MagUp-Nu1.6",
        "JobName": "production",
        "JobGroup": "00001234",
        "JobType": job_type,
        "CPUTime": cpu,
        "Priority": priority,
        "InputSandbox": ["run.sh"],
        "StdOutput": "std.out",
        "StdError": "std.err",
        "OutputSandbox": ["std.out", "std.err", "summary.xml", "prodConf.json"],
        "OutputSE": ["TIER1-BUFFER", "TIER1-ARCHIVE"],
    }
    return msgspec.json.encode(described).decode()
