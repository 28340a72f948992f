"""Fixtures for every level of test: the private servers, one of each per test process."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator

import pytest

from compose.local.postgres import PostgresCluster
from compose.local.rabbitmq import RabbitNode
from tests.support import grid_servers, servers
from tests.support.grid_servers import Database, GridCa, MyProxyServer, VomsServer

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background, as some build machines do: programs that the tests interrupt would inherit deafness.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def rabbit_node() -> Iterator[RabbitNode]:
    """A running RabbitMQ node over TLS, shared by the tests of this process.

    Its user is `servers.ADMIN`, its addresses are `node.port` and `node.tls.ca`. Use names of your own for queues, and
    leave the node running; for other definitions, a gatekeeper or faults take `servers.rabbit_node(...)`.
    """
    with servers.rabbit_node() as node:
        yield node


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A running PostgreSQL cluster, shared by the tests of this process; for a fresh database see `postgres_url`."""
    with servers.postgres_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres: PostgresCluster) -> Iterator[str]:
    """SQLAlchemy's URL of a fresh, empty database for this one test."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def grid_ca() -> Iterator[GridCa]:
    """A throwaway authority with trust directory, vomsdir and vomses; makes users: `grid_ca.user("Ada Example")`."""
    with grid_servers.grid_ca() as ca:
        yield ca


@pytest.fixture(scope="session")
def voms_database() -> Iterator[Database]:
    """A running MariaDB for the VOMS servers of this process."""
    with grid_servers.mariadb() as database:
        yield database


@pytest.fixture(scope="session")
def voms_server(grid_ca: GridCa, voms_database: Database) -> Iterator[VomsServer]:
    """A running voms-server of the VO `testvo`, which has no members yet: `voms_server.add_member(dn, fqan, ...)`.

    Shared by the tests of this process: take users of your own.
    """
    with grid_servers.voms_server(grid_ca, voms_database, "testvo") as server:
        yield server


@pytest.fixture(scope="session")
def old_voms_server(grid_ca: GridCa, voms_database: Database, voms_server: VomsServer) -> Iterator[VomsServer]:
    """A second voms-server of `testvo`, with the same members; names holders in VOMS's old form. Not in vomses."""
    with grid_servers.voms_server(grid_ca, voms_database, "testvo", new_format=False, share=voms_server) as server:
        yield server


@pytest.fixture(scope="session")
def other_voms_server(grid_ca: GridCa, voms_database: Database) -> Iterator[VomsServer]:
    """A running voms-server of another VO, `vo.example.org`."""
    with grid_servers.voms_server(grid_ca, voms_database, "vo.example.org") as server:
        yield server


@pytest.fixture(scope="session")
def myproxy_server(grid_ca: GridCa) -> Iterator[MyProxyServer]:
    """A running myproxy-server: users of `grid_ca` store and retrieve, only `myproxy_server.renewer` renews."""
    with grid_servers.myproxy_server(grid_ca) as server:
        yield server
