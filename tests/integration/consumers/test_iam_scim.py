"""Members of a VO read from IAM by SCIM: pages, roles, suspensions; and nothing is believed that is not whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumers import iam_scim
from consumers.domain.synchronization import SourceUser
from consumers.iam_scim import Iam, SourceRefusedError, read_token
from schemas.errors import ConfigurationError
from tests.support.scim_server import TOKEN, ScimServer, scim_server

pytestmark = pytest.mark.integration


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScimServer]:
    with scim_server(tmp_path / "tls") as running:
        running.add_group("lhcb")
        running.add_group("lhcb/analysis")
        running.add_group("lhcb/production", role=True)
        yield running


def read(server: ScimServer, token: str = TOKEN) -> list[SourceUser]:
    return Iam(server.url, token, server.ca_file, timeout=5.0).read()


def test_users_with_groups_roles_and_several_certificates(server: ScimServer) -> None:
    server.add_user("jane", ["CN=Jane Doe,OU=People,DC=example,DC=org", "CN=Jane\\, the 2nd,O=Grid"], "lhcb",
                    "lhcb/production")  # fmt: skip
    server.add_user("joe", ["CN=Joe,O=Grid"], "lhcb", "lhcb/analysis", active=False)
    server.add_user("without", [])
    fqans = ("/lhcb", "/lhcb/Role=production")
    mail = "jane@example.org"
    assert read(server) == [
        SourceUser(dn="/DC=org/DC=example/OU=People/CN=Jane Doe", nickname="jane", mail=mail, fqans=fqans),
        SourceUser(dn="/O=Grid/CN=Jane, the 2nd", nickname="jane", mail=mail, fqans=fqans),
        SourceUser(dn="/O=Grid/CN=Joe", nickname="joe", mail="joe@example.org", suspended=True,
                   reason="not active in IAM", fqans=("/lhcb", "/lhcb/analysis")),
    ]  # fmt: skip


def test_many_users_come_in_pages(server: ScimServer) -> None:
    for number in range(57):
        server.add_user(f"u{number}", [f"CN=User {number},O=Grid"], "lhcb")
    assert {user.dn for user in read(server)} == {f"/O=Grid/CN=User {number}" for number in range(57)}
    assert len([target for target in server.requests if "/Users" in target]) == 6


def repeated(path: str, page: dict[str, Any]) -> dict[str, Any]:
    return page | {"Resources": [{"id": "user-a"}]} if "Users" in path else page


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (lambda _path, _page: 503, "HTTP 503"),
        (lambda _path, _page: b"<html>", "not SCIM"),
        (lambda _path, _page: b'{"totalResults": "many"}', "not SCIM"),
        (lambda _path, page: page | {"totalResults": -1}, "entries"),
        (lambda _path, page: page | {"totalResults": 10**9}, "entries"),
        (lambda path, page: page | {"Resources": []} if "Users" in path else page, "0 came of 3"),
        (repeated, "1 came of 3"),
        (lambda path, page: page | {"Resources": [{"userName": "x"}]} if "Users" in path else page, "not SCIM"),
        (lambda _path, _page: b" " * 2000, "a page of more than"),
        (lambda _path, _page: b"[" * 1999, "not SCIM"),
    ],
    ids=["status", "html", "type", "negative", "huge", "empty", "repeated", "no-id", "large", "deep"],
)
def test_what_is_not_a_whole_listing_is_an_error(
    server: ScimServer, fault: Any, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        server.add_user(name, [f"CN={name},O=Grid"], "lhcb")
    if word.startswith("a page"):
        monkeypatch.setattr(iam_scim, "MAX_PAGE_BYTES", 1000)
    server.fault = fault
    with pytest.raises(SourceRefusedError, match=word):
        read(server)


def test_a_listing_that_changes_meanwhile_is_an_error(server: ScimServer) -> None:
    for number in range(25):
        server.add_user(f"u{number}", [f"CN=User {number},O=Grid"], "lhcb")
    totals = iter([3, 25, 24, 25])
    server.fault = lambda _path, page: page | {"totalResults": next(totals)}
    with pytest.raises(SourceRefusedError, match="changed while it was read"):
        read(server)


def test_the_token_and_the_certificate_count(server: ScimServer, tmp_path: Path) -> None:
    with pytest.raises(SourceRefusedError, match="HTTP 401"):
        read(server, "wrong")
    with pytest.raises(SourceRefusedError, match="TLS"):
        Iam(server.url, TOKEN, timeout=5.0).read()  # the system does not know the throwaway authority
    with pytest.raises(ConfigurationError, match="https"):
        Iam(server.url.replace("https", "http"), TOKEN, server.ca_file).read()
    assert TOKEN not in repr(Iam(server.url, TOKEN))


def test_an_absent_server_is_an_error(server: ScimServer) -> None:
    with pytest.raises(SourceRefusedError):
        Iam("https://localhost:1", TOKEN, server.ca_file, timeout=2.0).read()


def test_a_server_that_never_ends_is_left(server: ScimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iam_scim, "WHOLE_SECONDS", 1.0)
    server.slow = True
    began = time.monotonic()
    with pytest.raises(SourceRefusedError):
        read(server)
    assert time.monotonic() - began < 4.0


@pytest.mark.parametrize(
    "content", [b"", b"two words", b"\xff\xfe", b"x" * 20_000], ids=["empty", "two", "bytes", "long"]
)
def test_what_is_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="no bearer token"):
        read_token(path)
    path.write_bytes(b"good\n")
    assert read_token(path) == "good"
