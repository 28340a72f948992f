"""dead-letters: what could not be handled, for operators to look at, to replay or to discard.

Promises: a letter is closed once, by one operator's word, and audited; a replay brings back the original bytes with
their original signature, which is verified again where it goes. What the broker itself gave up on comes here by its
dead queue (unverified, bounded); what merely outlived its use there (old heartbeats, old questions) is counted and
sampled, not kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import msgspec
import structlog

from broker.publisher import to_queue
from broker.subscriber import Admitted
from broker.topology import DEAD_QUEUE, MONITORING, queue_named
from broker.transport import Delivery
from schemas.envelope import JWS_HEADER, MAX_JWS_BYTES
from schemas.messages.admin import DiscardDead, QueryDead, Readmit, ReplayDead
from schemas.messages.service import DeadLetter as DeadLetterInfo
from schemas.messages.service import DeadListing

from .batch import Batch, Consumer
from .outcome import ACK, DeadLetter, Outcome
from .paperwork import row_of
from .store import audit, dead, inbox, outbox
from .store.dead import LetterBody, LetterInfo, NewLetter

MAX_BODY = 8 << 20
"""Bytes kept of a raw message: the largest that any type allows, so that it can be replayed whole."""

MAX_SHOWN = 1 << 20
"""Bytes of a body that an answer shows."""

MAX_REASON = 500
"""Characters of a reason in a list: a thousand letters stay below a megabyte."""

SAMPLES_PER_MINUTE = 20
"""Kept of those that only outlived their use; the broker drops such by the thousand when nobody asks for work."""

KEPT_CLOSED = 90 * 86_400.0
"""Letters that were dealt with stay listed for a quarter."""

PURGE_SECONDS = 3600.0

REPLAY_PAUSE = 0.001
"""A replayed letter is published by the relay alone (a row that waits on purpose): under one issuer and id, so that
the receiver's inbox knows a republication of it."""

RAW = "dead-letters"
"""Issuer under which raw messages are entered in the inbox; no DN looks like it."""

_REASONS = {
    "delivery_limit": "delivery limit: it was delivered again and again and never handled",
    "expired": "expired: it waited too long in its queue",
    "maxlen": "maxlen: its queue was full",
    "rejected": "rejected by its consumer",
}
_OUTLIVED = frozenset({"expired", "maxlen"})

log = structlog.get_logger(__name__)


