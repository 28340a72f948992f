"""Where questions about waiting jobs are put, and answers fetched: in a thread of its own, outside of any transaction.

Promises: a question never holds the writer of the store, and one that takes long delays no other work of its consumer;
snapshots are taken only while somebody asks, and take a bounded share of the time; questions are bounded per identity
and in all. An answer that is lost is not made good: who misses one asks again.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from broker.publisher import Letter, reply
from schemas.registry import Message

from ..directory import Directory
from ..domain.shares import Policy
from ..store.errors import StoreUnavailable
from .questions import Answering, Question, refused
from .snapshot import Snapshot, take

KEEP_SECONDS = 1.0
"""A snapshot serves all questions of so long: what people ask one after the other is told of one moment."""

KEEP_FACTOR = 10.0
"""A snapshot that cost much is kept for so many times its cost: looking takes a tenth of one processor at most."""

MAX_PENDING = 256
"""Questions that wait; more are refused."""

MAX_EACH = 8
"""Questions of one identity that wait, by whichever clients: a page asks for a few at once, and a flood is refused."""

POLL_SECONDS = 0.01
"""How often it is looked whether an answer is ready."""

BUSY = "too many questions are being answered: ask again in a moment"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Pending:
    question: Question
    answer: Future[Message]


class Desk:
    """The questions of one process.

    Args:
        directory: registry and store.
        fading: how the matcher remembers usage.
        monotonic: for the age of snapshots.
    """

    def __init__(
        self, directory: Directory, fading: Policy | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._fading = fading
        self._monotonic = monotonic
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="why")
        self._pending: deque[_Pending] = deque()
        self._asking: Counter[str] = Counter()
        self._snapshot: Snapshot | None = None
        self._keep_until = float("-inf")

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def ready(self) -> bool:
        """Whether the first answer can be fetched."""
        return bool(self._pending) and self._pending[0].answer.done()

    def due_in(self) -> float | None:
        """Seconds until :meth:`answers` wants to be called; None if nobody waits."""
        if not self._pending:
            return None
        return 0.0 if self.ready else POLL_SECONDS

    def put(self, question: Question, now: float) -> Message | None:
        """Take a question; a refusal if there are too many."""
        if len(self._pending) >= MAX_PENDING or self._asking[question.principal.identity] >= MAX_EACH:
            return refused(question.message, "limit", BUSY)
        self._asking[question.principal.identity] += 1
        self._pending.append(_Pending(question, self._worker.submit(self._answer, question, now)))
        return None

    def answers(self) -> list[Letter]:
        """The answers that are ready, in the order of the questions."""
        found = []
        while self.ready:
            one = self._pending.popleft()
            identity = one.question.principal.identity
            self._asking[identity] -= 1
            if not self._asking[identity]:
                del self._asking[identity]
            found.append(reply(one.answer.result(), one.question.client, one.question.correlation))
        return found

    def forget(self) -> None:
        """Take the next snapshot anew."""
        self._keep_until = float("-inf")

    def _answer(self, question: Question, now: float) -> Message:
        """In the worker's thread."""
        try:
            with self._directory.reading() as tx:
                return Answering(tx, self._fresh(now), now).answer(question)
        except StoreUnavailable:
            return refused(question.message, "failed", "the store does not answer: ask again in a moment")
        except Exception:
            log.exception("why.failed", type=type(question.message).__name__)
            return refused(question.message, "failed", "this could not be answered; the service's log says why")

    def _fresh(self, now: float) -> Snapshot:
        start = self._monotonic()
        if self._snapshot is None or start >= self._keep_until:
            with self._directory.reading() as tx:
                self._snapshot = take(tx, self._directory, now, self._fading)
            cost = self._monotonic() - start
            self._keep_until = start + cost + max(KEEP_SECONDS, KEEP_FACTOR * cost)
            log.debug("why.looked", seconds=round(cost, 3), offers=len(self._snapshot.crowd))
        return self._snapshot
