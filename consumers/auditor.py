"""auditor: seals the audit into a hash chain, and shows it.

Promises: every committed entry gets its place within seconds, in the order in which it was seen committed; each batch
ends with a seal, signed by this service's key, that binds the chain from its beginning. One auditor writes (a
leadership row with an epoch, checked in each sealing transaction); any number answer questions. The newest seal goes
out as the event ``audit.sealed.v1`` and into the log: witnesses outside of the database, so that an end that is cut off
is noticed. Lies elsewhere: the answers (:mod:`.audit_answers`), checking a chain (:mod:`schemas.audit_check`).
"""

from __future__ import annotations

import base64
from typing import ClassVar

import msgspec
import structlog

from broker.publisher import event
from broker.signing import Signer
from broker.subscriber import Admitted
from schemas.audit import GENESIS, digest
from schemas.messages.audit import AuditSealed, QueryAudit, TraceAudit, WalkAudit
from schemas.registry import type_of

from .audit_answers import links_of, page_of, trail_of
from .batch import Batch, Consumer
from .outcome import ACK, DeadLetter, Outcome
from .store import audit, audit_chain, leader
from .store.audit_chain import Link, Seal

ROLE = "auditor"

SEAL_SECONDS = 3.0
"""Between two seals: soon enough for a person, and a busy system writes less than 30 MB of seals a day."""

BATCH_ENTRIES = 1000
"""Entries of one seal: some tens of milliseconds in the store's transaction."""

LEAD_SECONDS = 20.0
"""A leader that was not heard of for so long is replaced."""

RENEW_SECONDS = 5.0
"""How often the leader says that it leads, and a standby asks."""

REMIND_SECONDS = 3600.0
"""The newest head is told again after so long: a witness of it is never older."""

STRAY_SECONDS = 600.0
"""How often entries are looked for that nobody queued for their place."""

STRAY_SPAN = 10_000
"""Numbers looked at in one transaction."""

log = structlog.get_logger(__name__)


