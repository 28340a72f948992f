"""How often each did something within this minute: what one user can do in a loop must not fill what is kept for ever.

Promises: bounded memory; may be used by several threads. A count is this process's own, and it is not given back when a
transaction is rolled back.
"""

from __future__ import annotations

import threading
from collections import Counter

MAX_OWED = 10_000
"""Of so many it is remembered how often they were left out; beyond, the oldest is forgotten."""


class PerMinute:
    """A quota for each.

    Args:
        most: how often within a minute.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._minute = 0
        self._done: Counter[str] = Counter()
        self._owed: Counter[str] = Counter()

    def take(self, who: str, now: float) -> bool:
        """Whether it is within the quota; if not, it is counted as left out."""
        with self._lock:
            if int(now // 60) != self._minute:
                self._minute = int(now // 60)
                self._done.clear()
            if self._done[who] < self._most:
                self._done[who] += 1
                return True
            if who not in self._owed and len(self._owed) >= MAX_OWED:
                del self._owed[next(iter(self._owed))]
            self._owed[who] += 1
            return False

    def owed(self, who: str) -> int:
        """How often it was left out since this was last asked."""
        with self._lock:
            return self._owed.pop(who, 0)
