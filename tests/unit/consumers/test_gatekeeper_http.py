"""The front where RabbitMQ asks: allow only when the gatekeeper says so; whatever is odd is a deny."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest

from consumers.gatekeeper import Gatekeeper
from consumers.gatekeeper_http import MAX_CONNECTIONS, MAX_FORM_BYTES, GatekeeperServer, ServerIdentity
from consumers.passes import PASS_SECONDS, ClosingPasses
from schemas.errors import ConfigurationError, TemporaryError
from tests.support.throwaway_ca import make_server_tls
from tests.support.wait import wait_until


class Says:
    """Allows the user ``good`` and falls over others."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def _answer(self, what: str, form: Mapping[str, str]) -> bool:
        self.asked.append((what, dict(form)))
        match form.get("username"):
            case "pilotage":
                raise TemporaryError("the store is away")
            case "bug":
                raise RuntimeError("a bug")
            case "key":
                raise KeyError("username")
            case name:
                return name == "good"

    def user(self, form: Mapping[str, str]) -> bool:
        return self._answer("user", form)

    def vhost(self, form: Mapping[str, str]) -> bool:
        return self._answer("vhost", form)

    def resource(self, form: Mapping[str, str]) -> bool:
        return self._answer("resource", form)

    def topic(self, form: Mapping[str, str]) -> bool:
        return self._answer("topic", form)


@pytest.fixture
def says() -> Says:
    return Says()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ServerIdentity:
    pair = make_server_tls(tmp_path_factory.mktemp("tls"))
    return ServerIdentity(pair.certificate, pair.key)


@pytest.fixture
def passes() -> ClosingPasses:
    return ClosingPasses()


@pytest.fixture
def server(says: Says, identity: ServerIdentity, passes: ClosingPasses) -> Iterator[GatekeeperServer]:
    made = GatekeeperServer(cast("Gatekeeper", says), identity, passes=passes)
    made.start()
    yield made
    made.stop()


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # who answers is the broker's to check: see the integration tests
    return context


def ask(server: GatekeeperServer, path: str, body: bytes = b"", method: str = "POST") -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=trusting())
    connection.request(method, path, body, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("what", ["user", "vhost", "resource", "topic"])
def test_each_question_goes_to_its_answer(server: GatekeeperServer, says: Says, what: str) -> None:
    assert ask(server, f"/auth/{what}", b"username=good&password=&name=a%20b") == (200, b"allow")
    assert ask(server, f"/auth/{what}", b"username=bad") == (200, b"deny")
    assert says.asked[0] == (what, {"username": "good", "password": "", "name": "a b"})


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/auth/other", b"username=good", "POST"),
        ("/", b"username=good", "POST"),
        ("/auth/user/../user", b"username=good", "POST"),
        ("/auth/user", b"username=good", "GET"),
        ("/auth/user", b"username=good", "PUT"),
        ("/auth/user", b"", "POST"),
        ("/auth/user", b"\xff\xfe=\x00", "POST"),
        ("/auth/user", b"&".join(b"a=1" for _ in range(40)) + b"&username=good", "POST"),
        ("/auth/user", b"username=pilotage", "POST"),
        ("/auth/user", b"username=bug", "POST"),
        ("/auth/user", b"username=key", "POST"),
    ],
)
def test_whatever_is_odd_is_denied(server: GatekeeperServer, path: str, body: bytes, method: str) -> None:
    if method == "POST":
        assert ask(server, path, body, method) == (200, b"deny")
    else:
        assert _is_refused(server, method)
    assert ask(server, "/auth/user", b"username=good") == (200, b"allow")  # and it goes on


def test_a_body_that_is_too_large_is_not_read(server: GatekeeperServer, says: Says) -> None:
    assert _is_refused(server, body=b"username=good&x=" + b"y" * MAX_FORM_BYTES)
    assert says.asked == []


@pytest.mark.parametrize("length", ["", "-1", "x", "1e3", "9" * 30, str(MAX_FORM_BYTES + 1)])
def test_a_form_needs_an_honest_length(server: GatekeeperServer, says: Says, length: str) -> None:
    head = f"POST /auth/user HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nusername=good"
    with trusting().wrap_socket(socket.create_connection(("127.0.0.1", server.port), timeout=5)) as stream:
        stream.sendall(head.encode())
        assert stream.recv(4096).startswith(b"HTTP/1.1 413")
    assert says.asked == []


def test_nothing_is_said_without_tls(server: GatekeeperServer, says: Says) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain:
        plain.sendall(b"POST /auth/user HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\nusername=good")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in plain.recv(4096)
    assert says.asked == []


def test_who_says_nothing_holds_up_nobody_and_too_many_are_turned_away(
    server: GatekeeperServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(10)]
    assert ask(server, "/auth/user", b"username=good") == (200, b"allow")
    more = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(MAX_CONNECTIONS)]
    wait_until(lambda: _is_refused(server), 5, "one more connection is refused")
    for one in [*silent, *more]:
        one.close()
    wait_until(lambda: not _is_refused(server), 5, "there is room again")


def _is_refused(server: GatekeeperServer, method: str = "POST", body: bytes = b"username=good") -> bool:
    """Whether a question gets no, or nothing at all: who breaks the rules may be cut off in the middle."""
    try:
        status, verdict = ask(server, "/auth/user", body, method)
    except (OSError, http.client.HTTPException):
        return True
    return status != 200 or verdict == b"deny"


def test_one_connection_serves_many_questions(server: GatekeeperServer) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=trusting())
    for _ in range(3):
        connection.request("POST", "/auth/user", b"username=good")
        assert connection.getresponse().read() == b"allow"
        wire = connection.sock
    assert connection.sock is wire
    connection.close()


def test_our_own_passes_are_known_before_the_gatekeeper_is_asked(
    server: GatekeeperServer, says: Says, passes: ClosingPasses
) -> None:
    made = passes.issue("client.1")
    form = f"username=client.1&password={made.secret}".encode()
    assert ask(server, "/auth/user", form) == (200, b"allow management")
    assert ask(server, "/auth/user", form.replace(b"client.1", b"client.2")) == (200, b"deny")
    assert ask(server, "/auth/vhost", form) == (200, b"deny")
    passes.withdraw(made)
    assert ask(server, "/auth/user", form) == (200, b"deny")
    assert [what for what, _ in says.asked] == ["user", "vhost", "user"]


def test_a_pass_ends_by_itself(passes: ClosingPasses, monkeypatch: pytest.MonkeyPatch) -> None:
    made = passes.issue("client.1", "monitoring")
    assert passes.tag_of("client.1", made.secret) == "monitoring"
    assert passes.tag_of("client.1", "") == ""
    later = time.monotonic() + PASS_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert passes.tag_of("client.1", made.secret) == ""


def test_without_usable_tls_files_it_does_not_start(says: Says, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="TLS files"):
        GatekeeperServer(cast("Gatekeeper", says), ServerIdentity(tmp_path / "none.pem", tmp_path / "none.key"))


def test_it_listens_on_the_loopback_only_and_stops(says: Says, identity: ServerIdentity) -> None:
    server = GatekeeperServer(cast("Gatekeeper", says), identity)
    server.start()
    port = server.port
    with socket.create_connection(("127.0.0.1", port), timeout=5):  # an idle connection does not hold it up
        server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
