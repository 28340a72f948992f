"""A stand-in for INDIGO IAM that speaks SCIM 2.0 over TLS: users and groups in pages, a token, faults on demand."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.throwaway_ca import make_server_tls

TOKEN = "eyJhbGciOiJub25lIn0.stand-in"
USER_SCHEMA = "urn:indigo-dc:scim:schemas:IndigoUser"
GROUP_SCHEMA = "urn:indigo-dc:scim:schemas:IndigoGroup"
LIST_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:ListResponse"

Fault = Callable[[str, dict[str, Any]], "dict[str, Any] | bytes | int"]
"""What is sent instead of a page, for its path: another page, raw bytes, or only a status."""


@dataclass
class ScimServer:
    """The stand-in; change its users and groups at will.

    Attributes:
        page: resources in one page at most, whatever is asked for.
        fault: what is sent instead of pages.
        requests: targets that were asked for.
        slow: after the head, a byte of the body now and then.
        stopped: set when the stand-in stops.
    """

    url: str
    ca_file: Path
    users: list[dict[str, Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    page: int = 10
    fault: Fault | None = None
    requests: list[str] = field(default_factory=list)
    slow: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)

    def add_group(self, name: str, *, role: bool = False) -> None:
        """A group by its path; ``role``: VOMS shows it as a role of its parent."""
        labels = [{"prefix": None, "name": "voms.role", "value": None}] if role else []
        self.groups.append({
            "id": f"group-{name}", "displayName": name, "meta": {"resourceType": "Group"},
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group", GROUP_SCHEMA],
            GROUP_SCHEMA: {"parentGroup": None, "description": None, "labels": labels},
        })  # fmt: skip

    def add_user(self, name: str, subjects: Sequence[str], *groups: str, active: bool = True) -> None:
        """A user with certificates (subjects as IAM writes them: ``CN=…,O=…``) and groups."""
        self.users.append({
            "id": f"user-{name}", "userName": name, "displayName": name.title(), "active": active,
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", USER_SCHEMA],
            "name": {"familyName": name, "givenName": name, "formatted": name},
            "emails": [{"type": "work", "value": f"{name}@example.org", "primary": True}],
            "groups": [{"display": group, "value": f"group-{group}", "$ref": "…"} for group in groups],
            USER_SCHEMA: {"certificates": [
                {"primary": True, "subjectDn": subject, "issuerDn": "CN=CA", "pemEncodedCertificate": None}
                for subject in subjects
            ]},
        })  # fmt: skip

    def remove_user(self, name: str) -> None:
        """He is not in the VO any more."""
        self.users = [user for user in self.users if user["userName"] != name]

    def set_active(self, name: str, active: bool) -> None:
        """Suspend or restore a user."""
        for user in self.users:
            if user["userName"] == name:
                user["active"] = active

    def listing(self, path: str, query: dict[str, list[str]]) -> dict[str, Any] | None:
        """One page of a listing (RFC 7644 §3.4.2.4)."""
        resources = {"/scim/Users": self.users, "/scim/Groups": self.groups}.get(path)
        if resources is None:
            return None
        start = max(1, int(query.get("startIndex", ["1"])[0]))
        count = min(self.page, int(query.get("count", ["100"])[0]))
        part = resources[start - 1 : start - 1 + count]
        return {"schemas": [LIST_SCHEMA], "totalResults": len(resources), "itemsPerPage": len(part),
                "startIndex": start, "Resources": part}  # fmt: skip


@contextlib.contextmanager
def scim_server(folder: Path) -> Iterator[ScimServer]:
    """A running stand-in on loopback."""
    tls = make_server_tls(folder)
    state = ScimServer("", tls.ca)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            state.requests.append(self.path)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(401, b'{"error":"invalid_token"}')
                return
            page = state.listing(parts.path, parse_qs(parts.query))
            if page is None:
                self._send(404, b"{}")
                return
            answer = state.fault(parts.path, page) if state.fault is not None else page
            if isinstance(answer, int):
                self._send(answer, b"{}")
            else:
                self._send(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/scim+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # a reader that has read enough leaves
                while state.slow and not state.stopped.wait(0.1):
                    self.wfile.write(b" ")
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.url = f"https://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
