"""The index of waiting work kept in step with the store: at a takeover, by hints, and in slices against lost hints.

Costs grow with queues, never with the jobs in them (:mod:`consumers.store.heads`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection

from ..domain.index import Index
from ..domain.requirements import Requirements
from ..store import Reading, heads, queues
from ..store.heads import FIRST, Level
from .pages import Pages

SLICE = 256
"""Levels compared at once, far more than one queue has: 10 ms, which a match may have to wait."""

LAST_PRIORITY = 1 << 31
"""Above all priorities."""


class Stock:
    """Keeps an index.

    Args:
        index: what is known to wait.
        pages: of job ids.
    """

    def __init__(self, index: Index, pages: Pages) -> None:
        self._index = index
        self._pages = pages
        self._after: Level | None = None
        self._known: list[int] = []

    @property
    def under_way(self) -> bool:
        """Whether a comparison has been begun and not ended."""
        return self._after is not None

    def begin(self) -> None:
        """Compare everything (anew)."""
        self._after, self._known = FIRST, sorted(self._index)

    def go_on(self, tx: Reading, limit: int = SLICE) -> list[int]:
        """Compare the next so many levels.

        Returns:
            The queues that have jobs now and had none before.
        """
        if self._after is None:
            return []
        found = heads.scan(tx, self._after, limit)
        since, until = self._after[0], None
        if len(found) == limit and found[0].queue_id != found[-1].queue_id:
            cut = found[-1].queue_id  # its other levels may lie in the next slice
            found = [head for head in found if head.queue_id != cut]
            until = found[-1].queue_id
        self._after = None if until is None else (until, LAST_PRIORITY)
        counts = self._pages.note(found)
        self._learn(tx, counts.keys() - set(self._index))
        awake = [one for one in counts if one in self._index and not self._index.queue(one).levels]
        self._put_right(counts, counts)
        start = bisect_right(self._known, since)
        end = len(self._known) if until is None else bisect_right(self._known, until)
        for queue_id in self._known[start:end]:
            if queue_id not in counts and queue_id in self._index:
                self._pages.forget([queue_id])
                self._index.drop_queue(queue_id)
        return awake

    def refresh(self, tx: Reading, ids: Collection[int]) -> None:
        """These queues have got jobs."""
        if not ids:
            return
        self._learn(tx, [queue_id for queue_id in ids if queue_id not in self._index])
        self._put_right(self._pages.read(tx, ids), ids)

    def _learn(self, tx: Reading, ids: Collection[int]) -> None:
        for row in queues.load(tx, ids):
            self._index.add_queue(row.id, Requirements.from_json(row.requirements), row.grp, row.owner)

    def _put_right(self, counts: dict[int, dict[int, tuple[int, float]]], ids: Collection[int]) -> None:
        for queue_id in ids:
            if queue_id in self._index:
                self._index.set_counts(queue_id, counts.get(queue_id, {}))
