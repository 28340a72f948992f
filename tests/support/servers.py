"""The real servers that tests talk to: private, on free ports, gone when the test process ends.

Fixtures of these are in tests/conftest.py. A missing server is an error that says what to install, never a skip: `make
test` installs them.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pika

from broker.topology import password_hash
from compose.local.postgres import PostgresCluster
from compose.local.rabbitmq import RabbitNode, TlsFiles

from .throwaway_ca import make_server_tls

ADMIN = "test-admin"
ADMIN_PASSWORD = secrets.token_urlsafe(16)


def user_definition(name: str, password: str, tags: tuple[str, ...] = ()) -> dict[str, object]:
    """One internal user as RabbitMQ's definitions have it."""
    return {
        "name": name,
        "password_hash": password_hash(password),
        "hashing_algorithm": "rabbit_password_hashing_sha512",
        "tags": list(tags),
    }


def all_rights(name: str) -> dict[str, str]:
    """Every permission on the default virtual host."""
    return {"user": name, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}


def admin_definitions(more: Mapping[str, list[object]] | None = None) -> dict[str, object]:
    """Definitions with the one user ADMIN, who may do everything, and whatever `more` adds to the lists."""
    definitions: dict[str, list[object]] = {
        "vhosts": [{"name": "/"}],
        "users": [user_definition(ADMIN, ADMIN_PASSWORD, ("administrator",))],
        "permissions": [all_rights(ADMIN)],
    }
    for key, entries in (more or {}).items():
        definitions.setdefault(key, []).extend(entries)
    return dict(definitions)


def plain_connection(node: RabbitNode, user: str = ADMIN, password: str = ADMIN_PASSWORD) -> pika.BlockingConnection:
    """An ordinary pika connection to the node, over TLS; not our wrapper, on purpose."""
    return pika.BlockingConnection(plain_parameters(node, user, password))


def plain_parameters(node: RabbitNode, user: str = ADMIN, password: str = ADMIN_PASSWORD) -> pika.ConnectionParameters:
    """pika's parameters for `plain_connection`."""
    context = ssl.create_default_context(cafile=str(node.tls.ca))
    return pika.ConnectionParameters(
        host="localhost",
        port=node.port,
        credentials=pika.PlainCredentials(user, password),
        ssl_options=pika.SSLOptions(context, "localhost"),
        blocked_connection_timeout=20,
        socket_timeout=20,
        stack_timeout=30,
    )


@contextlib.contextmanager
def server_folder(prefix: str) -> Iterator[Path]:
    """A fresh folder with a short path (addresses of Unix sockets are limited), deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def rabbit_node(
    definitions: Mapping[str, object] | None = None, *, gatekeeper: str | None = None, tls: TlsFiles | None = None
) -> Iterator[RabbitNode]:
    """A started node of one's own; the user ADMIN unless definitions are given."""
    with server_folder("pilotage-rabbit-") as folder:
        node = RabbitNode(
            folder / "node",
            tls or make_server_tls(folder / "tls"),
            definitions if definitions is not None else admin_definitions(),
            gatekeeper=gatekeeper,
            dies_with_parent=True,
        )
        try:
            node.start()
            yield node
        finally:
            node.stop()


@contextlib.contextmanager
def postgres_cluster(settings: Mapping[str, str] | None = None) -> Iterator[PostgresCluster]:
    """A started cluster of one's own, fsync on."""
    with server_folder("pilotage-pg-") as folder:
        cluster = PostgresCluster(folder, dies_with_parent=True, settings=settings)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
