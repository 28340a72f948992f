"""relay: says what others had committed to say and did not get out; and clears away what has lost its meaning.

A writer publishes its own letters right after the commit. What is still unconfirmed some seconds later (the writer
died, the broker was away) is the relay's, and so is everything that waits on purpose. A letter keeps its id; saying it
twice has no second effect at its receiver. Any number of relays may run: each takes rows that no other holds.
"""

from __future__ import annotations

import structlog

from schemas.registry import DAY, HOUR, registered

from .batch import Batch, Consumer
from .paperwork import letter_of
from .store import Transaction, chains, inbox, orders, outbox, pilots, sessions

LOOK_SECONDS = 1.0
"""How long a retry that is due, or a letter of a crashed process, waits at most beyond its time."""

PATIENCE = 5.0
"""A letter so young is its writer's business: ten times the longest sleep of a writer that has confirms to note."""

AGAIN = 10.0
"""Seconds until a letter that was said and not confirmed is said again."""

LIMIT = 500
"""Letters of one turn; when there are more the next turn follows at once."""

EXPIRE_SECONDS = 60.0
PURGE_SECONDS = 3600.0

INBOX_LIVES = 2
"""An inbox row outlives two lives of its message type: a letter may wait one in an outbox, be signed anew with its old
id, and wait another one in a queue. After that no copy of it can be admitted any more."""

INBOX_SLACK = HOUR
"""Clocks, and outages while a row is on its way."""

CHAIN_SECONDS = 90.0 * DAY
"""Chains stay after their end as long as dead letters signed by them may be replayed with their signature checked."""

SESSION_SECONDS = 30.0 * DAY
"""Longer than any proxy: a client that did not log in for so long cannot be connected any more."""

ORDER_SECONDS = 30.0 * DAY
"""Orders end with their attempt; what is older belongs to jobs that were forgotten."""

PILOT_SECONDS = 30.0 * DAY
"""Pilots that ended stay listed for a month: so long people ask what happened on a node."""

log = structlog.get_logger(__name__)


class Relay(Consumer):
    """The consumer; it reads no queue."""

    name = "relay"

    def __init__(self) -> None:
        self._next_look = 0.0
        self._next_expiry = 0.0
        self._next_purge = 0.0

    def due_in(self, now: float) -> float | None:
        """Once a second, at once while there is more."""
        return self._next_look - now

    def chores(self, batch: Batch) -> None:
        """Say what is due; clear away."""
        now = batch.now
        self._next_look = now + LOOK_SECONDS
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRE_SECONDS
            expired = outbox.expire(batch.tx, now)
            if expired:
                log.warning("outbox.expired", letters=expired)
        if now >= self._next_purge:
            self._next_purge = now + PURGE_SECONDS
            purge(batch.tx, now)
        rows = outbox.due(batch.tx, now, now - PATIENCE, LIMIT)
        outbox.postpone(batch.tx, [row.jti for row in rows], now + AGAIN)
        batch.again.extend(letter_of(row) for row in rows)
        if len(rows) == LIMIT:
            self._next_look = now


def purge(tx: Transaction, now: float) -> None:
    """Clear away what nobody can ask for any more."""
    dropped = {
        "inbox": purge_inbox(tx, now),
        "chains": chains.purge(tx, now - CHAIN_SECONDS),
        "sessions": sessions.purge(tx, now - SESSION_SECONDS),
        "orders": orders.purge(tx, now - ORDER_SECONDS),
        "pilots": pilots.purge(tx, now - PILOT_SECONDS),
    }
    if any(dropped.values()):
        log.info("store.purged", **dropped)


def purge_inbox(tx: Transaction, now: float) -> int:
    """Drop inbox rows by the lifetime of their type: heartbeats by the million need to be known for minutes only."""
    by_lifetime: dict[int, list[str]] = {}
    for name, row in registered().items():
        by_lifetime.setdefault(row.lifetime, []).append(name)
    longest = max(by_lifetime)
    dropped = 0
    for lifetime, names in sorted(by_lifetime.items()):
        types = None if lifetime == longest else names  # types that this release does not know live longest
        dropped += inbox.purge(tx, now - INBOX_LIVES * lifetime - INBOX_SLACK, types)
    return dropped
