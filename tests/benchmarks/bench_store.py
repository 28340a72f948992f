"""What the store costs: microseconds per job for each step of a job's life, on both databases, fsync on.

Run: ``python -m tests.benchmarks.bench_store [batches] [jobs per batch]``. CPU is this process's; the database's own is
the rest of the wall time, together with the commit. The tables start empty and are never analyzed by hand.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from consumers.store import (
    OutboxRow,
    Store,
    Transaction,
    attempts,
    heads,
    history,
    inbox,
    jobs,
    leader,
    outbox,
    queues,
    sandboxes,
    submissions,
)
from consumers.store.rows import Claim, HistoryRow, JobDetails, JobRow
from consumers.store.sandboxes import OutputRow, Whole
from consumers.store.submissions import NewSubmission
from schemas.job import JobStatus
from tests.support import servers

OWNER = "/DC=org/DC=example/OU=People/CN=Jane Doe"
PILOTS = 25
"""Messages that a batch's jobs come in."""
DESCRIPTION = b'{"Executable":"/bin/true","StdOutput":"std.out","OutputSandbox":["std.out"],"CPUTime":86400}' * 4
ANSWER = b'{"answer":"x"}' * 20
LINES = ("Running", "Completing", "Done")


class Bench:
    """Drives batches of jobs through the store as the consumers do."""

    def __init__(self, store: Store, size: int) -> None:
        self.store = store
        self.size = size
        self.now = 1_000_000.0
        self.message = 0
        self.to_confirm: list[str] = []
        self.cost: dict[str, list[float]] = {}

    @contextmanager
    def step(self, name: str, messages: int) -> Iterator[Transaction]:
        """One transaction: admit its messages, its work, an answer to each, and confirmations of the last ones."""
        self.now += 1.0
        names = [f"m{self.message + i}" for i in range(messages)]
        self.message += messages
        wall, cpu = time.perf_counter(), time.process_time()
        with self.store.transaction() as tx:
            inbox.admit(tx, [(OWNER, jti, "t.v1") for jti in names], self.now)
            yield tx
            rows = [OutboxRow(f"o{jti}", "x", "reply.c", "t.v1", "c", jti, ANSWER, self.now, self.now, self.now + 60)
                    for jti in names]  # fmt: skip
            outbox.add(tx, rows)
            inbox.record(tx, {(OWNER, jti): ANSWER for jti in names})
            outbox.confirm(tx, self.to_confirm)
            self.to_confirm = [row.jti for row in rows]
        cost = self.cost.setdefault(name, [0.0, 0.0, 0])
        cost[0] += time.perf_counter() - wall
        cost[1] += time.process_time() - cpu
        cost[2] += 1

    def batch(self) -> None:
        """One batch through its whole life."""
        with self.step("submit", 1) as tx:
            one = submissions.create(
                tx, [NewSubmission(OWNER, "vo", "", "d", self.size, b"[]", b"[]", "c", self.now, self.size)]
            )[0]
            ids = list(range(one.first, one.first + self.size))
            classes = queues.class_ids(tx, {"digest": b"{}"})
            queue = queues.queue_ids(tx, [(classes["digest"], OWNER, "vo")])[classes["digest"], OWNER, "vo"]
            rows = [JobRow(i, one.id, OWNER, "vo", status=JobStatus.WAITING, queue_id=queue, submitted=self.now,
                           changed=self.now) for i in ids]  # fmt: skip
            jobs.insert(tx, rows, [JobDetails(i, DESCRIPTION) for i in ids])
            history.append(tx, [HistoryRow(i, 0, self.now, JobStatus.WAITING, "", "job-manager", "new") for i in ids])
        with self.step("claim", PILOTS) as tx:
            leader.check(tx, "matcher", 1, 0.0)
            found = [job for _, job in heads.page(tx, (queue, 0), self.size)]
            claims = [Claim(job, f"pilot.{i % PILOTS}", "Site", self.now + 20) for i, job in enumerate(found)]
            claimed = jobs.claim(tx, claims, self.now)
            if len(claimed) != self.size:
                raise AssertionError(len(claimed))
        with self.step("accept", PILOTS) as tx:
            jobs.load(tx, ids)
            jobs.update_many(tx, {i: {"accepted": True, "lease_until": self.now, "heartbeat": self.now} for i in ids})
        with self.step("heartbeat", PILOTS) as tx:
            jobs.load(tx, ids)
            jobs.update_many(tx, {i: {"lease_until": self.now, "heartbeat": self.now, "cpu_seconds": 1.5} for i in ids})
        with self.step("report", PILOTS) as tx:
            jobs.load(tx, ids)
            self._finish(tx, ids)

    def _finish(self, tx: Transaction, ids: list[int]) -> None:
        figures = {"exit_code": 0, "cpu_seconds": 1.5, "wall_seconds": 2.0, "memory_mb": 30.0}
        end = {"status": JobStatus.DONE, "minor": "", "sequence": 2, "steps": 3, "lease_until": None, "ended": self.now}
        jobs.update_many(tx, {i: {**end, **figures, "changed": self.now, "started": self.now} for i in ids})
        lines = [HistoryRow(i, 1, self.now, JobStatus(s), "", "job-state", "") for i in ids for s in LINES]
        history.append(tx, lines)
        attempts.update_many(tx, {(i, 1): {"ended": self.now, "outcome": "Done", **figures} for i in ids})
        outputs = {i: f"output {i}".encode() for i in ids}
        hashes = {i: hashlib.sha256(data).hexdigest() for i, data in outputs.items()}
        sandboxes.put_whole(tx, [Whole("p", hashes[i], outputs[i]) for i in ids], self.now, self.now + 9)
        sandboxes.may_refer_many(tx, [("p", hashes[i]) for i in ids])
        sandboxes.bind_outputs(tx, [OutputRow(i, 1, "std.out", hashes[i], len(outputs[i]), 0o644) for i in ids])


def run(name: str, store: Store, batches: int, size: int) -> None:
    """Measure one database and print its rows."""
    bench = Bench(store, size)
    with store.transaction() as tx:
        leader.acquire_or_renew(tx, "matcher", "bench", 0.0, 1e9)
    bench.batch()
    bench.cost.clear()  # the first one builds statements
    for _ in range(batches):
        bench.batch()
    total_wall = total_cpu = 0.0
    for step, (wall, cpu, count) in bench.cost.items():
        done = count * size
        total_wall, total_cpu = total_wall + wall, total_cpu + cpu
        print(f"{name:11} {step:10} {wall / done * 1e6:9.1f} {cpu / done * 1e6:9.1f} {cpu / count * 1e3:9.2f}")
    jobs_done = batches * size
    print(f"{name:11} {'all':10} {total_wall / jobs_done * 1e6:9.1f} {total_cpu / jobs_done * 1e6:9.1f} "
          f"{'':9}   {jobs_done / total_wall:.0f} jobs/s, one thread")  # fmt: skip


def main() -> None:
    """Both databases, one after the other."""
    batches = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    print(f"{batches} batches of {size} jobs; {PILOTS} messages and answers per step (submit: 1)")
    print(f"{'database':11} {'step':10} {'wall µs':>9} {'CPU µs':>9} {'CPU ms':>9}   (per job, per job, per batch)")
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{Path(folder) / 's.db'}") as store:
        run("SQLite", store, batches, size)
    with servers.postgres_cluster() as cluster, Store.open(cluster.url) as store:
        run("PostgreSQL", store, batches, size)
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
