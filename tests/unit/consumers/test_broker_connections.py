"""What is asked of RabbitMQ's management interface, and that odd answers are no success."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers import broker_connections as module
from consumers.broker_connections import BrokerAwayError, BrokerConnections, ManagementEndpoint
from consumers.passes import LOOKER, ClosingPasses
from tests.support.throwaway_ca import make_server_tls

CLIENT = "a" * 20 + ".1"


class Interface(http.server.ThreadingHTTPServer):
    """A management interface that knows the passes, as RabbitMQ would by asking the gatekeeper."""

    passes: ClosingPasses
    rows: list[dict[str, str]]
    listing: bytes | None
    delete_status: int
    by_user: bool
    asked: list[tuple[str, str, str, str]]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Interface

    def _who(self) -> tuple[str, str]:
        word = self.headers.get("Authorization", "").removeprefix("Basic ")
        user, _, secret = base64.b64decode(word).decode().partition(":")
        return user, self.server.passes.tag_of(user, secret)

    def do_GET(self) -> None:
        user, tag = self._who()
        self.server.asked.append(("GET", self.path, user, tag))
        if "/username/" in self.path and not self.server.by_user:
            self._say(500, b"")
            return
        rows = [row for row in self.server.rows if tag == "monitoring" or row["user"] == user]
        body = json.dumps(rows).encode() if self.server.listing is None else self.server.listing
        self._say(200 if tag else 401, body)

    def do_DELETE(self) -> None:
        user, tag = self._who()
        self.server.asked.append(("DELETE", self.path, user, self.headers["X-Reason"]))
        self._say(self.server.delete_status if tag else 401, b"")

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory):
    return make_server_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=[False, True], ids=["3.10", "4"])
def interface(tls, request: pytest.FixtureRequest) -> Iterator[Interface]:
    server = Interface(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.passes, server.asked, server.listing, server.delete_status = ClosingPasses(), [], None, 204
    server.by_user = request.param
    server.rows = [
        {"name": "127.0.0.1:1 -> 127.0.0.1:2", "user": CLIENT, "vhost": "/"},
        {"name": "127.0.0.1:3 -> 127.0.0.1:2", "user": CLIENT, "vhost": "/"},
        {"name": "127.0.0.1:4 -> 127.0.0.1:2", "user": "matcher", "vhost": "/"},
    ]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def broker(interface: Interface, tls) -> BrokerConnections:
    port = interface.server_address[1]
    return BrokerConnections(ManagementEndpoint("127.0.0.1", port, tls.ca, "localhost"), interface.passes)


def test_who_is_connected(broker: BrokerConnections, interface: Interface) -> None:
    assert broker.users() == {CLIENT: 2, "matcher": 1}
    assert interface.asked == [("GET", "/api/connections?columns=name,user", LOOKER, "monitoring")]


def test_a_clients_connections_are_closed_in_its_own_name(broker: BrokerConnections, interface: Interface) -> None:
    assert broker.close(CLIENT, "stolen\r\nX-Evil: 1 é") == 2
    asked = [one[:3] for one in interface.asked]
    assert asked[0] == ("GET", f"/api/connections/username/{CLIENT}", CLIENT)
    if not interface.by_user:
        assert asked.pop(1) == ("GET", "/api/connections?columns=name,user", CLIENT)
    assert asked[1:] == [
        ("DELETE", "/api/connections/127.0.0.1%3A1%20-%3E%20127.0.0.1%3A2", CLIENT),
        ("DELETE", "/api/connections/127.0.0.1%3A3%20-%3E%20127.0.0.1%3A2", CLIENT),
    ]
    assert {reason for method, _, _, reason in interface.asked if method == "DELETE"} == {"stolen??X-Evil: 1 ?"}
    assert interface.passes._valid == {}, "the pass is withdrawn"


def test_what_is_gone_already_is_no_error(broker: BrokerConnections, interface: Interface) -> None:
    interface.delete_status = 404
    assert broker.close(CLIENT, "x") == 0


@pytest.mark.parametrize("status", [401, 403, 500])
def test_what_is_not_closed_is_an_error(broker: BrokerConnections, interface: Interface, status: int) -> None:
    interface.delete_status = status
    with pytest.raises(BrokerAwayError, match=f"HTTP {status}"):
        broker.close(CLIENT, "x")
    assert interface.passes._valid == {}


@pytest.mark.parametrize("listing", [b"", b"{}", b"[1]", b"<html>", b"[" * 100_000, b'[{"user": "x"}]'])
def test_a_list_that_cannot_be_read_is_an_error(
    broker: BrokerConnections, interface: Interface, listing: bytes
) -> None:
    interface.listing = listing
    with pytest.raises(BrokerAwayError):
        broker.users()


def test_an_answer_without_bound_is_an_error(
    broker: BrokerConnections, interface: Interface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 10)
    with pytest.raises(BrokerAwayError, match="too large"):
        broker.users()


def test_others_connections_are_left_alone_whatever_is_listed(broker: BrokerConnections, interface: Interface) -> None:
    interface.listing = json.dumps(interface.rows).encode()
    assert broker.close(CLIENT, "x") == 2


def test_nobody_there(tls, tmp_path: Path) -> None:
    with pytest.raises(BrokerAwayError, match="does not answer"):
        BrokerConnections(ManagementEndpoint("127.0.0.1", 9, tls.ca, "localhost"), ClosingPasses()).users()


def test_somebody_else_there_is_told_nothing(interface: Interface, tmp_path: Path) -> None:
    other = make_server_tls(tmp_path)
    port = interface.server_address[1]
    for ca, name in ((other.ca, "localhost"), (tmp_path / "ca.pem", "elsewhere.example.org")):
        with pytest.raises(BrokerAwayError):
            BrokerConnections(ManagementEndpoint("127.0.0.1", port, ca, name), interface.passes).users()
    assert interface.asked == []
