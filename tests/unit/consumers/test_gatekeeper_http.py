"""The front where RabbitMQ asks: allow only when the gatekeeper says so; whatever is odd is a deny."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Mapping
from typing import cast

import pytest

from consumers.gatekeeper import Gatekeeper
from consumers.gatekeeper_http import MAX_FORM_BYTES, GatekeeperServer
from schemas.errors import TemporaryError


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


@pytest.fixture
def server(says: Says) -> Iterator[GatekeeperServer]:
    made = GatekeeperServer(cast("Gatekeeper", says))
    made.start()
    yield made
    made.stop()


def ask(server: GatekeeperServer, path: str, body: bytes = b"", method: str = "POST") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
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
    assert ask(server, path, body, method) == (200, b"deny")
    assert ask(server, "/auth/user", b"username=good") == (200, b"allow")  # and it goes on


def test_a_body_that_is_too_large_is_not_read(server: GatekeeperServer, says: Says) -> None:
    status, answer = ask(server, "/auth/user", b"username=good&x=" + b"y" * MAX_FORM_BYTES)
    assert status == 413
    assert answer != b"allow"
    assert says.asked == []


def test_it_listens_on_the_loopback_only_and_stops(says: Says) -> None:
    server = GatekeeperServer(cast("Gatekeeper", says))
    server.start()
    port = server.port
    with socket.create_connection(("127.0.0.1", port), timeout=5):  # an idle connection does not hold it up
        server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
