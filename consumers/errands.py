"""Work that talks to other sites: done by a few threads of its own, so that no transaction and no queue waits."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

WORKERS = 4
"""Conversations at once: a MyProxy server answers in a fraction of a second; two silent ones leave room for others."""

MAX_WAITING = 1_000
"""Errands that wait; more are not taken, and their account comes again with the next look."""

R = TypeVar("R")

log = structlog.get_logger(__name__)


class Errands(Generic[R]):
    """Runs errands and keeps their results until somebody takes them.

    Args:
        name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._todo: queue.Queue[Callable[[], R]] = queue.Queue(MAX_WAITING)
        self._done: deque[R] = deque()
        self._started = False
        self._lock = threading.Lock()

    @property
    def done(self) -> tuple[R, ...]:
        """Results that nobody has dropped yet."""
        return tuple(self._done)

    def run(self, errand: Callable[[], R]) -> None:
        """Have it done, unless too many wait. An errand tells its own failure as a result."""
        with self._lock:
            if not self._started:
                self._started = True
                for _ in range(WORKERS):
                    threading.Thread(target=self._work, name=self._name, daemon=True).start()
        try:
            self._todo.put_nowait(errand)
        except queue.Full:
            log.warning("errand.not_taken", errands=self._name)

    def drop(self, count: int) -> None:
        """The first results were dealt with."""
        for _ in range(count):
            self._done.popleft()

    def _work(self) -> None:
        while True:
            errand = self._todo.get()
            try:
                self._done.append(errand())
            except Exception as error:  # noqa: BLE001 - a thread that dies would do no errand any more
                # The kind alone: a library's words, or a traceback, could quote a key.
                log.error("errand.failed", errands=self._name, error=type(error).__name__)  # noqa: TRY400
