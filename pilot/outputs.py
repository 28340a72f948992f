"""Keeping StdOutput and StdError bounded while the payload goes on writing.

Promises: a file longer than its limit keeps its beginning and its end, with a line between them that says how much
was cut. The payload is not disturbed: the files are opened for appending, so it goes on at the new end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .sandbox import open_inside

# As much as a whole output sandbox may hold; nobody reads more by eye.
DEFAULT_OUTPUT_BYTES = 10 * 1024 * 1024
# The marker line is shorter than this.
_MARKER_ROOM = 100


def bound_output(directory: Path, name: str, limit: int) -> int:
    """Cut the file if it is longer than `limit` bytes; returns how many bytes were removed (0 = none).

    What the payload writes during the cut itself may be lost with the middle; nothing else is.
    """
    try:
        descriptor = open_inside(directory, name, os.O_RDWR | os.O_APPEND | os.O_NONBLOCK)
    except OSError:  # the payload removed or replaced it: nothing of ours to bound, the disk limit still holds
        return 0
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size <= limit:
            return 0
        return _cut(descriptor, status.st_size, limit)
    except OSError:  # such as a full disk; the next look tries again
        return 0
    finally:
        os.close(descriptor)


def _cut(descriptor: int, size: int, limit: int) -> int:
    # Cut to half the limit, so that a chatty payload is cut once per half a limit and not at each look.
    keep = max(0, limit // 4 - _MARKER_ROOM)
    tail = os.pread(descriptor, keep, size - keep)
    removed = size - 2 * keep
    os.ftruncate(descriptor, keep)
    marker = f"\n[... {removed} bytes were cut out here by the pilot ...]\n".encode()
    os.write(descriptor, marker + tail)
    return removed
