"""Whose turn it is, kept in the store: a new leader goes on where the old one ended.

What has changed is written about every second, with a batch that is written anyway or by itself. So a leader that dies
forgives the jobs of its last second; one that ends in order, or that is replaced after a rollback, loses nothing that
was committed with it.
"""

from __future__ import annotations

from ..domain.index import Index
from ..domain.standing import dump, forget, restore, settle
from ..store import Reading, Transaction, turns

KEEP_SECONDS = 1.0
"""How much a crash may forgive: a few thousand jobs at most, where shares are reckoned over a day."""

FORGET_SECONDS = 600.0
"""How often it looks for those who can be forgotten: all members are gone through."""


class Keeper:
    """Carries turns to and from the store.

    Args:
        index: whose turns.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._epoch: float | None = None
        self._next = self._next_forgetting = 0.0

    def load(self, tx: Reading, now: float) -> None:
        """Take over. Shares must be known, and no queue."""
        kept = turns.load(tx)
        restore(self._index, kept, now)
        # Of which moment all is that was kept; of a later one: it must be written anew.
        self._epoch = None if any(one.time > now for one in kept) else self._index.clock.epoch
        self._index.at(now)
        settle(self._index)

    def keep(self, tx: Transaction, now: float, *, at_once: bool = False) -> None:
        """Write what has changed, and forget those of whom nothing is left to be remembered, if it is time to."""
        if now >= self._next_forgetting:
            self._next_forgetting = now + FORGET_SECONDS
            turns.forget(tx, forget(self._index))
        if not self._index.charged or (now < self._next and not at_once):
            return
        changed = self._index.charged if self._index.clock.epoch == self._epoch else None
        turns.save(tx, dump(self._index, changed))
        self._epoch = self._index.clock.epoch
        self._index.charged.clear()
        self._next = now + KEEP_SECONDS
