"""Opening, transactions, and what happens when the database or its user dies."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from consumers.store import (
    Reading,
    Store,
    StoreBusy,
    StoreConflict,
    StoreRejected,
    StoreUnavailable,
    Transaction,
    attempts,
    heads,
    inbox,
    jobs,
    outbox,
    state,
)
from consumers.store.rows import Claim, JobDetails, JobRow
from schemas.errors import ConfigurationError
from schemas.job import JobStatus
from tests.support import servers
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]

OPEN = """
import sys
from consumers.store import Store
from schemas.errors import PilotageError
try:
    Store.open(sys.argv[1])
except PilotageError as error:
    print(f"{type(error).__name__}: {error}")
"""

BEGIN = """
import sys
from consumers.store import Store, state
with Store.open(sys.argv[1]).transaction() as tx:
    for number in range(1000):
        state.put(tx, f"n{number}", b"1", 1.0)
    print("written", flush=True)
    sys.stdin.read()
"""


def python(code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_second_process_is_refused_and_told_why(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with Store.open(url):
        said = python(OPEN, url).communicate(timeout=60)[0]
        assert said.startswith("StoreBusy: ")
        assert f"in use by process {os.getpid()}" in said
        assert "PostgreSQL" in said
        with pytest.raises(StoreBusy):
            Store.open(url)
    assert python(OPEN, url).communicate(timeout=60)[0] == ""


@pytest.fixture
def careless() -> Iterator[None]:
    """An account that lets everybody do everything with its new files."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("left_open", [False, True], ids=["new", "left open by somebody"])
def test_only_the_service_account_can_read_the_files(tmp_path: Path, left_open: bool) -> None:
    folder = tmp_path / "data"
    if left_open:
        folder.mkdir(0o755)
        for name in ("s.db", "s.db.lock"):
            (folder / name).touch(0o666)
    with Store.open(f"sqlite:///{folder}/s.db") as store, store.transaction() as tx:
        state.put(tx, "x", b"1", 1.0)
        assert stat.S_IMODE(folder.stat().st_mode) == (0o755 if left_open else 0o700)
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {"s.db", "s.db-wal", "s.db-shm", "s.db.lock"} <= files.keys()
    assert set(files.values()) == {0o600}


@pytest.mark.usefixtures("careless")
def test_files_that_a_crash_left_open_are_closed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    Store.open(url).close()
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"s.db{suffix}").touch(0o666)
    with Store.open(url) as store, store.reading():
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("s.db*")} == {0o600}


def test_a_place_where_others_may_write_is_refused(tmp_path: Path) -> None:
    for right in (stat.S_IWGRP, stat.S_IWOTH):
        folder = tmp_path / f"open{right}"
        folder.mkdir(0o700)
        folder.chmod(0o755 | right)
        with pytest.raises(ConfigurationError, match="chmod go-w"):
            Store.open(f"sqlite:///{folder}/s.db")
        assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["s.db", "s.db.lock"])
def test_a_link_in_its_place_is_not_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").touch(0o644)
    (tmp_path / name).symlink_to(tmp_path / "other")
    with pytest.raises(ConfigurationError, match=r"cannot use .*s\.db"):
        Store.open(f"sqlite:///{tmp_path}/s.db")
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o644


def test_a_killed_process_leaves_nothing_half(store_url: str) -> None:
    Store.open(store_url).close()
    process = python(BEGIN, store_url)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    with Store.open(store_url) as store:
        with store.transaction() as tx:
            assert state.get(tx, "n0") is None
            state.put(tx, "n0", b"2", 2.0)
        with store.reading() as tx:
            assert state.get(tx, "n0") == (b"2", 2.0)


def test_readers_do_not_wait_for_the_writer(store: Store) -> None:
    with store.transaction() as tx:
        state.put(tx, "x", b"1", 1.0)
    with store.transaction() as tx:
        state.put(tx, "x", b"2", 2.0)
        with store.reading() as reading:
            assert state.get(reading, "x") == (b"1", 1.0)
    assert store.ping() >= 0


