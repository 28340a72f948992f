"""Fixtures for every level of test: the private servers, one of each per test process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from compose.local.postgres import PostgresCluster
from compose.local.rabbitmq import RabbitNode
from tests.support import servers


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
