"""The I/O thread: one pika loop on one daemon thread, and the one door into it.

Everything that touches a pika object runs here, as a callable handed to :meth:`Loop.post`. Many posts in a row cost
one wake-up. A callable that raises is logged and reported to ``on_crash``; the thread goes on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from pika.adapters.select_connection import IOLoop

from ._log import note


class Loop:
    """Runs callables and timers on its own thread until :meth:`stop`."""

    def __init__(self, name: str, on_crash: Callable[[BaseException], None]) -> None:
        self._ioloop = IOLoop()
        self._inbox: deque[Callable[[], None]] = deque()
        self._scheduled = False
        self._stopped = False
        self._on_crash = on_crash
        # A daemon: a process that forgets to close must still be able to end.
        self._thread = threading.Thread(target=self._run, name=f"broker-io {name}", daemon=True)

    @property
    def native(self) -> IOLoop:
        """Pika's own loop, for its connections."""
        return self._ioloop

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def post(self, action: Callable[[], None]) -> None:
        """Runs ``action`` on the I/O thread soon, in order of posting. Callable from every thread."""
        self._inbox.append(action)
        # Who finds the flag set has appended before the pending drain cleared it, so that drain will see the action.
        if not self._scheduled:
            self._scheduled = True
            self._ioloop.add_callback_threadsafe(self._drain)

    def later(self, delay: float, action: Callable[[], None]) -> object:
        """Runs ``action`` after ``delay`` seconds; the answer is a handle for :meth:`cancel`. I/O thread only."""
        return self._ioloop.call_later(delay, lambda: self._guarded(action))

    def cancel(self, handle: object) -> None:
        """Cancels a timer. I/O thread only."""
        self._ioloop.remove_timeout(handle)

    def stop(self) -> None:
        """Ends the thread after what was posted before. Callable from every thread."""
        self.post(self._stop)

    def join(self, timeout: float | None = None) -> bool:
        """Waits for the thread's end and says whether it came; a thread never waits for itself."""
        if self.inside():
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def inside(self) -> bool:
        """Whether the caller is the I/O thread."""
        return threading.current_thread() is self._thread

    def _stop(self) -> None:
        self._stopped = True
        self._ioloop.stop()

    def _drain(self) -> None:
        self._scheduled = False
        # Only what is here now: endless posting must not starve the sockets.
        for _ in range(len(self._inbox)):
            self._guarded(self._inbox.popleft())
        if self._inbox and not self._scheduled:
            self._scheduled = True
            self._ioloop.add_callback_threadsafe(self._drain)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the thread must survive whatever one action does
            self._crashed(error)

    def _crashed(self, error: BaseException) -> None:
        note(logging.ERROR, "broker.io_error", error=f"{type(error).__name__}: {error}")
        try:
            self._on_crash(error)
        except Exception as second:  # noqa: BLE001 - see above
            note(logging.ERROR, "broker.io_error", error=f"{type(second).__name__}: {second}")

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._ioloop.start()
            except Exception as error:  # noqa: BLE001 - pika's own callbacks may raise; reconnecting heals it
                self._crashed(error)
        self._ioloop.close()
