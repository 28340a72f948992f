"""Job ids of waiting jobs, paged from the store per level (queue and user priority), oldest first.

The index never counts what waits: a level has *many* jobs until a page came back short, and then as many as are left on
it. After each job that is handed out the index is told how old the next one is, so the order across queues is exact.
Pages that run low are filled up together at the start of a batch. Memory: :data:`MAX_IDS` for all pages; the ones that
were not used for longest go first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ..domain.choose import Choice
from ..domain.index import Index
from ..store import Reading, heads
from ..store.heads import START, Head, Level, Mark

MANY = 1 << 40
"""How many jobs a level has that was not read to its end: more than are ever taken from one."""

FIRST_PAGE, PAGE = 16, 256
"""Job ids fetched at once for a level, the first time and later: a queue that gets jobs is read anew, often for one."""

LOW = 8
"""A page with fewer jobs left is filled up before the next batch chooses."""

AT_ONCE = 256
"""Pages filled up together: about 10 ms."""

MAX_IDS = 200_000
"""Job ids on all pages: 30 MB. 5,000 queues at three priorities fit with their first pages."""


@dataclass(slots=True)
class _Page:
    """Jobs of a level.

    Attributes:
        mark: where the next page begins.
        ended: nothing waited behind the mark when it was read.
        fetched: jobs of the last page.
    """

    jobs: deque[Mark] = field(default_factory=deque)
    mark: Mark = START
    ended: bool = False
    fetched: int = 0


class Pages:
    """Pages of job ids.

    Args:
        index: is told how many jobs are left where that is known, and how old the next one is.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._pages: OrderedDict[Level, _Page] = OrderedDict()
        self._levels: dict[int, set[int]] = {}
        self._low: set[Level] = set()
        self._held = 0

    def __len__(self) -> int:
        """Job ids held."""
        return self._held

    def next_job(self, tx: Reading, choice: Choice, spoken_for: Collection[int]) -> int | None:
        """The job of a choice; ``None`` if there is none any more: the index was put right, choose again."""
        level = choice.queue_id, choice.priority
        page = self._page(level)
        while page.jobs or self._fetch(tx, level, page):
            _, job = page.jobs.popleft()
            self._held -= 1
            if job not in spoken_for:
                if not page.jobs:
                    self._fetch(tx, level, page)
                self._tell(level, page)
                return job
        # Fewer wait than the index thought.
        self._index.refund(choice.queue_id, choice.charge)
        self._tell(level, page)
        return None

    def note(self, found: Iterable[Head]) -> dict[int, dict[int, tuple[int, float]]]:
        """What the heads of some queues mean for the index: queue → priority → (jobs, oldest).

        A page that begins with another job than the level is not kept.
        """
        counts: dict[int, dict[int, tuple[int, float]]] = {}
        for queue_id, priority, oldest in found:
            page = self._pages.get((queue_id, priority))
            if page is not None and (not page.jobs or page.jobs[0][0] != oldest):
                self._drop((queue_id, priority))
                page = None
            known = MANY if page is None or not page.ended else len(page.jobs)
            counts.setdefault(queue_id, {})[priority] = (known, oldest)
        return counts

    def read(self, tx: Reading, ids: Collection[int]) -> dict[int, dict[int, tuple[int, float]]]:
        """Read the first pages of some queues anew; what they mean for the index, as :meth:`note` says."""
        self.forget(ids)
        levels = [(head.queue_id, head.priority) for head in heads.of(tx, ids)]
        counts: dict[int, dict[int, tuple[int, float]]] = {}
        for start in range(0, len(levels), AT_ONCE):
            self._fill(tx, [(level, START) for level in levels[start : start + AT_ONCE]], FIRST_PAGE)
        for queue_id, priority in levels:
            page = self._pages.get((queue_id, priority))
            if page is not None and page.jobs:
                count = len(page.jobs) if page.ended else MANY
                counts.setdefault(queue_id, {})[priority] = (count, page.jobs[0][0])
        return counts

    def fill_up(self, tx: Reading) -> None:
        """Fill up pages that run low, and let go of those that nobody used for long: before a batch."""
        while self._held > MAX_IDS:
            self._drop(next(iter(self._pages)))
        low = sorted(self._low)[:AT_ONCE]
        if low:
            self._low.difference_update(low)
            wanted = [(level, self._pages[level].mark) for level in low if level in self._pages]
            self._fill(tx, wanted, PAGE)
            for level, _ in wanted:
                self._tell(level, self._pages[level])

    def forget(self, ids: Collection[int]) -> None:
        """These queues have got jobs that may come before those paged."""
        for queue_id in ids:
            for priority in list(self._levels.get(queue_id, ())):
                self._drop((queue_id, priority))

    def _page(self, level: Level) -> _Page:
        page = self._pages.get(level)
        if page is None:
            page = self._pages[level] = _Page()
            self._levels.setdefault(level[0], set()).add(level[1])
        else:
            self._pages.move_to_end(level)
        return page

    def _fetch(self, tx: Reading, level: Level, page: _Page) -> bool:
        """The next page of a level; whether there is one."""
        if not page.ended:
            limit = PAGE if page.fetched else FIRST_PAGE
            self._add(level, page, heads.page(tx, level, limit, page.mark), limit)
        return bool(page.jobs)

    def _fill(self, tx: Reading, wanted: list[tuple[Level, Mark]], limit: int) -> None:
        found = heads.pages(tx, wanted, limit)
        for level, _ in wanted:
            self._add(level, self._page(level), found.get(level, []), limit)

    def _add(self, level: Level, page: _Page, found: list[Mark], limit: int) -> None:
        page.jobs.extend(found)
        page.fetched, page.ended = len(found), len(found) < limit
        if found:
            page.mark = found[-1]
        self._held += len(found)
        self._low.discard(level)

    def _tell(self, level: Level, page: _Page) -> None:
        queue_id, priority = level
        known = self._index.queue(queue_id).levels.get(priority)
        if not page.jobs:
            self._index.remove(queue_id, priority, MANY << 1)
            self._drop(level)
        elif known is not None and page.ended and known.count != len(page.jobs):
            self._index.remove(queue_id, priority, known.count - len(page.jobs))
        if page.jobs:
            self._index.set_head(queue_id, priority, page.jobs[0][0])
            if len(page.jobs) < LOW and not page.ended:
                self._low.add(level)

    def _drop(self, level: Level) -> None:
        page = self._pages.pop(level, None)
        if page is not None:
            self._held -= len(page.jobs)
            self._low.discard(level)
            self._levels[level[0]].discard(level[1])
            if not self._levels[level[0]]:
                del self._levels[level[0]]
