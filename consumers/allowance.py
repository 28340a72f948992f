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
from .store import Reading, usage
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
            return _too_large(top, size)
        tx, now = self._batch.tx, self._batch.now
        if not self._held:
            usage.hold(tx)
            self._held = True
        tops = {measure: ceiling(self._limits, measure, owner, group) for measure in Measure}
        mine = usage.of_owner(tx, owner, now)
        ours = usage.of_group(tx, group, now) if any(top.of_group for top in tops.values()) else mine
        refused = (
            _per_minute(tops[Measure.SUBMISSIONS_PER_MINUTE], mine, ours, now)
            or _per_hour(tops[Measure.JOBS_PER_HOUR], mine, ours, count, now)
            or _bytes(mine, size, now)
            or self._active(tops[Measure.ACTIVE_JOBS], mine, ours, count, owner, group)
        )
        if not refused:
            usage.add(tx, owner, group, now, count=count, size=size)
        return refused

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
        return _too_active(top, used, count)


def foresee(tx: Reading, limits: Sequence[Limit], owner: str, group: str, *, count: int, size: int, now: float) -> str:
    """What :meth:`Allowance.take` would say now, granting nothing; jobs that have just ended may still be counted."""
    tops = {measure: ceiling(limits, measure, owner, group) for measure in Measure}
    if size > tops[Measure.SUBMISSION_BYTES].value:
        return _too_large(tops[Measure.SUBMISSION_BYTES], size)
    mine = usage.of_owner(tx, owner, now)
    ours = usage.of_group(tx, group, now) if any(top.of_group for top in tops.values()) else mine
    top = tops[Measure.ACTIVE_JOBS]
    return (
        _per_minute(tops[Measure.SUBMISSIONS_PER_MINUTE], mine, ours, now)
        or _per_hour(tops[Measure.JOBS_PER_HOUR], mine, ours, count, now)
        or _bytes(mine, size, now)
        or _too_active(top, ours if top.of_group else mine, count)
    )


def _too_large(top: Ceiling, size: int) -> str:
    todo = "send fewer descriptions at once, and upload large files instead of sending them inside"
    return _text(top, f"this submission has {size:,} bytes", todo)


def _per_minute(top: Ceiling, mine: Usage, ours: Usage, now: float) -> str:
    used = (ours if top.of_group else mine).submissions
    if used < top.value:
        return ""
    todo = f"try again in {_left(MINUTE, now)} s, or send many jobs in one submission"
    return _text(top, f"{used:,} submissions {top.whose} within this minute", todo)


def _per_hour(top: Ceiling, mine: Usage, ours: Usage, count: int, now: float) -> str:
    used = (ours if top.of_group else mine).jobs
    if used + count <= top.value:
        return ""
    fact = f"{used:,} jobs {top.whose} within this hour, and {_more(count)}"
    return _text(top, fact, f"try again in {_left(HOUR, now)} s" if count <= top.value else "send fewer at once")


def _bytes(mine: Usage, size: int, now: float) -> str:
    if mine.bytes + size <= BYTES_PER_HOUR:
        return ""
    fact = f"{mine.bytes:,} bytes of yours within this hour, and this submission has {size:,}"
    return f"limit bytes-per-hour: {fact}; at most {BYTES_PER_HOUR:,} (built in): try again in {_left(HOUR, now)} s"


def _too_active(top: Ceiling, used: Usage, count: int) -> str:
    if used.active + count <= top.value:
        return ""
    fact = f"{used.active:,} jobs {top.whose} are not final yet, and {_more(count)}"
    return _text(top, fact, "try again when some have ended" if count <= top.value else "send fewer at once")


def _left(seconds: int, now: float) -> int:
    return int(seconds - now % seconds) + 1


def _more(count: int) -> str:
    return f"this submission has {count:,} more"


def _text(top: Ceiling, fact: str, todo: str) -> str:
    return f"limit {top.measure}: {fact}; at most {top.value:,} ({top.source}): {todo}"
