"""What the pilot has to say and has not been able to: kept until the broker has it, sent again after a loss."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec
import structlog

from broker.errors import BackpressureError
from broker.publisher import Letter
from broker.session import Session
from broker.transport import Confirm
from schemas.messages.pilot import Report, ReportJobs
from schemas.registry import Message

MAX_REPORTS = 200
"""Reports in one message; below its bound of 256."""

MAX_REPORT_BYTES = 1000 * 1024
"""Of one message of reports, as they are encoded; it must stay below 1 MiB."""

RETRY_SECONDS = 1.0
"""After a publication that did not get through."""

GATHER_SECONDS = 0.1
"""Messages of reports follow each other no more often while payloads end thick and fast: one signature, one
transaction and one confirm then serve several (measured: a quarter less work for services and broker than with 0.03).
A report that comes alone, and a pilot's last one, go at once."""

REFUSED_RETRY_SECONDS = 5.0
"""After the broker refused a message. It does so while its gatekeeper is away, too, and a report must not be lost for
that; its answers are cached for five seconds."""

REFUSED_PATIENCE = 600.0
"""A message that is refused for so long is refused for good: longer than any restart of a gatekeeper."""

RECENT_LETTERS = 64
"""Letters kept after the broker took them, in case a service does not know the pilot's chain: those of some seconds,
and at most 32 MB."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Posted:
    letter: Letter
    future: Future[Confirm]


@dataclass(slots=True)
class _Refused:
    letter: Letter
    retry_at: float
    give_up_at: float


class Post:
    """Letters on their way, in order of posting; nothing is lost while the process lives.

    Args:
        session: the pilot's session.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._reports: list[Report] = []
        self._unsent: deque[Letter] = deque()
        self._posted: deque[_Posted] = deque()
        self._refused: dict[str, _Refused] = {}
        self._recent: OrderedDict[str, Letter] = OrderedDict()
        self._retry_at = 0.0
        self._gather_until = 0.0

    def __len__(self) -> int:
        return len(self._reports) + len(self._unsent) + len(self._posted) + self._waiting_refused()

    def _waiting_refused(self) -> int:
        """Refused letters that are not among those on their way again."""
        return sum(1 for one in self._refused.values() if one.retry_at)

    def report(self, report: Report) -> None:
        """Say where an attempt stands; reports that come at about the same time travel together."""
        self._reports.append(report)

    def say(self, message: Message) -> str:
        """Say something; returns the message's id."""
        letter = self._session.letter(message)
        self._unsent.append(letter)
        return letter.message_id

    def repeat(self, message_id: str, now: float) -> bool:
        """Say a recent letter again, soon: its receiver did not know us yet; False if it is not kept any more."""
        letter = self._recent.get(message_id)
        if letter is None:
            return False
        self._unsent.append(letter)
        self._retry_at = now + RETRY_SECONDS
        return True

    def due_in(self, now: float) -> float:
        """Seconds until reports that are being gathered want to go; infinite if there are none."""
        return max(0.0, self._gather_until - now) if self._reports else math.inf

    def flush(self, now: float, *, gather: bool = False) -> None:
        """Send what waits, and again what was lost.

        Args:
            now: on the monotonic clock.
            gather: more reports are likely to come: those at hand may wait for them until :meth:`due_in`.
        """
        self._settle(now)
        if self._reports and (not gather or now >= self._gather_until):
            self._gather_until = now + GATHER_SECONDS
            self._pack()
        self._try_refused(now)
        if not self._unsent or now < self._retry_at:
            return
        letters = list(self._unsent)
        try:
            futures = self._session.post(letters)
        except BackpressureError:
            self._retry_at = now + RETRY_SECONDS
            return
        self._unsent.clear()
        for letter in letters:
            self._recent[letter.message_id] = letter
            if len(self._recent) > RECENT_LETTERS:
                self._recent.popitem(last=False)
        self._posted.extend(_Posted(letter, future) for letter, future in zip(letters, futures, strict=True))

    def _pack(self) -> None:
        pack: list[Report] = []
        size = 0
        for report in self._reports:
            weight = len(msgspec.json.encode(report)) + 1
            if pack and (len(pack) >= MAX_REPORTS or size + weight > MAX_REPORT_BYTES):
                self.say(ReportJobs(reports=tuple(pack)))
                pack, size = [], 0
            pack.append(report)
            size += weight
        if pack:
            self.say(ReportJobs(reports=tuple(pack)))
        self._reports = []

    def _settle(self, now: float) -> None:
        again: list[Letter] = []
        for _ in range(len(self._posted)):
            posted = self._posted.popleft()
            if not posted.future.done():
                self._posted.append(posted)
                continue
            confirm = posted.future.result()
            if confirm in {Confirm.LOST, Confirm.NACKED}:
                again.append(posted.letter)
            elif confirm is Confirm.ACKED:
                self._refused.pop(posted.letter.message_id, None)
            else:
                self._on_refused(posted.letter, confirm, now)
        if again:
            self._retry_at = now + RETRY_SECONDS
            self._unsent.extendleft(reversed(again))

    def _on_refused(self, letter: Letter, confirm: Confirm, now: float) -> None:
        known = self._refused.setdefault(letter.message_id, _Refused(letter, 0.0, now + REFUSED_PATIENCE))
        known.retry_at = now + REFUSED_RETRY_SECONDS
        log.warning("pilot.message_not_taken", type=letter.name, confirm=confirm.value)
        if now >= known.give_up_at:
            log.error("pilot.message_given_up", type=letter.name)
            del self._refused[letter.message_id]

    def _try_refused(self, now: float) -> None:
        for refused in self._refused.values():
            if refused.retry_at and now >= refused.retry_at:
                refused.retry_at = 0.0  # on its way
                self._unsent.append(refused.letter)
