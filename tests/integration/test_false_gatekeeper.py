"""Whoever takes the gatekeeper's port while it is down lets nobody in: the broker wants its certificate."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest
from pika import exceptions

from broker.identity import Authority, Credential, parse_certificate
from consumers.gatekeeper_http import ServerIdentity
from schemas.identity import make_client_id
from tests.support.deployment import Deployment, deployment
from tests.support.throwaway_ca import make_server_tls
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("false"), services=[]) as running:
        yield running


class _AllowsAll(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"allow")

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    tls: ssl.SSLContext | None = None
    streams: list[socket.socket]

    def get_request(self):
        stream, address = super().get_request()
        stream = self.tls.wrap_socket(stream, server_side=True) if self.tls else stream
        self.streams.append(stream)
        return stream, address

    def handle_error(self, request, client_address) -> None:
        pass


@contextlib.contextmanager
def answering(port: int, tls: ServerIdentity | None) -> Iterator[list[str]]:
    """Somebody who allows everything, on the gatekeeper's port; what it was asked."""
    handler = type("Handler", (_AllowsAll,), {"asked": []})
    server = _Server(("127.0.0.1", port), handler)
    server.tls, server.streams = tls.context() if tls else None, []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield handler.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
        for stream in server.streams:  # or the broker would go on asking by a connection that it has
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)


def login(place: Deployment) -> None:
    """Log in as somebody with no right at all; a false gatekeeper does not mind."""
    context = ssl.create_default_context(cafile=str(place.layout.tls / "ca.pem"))
    credentials = pika.PlainCredentials(make_client_id("/CN=nobody", os.urandom(4).hex()), "no assertion")
    pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1",
            place.node.port,
            credentials=credentials,
            ssl_options=pika.SSLOptions(context, "localhost"),
            socket_timeout=20,
            stack_timeout=30,
        )
    ).close()


def own(place: Deployment, folder: Path) -> ServerIdentity:
    tls = place.layout.tls
    return ServerIdentity(tls / "gatekeeper.pem", tls / "gatekeeper.key")


def plain(place: Deployment, folder: Path) -> None:
    return None


def another_authority(place: Deployment, folder: Path) -> ServerIdentity:
    made = make_server_tls(folder)
    return ServerIdentity(made.certificate, made.key)


def another_name(place: Deployment, folder: Path) -> ServerIdentity:
    authority = Authority.load(place.layout.authority)
    issued = authority.issue("/O=Pilotage/OU=Hosts/CN=other", "server", ("other.example.org",), now=now())
    return written(issued, folder)


def a_users_certificate(place: Deployment, folder: Path) -> ServerIdentity:
    return ServerIdentity(place.layout.user_certificate, place.layout.user_key)


def expired(place: Deployment, folder: Path) -> ServerIdentity:
    authority = Authority.load(place.layout.authority)
    name, short = "/O=Pilotage/OU=Hosts/CN=localhost", dt.timedelta(seconds=2)
    issued = authority.issue(name, "server", ("localhost",), now=now(), lifetime=short)
    ends = parse_certificate(issued.ders[0]).x509.not_valid_after_utc
    wait_until(lambda: now() > ends + dt.timedelta(seconds=2), 10, "the end of its last second")
    return written(issued, folder)


def written(credential: Credential, folder: Path) -> ServerIdentity:
    (folder / "cert.pem").write_bytes(credential.chain_pem)
    (folder / "key.pem").write_bytes(credential.key_pem)
    return ServerIdentity(folder / "cert.pem", folder / "key.pem")


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def test_with_the_gatekeepers_own_key_one_could(place: Deployment, tmp_path: Path) -> None:
    """The others below fail for the reason that they should."""
    with answering(place.settings.gatekeeper_port, own(place, tmp_path)) as asked:
        login(place)
    assert "/auth/user" in asked


@pytest.mark.parametrize("show", [plain, another_authority, another_name, a_users_certificate, expired])
def test_a_false_gatekeeper_lets_nobody_in(
    place: Deployment, tmp_path: Path, show: Callable[[Deployment, Path], ServerIdentity | None]
) -> None:
    with answering(place.settings.gatekeeper_port, show(place, tmp_path)) as asked:
        with pytest.raises(exceptions.AMQPConnectionError):
            login(place)
        assert asked == [], "it was told an assertion"