def test_the_url_must_make_sense(tmp_path: Path) -> None:
    for url in ("nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ConfigurationError):
            Store.open(url)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot use"):
        Store.open(f"sqlite:///{tmp_path}/file/s.db")
    (tmp_path / "garbage.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnavailable, match="not a database"):
        Store.open(f"sqlite:///{tmp_path}/garbage.db")


def test_a_server_that_is_not_there_is_away_not_wrong(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        Store.open(f"postgresql://joe@/db?host={tmp_path}", password="hunter2")
    assert "hunter2" not in repr(caught.value)


def test_a_refused_statement_is_permanent(store: Store) -> None:
    def twice() -> None:
        with store.transaction() as tx:
            put(tx, [1])
            put(tx, [1])

    with pytest.raises(StoreRejected):
        twice()
    with store.reading() as tx:
        assert jobs.load(tx, [1], for_update=False) == {}


def test_postgresql_goes_and_comes_back() -> None:
    with servers.postgres_cluster() as cluster, Store.open(cluster.url) as store:
        with store.transaction() as tx:
            state.put(tx, "x", b"1", 1.0)
        cluster.stop()
        for _ in range(2):
            with pytest.raises(StoreUnavailable), store.transaction() as tx:
                state.put(tx, "x", b"2", 2.0)
            with pytest.raises(StoreUnavailable):
                store.ping()
        cluster.start()
        with store.transaction() as tx:
            assert state.get(tx, "x") == (b"1", 1.0)
            state.put(tx, "x", b"3", 3.0)

        def killed_in_between() -> None:
            with store.transaction() as tx:
                state.put(tx, "x", b"4", 4.0)
                cluster.kill()

        with pytest.raises(StoreUnavailable):
            killed_in_between()
        cluster.start()
        with store.reading() as tx:
            assert state.get(tx, "x") == (b"3", 3.0)


def test_a_deadlock_is_a_conflict_for_one_of_the_two(postgres_url: str) -> None:
    with Store.open(postgres_url) as store:
        with store.transaction() as tx:
            put(tx, [1, 2])
        together = threading.Barrier(2)
        results: list[str] = []

        def run(first: int, second: int) -> None:
            try:
                with store.transaction() as tx:
                    jobs.load(tx, [first])
                    together.wait(10)
                    jobs.load(tx, [second])
            except StoreConflict:
                results.append("conflict")
            else:
                results.append("done")

        threads = [threading.Thread(target=run, args=pair) for pair in ((1, 2), (2, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(results) == ["conflict", "done"]


def put(tx: Transaction, ids: Iterable[int], status: JobStatus = JobStatus.WAITING, pilot: str = "") -> None:
    lease = None if status is JobStatus.WAITING else 1000.0
    rows = [
        JobRow(i, 1, "/CN=a", "vo", status=status, queue_id=i % 50, submitted=float(-i), priority=i % 3, pilot=pilot,
               lease_until=lease)
        for i in ids
    ]  # fmt: skip
    jobs.insert(tx, rows, [JobDetails(i, b"{}") for i in ids])


def plan(tx: Reading, statement: sa.Executable, **values: object) -> str:
    assert isinstance(statement, sa.Select)
    text = statement.params(**values).compile(tx.connection, compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN QUERY PLAN" if tx.dialect == "sqlite" else "EXPLAIN"
    return "\n".join(str(row) for row in tx.connection.exec_driver_sql(f"{explain} {text}"))


def test_the_hot_queries_use_their_partial_indexes(store: Store) -> None:
    """With 50 000 waiting jobs and 2 000 at work the head of a queue and the ends of leases are found by index."""
    with store.transaction() as tx:
        for start in range(1, 50_001, 5_000):
            put(tx, range(start, start + 5_000))
        for start in range(60_001, 62_001, 100):
            put(tx, range(start, start + 100), JobStatus.RUNNING, f"pilot.{start}")
        tx.connection.exec_driver_sql("ANALYZE")
    with store.reading() as tx:
        head = plan(tx, heads._page(), queue=7, priority=1, submitted=-1e300, job=0, most=64)
        assert "ix_jobs_waiting" in head
        assert "Sort" not in head
        assert "TEMP B-TREE" not in head
        assert "ix_jobs_leases" in plan(tx, jobs._expired(), before=5.0, most=100)
        assert "ix_jobs_pilot" in plan(tx, jobs._held(), client="pilot.60001")
        found = heads.page(tx, (7, 1), 3)
        assert len(found) == 3
        assert found == sorted(found)


def test_no_plan_reads_whole_tables_however_small_they_were(postgres_url: str) -> None:
    """Plans of prepared statements are kept: also those that were made while the tables were empty."""
    with Store.open(postgres_url) as store:
        for start in range(1, 2_001, 100):
            ids = list(range(start, start + 100))
            with store.transaction() as tx:
                inbox.admit(tx, [("/CN=a", f"m{i}", "t") for i in ids], 1.0)
                inbox.record(tx, {("/CN=a", f"m{i}"): b"x" for i in ids})
                put(tx, ids)
                assert len(jobs.claim(tx, [Claim(i, "p", "s", 1.0) for i in ids], 1.0)) == 100
                attempts.update_many(tx, {(i, 1): {"ended": 2.0} for i in ids})

        def read_whole() -> list[object]:
            with store.reading() as tx:
                return list(tx.connection.exec_driver_sql(
                    "SELECT relname, seq_tup_read, seq_scan FROM pg_stat_user_tables WHERE seq_tup_read > 1000"
                ))  # fmt: skip

        def counted() -> bool:
            with store.reading() as tx:
                statement = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'attempts'"
                return bool(tx.connection.exec_driver_sql(statement).scalar_one() >= 1_900)

        wait_until(counted, 20, "the server's statistics")
        assert read_whole() == []


def test_a_full_outbox_is_counted(store: Store) -> None:
    with store.transaction() as tx:
        assert outbox.count(tx) == 0
