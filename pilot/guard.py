"""What the keeper must know of the pilot's leases: the moment by which the next payload must have ended.

The pilot ends its payloads itself, a margin before their leases end. A pilot that is stopped (SIGSTOP) or hangs cannot,
and its payload would run on while the job is given to another. So it shares this one number with its keeper, which
ends both when the moment passes and the number still stands. Written by the pilot, read by the keeper.
"""

from __future__ import annotations

import math
import mmap
import struct

_MOMENT = struct.Struct("d")


class Guard:
    """One moment in memory that is shared across :func:`os.fork`; on the clock of :func:`pilot.kernel.steady_now`."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MOMENT.size)
        self.set(math.inf)

    def set(self, moment: float) -> None:
        """The pilot: by then something of mine must have ended; infinity for nothing."""
        self._memory[:] = _MOMENT.pack(moment)

    def moment(self) -> float:
        """The keeper: until when the pilot is to be left alone."""
        return float(_MOMENT.unpack(self._memory[:])[0])
