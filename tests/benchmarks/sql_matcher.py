"""The baseline: a matcher that asks an SQL database for each match, in the style of DIRAC's published TaskQueueDB.

Written for this comparison, on PostgreSQL, with the published scheme: a table of task queues, one table per attribute
of many values, one of memory, one of jobs. A match is what is published: enabled queues whose CPU time fits and whose
attributes are, by a correlated subquery each, absent or among the pilot's values; ten of them in the order
``RAND() / priority``; of the first one a priority drawn over all its jobs by ``RAND() / RealPriority``; fifty of its
jobs; a random one of them is deleted, and who deleted it has it. Each statement commits by itself, as there.

Kept as PostgreSQL does it best: prepared statements, values as parameters, indexes on every key, statistics up to
date. Numbers of processors and whole nodes are tags, as there. Not there: which sites are usable, private pilots.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import chain

import psycopg

from consumers.domain.requirements import Requirements
from schemas.messages.pilot import Offer
from tests.benchmarks.workload import Waiting, Workload

QUEUES_PER_TRY = 10
JOBS_PER_TRY = 50
ATTRIBUTES = ("Sites", "GridCEs", "BannedSites", "Platforms", "JobTypes", "Tags")
PROCESSORS = (4, 8, 64)
"""Needs of more than one processor that occur, each a tag."""

SCHEMA = """
CREATE TABLE tq_TaskQueues (TQId integer PRIMARY KEY, Owner text NOT NULL, OwnerGroup text NOT NULL,
  CPUTime bigint NOT NULL, Priority double precision NOT NULL, Enabled smallint NOT NULL);
CREATE TABLE tq_Jobs (JobId bigint NOT NULL, TQId integer NOT NULL, Priority integer NOT NULL,
  RealPriority double precision NOT NULL);
CREATE TABLE tq_RAM (TQId integer PRIMARY KEY, MinRAM integer NOT NULL);
""" + "".join(f"CREATE TABLE tq_TQTo{name} (TQId integer NOT NULL, Value text NOT NULL);\n" for name in ATTRIBUTES)
INDEXES = """
ALTER TABLE tq_Jobs ADD PRIMARY KEY (JobId);
CREATE INDEX ON tq_Jobs (TQId, Priority, JobId);
CREATE INDEX ON tq_TaskQueues (OwnerGroup, Owner, CPUTime);
""" + "".join(f"ALTER TABLE tq_TQTo{name} ADD PRIMARY KEY (TQId, Value);\n" for name in ATTRIBUTES)


def _among(table: str, parameter: str) -> str:
    return (
        f"(NOT EXISTS (SELECT 1 FROM tq_TQTo{table} v WHERE v.TQId = tq.TQId)"
        f" OR EXISTS (SELECT 1 FROM tq_TQTo{table} v WHERE v.TQId = tq.TQId AND v.Value = ANY(%({parameter})s)))"
    )


FITTING = f"""
FROM tq_TaskQueues tq LEFT JOIN tq_RAM ram ON ram.TQId = tq.TQId
WHERE tq.Enabled >= 1 AND tq.CPUTime <= %(cpu)s AND (ram.TQId IS NULL OR ram.MinRAM <= %(memory)s)
  AND (NOT EXISTS (SELECT 1 FROM tq_TQToSites v WHERE v.TQId = tq.TQId)
       OR %(site)s IN (SELECT v.Value FROM tq_TQToSites v WHERE v.TQId = tq.TQId))
  AND %(site)s NOT IN (SELECT v.Value FROM tq_TQToBannedSites v WHERE v.TQId = tq.TQId)
  AND (NOT EXISTS (SELECT 1 FROM tq_TQToGridCEs v WHERE v.TQId = tq.TQId)
       OR %(ce)s IN (SELECT v.Value FROM tq_TQToGridCEs v WHERE v.TQId = tq.TQId))
  AND {_among("Platforms", "platforms")}
  AND NOT EXISTS (SELECT 1 FROM tq_TQToTags v WHERE v.TQId = tq.TQId AND NOT v.Value = ANY(%(tags)s))
