"""A lock that serves threads in the order in which they came, without busy waiting."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """First come, first served. SQLite's own busy handler polls and can starve a writer; this one hands over.

    Not reentrant: a thread that asks again while it holds the lock is a programming mistake and told so.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[tuple[threading.Lock, int]] = deque()
        self._holder: int | None = None

    def acquire(self, timeout: float) -> bool:
        """Wait for the turn, at most ``timeout`` seconds; whether it came."""
        me = threading.get_ident()
        with self._mutex:
            if self._holder == me:
                raise RuntimeError("a write transaction inside a write transaction")
            if self._holder is None:
                self._holder = me
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append((gate, me))
        if gate.acquire(timeout=timeout):
            return True
        with self._mutex:
            if (gate, me) in self._waiting:
                self._waiting.remove((gate, me))
                return False
        return True  # it was handed over in this very moment

    def release(self) -> None:
        """Hand over to the next in the row."""
        with self._mutex:
            if self._waiting:
                gate, self._holder = self._waiting.popleft()
                gate.release()
            else:
                self._holder = None
