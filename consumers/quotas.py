"""How much each identity may ask for in a time: kept in memory, per process, forgotten when the time is over.

Promises: what a transaction that was rolled back asked for costs nothing; memory grows with the identities that asked
within one window. Not exact across processes (each counts for itself) nor across a restart: it keeps one user from
filling the store, it accounts for nothing.
"""

from __future__ import annotations

from collections import Counter

from .batch import Batch


class Quota:
    """One kind of thing, counted in windows of fixed length.

    Args:
        limit: of one identity in one window.
        seconds: length of a window.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._window = 0
        self._spent: Counter[str] = Counter()

    def open(self, batch: Batch) -> Spending:
        """For one batch; what is spent counts with its commit."""
        window = int(batch.now // self.seconds)
        if window != self._window:
            self._window = window
            self._spent.clear()
        spending = Spending(self, batch.now)
        batch.commits.append(lambda: self._spent.update(spending.spent))
        return spending

    def spent(self, identity: str) -> int:
        """What an identity spent in this window."""
        return self._spent[identity]


class Spending:
    """What one batch spends of a quota."""

    def __init__(self, quota: Quota, now: float) -> None:
        self._quota = quota
        self._now = now
        self.spent: Counter[str] = Counter()

    def allows(self, identity: str, amount: int) -> bool:
        """Whether so much more is within the quota."""
        return self._quota.spent(identity) + self.spent[identity] + amount <= self._quota.limit

    def spend(self, identity: str, amount: int) -> None:
        """It was granted."""
        self.spent[identity] += amount

    @property
    def wait(self) -> int:
        """Seconds until the window is over."""
        return int(self._quota.seconds - self._now % self._quota.seconds) + 1
