"""What is asked of every parser of foreign bytes: its own errors only, bounded memory, and work in step with size."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import PilotageError

T = TypeVar("T")

MEMORY_FACTOR = 60
"""Bytes of Python objects per byte of input, at most: a JSON array of small numbers becomes a tuple of pointers to
objects (40 bytes for two characters)."""

MEMORY_BASE = 512 * 1024
"""What parsers may need whatever the size: caches that fill, compiled patterns, exceptions with their tracebacks."""

MAX_REASON = 2000
"""Characters; a reason may name somebody, and names have bounds of their own."""

NOTHING = 0.003
"""CPU seconds below which an input at its size limit is harmless, whatever its growth."""

GROWTH = 3.0
"""Twice the input may cost at most this much more: linear work gives 2, quadratic work gives 4."""


def calmly(
    parse: Callable[[], T],
    size: int,
    *allowed: type[PilotageError],
    factor: int = MEMORY_FACTOR,
    base: int = MEMORY_BASE,
    reason: int = MAX_REASON,
) -> T | PilotageError:
    """Run a parser: it gives a value or one of its documented errors, within memory in proportion to the input.

    Args:
        parse: the call.
        size: bytes of its input.
        allowed: the documented errors; nothing else may come out.
        factor: bytes of memory per byte of input.
        base: bytes of memory whatever the input.
        reason: characters of an error's reason, at most.
    """
    result, peak = _measured(parse, allowed)
    allowance = factor * size + base
    if peak > allowance:
        # What fills a cache or is imported at the first call is not this input's; nor what another thread made.
        result, peak = _measured(parse, allowed)
    if isinstance(result, PilotageError):
        assert 0 < len(str(result)) <= reason, "no reason, or one that nobody reads"
    assert peak <= allowance, f"{peak} bytes of memory for {size} bytes of input"
    return result


def _measured(parse: Callable[[], T], allowed: tuple[type[PilotageError], ...]) -> tuple[T | PilotageError, int]:
    tracemalloc.start()
    try:
        try:
            result: T | PilotageError = parse()
        except allowed as error:
            result = error
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_in_step(run: Callable[[bytes], object], make: Callable[[int], bytes], limit: int) -> None:
    """Show that the worst of a family of inputs costs work in step with its size.

    Args:
        run: parses; may refuse.
        make: an input of about so many bytes.
        limit: the largest size that the parser accepts.

    The CPU time of this thread is what is compared, the least of several turns: another process on the machine takes
    wall time from us, not CPU time; and nothing is compared that takes no time worth speaking of at the limit.
    """
    small, large = make(limit // 2), make(limit)
    assert 1.8 * len(small) <= len(large) <= 2.2 * len(small)
    times = {len(small): float("inf"), len(large): float("inf")}
    gc.disable()
    try:
        for _ in range(9):
            for data in (small, large):
                begin = time.thread_time()
                run(data)
                times[len(data)] = min(times[len(data)], time.thread_time() - begin)
            if times[len(large)] < NOTHING or times[len(large)] < 2.5 * times[len(small)]:
                break
    finally:
        gc.enable()
    slow, fast = times[len(large)], times[len(small)]
    assert slow < NOTHING or slow < GROWTH * fast, f"{len(large)} bytes: {slow:.4f} s, half of it: {fast:.4f} s"
