"""The HTTPS front of the gatekeeper, as RabbitMQ's ``rabbitmq_auth_backend_http`` speaks it (POST forms).

Loopback only: it sees login assertions. TLS, with the certificate that the broker's settings demand, so that nobody
else on the machine can answer in its place. Answers ``allow`` (with a tag for our own closing passes) or ``deny``; any
fault is a ``deny``. Bounded: connections, the size of a form, the time for a handshake and between bytes.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer
from urllib.parse import parse_qsl

import structlog

from schemas.errors import ConfigurationError, PilotageError

from .gatekeeper import Gatekeeper
from .passes import ClosingPasses

MAX_FORM_BYTES = 64 * 1024
"""A login assertion is at most 56 KiB; RabbitMQ's frame limit is 64 KiB."""

MAX_CONNECTIONS = 64
"""A thread each. RabbitMQ keeps a few open and opens more when many log in at once; those beyond are refused, that is
denied: a full gatekeeper lets nobody in."""

HANDSHAKE_SECONDS = 5.0
"""For a TLS handshake on the loopback: a millisecond is usual."""

IDLE_SECONDS = 150.0
"""How long a connection waits for its next bytes: longer than the two minutes after which RabbitMQ's client lets go
itself, so that it never sends into a connection that we just closed."""

STOP_SECONDS = 0.1
"""How often the server looks whether it should stop."""

PENDING = 128
"""Connections in the kernel's queue while all log in at once after a restart."""

log = structlog.get_logger(__name__)

Decide = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True)
class ServerIdentity:
    """PEM files by which RabbitMQ knows the gatekeeper."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 and 1.3, with this certificate.

        Raises:
            ConfigurationError: the files cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one too
            files = f"{self.certificate}, {self.key}"
            raise ConfigurationError(f"the gatekeeper's TLS files cannot be used ({error}): {files}") from None
        return context


class GatekeeperServer:
    """Serves one gatekeeper on a loopback port.

    Args:
        gatekeeper: decides.
        identity: its certificate and key.
        passes: our own one-time passes for closing connections, if connections are closed from here.
        host: loopback address.
        port: where RabbitMQ asks; 0 picks a free one.
    """

    def __init__(
        self,
        gatekeeper: Gatekeeper,
        identity: ServerIdentity,
        *,
        passes: ClosingPasses | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._passes = passes
        self._routes: Mapping[str, Decide] = {
            "/auth/user": gatekeeper.user,
            "/auth/vhost": gatekeeper.vhost,
            "/auth/resource": gatekeeper.resource,
            "/auth/topic": gatekeeper.topic,
        }
        self._server = _Server((host, port), self.answer, identity.context())
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_SECONDS,), name="gatekeeper-https", daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; RabbitMQ's idle connections are cut."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(5)
        self._server.server_close()
        self._server.cut()

    def answer(self, path: str, body: bytes) -> bytes:
        """The verdict on one question."""
        decide = self._routes.get(path)
        if decide is None:
            return b"deny"
        try:
            # Blank values are kept: without them an empty password would look like none at all.
            form = dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=32))
            if path == "/auth/user" and self._passes is not None:
                tag = self._passes.tag_of(form.get("username", ""), form.get("password", ""))
                if tag:
                    return f"allow {tag}".encode("ascii")
            return b"allow" if decide(form) else b"deny"
        except (PilotageError, ValueError, KeyError) as error:
            log.warning("gatekeeper.failed_closed", reason=f"{type(error).__name__}: {error}"[:300])
        except Exception:
            log.exception("gatekeeper.failed_closed")
        return b"deny"


class _Server(TCPServer):
    """One thread for each connection, and no more than so many."""

    allow_reuse_address = True
    request_queue_size = PENDING

    def __init__(
        self, address: tuple[str, int], answer: Callable[[str, bytes], bytes], context: ssl.SSLContext
    ) -> None:
        self.answer = answer
        self._context = context
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Hand a new connection to a thread, before its handshake: nobody holds up the others."""
        if not isinstance(request, socket.socket):  # a datagram: never comes here
            return
        if not self._free.acquire(blocking=False):
            log.warning("gatekeeper.full", connections=MAX_CONNECTIONS)
            self.shutdown_request(request)
            return
        threading.Thread(target=self._serve, args=(request, client_address), name="gatekeeper", daemon=True).start()

    def _serve(self, request: socket.socket, client_address: object) -> None:
        try:
            request.settimeout(HANDSHAKE_SECONDS)
            with self._context.wrap_socket(request, server_side=True) as stream:
                with self._lock:
                    self._open.add(stream)
                try:
                    self.finish_request(stream, client_address)
                finally:
                    with self._lock:
                        self._open.discard(stream)
        except OSError:  # whoever it was spoke no TLS, or went away
            request.close()
        finally:
            self._free.release()

    def cut(self) -> None:
        """End all connections."""
        with self._lock:
            streams = list(self._open)
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that break."""


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with kept connections, as far as RabbitMQ's client uses it; other methods than POST are errors."""

    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = IDLE_SECONDS
    wbufsize = -1  # head and verdict leave in one packet

    def do_POST(self) -> None:
        """Answer one question."""
        length = self.headers.get("Content-Length", "")
        size = int(length) if length.isascii() and length.isdigit() and len(length) < 10 else MAX_FORM_BYTES + 1
        if size > MAX_FORM_BYTES:
            self.close_connection = True
            self._say(413, b"deny")
            return
        body = self.rfile.read(size)
        self._say(200, self.server.answer(self.path, body) if len(body) == size else b"deny")

    def _say(self, status: int, verdict: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(verdict)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(verdict)
        self.wfile.flush()

    def log_message(self, _format: str, *_args: object) -> None:
        """Nothing: what is asked holds assertions."""
