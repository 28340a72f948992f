"""The private RabbitMQ node does what compose/local/rabbitmq.py promises."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pika
import psutil
import pytest

from compose.local.rabbitmq import RabbitNode, TlsFiles
from schemas.errors import ConfigurationError
from tests.support import servers
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


def publish(node: RabbitNode, queue: str, body: bytes) -> None:
    with servers.plain_connection(node) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)


def fetch(node: RabbitNode, queue: str) -> bytes | None:
    with servers.plain_connection(node) as connection:
        _, _, body = connection.channel().basic_get(queue, auto_ack=True)
        return body


def test_speaks_tls_only_and_knows_its_users(rabbit_node: RabbitNode) -> None:
    assert ADMIN_LINE in rabbit_node.ctl("list_users")
    with socket.create_connection(("127.0.0.1", rabbit_node.port), timeout=10) as plain:
        plain.sendall(b"AMQP\x00\x00\x09\x01")
        answer = plain.recv(8)
    assert not answer.startswith((b"AMQP", b"\x01")), "a connection without TLS was served"
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        servers.plain_connection(rabbit_node, password="wrong")


ADMIN_LINE = f"{servers.ADMIN}\t[administrator]"


def test_listens_on_the_loopback_only(rabbit_node: RabbitNode) -> None:
    server, mapper = rabbit_node.processes
    for process in (server, mapper):
        assert process.pid
        listening = [entry for entry in psutil.Process(process.pid).net_connections("tcp") if entry.status == "LISTEN"]
        assert listening
        assert all(entry.laddr.ip in {"127.0.0.1", "::1"} for entry in listening), listening


def test_definitions_can_be_added_while_it_runs(rabbit_node: RabbitNode) -> None:
    rabbit_node.load_definitions(
        {"users": [servers.user_definition("late", "pw")], "permissions": [servers.all_rights("late")]}
    )
    servers.plain_connection(rabbit_node, "late", "pw").close()


def test_restart_and_kill_keep_port_and_durable_messages() -> None:
    with servers.rabbit_node() as node:
        port = node.port
        publish(node, "kept", b"one")
        publish(node, "kept", b"two")
        node.restart()
        assert node.port == port
        assert fetch(node, "kept") == b"one"
        node.kill()
        assert not node.running
        node.start()
        assert node.port == port
        assert fetch(node, "kept") == b"two"


def test_a_second_object_on_the_directory_finds_and_stops_the_node() -> None:
    with servers.rabbit_node() as node:
        other = RabbitNode(node.directory, node.tls, {})
        assert other.running
        assert (other.pid, other.port) == (node.pid, node.port)
        other.stop()
        assert not node.running
        assert not any(process.running for process in node.processes)


def test_with_a_gatekeeper_that_is_down_internal_users_go_on_and_others_are_refused() -> None:
    with servers.rabbit_node(gatekeeper="http://127.0.0.1:9/auth") as node:  # port 9: nobody listens
        servers.plain_connection(node).close()
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            servers.plain_connection(node, "somebody", "x" * 20_000)


def test_a_broken_certificate_is_refused_before_the_boot(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    node = RabbitNode(
        tmp_path / "n", TlsFiles(broken, broken, broken), servers.admin_definitions(), dies_with_parent=True
    )
    with pytest.raises(ConfigurationError, match=r"broken\.pem"):
        node.start()
    assert not any(process.running for process in node.processes)


CHILD = """
import sys, time
from pathlib import Path
from compose.local.rabbitmq import RabbitNode
from tests.support import servers
from tests.support.throwaway_ca import make_server_tls
folder = Path(sys.argv[1])
node = RabbitNode(folder / "node", make_server_tls(folder / "tls"), servers.admin_definitions(), dies_with_parent=True)
node.start()
print(*[process.pid for process in node.processes], flush=True)
time.sleep(600)
"""


def test_nothing_outlives_a_killed_parent() -> None:
    with servers.server_folder("pilotage-rabbit-") as folder:
        parent = subprocess.Popen(
            [sys.executable, "-c", CHILD, folder], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        assert parent.stdout
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        family = [*pids, *(child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True))]
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in family), what="the end of the node's processes")
