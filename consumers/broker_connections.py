"""Who is connected to the broker, and ending it: RabbitMQ's management interface, HTTPS on the loopback.

Promises: what it does it does with one-time passes (:mod:`.passes`), so nothing here holds a standing right; answers
are bounded; a broker that does not answer is a :class:`BrokerAwayError`. One request at a time.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from schemas.errors import TemporaryError

from .passes import CLOSE, LOOK, LOOKER, ClosingPasses, Pass

TIMEOUT = 5.0
"""Seconds for one answer on the loopback; the broker needs some milliseconds."""

MAX_ANSWER = 64 << 20
"""Bytes of an answer: a hundred thousand connections at 200 bytes, and room to spare."""


class BrokerAwayError(TemporaryError):
    """The broker's management interface did not answer."""


@dataclass(frozen=True)
class ManagementEndpoint:
    """Where the interface is, and which authority signed its certificate."""

    host: str
    port: int
    ca_file: Path
    server_name: str


class _Row(msgspec.Struct, frozen=True):
    name: str
    user: str = ""


_rows = msgspec.json.Decoder(list[_Row])


class BrokerConnections:
    """Looks at clients' connections and closes them.

    Args:
        endpoint: the interface.
        passes: shared with the gatekeeper's front.
    """

    def __init__(self, endpoint: ManagementEndpoint, passes: ClosingPasses) -> None:
        self._endpoint = endpoint
        self._passes = passes
        self._knows_users = True
        self._tls = ssl.create_default_context(cafile=str(endpoint.ca_file))

    def users(self) -> Counter[str]:
        """Broker user → how many connections it has, on all nodes; those of the last five seconds may be missing.

        Raises:
            BrokerAwayError: no answer.
        """
        with self._passed(LOOKER, LOOK) as (wire, given):
            return Counter(row.user for row in self._list(wire, given))

    def close(self, client: str, reason: str) -> int:
        """Close all connections of a client; how many there were.

        Args:
            client: client id.
            reason: told to the client by the broker.

        Raises:
            BrokerAwayError: no answer, or one that cannot be right.
        """
        with self._passed(client, CLOSE) as (wire, given):
            closed = 0
            for row in self._own(wire, given):
                if row.user != client:
                    continue  # only its own are shown to it
                path = f"/api/connections/{quote(row.name, safe='')}"
                status, _ = self._ask(wire, given, "DELETE", path, {"X-Reason": _plain(reason)})
                if status not in {204, 404}:  # 404: it was gone by itself
                    raise BrokerAwayError(f"the broker did not close a connection of {client} (HTTP {status})")
                closed += status == 204
            return closed

    def _own(self, wire: http.client.HTTPSConnection, given: Pass) -> list[_Row]:
        """The connections of who holds the pass, as they are now.

        RabbitMQ 4 tells by user name what it knows at this moment. 3.10 fails at that for all but administrators (HTTP
        500), but its list of all is as fresh, and shows to such a user his own only.
        """
        if self._knows_users:
            status, body = self._ask(wire, given, "GET", f"/api/connections/username/{quote(given.user, safe='')}", {})
            if status == 200:
                return _read(body)
            self._knows_users = False
        return self._list(wire, given)

    @contextlib.contextmanager
    def _passed(self, user: str, tag: str) -> Iterator[tuple[http.client.HTTPSConnection, Pass]]:
        where = self._endpoint
        wire = _Wire(where, self._tls)
        given = self._passes.issue(user, tag)
        try:
            yield wire, given
        except (OSError, http.client.HTTPException) as error:
            text = f"{type(error).__name__}: {error}"
            raise BrokerAwayError(f"the broker's management interface does not answer: {text[:200]}") from None
        finally:
            self._passes.withdraw(given)
            wire.close()

    def _list(self, wire: http.client.HTTPSConnection, given: Pass) -> list[_Row]:
        status, body = self._ask(wire, given, "GET", "/api/connections?columns=name,user", {})
        if status != 200:
            raise BrokerAwayError(f"the broker does not tell who is connected (HTTP {status})")
        return _read(body)

    @staticmethod
    def _ask(
        wire: http.client.HTTPSConnection, given: Pass, method: str, path: str, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        word = base64.b64encode(f"{given.user}:{given.secret}".encode()).decode("ascii")
        wire.request(method, path, headers={"Authorization": f"Basic {word}", **headers})
        answer = wire.getresponse()
        body = answer.read(MAX_ANSWER + 1)
        if len(body) > MAX_ANSWER:
            raise BrokerAwayError("the broker's answer is too large")
        return answer.status, body


class _Wire(http.client.HTTPSConnection):
    """An HTTPS connection to an address that checks the certificate for a name."""

    def __init__(self, where: ManagementEndpoint, tls: ssl.SSLContext) -> None:
        super().__init__(where.host, where.port, timeout=TIMEOUT, context=tls)
        self._server_name = where.server_name
        self._tls = tls

    def connect(self) -> None:
        """Connect and check."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)


def _read(body: bytes) -> list[_Row]:
    try:
        return _rows.decode(body)
    except msgspec.DecodeError as error:
        raise BrokerAwayError(f"the broker's list of connections cannot be read: {error}") from None


def _plain(text: str) -> str:
    """A text as an HTTP header carries it."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:200]