class DeadLetters(Consumer):
    """The consumer."""

    name = "dead-letters"
    handlers: ClassVar = {QueryDead: "on_query", ReplayDead: "on_replay", DiscardDead: "on_discard"}
    raw_queues = frozenset({DEAD_QUEUE})
    batch_size = 64
    """What lies dead may be large."""

    def __init__(self) -> None:
        self._next_purge = 0.0
        self._minute = 0
        self._samples = 0
        self.outlived = 0

    # -- operators ----------------------------------------------------------------------------------------------

    def on_query(self, batch: Batch, message: Admitted) -> Outcome:
        """Which messages could not be handled?"""
        asked = message.verified.message
        if not isinstance(asked, QueryDead):
            return DeadLetter("not dead.query")
        found, more = dead.query(batch.tx, ids=asked.ids, before=asked.before, limit=asked.limit, closed=asked.all)
        bodies: Mapping[int, LetterBody] = {}
        if asked.body and len(asked.ids) == 1:
            bodies = dead.get(batch.tx, asked.ids)
        letters = tuple(_info(one, bodies.get(one.id)) for one in found)
        batch.say(message, DeadListing(letters=letters, more=more))
        return ACK

    def on_replay(self, batch: Batch, message: Admitted) -> Outcome:
        """Admit these again."""
        asked = message.verified.message
        if not isinstance(asked, ReplayDead):
            return DeadLetter("not dead.replay")
        open_ones, _ = dead.query(batch.tx, ids=asked.ids, limit=len(asked.ids))
        bodies = dead.get(batch.tx, [one.id for one in open_ones])
        operator = message.principal.identity
        wrapped = {key: readmission(body, operator) for key, body in bodies.items()}
        able = {key: letter for key, letter in wrapped.items() if isinstance(letter, Readmit)}
        closed = dead.close(batch.tx, able.keys(), dead.REPLAYED, operator, "", batch.now)
        if not closed:
            reasons = [f"{key}: {why}" for key, why in sorted(wrapped.items()) if isinstance(why, str)]
            return batch.refuse(message, "not-found", "; ".join(reasons)[:1000] or "none of these letters is open")
        letters = [to_queue(able[key], able[key].queue) for key in sorted(closed)]
        outbox.add(batch.tx, [row_of(letter, batch.now, batch.now + REPLAY_PAUSE) for letter in letters])
        return self._closed(batch, message, "dead.replayed", closed)

    def on_discard(self, batch: Batch, message: Admitted) -> Outcome:
        """Close these for good."""
        asked = message.verified.message
        if not isinstance(asked, DiscardDead):
            return DeadLetter("not dead.discard")
        operator = message.principal.identity
        closed = dead.close(batch.tx, set(asked.ids), dead.DISCARDED, operator, asked.reason, batch.now)
        if not closed:
            return batch.refuse(message, "not-found", "none of these letters is open")
        return self._closed(batch, message, "dead.discarded", closed, reason=asked.reason)

    @staticmethod
    def _closed(batch: Batch, message: Admitted, event: str, ids: Collection[int], **detail: object) -> Outcome:
        facts = {"letters": sorted(ids), **detail}
        audit.append(
            batch.tx, batch.now, event, identity=message.principal.identity, client=message.client, detail=facts
        )
        found, _ = dead.query(batch.tx, ids=ids, limit=len(ids), closed=True)
        batch.answer(message, DeadListing(letters=tuple(_info(one, None) for one in found)))
        return ACK

    # -- what the broker gave up on -----------------------------------------------------------------------------

    def on_raw(self, batch: Batch, delivery: Delivery) -> None:
        """Keep it with the reason that the broker gives."""
        cause, queue = _death(delivery.headers)
        if cause in _OUTLIVED and _loses_meaning(queue) and not self._sample(batch.now):
            return
        jws = _text(delivery.headers.get(JWS_HEADER))
        digest = hashlib.sha256(f"{queue}\0{jws}\0".encode() + delivery.body).hexdigest()
        fresh, _ = inbox.admit(batch.tx, [(RAW, digest, RAW)], batch.now)
        if not fresh:
            return  # the broker delivered it a second time
        cut = len(delivery.body) > MAX_BODY or len(jws) > MAX_JWS_BYTES
        headers = {"truncated": cut, "cause": cause, "routing_key": delivery.routing_key[:256]}
        letter = NewLetter(
            time=batch.now,
            queue=queue,
            typ=(delivery.type or "")[:256],
            issuer="",  # nobody verified it
            client=(delivery.user_id or "")[:256],
            reason=_REASONS.get(cause, cause),
            body=delivery.body[:MAX_BODY],
            jws=jws[:MAX_JWS_BYTES],
            user_id=(delivery.user_id or "")[:256],
            headers=json.dumps(headers),
        )
        dead.add(batch.tx, [letter])

    def _sample(self, now: float) -> bool:
        self.outlived += 1
        if int(now // 60) != self._minute:
            self._minute, self._samples = int(now // 60), 0
            log.info("dead.outlived", messages=self.outlived)
        self._samples += 1
        return self._samples <= SAMPLES_PER_MINUTE

    # -- clean-up -----------------------------------------------------------------------------------------------

    def due_in(self, now: float) -> float | None:
        """Once an hour."""
        return self._next_purge - now

    def chores(self, batch: Batch) -> None:
        """Forget letters that were dealt with long ago."""
        self._next_purge = batch.now + PURGE_SECONDS
        dead.purge(batch.tx, batch.now - KEPT_CLOSED)


def readmission(letter: LetterBody, operator: str) -> Readmit | str:
    """A letter wrapped for its way back, or why it cannot go back."""
    queue, user, jws, body = letter.queue, letter.user_id, letter.jws, letter.body
    if msgspec.json.decode(letter.headers, type=dict[str, object]).get("truncated"):
        return "only a part of it was kept"
    if not jws:
        return "it carries no signature"
    inner = _wrapped(body)
    if inner is not None:  # it died on its way back: what counts is the message inside, whose signature is checked
        user, jws, body = inner.user, inner.jws, inner.body
    try:
        if queue in {DEAD_QUEUE, MONITORING} or not queue_named(queue).consumer:
            return f"nothing is admitted by the queue {queue!r}"
    except KeyError:
        return f"there is no queue {queue[:80]!r} any more"
    return Readmit(letter=letter.id, queue=queue, user=user, jws=jws, body=body, operator=operator)


def _wrapped(body: bytes) -> Readmit | None:
    try:
        return msgspec.json.decode(body, type=Readmit)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _death(headers: Mapping[str, object]) -> tuple[str, str]:
    """Why and in which queue a message died, as the broker says."""
    cause, queue = _text(headers.get("x-first-death-reason")), _text(headers.get("x-first-death-queue"))
    deaths = headers.get("x-death")
    if (not cause or not queue) and isinstance(deaths, Sequence) and deaths and isinstance(deaths[-1], Mapping):
        first = deaths[-1]  # the latest stands first
        cause, queue = cause or _text(first.get("reason")), queue or _text(first.get("queue"))
    return (cause or "unknown")[:80], (queue or DEAD_QUEUE)[:256]


def _loses_meaning(queue: str) -> bool:
    try:
        return queue_named(queue).ttl > 0
    except KeyError:
        return False


def _info(one: LetterInfo, body: LetterBody | None) -> DeadLetterInfo:
    return DeadLetterInfo(
        id=one.id,
        time=one.time,
        queue=one.queue,
        type=one.typ,
        issuer=one.issuer,
        reason=one.reason[:MAX_REASON],
        size=one.size,
        state=one.state,
        body=body.body[:MAX_SHOWN] if body is not None else None,
    )


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""
