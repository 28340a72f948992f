"""Job ids of waiting jobs, paged from the store: per queue and priority, oldest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from ..domain.choose import Choice
from ..domain.index import Index
from ..store import Reading, queues

PAGE = 256
"""Job ids fetched at once for a queue: a page costs one indexed read."""

ALL = 1 << 62
"""More jobs than there can be."""


class Pages:
    """Pages of job ids.

    Args:
        index: is told when fewer jobs wait than it thinks.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._pages: dict[tuple[int, int], deque[int]] = {}

    def next_job(self, tx: Reading, choice: Choice, spoken_for: Collection[int]) -> int | None:
        """The job of a choice; ``None`` if there is none any more: the index was put right, choose again."""
        page = self._pages.setdefault((choice.queue_id, choice.priority), deque())
        while True:
            while page:
                job = page.popleft()
                if job not in spoken_for:
                    return job
            found = queues.head(tx, choice.queue_id, choice.priority, PAGE, spoken_for)
            if not found:
                # Fewer wait than the index thought. No new count now: it would hold those that are spoken for.
                self._index.refund(choice.queue_id)
                self._index.remove(choice.queue_id, choice.priority, ALL)
                return None
            page.extend(job for job, _ in found)

    def forget(self, ids: Collection[int]) -> None:
        """These queues have got jobs that may come before those paged."""
        for page in [page for page in self._pages if page[0] in ids]:
            del self._pages[page]

    def clear(self) -> None:
        """Page everything anew."""
        self._pages.clear()
