"""Following jobs: each change once, through restarts of whoever tells.

The service tells for a limited time; a follower asks again at half of it, which also heals a restart of the service
or the broker. The first answer to each question holds the present states, so nothing is missed in between.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from schemas.errors import TemporaryError
from schemas.messages.event import JobChange
from schemas.messages.service import ChainUnknown, JobProgress, Refused
from schemas.messages.user import FollowJobs

if TYPE_CHECKING:
    from broker.session import Incoming, Session

FOLLOW_SECONDS = 60.0
"""How long the service is asked to tell. Half of it is the longest time that a restart there can go unnoticed."""

SEND_PATIENCE = 5.0
"""Seconds for one question to reach the broker; after that it is asked again."""

MAX_RANGE = 100_000
"""Ids in one question (the message's bound)."""

MAX_GAP = 1000
"""Ids that nobody asked for, which one question may cover rather than make two."""

BATCH = 64


def cover(jobs: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges (first, count) that cover these ids: few questions rather than exact ones."""
    ranges: list[tuple[int, int]] = []
    for job in sorted(set(jobs)):
        if ranges:
            first, count = ranges[-1]
            if job - (first + count) <= MAX_GAP and job - first < MAX_RANGE:
                ranges[-1] = (first, job - first + 1)
                continue
        ranges.append((job, 1))
    return ranges


class Follower:
    """Follows ranges of jobs over a session."""

    def __init__(
        self, session: Session, aside: deque[Incoming], on_away: Callable[[bool], None] = lambda _away: None
    ) -> None:
        """Take a session, and answers about progress that others have received meanwhile.

        Args:
            session: logged in.
            aside: those answers.
            on_away: told when nobody can be asked (True), and when it works again (False).
        """
        self._session = session
        self._aside = aside
        self._on_away = on_away
        self._away = False
        self._known: dict[int, JobChange] = {}

    def changes(self, ranges: Collection[tuple[int, int]], deadline: float | None = None) -> Iterator[JobChange]:
        """Each change of each job, beginning with the present states, until the deadline (monotonic clock)."""
        due = time.monotonic()
        while deadline is None or time.monotonic() < deadline:
            if time.monotonic() >= due:
                due = time.monotonic() + (FOLLOW_SECONDS / 2 if self._ask(ranges) else 1.0)
            until = due if deadline is None else min(due, deadline)
            for incoming in self._receive(max(0.0, until - time.monotonic())):
                message = incoming.message
                if isinstance(message, JobProgress):
                    yield from self._news(message, ranges)
                elif isinstance(message, ChainUnknown):
                    self._session.renew()
                    due = time.monotonic()
                elif isinstance(message, Refused) and message.type == "job.follow.v1":
                    from broker.session import RequestRefusedError

                    raise RequestRefusedError(message)

    def _ask(self, ranges: Collection[tuple[int, int]]) -> bool:
        try:
            for first, count in ranges:
                self._session.send(FollowJobs(first=first, count=count, seconds=FOLLOW_SECONDS), SEND_PATIENCE)
        except TemporaryError:
            self._tell_away(True)
            return False  # the broker is away; the session comes back by itself and we ask again
        self._tell_away(False)
        return True

    def _tell_away(self, away: bool) -> None:
        if away is not self._away:
            self._away = away
            self._on_away(away)

    def _receive(self, timeout: float) -> list[Incoming]:
        if self._aside:
            return [self._aside.popleft() for _ in range(len(self._aside))]
        incomings = self._session.receive(BATCH, timeout)
        self._session.ack(incomings)
        return list(incomings)

    def _news(self, message: JobProgress, ranges: Collection[tuple[int, int]]) -> Iterator[JobChange]:
        for change in message.changes:
            if not any(first <= change.job < first + count for first, count in ranges):
                continue
            before = self._known.get(change.job)
            if before is not None and (change.time < before.time or _state(change) == _state(before)):
                continue
            self._known[change.job] = change
            yield change


def _state(change: JobChange) -> tuple[str, str, int]:
    return change.status, change.minor, change.attempt
