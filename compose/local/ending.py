"""How a command that owns processes ends: a signal becomes an exception, and what is being stopped is stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""Sent by a session that ends, by CI systems, by `timeout`; by default they would leave our processes behind."""


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does, so that every `finally` is run.

    Main thread only.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within, Ctrl-C and the endings are ignored: what stops things must not be stopped half-way.

    Each stop is bounded, so that nobody waits for ever. Main thread only.
    """
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *ENDINGS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
