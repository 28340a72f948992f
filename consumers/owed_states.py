"""Present states that followers were promised: told page by page, however many jobs they ask about.

Promises: one transaction reads and tells at most about :data:`STATES_PER_TURN` states, whoever asks for how many; those
who wait take turns; each question gets an answer, if only an empty one. A place moves on with the commit, so a
rollback tells twice rather than never. Gone with the process, as the follows are.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from broker.authorization import Principal, may_see_job
from broker.publisher import reply
from schemas.messages.event import JobChange
from schemas.messages.service import JobProgress

from .batch import Batch
from .following import Follow, Range, progress
from .store import jobs
from .store.rows import JobState

PAGE = 500
"""States read at once: one message."""

PAGE_RANGE = 10_000
"""Ids looked through at once: of those that changed since the last question there may be few among many."""

STATES_PER_TURN = 5_000
"""States told in one transaction: ten messages, near 1.5 MB. A question may be about 100,000 (25 MB), and 256 questions
come in one batch."""

PAGE_COST = 50
"""What a page costs at least, in states: a hundred nearly empty ones are enough for a transaction."""

MAX_UNCONFIRMED = 100
"""With so many letters on their way nothing more is told: the broker, or its client, is slower than we are."""


@dataclass(slots=True)
class _Owed:
    """What is still to be told of one range: jobs from ``first`` on that changed since a time."""

    follow: Follow
    since: float
    first: int
    told: bool = False


Key = tuple[str, Range]
"""(client, range)"""


class OwedStates:
    """All that is still to be told by one process. Bounded by the follows."""

    def __init__(self) -> None:
        self._owed: OrderedDict[Key, _Owed] = OrderedDict()

    def __len__(self) -> int:
        return len(self._owed)

    def promise(self, client: str, wanted: Range, follow: Follow, since: float) -> None:
        """Tell a range from its beginning; if that is under way already, go on for the newer question."""
        known = self._owed.get((client, wanted))
        if known is None:
            self._owed[client, wanted] = _Owed(follow, since, wanted[0])
        else:
            known.follow = follow

    def tell(self, batch: Batch, still: Callable[[Principal, str], bool]) -> None:
        """Tell some pages, one of each who waits after the other.

        Args:
            batch: answers go there; what was told is forgotten with its commit.
            still: whether a principal may still act under a client id.
        """
        left = STATES_PER_TURN
        waiting = deque((key, _Owed(one.follow, one.since, one.first, one.told)) for key, one in self._owed.items())
        over: list[Key] = []
        moved: dict[Key, _Owed] = {}
        while waiting and left > 0:
            key, owed = waiting.popleft()
            client, (_, end) = key
            if owed.follow.until < batch.now or not still(owed.follow.principal, client):
                over.append(key)
                continue
            states = _page(batch, owed, end)
            _say(batch, client, owed, states, last=owed.first >= end)
            left -= max(PAGE_COST, len(states))
            if owed.first >= end:
                over.append(key)
            else:
                moved[key] = owed
                waiting.append((key, owed))
        batch.commits.append(lambda: self._advance(over, moved))

    def _advance(self, over: list[Key], moved: dict[Key, _Owed]) -> None:
        for key, owed in moved.items():
            self._owed[key].first, self._owed[key].told = owed.first, owed.told
            self._owed.move_to_end(key)
        for key in over:
            del self._owed[key]

    def expire(self, now: float) -> None:
        """Forget what nobody waits for any more."""
        for key in [key for key, owed in self._owed.items() if owed.follow.until < now]:
            del self._owed[key]


def _page(batch: Batch, owed: _Owed, end: int) -> list[JobState]:
    """Read the next page and move on behind it."""
    stop = min(end, owed.first + PAGE_RANGE)
    states = jobs.states(batch.tx, owed.first, stop - owed.first, since=owed.since, limit=PAGE)
    owed.first = states[-1].id + 1 if len(states) == PAGE else stop
    return states


def _say(batch: Batch, client: str, owed: _Owed, states: list[JobState], *, last: bool) -> None:
    follow = owed.follow
    visible = [_change(one) for one in states if may_see_job(follow.principal, one.owner, one.grp)]
    parts = list(progress(visible))
    if last and not parts and not owed.told:
        parts = [JobProgress(changes=())]
    owed.told = owed.told or bool(parts)
    batch.unrecorded.extend(reply(part, client, follow.correlation) for part in parts)


def _change(row: JobState) -> JobChange:
    return JobChange(
        job=row.id,
        status=row.status,
        minor=row.minor,
        attempt=row.attempt,
        time=row.changed,
        owner=row.owner,
        group=row.grp,
        site=row.site,
        pilot=row.pilot,
    )