"""
QUEUES = f"SELECT tq.TQId {FITTING} ORDER BY random() / tq.Priority LIMIT {QUEUES_PER_TRY}"
EVERY_QUEUE = f"SELECT tq.TQId {FITTING}"
PRIORITY = "SELECT Priority FROM tq_Jobs WHERE TQId = %s ORDER BY random() / RealPriority LIMIT 1"
JOBS = f"SELECT JobId FROM tq_Jobs WHERE TQId = %s AND Priority = %s ORDER BY JobId LIMIT {JOBS_PER_TRY}"
TAKE = "DELETE FROM tq_Jobs WHERE JobId = %s"

Connection = psycopg.Connection[tuple[object, ...]]


def fill(url: str, workload: Workload) -> None:
    """Make the tables and put a workload into them."""
    with psycopg.connect(url) as connection:
        connection.execute(SCHEMA)
        _copy(connection, "tq_TaskQueues", map(_queue_row, workload.queues))
        _copy(
            connection,
            "tq_RAM",
            ((q.id, q.requirements.memory_mb) for q in workload.queues if q.requirements.memory_mb),
        )
        for name in ATTRIBUTES:
            rows = ((queue.id, value) for queue in workload.queues for value in _values(name, queue.requirements))
            _copy(connection, f"tq_TQTo{name}", rows)
        _copy(connection, "tq_Jobs", _job_rows(workload))
        connection.execute(INDEXES)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _copy(connection: Connection, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _queue_row(queue: Waiting) -> tuple[object, ...]:
    return queue.id, queue.owner, queue.group, queue.requirements.cpu_class, queue.weight, int(bool(queue.levels))


def _job_rows(workload: Workload) -> Iterator[tuple[object, ...]]:
    number = 0
    for queue in workload.queues:
        for priority, jobs, _ in queue.levels:
            for _ in range(jobs):
                number += 1
                yield number, queue.id, priority, float(priority + 1)


def _values(name: str, want: Requirements) -> tuple[str, ...]:
    of = {
        "Sites": want.sites,
        "GridCEs": want.ces,
        "BannedSites": want.banned_sites,
        "Platforms": want.platforms,
        "JobTypes": (want.job_type,),
        "Tags": (*want.tags, *_size_tags(want)),
    }
    return of[name]


def _size_tags(want: Requirements) -> Iterable[str]:
    processors = (f"{want.min_processors}Processors",) if want.min_processors > 1 else ()
    return chain(processors, ("WholeNode",) if want.whole_node else ())


class SqlMatcher:
    """One client of the database."""

    def __init__(self, url: str, seed: int = 1) -> None:
        self._connection: Connection = psycopg.connect(url, autocommit=True, prepare_threshold=1)
        self._random = random.Random(seed)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def fitting(self, offer: Offer) -> set[int]:
        """Every queue that fits, to compare."""
        return {int(str(row[0])) for row in self._connection.execute(EVERY_QUEUE, _asked(offer))}

    def choose(self, offer: Offer) -> list[int]:
        """Some queues that fit, in the order of the lottery; nothing is taken."""
        return [int(str(row[0])) for row in self._connection.execute(QUEUES, _asked(offer))]

    def match(self, offer: Offer) -> int | None:
        """A job, taken out for good; ``None`` if none fits."""
        for queue in self.choose(offer):
            priority = self._connection.execute(PRIORITY, (queue,)).fetchone()
            if priority is None:
                continue
            jobs = [row[0] for row in self._connection.execute(JOBS, (queue, priority[0]))]
            while jobs:
                job = jobs.pop(self._random.randrange(len(jobs)))
                if self._connection.execute(TAKE, (job,)).rowcount:
                    return int(str(job))
        return None


def _asked(offer: Offer) -> dict[str, object]:
    tags = [f"{number}Processors" for number in PROCESSORS if number <= offer.processors]
    if offer.whole_node:
        tags.append("WholeNode")
    return {
        "cpu": offer.cpu_seconds,
        "memory": offer.memory_mb,
        "site": offer.site,
        "ce": offer.ce,
        "platforms": list(offer.platforms),
        "tags": [*offer.tags, *tags],
    }
