"""The HTTP front of the gatekeeper, as RabbitMQ's ``rabbitmq_auth_backend_http`` speaks it (POST forms).

Loopback only: it sees login assertions. Answers ``allow`` or ``deny``; any fault is a ``deny``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import structlog
from waitress.server import create_server

from schemas.errors import PilotageError

from .gatekeeper import Gatekeeper

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MAX_FORM_BYTES = 64 * 1024
"""A login assertion is at most 56 KiB; RabbitMQ's frame limit is 64 KiB."""

THREADS = 8
"""Logins wait for the store and the broker; more at once only queue there."""

log = structlog.get_logger(__name__)


class GatekeeperServer:
    """Serves one gatekeeper on a loopback port.

    Args:
        gatekeeper: decides.
        host: loopback address.
        port: where RabbitMQ asks; 0 picks a free one.
    """

    def __init__(self, gatekeeper: Gatekeeper, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._routes: Mapping[str, Callable[[Mapping[str, str]], bool]] = {
            "/auth/user": gatekeeper.user,
            "/auth/vhost": gatekeeper.vhost,
            "/auth/resource": gatekeeper.resource,
            "/auth/topic": gatekeeper.topic,
        }
        self._open: dict[int, Any] = {}  # everything that waitress' loop looks at: it ends when this is empty
        self._server: Any = create_server(
            self._answer,
            map=self._open,
            host=host,
            port=port,
            threads=THREADS,
            max_request_body_size=MAX_FORM_BYTES,
            ident=None,
        )
        self._thread = threading.Thread(target=self._server.run, name="gatekeeper-http", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.effective_port)

    def start(self) -> None:
        """Serve in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; RabbitMQ's idle connections are cut."""
        with contextlib.suppress(OSError):  # a loop that has ended by itself has no trigger any more
            self._server.trigger.pull_trigger(self._close_all)  # run by the loop's own thread
        self._thread.join(5)
        self._server.task_dispatcher.shutdown()

    def _close_all(self) -> None:
        for channel in list(self._open.values()):
            channel.close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        verdict = b"deny"
        decide = self._routes.get(environ.get("PATH_INFO", ""))
        if decide is not None and environ.get("REQUEST_METHOD") == "POST":
            try:
                # Blank values are kept: without them an empty password would look like none at all.
                body = environ["wsgi.input"].read(MAX_FORM_BYTES).decode("utf-8")
                if decide(dict(parse_qsl(body, keep_blank_values=True, strict_parsing=False, max_num_fields=32))):
                    verdict = b"allow"
            except (PilotageError, ValueError, KeyError) as error:
                log.warning("gatekeeper.failed_closed", reason=f"{type(error).__name__}: {error}"[:300])
            except Exception:
                log.exception("gatekeeper.failed_closed")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(verdict)))])
        return [verdict]
