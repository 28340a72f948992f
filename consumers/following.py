"""Who follows which jobs: kept in memory, bounded, gone with the process (followers ask again).

Of a batch of changes each follower gets those of his jobs. Changes are sorted once by job; each follow is two
bisections; followers of the same jobs share one encoding. So many followers of many jobs cost what is really told.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from broker.authorization import Principal, may_see_job
from broker.publisher import Letter, reply
from broker.signing import uuid7
from schemas.envelope import reply_queue
from schemas.messages.event import JobChange
from schemas.messages.service import JobProgress

from .changes import parts

MAX_PER_CLIENT = 200
"""Ranges that one client may follow: a tool covers what it watches by few ranges."""

MAX_PER_IDENTITY = 1_000
"""Ranges that all clients of one identity may follow: some tools at once, but no single user takes the room of all."""

MAX_FOLLOWS = 20_000
"""Ranges of all clients: two bisections each and batch, 20 ms at most."""

Range = tuple[int, int]
"""(first id, one past the last)"""

Span = tuple[int, int]
"""Places in the sorted changes: (from, to)."""


@dataclass(frozen=True, slots=True)
class Follow:
    """One range that a client follows.

    Attributes:
        principal: who asked.
        correlation: the question.
        asked: when.
        until: when it is forgotten.
    """

    principal: Principal
    correlation: str
    asked: float
    until: float


class Followers:
    """The follows of one process."""

    def __init__(self) -> None:
        self._follows: dict[str, dict[Range, Follow]] = {}
        self._count = 0
        self._of_identity: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._count

    def add(self, client: str, wanted: Range, follow: Follow) -> Follow | None:
        """Follow a range, or follow it longer; what was there before.

        Raises:
            OverflowError: the client, its identity, or all together, follow too much already.
        """
        mine, identity = self._follows.get(client, {}), follow.principal.identity
        before = mine.get(wanted)
        if before is None:
            if len(mine) >= MAX_PER_CLIENT:
                raise OverflowError(f"you follow {len(mine)} ranges of jobs already; at most {MAX_PER_CLIENT}")
            if self._of_identity[identity] >= MAX_PER_IDENTITY:
                reason = f"all your tools together follow {MAX_PER_IDENTITY} ranges of jobs already; end some of them"
                raise OverflowError(reason)
            if self._count >= MAX_FOLLOWS:
                raise OverflowError("too many followers; try again later, or ask for the jobs' states instead")
            self._count += 1
            self._of_identity[identity] += 1
        self._follows.setdefault(client, {})[wanted] = follow
        return before

    def expire(self, now: float) -> None:
        """Forget those whose time is over."""
        for client in list(self._follows):
            kept = {wanted: follow for wanted, follow in self._follows[client].items() if follow.until >= now}
            over = [one for wanted, one in self._follows[client].items() if wanted not in kept]
            self._count -= len(over)
            self._of_identity -= Counter(one.principal.identity for one in over)  # and without those that have none
            if kept:
                self._follows[client] = kept
            else:
                del self._follows[client]

    def letters(
        self, changes: Sequence[JobChange], now: float, still: Callable[[Principal, str], bool]
    ) -> Iterator[Letter]:
        """What is to be told of these changes, to whom.

        Args:
            changes: in the order in which they happened.
            now: the time.
            still: whether a principal may still act under a client id.
        """
        if not self._follows or not changes:
            return
        news = _News(changes)
        for client, follows in self._follows.items():
            living = {wanted: follow for wanted, follow in follows.items() if follow.until >= now}
            spans = news.spans(living)
            if not spans:
                continue
            last = max(living.values(), key=lambda follow: follow.asked)
            if still(last.principal, client):
                yield from news.letters(spans, client, last)


class _News:
    """The changes of one batch, sorted by job, and what was encoded of them."""

    def __init__(self, changes: Sequence[JobChange]) -> None:
        self._changes = sorted(changes, key=lambda change: change.job)  # stable: of one job in their order
        self._ids = [change.job for change in self._changes]
        self._owners: dict[Span, frozenset[tuple[str, str]]] = {}
        self._encoded: dict[tuple[tuple[Span, ...], frozenset[tuple[str, str]]], list[Letter]] = {}

    def spans(self, ranges: Iterable[Range]) -> tuple[Span, ...]:
        """Where the changes of these jobs are: apart from each other, in order."""
        found: list[Span] = []
        for first, end in sorted(ranges):
            start = bisect_left(self._ids, first)
            stop = bisect_left(self._ids, end, lo=start)
            if found and start <= found[-1][1]:
                start, stop = found[-1][0], max(stop, found[-1][1])
                found.pop()
            if start < stop:
                found.append((start, stop))
        return tuple(found)

    def letters(self, spans: tuple[Span, ...], client: str, follow: Follow) -> Iterator[Letter]:
        """Letters to one client; encoded once for all that may see the same."""
        accounts: frozenset[tuple[str, str]] = frozenset().union(*map(self._accounts, spans))
        seen = frozenset(account for account in accounts if may_see_job(follow.principal, *account))
        if not seen:
            return
        key = (spans, seen)
        if key not in self._encoded:
            visible = [
                change
                for start, stop in spans
                for change in self._changes[start:stop]
                if (change.owner, change.group) in seen
            ]
            self._encoded[key] = [reply(message, client) for message in progress(visible)]
        for letter in self._encoded[key]:
            yield replace(
                letter,
                routing_key=reply_queue(client),
                audience=client,
                message_id=uuid7(),
                correlation=follow.correlation,
            )

    def _accounts(self, span: Span) -> frozenset[tuple[str, str]]:
        if span not in self._owners:
            some = self._changes[span[0] : span[1]]
            self._owners[span] = frozenset((change.owner, change.group) for change in some)
        return self._owners[span]


def progress(changes: Sequence[JobChange]) -> Iterator[JobProgress]:
    """Messages of bounded size."""
    for part in parts(changes):
        yield JobProgress(changes=part)
