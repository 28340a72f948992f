"""Reads a VO's members from INDIGO IAM by SCIM 2.0 (RFC 7643, RFC 7644). Never writes.

``GET /scim/Users`` and ``/scim/Groups``, page by page, with a bearer token (scope ``scim:read``). A certificate's
subject stands in ``urn:indigo-dc:scim:schemas:IndigoUser``; ``active: false`` is a suspension; a group that carries the
label ``voms.role`` is a VOMS role of its parent, any other a VOMS group.

Promises: TLS is verified, nothing is followed elsewhere; sizes and counts are bounded before anything is parsed; a
listing that is not whole is an error, never a shorter list.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from schemas.errors import ConfigurationError, TemporaryError

from .domain.scim import ScimGroup, ScimUser, members
from .domain.synchronization import SourceUser

PAGE = 100
"""Users asked for at once: what IAM gives at most."""

MAX_PAGE_BYTES = 16 << 20
"""A hundred users, each with certificates and keys of some kB."""

MAX_RESOURCES = 200_000

TIMEOUT = 30.0
"""Seconds for one page."""

WHOLE_SECONDS = 600.0
"""For all pages together: IAM needs about a second for each."""

MAX_TOKEN_BYTES = 16_384

R = TypeVar("R", ScimUser, ScimGroup)


class SourceRefusedError(TemporaryError):
    """The VO's source gave no usable answer."""


class _Page(msgspec.Struct, rename="camel"):
    total_results: int
    resources: list[msgspec.Raw] = msgspec.field(name="Resources", default_factory=list)


@dataclass(frozen=True, slots=True)
class Iam:
    """An IAM instance.

    Attributes:
        url: its address, ``https://``.
        token: bearer token.
        ca_file: CA certificates; the system's by default.
        timeout: seconds for one page.
    """

    url: str
    token: str = field(repr=False)
    ca_file: Path | None = None
    timeout: float = TIMEOUT

    def read(self) -> list[SourceUser]:
        """All members of the VO.

        Raises:
            SourceRefusedError: it does not answer, or not as SCIM says.
            ConfigurationError: the address or the CA file is no good.
        """
        deadline = time.monotonic() + WHOLE_SECONDS
        connection, prefix = self._connection()
        # A server that sends a byte now and then keeps within every timeout of the socket's.
        watch = threading.Timer(WHOLE_SECONDS, _hang_up, (connection,))
        watch.daemon = True
        watch.start()
        try:
            groups = self._all(connection, f"{prefix}/scim/Groups", ScimGroup, deadline)
            users = self._all(connection, f"{prefix}/scim/Users", ScimUser, deadline)
        finally:
            watch.cancel()
            connection.close()
        return members(users, groups)

    def _connection(self) -> tuple[http.client.HTTPSConnection, str]:
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise ConfigurationError(f"{self.url}: IAM is reached by https://host, without a user in it")
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        except OSError as error:
            raise ConfigurationError(f"{self.ca_file}: {error.strerror or error}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        host, port = parts.hostname, parts.port
        return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=context), parts.path.rstrip("/")

    def _all(self, connection: http.client.HTTPSConnection, path: str, kind: type[R], deadline: float) -> list[R]:
        found: dict[str, R] = {}
        total = -1
        for page in self._pages(connection, path, deadline):
            if total not in {-1, page.total_results}:
                raise SourceRefusedError(f"{path}: its length changed while it was read")
            total = page.total_results
            for raw in page.resources:
                one = _decode(raw, kind, path)
                found[one.id] = one
        if len(found) != total:
            raise SourceRefusedError(f"{path}: {len(found)} came of {total}")
        return list(found.values())

    def _pages(self, connection: http.client.HTTPSConnection, path: str, deadline: float) -> Iterator[_Page]:
        start = 1  # SCIM counts from 1 (RFC 7644 §3.4.2.4)
        while True:
            if time.monotonic() > deadline:
                raise SourceRefusedError(f"{path}: not whole within {WHOLE_SECONDS:.0f} s")
            page = _decode(
                self._get(connection, f"{path}?{urlencode({'startIndex': start, 'count': PAGE})}"), _Page, path
            )
            if not 0 <= page.total_results <= MAX_RESOURCES or len(page.resources) > MAX_RESOURCES:
                raise SourceRefusedError(f"{path}: {page.total_results} entries; at most {MAX_RESOURCES} are read")
            yield page
            start += len(page.resources)
            if not page.resources or start > page.total_results:
                return

    def _get(self, connection: http.client.HTTPSConnection, target: str) -> bytes:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/scim+json, application/json"}
        place = target.partition("?")[0]
        try:
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            body = answer.read(MAX_PAGE_BYTES + 1)
        except ssl.SSLError as error:
            connection.close()
            raise SourceRefusedError(f"{place}: TLS: {error.reason or error}") from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise SourceRefusedError(f"{place}: {error or type(error).__name__}") from None
        if answer.status != http.client.OK:
            raise SourceRefusedError(f"{place}: HTTP {answer.status} {answer.reason[:80]}")
        if len(body) > MAX_PAGE_BYTES:
            raise SourceRefusedError(f"{place}: a page of more than {MAX_PAGE_BYTES} bytes")
        return body


def _hang_up(connection: http.client.HTTPSConnection) -> None:
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


T = TypeVar("T")


def _decode(data: bytes | msgspec.Raw, kind: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceRefusedError(f"{path}: not SCIM: {str(error)[:200]}") from None


def read_token(path: Path) -> str:
    """A bearer token from its file; it is read at each use, so that it can be renewed.

    Raises:
        ConfigurationError: the file cannot be read, or holds no token.
    """
    try:
        with path.open("rb") as file:
            token = file.read(MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if not token or len(token) > MAX_TOKEN_BYTES or not token.isprintable() or " " in token:
        raise ConfigurationError(f"{path}: holds no bearer token")
    return token
