"""Whether a submission is within its owner's limits; what is granted is noted in the same transaction.

Promises: exact for all processes together, also for two submissions at the same moment; what was rolled back costs
nothing; a submission costs two statements, however many jobs there are. Approximate: jobs that ended count for up to
:data:`RECOUNT_SECONDS` more when a limit of active jobs is reached; windows are whole minutes and hours, so twice the
limit may pass around the turn of one; jobs that are rescheduled are counted, but never refused.
Lies elsewhere: which limit counts (:mod:`consumers.domain.ceilings`), the counts (:mod:`consumers.store.usage`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from schemas.access import Limit, Measure

from .batch import Batch
from .domain.ceilings import Ceiling, ceiling
from .store import usage
from .store.usage import HOUR, MINUTE, Usage

BYTES_PER_HOUR = 1 << 30
"""Of one identity, descriptions and files inside of messages: they are kept with the jobs, outside the quota for
uploads."""

RECOUNT_SECONDS = 5.0
"""Between two counts of the same jobs: who is at his limit and tries again and again costs one count in that time."""


class Allowance:
    """The limits in one batch.

    Args:
        batch: the batch.
        limits: operators' limits.
        write: writes what the batch has still to write, so that it can be counted.
    """

    def __init__(self, batch: Batch, limits: Sequence[Limit], write: Callable[[], None]) -> None:
        self._batch = batch
        self._limits = limits
        self._write = write
        self._held = False

    def take(self, owner: str, group: str, count: int, size: int) -> str:
        """Grant a submission of so many jobs and bytes, or say why not (empty: granted).

        Args:
            owner: whose.
            group: for which group.
            count: jobs.
            size: bytes of the submission.
        """
        top = ceiling(self._limits, Measure.SUBMISSION_BYTES, owner, group)
        if size > top.value:
            todo = "send fewer descriptions at once, and upload large files instead of sending them inside"
            return _text(top, f"this submission has {size:,} bytes", todo)
        tx, now = self._batch.tx, self._batch.now
        if not self._held:
            usage.hold(tx)
            self._held = True
        tops = {measure: ceiling(self._limits, measure, owner, group) for measure in Measure}
        mine = usage.of_owner(tx, owner, now)
        ours = usage.of_group(tx, group, now) if any(top.of_group for top in tops.values()) else mine
        refused = (
            self._per_minute(tops[Measure.SUBMISSIONS_PER_MINUTE], mine, ours)
            or self._per_hour(tops[Measure.JOBS_PER_HOUR], mine, ours, count)
            or self._bytes(mine, size)
            or self._active(tops[Measure.ACTIVE_JOBS], mine, ours, count, owner, group)
        )
        if not refused:
            usage.add(tx, owner, group, now, count=count, size=size)
        return refused

    def _per_minute(self, top: Ceiling, mine: Usage, ours: Usage) -> str:
        used = (ours if top.of_group else mine).submissions
        if used < top.value:
            return ""
        todo = f"try again in {self._left(MINUTE)} s, or send many jobs in one submission"
        return _text(top, f"{used:,} submissions {top.whose} within this minute", todo)

    def _per_hour(self, top: Ceiling, mine: Usage, ours: Usage, count: int) -> str:
        used = (ours if top.of_group else mine).jobs
        if used + count <= top.value:
            return ""
        fact = f"{used:,} jobs {top.whose} within this hour, and {_more(count)}"
        return _text(top, fact, f"try again in {self._left(HOUR)} s" if count <= top.value else "send fewer at once")

    def _bytes(self, mine: Usage, size: int) -> str:
        if mine.bytes + size <= BYTES_PER_HOUR:
            return ""
        fact = f"{mine.bytes:,} bytes of yours within this hour, and this submission has {size:,}"
        return f"limit bytes-per-hour: {fact}; at most {BYTES_PER_HOUR:,} (built in): try again in {self._left(HOUR)} s"

    def _active(self, top: Ceiling, mine: Usage, ours: Usage, count: int, owner: str, group: str) -> str:
        used = ours if top.of_group else mine
        if used.active + count > top.value and self._batch.now - used.counted >= RECOUNT_SECONDS:
            tx, now = self._batch.tx, self._batch.now
            self._write()
            if top.of_group:
                usage.recount(tx, now, grp=group)
                used = usage.of_group(tx, group, now)
            else:
                usage.recount(tx, now, owner=owner)
                used = usage.of_owner(tx, owner, now)
        if used.active + count <= top.value:
            return ""
        fact = f"{used.active:,} jobs {top.whose} are not final yet, and {_more(count)}"
        return _text(top, fact, "try again when some have ended" if count <= top.value else "send fewer at once")

    def _left(self, seconds: int) -> int:
        return int(seconds - self._batch.now % seconds) + 1


def _more(count: int) -> str:
    return f"this submission has {count:,} more"


def _text(top: Ceiling, fact: str, todo: str) -> str:
    return f"limit {top.measure}: {fact}; at most {top.value:,} ({top.source}): {todo}"
