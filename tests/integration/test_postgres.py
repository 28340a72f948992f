"""The private PostgreSQL cluster does what compose/local/postgres.py promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from compose.local.postgres import PostgresCluster
from compose.local.processes import ProcessFailedError
from schemas.errors import ConfigurationError, InvalidInputError
from tests.support import servers
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


def scalar(url: str, statement: str) -> object:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        return connection.execute(sa.text(statement)).scalar()


def execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))


def test_is_durable_and_reached_by_its_socket_only(postgres: PostgresCluster) -> None:
    assert scalar(postgres.url, "show fsync") == "on"
    assert scalar(postgres.url, "show synchronous_commit") == "on"
    assert scalar(postgres.url, "show listen_addresses") == ""
    assert postgres.pid
    process = psutil.Process(postgres.pid)
    assert not [entry for entry in process.net_connections("tcp") if entry.status == "LISTEN"]
    assert process.uids().real != 0


def test_databases_are_separate_and_made_in_utf8(postgres: PostgresCluster, postgres_url: str) -> None:
    assert postgres_url != postgres.url
    execute(postgres_url, "create table only_here (text text)")
    execute(postgres_url, "insert into only_here values ('Zürich ✓')")
    assert scalar(postgres_url, "select text from only_here") == "Zürich ✓"
    assert scalar(postgres.url, "select count(*) from pg_tables where tablename = 'only_here'") == 0


@pytest.mark.parametrize("name", ["", "Upper", 'a"; drop database postgres; --', "--help", "x" * 64])
def test_odd_database_names_are_refused(postgres: PostgresCluster, name: str) -> None:
    with pytest.raises(InvalidInputError):
        postgres.create_database(name)


def test_a_database_that_exists_is_an_error_with_its_reason(postgres: PostgresCluster) -> None:
    with pytest.raises(ProcessFailedError, match="already exists"):
        postgres.create_database("postgres")


def test_restart_and_kill_keep_what_was_committed() -> None:
    with servers.postgres_cluster() as cluster:
        url = cluster.create_database("kept")
        execute(url, "create table numbers (n int)")
        execute(url, "insert into numbers values (1)")
        cluster.restart()
        execute(url, "insert into numbers values (2)")
        cluster.kill()
        assert not cluster.running
        cluster.start()
        assert scalar(url, "select sum(n) from numbers") == 3


def test_a_path_too_long_for_a_socket_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="too long"):
        PostgresCluster(Path("/tmp") / ("x" * 100))


CHILD = """
import sys, time
from pathlib import Path
from compose.local.postgres import PostgresCluster
cluster = PostgresCluster(Path(sys.argv[1]), dies_with_parent=True)
cluster.start()
print(cluster.pid, flush=True)
time.sleep(600)
"""


def test_nothing_outlives_a_killed_parent() -> None:
    with servers.server_folder("pilotage-pg-") as folder:
        parent = subprocess.Popen(
            [sys.executable, "-c", CHILD, folder], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        assert parent.stdout
        pid = int(parent.stdout.readline())
        family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        assert len(family) > 3
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not any(psutil.pid_exists(member) for member in family), what="the end of all its processes")