class Auditor(Consumer):
    """The consumer.

    Args:
        holder: this process's name for leadership.
        seconds: between two seals.
    """

    name = "auditor"
    handlers: ClassVar = {QueryAudit: "on_query", WalkAudit: "on_walk", TraceAudit: "on_trace"}
    batch_size = 16
    """An answer may hold a page of a megabyte."""

    def __init__(self, holder: str, *, seconds: float = SEAL_SECONDS) -> None:
        self._identity: Signer | None = None
        self._holder = holder
        self._seconds = seconds
        self._epoch: int | None = None
        self._led: int | None = None
        self._known: AuditSealed | None = None
        self._next_renewal = 0.0
        self._next_look = 0.0
        self._next_reminder = 0.0
        self._strays = 0
        self._next_strays = 0.0

    def signs_with(self, signer: Signer) -> None:
        """Seals are signed by this service's own key."""
        self._identity = signer

    @property
    def _signer(self) -> Signer:
        if self._identity is None:
            raise RuntimeError("the auditor has no identity yet")
        return self._identity

    # -- leadership ---------------------------------------------------------------------------------------------

    def due_in(self, now: float) -> float | None:
        """Look for new entries; a standby only asks whether it is needed."""
        return (self._next_look if self._epoch is not None else self._next_renewal) - now

    def on_rollback(self) -> None:
        """Whatever was true in that transaction: look again who leads."""
        self._epoch = None
        self._next_renewal = 0.0

    def chores(self, batch: Batch) -> None:
        """Lead or try to; seal what waits."""
        now = batch.now
        if now >= self._next_renewal or self._epoch is None:
            self._next_renewal = now + RENEW_SECONDS
            self._lead(batch)
        self._next_look = now + self._seconds
        if self._epoch is None:
            return
        leader.check(batch.tx, ROLE, self._epoch, now)
        if now >= self._next_strays:
            self._look_for_strays(batch)
        self._seal(batch, self._epoch)

    def _lead(self, batch: Batch) -> None:
        epoch = leader.acquire_or_renew(batch.tx, ROLE, self._holder, batch.now, LEAD_SECONDS)
        if epoch == self._epoch:
            return
        if epoch is None:
            log.warning("audit.not_leading", epoch=self._epoch)
        elif epoch != self._led:  # else it leads still, and a transaction had failed
            ders = [base64.b64decode(item) for item in self._signer.x5c]
            audit_chain.put_signer(batch.tx, self._signer.thumbprint, ders, batch.now)
            self._known, self._strays, self._next_strays, self._next_reminder = None, 0, 0.0, 0.0
            batch.commits.append(lambda: self._leads(epoch))
        self._epoch = epoch

    def _leads(self, epoch: int) -> None:
        self._led = epoch
        log.info("audit.leading", epoch=epoch)

    # -- sealing ------------------------------------------------------------------------------------------------

    def _seal(self, batch: Batch, epoch: int) -> None:
        """Give the entries that wait their places, and sign where the chain ends now."""
        entries = audit_chain.next_unsealed(batch.tx, BATCH_ENTRIES)
        if not entries:
            self._remind(batch)
            return
        lost = [entry.id for entry in entries if entry.gone]
        if lost:
            detail = {"entries": lost[:100], "count": len(lost)}
            audit.append(batch.tx, batch.now, "audit.entry-missing", identity=self._signer.issuer, detail=detail)
            log.error("audit.entry_missing", **detail)
        tail = self._tail(batch)
        links: list[Link] = []
        place, head = tail.last, tail.head
        for entry in entries:
            if not entry.gone:
                place, head = place + 1, digest(place + 1, head, entry)
                links.append(Link(place, entry.id, head))
        settled = {entry.id for entry in entries}
        if links:
            said = AuditSealed(
                first=tail.last + 1, last=place, previous=tail.head, head=head, time=batch.now, epoch=epoch
            )
            audit_chain.extend(batch.tx, links, self._signed(batch, said), settled)
        else:
            audit_chain.settle(batch.tx, settled)
        if len(entries) == BATCH_ENTRIES:
            self._next_look = batch.now

    def _signed(self, batch: Batch, said: AuditSealed) -> Seal:
        """The seal as it is kept: the very message that goes out, with its signature."""
        letter = event(said)
        batch.letters.append(letter)
        jws = self._signer.sign(
            type_of(said), letter.payload, audience=letter.audience, now=batch.now, message_id=letter.message_id
        )

        def adopt() -> None:
            self._known, self._next_reminder = said, said.time + REMIND_SECONDS
            log.info("audit.sealed", place=said.last, head=said.head, entries=said.last - said.first + 1)

        batch.commits.append(adopt)
        return Seal(said.last, self._signer.thumbprint, letter.payload, jws)

    def _tail(self, batch: Batch) -> AuditSealed:
        """Where the chain ends. What this auditor itself has sealed counts, whatever the database says of it now."""
        found = self._newest(batch)
        known = self._known
        if known is None or found.last > known.last or (found.last, found.head) == (known.last, known.head):
            return found
        detail = {"place": known.last, "head": known.head, "found_place": found.last, "found_head": found.head}
        audit.append(batch.tx, batch.now, "audit.tail-changed", identity=self._signer.issuer, detail=detail)
        log.error("audit.tail_changed", **detail)
        return known

    @staticmethod
    def _newest(batch: Batch) -> AuditSealed:
        seal = audit_chain.newest_seal(batch.tx)
        if seal is None:
            return AuditSealed(first=0, last=0, previous=GENESIS, head=GENESIS, time=0.0, epoch=0)
        try:
            return msgspec.json.decode(seal.payload, type=AuditSealed)
        except (msgspec.DecodeError, UnicodeError):
            # Somebody wrote into it: go on behind it, so that the check finds the break there and nothing later.
            log.error("audit.seal_unreadable", place=seal.last)  # noqa: TRY400 - nothing of ours went wrong
            return AuditSealed(first=0, last=seal.last, previous="", head=GENESIS, time=0.0, epoch=0)

    def _remind(self, batch: Batch) -> None:
        """Tell the newest head again, so that young witnesses of it are to be had."""
        if batch.now < self._next_reminder:
            return
        self._next_reminder = batch.now + REMIND_SECONDS
        found = self._newest(batch)
        if found.last:
            batch.unrecorded.append(event(found))
            log.info("audit.head", place=found.last, head=found.head)

    def _look_for_strays(self, batch: Batch) -> None:
        """Find entries that wait for no place: an older release wrote them, or somebody past all of us."""
        found, self._strays = audit_chain.find_strays(batch.tx, self._strays, STRAY_SPAN)
        if not self._strays:
            self._next_strays = batch.now + STRAY_SECONDS
        if found:
            audit.append(batch.tx, batch.now, "audit.strays", identity=self._signer.issuer, detail={"count": found})
            log.warning("audit.strays", count=found)

    # -- questions ----------------------------------------------------------------------------------------------

    def on_query(self, batch: Batch, message: Admitted) -> Outcome:
        """What happened?"""
        asked = message.verified.message
        if not isinstance(asked, QueryAudit):
            return DeadLetter("not audit.query")
        batch.say(message, page_of(batch.tx, asked))
        return ACK

    def on_walk(self, batch: Batch, message: Admitted) -> Outcome:
        """How is the chain kept after this place?"""
        asked = message.verified.message
        if not isinstance(asked, WalkAudit):
            return DeadLetter("not audit.walk")
        batch.say(message, links_of(batch.tx, asked, batch.now))
        return ACK

    def on_trace(self, batch: Batch, message: Admitted) -> Outcome:
        """What is known of somebody beside the audit?"""
        asked = message.verified.message
        if not isinstance(asked, TraceAudit):
            return DeadLetter("not audit.trace")
        batch.say(message, trail_of(batch.tx, asked))
        return ACK
