"""What the gatekeeper denied, written down within a quota: whoever reaches the broker's port can cause denials.

Promises: of each kind at most :data:`PER_MINUTE` entries a minute, the rest is counted in the next entry of that kind;
a denial stands although it cannot be written down.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from schemas.errors import TemporaryError

from .store import Store, audit

PER_MINUTE = 60
"""Enough to see what somebody tries; a flood of strangers' logins hides nothing of what clients try."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Count:
    minute: int = 0
    written: int = 0
    unrecorded: int = 0


class Denials:
    """The denials of one gatekeeper.

    Args:
        store: where the audit is.
        clock: server time.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, _Count] = {}

    def note(self, what: str, client: str, reason: str, *, identity: str = "", **facts: str) -> None:
        """Write a denial down: the event ``<what>.denied``."""
        now = self._clock()
        with self._lock:
            count = self._counts.setdefault(what, _Count())
            unrecorded = 0
            if int(now // 60) != count.minute:
                unrecorded, count.minute, count.written, count.unrecorded = count.unrecorded, int(now // 60), 0, 0
            count.written += 1
            if count.written > PER_MINUTE:
                count.unrecorded += 1
                return
        log.warning("gatekeeper.denied", what=what, client=client[:80], reason=reason[:300], unrecorded=unrecorded)
        detail: dict[str, object] = {"reason": reason[:300], **{name: text[:300] for name, text in facts.items()}}
        if unrecorded:
            detail["unrecorded"] = unrecorded
        try:
            with self._store.transaction() as tx:
                audit.append(tx, now, f"{what}.denied", identity=identity, client=client[:80], detail=detail)
        except TemporaryError:
            log.warning("gatekeeper.audit_missed", client=client[:80])
