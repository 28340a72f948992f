"""registry: who and what there is, changed by operators and by the sources of the VO.

Promises: a command is carried out whole or not at all, with all that is wrong told at once; every change is in the
history with who, when and why, in the audit, and raises the version that all services look at; who loses rights by it
is named in an event in the same transaction. No operator takes the last operator's right away by mistake. Lies
elsewhere: what follows from what sources say (:mod:`.domain.registry`), and following the VO's (:mod:`.synchronizing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import msgspec
import structlog

from broker.authorization import SERVICES, Principal, Property, sends, why_not, why_void
from broker.rules import select
from broker.subscriber import Admitted
from schemas.access import AccessRule
from schemas.entries import EntryKey, MemberEntry, ServiceEntry, UserEntry
from schemas.messages.registrar import (
    LISTING_BYTES,
    MAX_DIFFERENCES,
    ChangeRegistry,
    Difference,
    ListedEntry,
    QueryRegistry,
    QueryRegistryHistory,
    RegistryApplied,
    RegistryListing,
    RegistryPast,
    SyncRegistry,
)
from schemas.messages.service import RefusalDetail

from .announcing import announcements
from .batch import Batch, Consumer
from .bounded import cut, within
from .domain.registry import OPERATOR, Book, Draft
from .domain.registry_changes import notes, operate, title
from .domain.registry_checks import Vocabulary, errors
from .domain.registry_losses import locked_out
from .outcome import ACK, DeadLetter, Outcome
from .settings import RegistrySettings
from .sources import Sources
from .store import Transaction, audit, claims
from .synchronizing import Synchronizer

MAX_ERRORS = 100
"""Errors told at once: nobody reads more, and the answer stays small."""

MAX_AUDITED = 100
"""Entries that one line of the audit names; the history has them all."""

ANSWER_BYTES = LISTING_BYTES * 3 // 4
"""What an answer may hold, measured before it is wrapped."""

WORDS = Vocabulary(
    properties=frozenset(item.value for item in Property),
    sends={name: frozenset(sends(name)) for name in SERVICES},
    why_void=why_void,
    alone=frozenset({Property.PRIVATE_PILOT.value}),
)

log = structlog.get_logger(__name__)


def may_change(identity: str, group: str, properties: frozenset[str], rules: tuple[AccessRule, ...]) -> bool:
    """Whether somebody may change the registry, as the authorization table and operators' rules say."""
    concerning = select(rules, identity, group, properties)
    return why_not(Principal(identity, group, properties, rules=concerning), "registry.change.v1") is None


class RegistryKeeper(Consumer):
    """The consumer.

    Args:
        settings: policies and sources.
        sources: reads them; by default as the settings say.
        holder: this process's name for leadership of the cycle.
    """

    name = "registry"
    handlers: ClassVar = {
        QueryRegistry: "on_query",
        ChangeRegistry: "on_change",
        QueryRegistryHistory: "on_history",
        SyncRegistry: "on_sync",
    }
    batch_size = 64
    """Answers may be large."""

    def __init__(self, settings: RegistrySettings, sources: Sources | None = None, holder: str = "registry") -> None:
        self._settings = settings
        self._known: Book | None = None
        reader = sources if sources is not None else Sources(settings.sources)
        self._synchronizer = Synchronizer(settings, reader, self.book, self.commit, holder)

    def on_rollback(self) -> None:
        """What was read or written in that transaction may never have been."""
        self._known = None

    def book(self, tx: Transaction) -> Book:
        """The registry as it is; read anew only if somebody changed it."""
        if self._known is None or self._known.version != claims.version(tx):
            self._known = claims.book(tx)
        return self._known

    # -- questions ----------------------------------------------------------------------------------------------

    def on_query(self, batch: Batch, message: Admitted) -> Outcome:
        """What does the registry know?"""
        asked = message.verified.message
        if not isinstance(asked, QueryRegistry):
            return DeadLetter("not registry.query")
        book = self.book(batch.tx)
        page: list[ListedEntry] = []
        size, more = 0, False
        for key in _found(book, asked):
            entry = book.entries[key]
            groups = book.groups_of(key[1]) if key[0] == "user" else ()
            listed = ListedEntry(entry=entry, sources=book.sources(key), groups=groups)
            size += len(msgspec.json.encode(listed)) + 1
            if len(page) >= asked.limit or (page and size > ANSWER_BYTES):
                more = True
                break
            page.append(listed)
        batch.say(message, RegistryListing(entries=tuple(page), version=book.version, more=more))
        return ACK

    def on_history(self, batch: Batch, message: Admitted) -> Outcome:
        """Who changed what, when and why?"""
        asked = message.verified.message
        if not isinstance(asked, QueryRegistryHistory):
            return DeadLetter("not registry.history")
        kind = asked.kind.value if asked.kind is not None else ""
        lines, more = claims.history(
            batch.tx, kind=kind, name=asked.name, actor=asked.actor, before=asked.before, limit=asked.limit
        )
        shown = within(lines, ANSWER_BYTES)
        batch.say(message, RegistryPast(lines=tuple(shown), more=more or len(shown) < len(lines)))
        return ACK

    # -- changes ------------------------------------------------------------------------------------------------

    def on_change(self, batch: Batch, message: Admitted) -> Outcome:
        """Change entries: all or nothing."""
        asked = message.verified.message
        if not isinstance(asked, ChangeRegistry):
            return DeadLetter("not registry.change")
        if not asked.reason.strip():
            return batch.refuse(message, "invalid", "a change needs a reason")
        claims.lock(batch.tx)
        draft = Draft(self.book(batch.tx))
        wrong = [why for change in asked.changes if (why := operate(draft, change, asked.reason))]
        wrong = wrong or errors(draft, WORDS)
        if wrong:
            reason = cut(wrong[0]) if len(wrong) == 1 else f"{len(wrong)} errors, nothing was changed"
            details = [RefusalDetail(message=cut(why)) for why in wrong[:MAX_ERRORS]]
            return batch.refuse(message, "invalid", reason, details)
        actor = message.principal.identity
        trap = "" if asked.force else locked_out(draft, may_change, actor)
        if trap:
            return batch.refuse(message, "conflict", f"{trap}: nothing was changed; --force does it all the same")
        told = tuple(cut(note) for note in notes(draft, asked.changes))
        if asked.dry_run:
            differences = draft.differences()
            batch.say(message, _applied(differences, self.book(batch.tx).version, told, dry_run=True))
            return ACK
        differences, version = self.commit(batch, draft, OPERATOR, actor, asked.reason)
        named = [f"{change.operation} {title(change.entry.key)}" for change in asked.changes[:MAX_AUDITED]]
        facts = {"reason": asked.reason, "changes": named, "count": len(asked.changes), "forced": asked.force}
        audit.append(batch.tx, batch.now, "registry.change", identity=actor, client=message.client, detail=facts)
        batch.answer(message, _applied(differences, version, told))
        return ACK

    # -- the VO's sources ---------------------------------------------------------------------------------------

    def on_sync(self, batch: Batch, message: Admitted) -> Outcome:
        """Read a source now; the answer comes when it was read."""
        asked = message.verified.message
        if not isinstance(asked, SyncRegistry):
            return DeadLetter("not registry.sync")
        if self._synchronizer.is_orphan(batch.tx, asked):
            self._synchronizer.forget(batch, message, asked)
            return ACK
        why = self._synchronizer.why_not(asked)
        if why:
            return batch.refuse(message, "not-found" if asked.source else "failed", why)
        batch.commits.append(lambda: self._synchronizer.take(message, asked))
        return ACK

    def start(self, batch: Batch) -> None:
        """Look at the sources soon."""
        self._synchronizer.start(batch)

    def due_in(self, now: float) -> float | None:
        """When a source was read, or is to be read."""
        return self._synchronizer.due_in(now)

    def chores(self, batch: Batch) -> None:
        """Follow the sources."""
        self._synchronizer.work(batch)

    # -- writing ------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch, draft: Draft, source: str, actor: str, reason: str) -> tuple[list[Difference], int]:
        """Write a draft and say what follows from it."""
        differences, version = claims.write(batch.tx, draft, now=batch.now, source=source, actor=actor, reason=reason)
        if version != draft.book.version:
            self._known = draft.result(version)
        for fact in announcements(
            differences, version=version, now=batch.now, actor=actor, reason=reason, settings=self._settings
        ):
            batch.publish(fact)
        return differences, version


def _found(book: Book, asked: QueryRegistry) -> Iterator[EntryKey]:
    """Keys of what is asked for, in order of names."""
    names = set(asked.names)
    text = asked.contains.casefold()
    for key in book.of_kind(asked.kind.value):
        if key[1:] <= (asked.after, asked.scope) and (asked.after or asked.scope):
            continue
        if names and not names & _names_of(book, key):
            continue
        if asked.group and not _is_in(book, key, asked.group):
            continue
        if text and text not in _words_of(book, key):
            continue
        yield key


def _names_of(book: Book, key: EntryKey) -> set[str]:
    entry = book.entries[key]
    if isinstance(entry, UserEntry):
        return {entry.dn, entry.nickname or entry.dn}
    return {key[1], entry.name or key[1]} if isinstance(entry, ServiceEntry) else {key[1]}


def _words_of(book: Book, key: EntryKey) -> str:
    """All that an entry says, in one text."""
    values = (str(value) for value in msgspec.structs.astuple(book.entries[key]) if value is not None)
    return "\n".join(values).casefold()


def _is_in(book: Book, key: EntryKey, group: str) -> bool:
    entry = book.entries[key]
    if isinstance(entry, MemberEntry):
        return entry.group == group
    return key[0] == "user" and ("member", key[1], group) in book.entries


def _applied(
    differences: Sequence[Difference], version: int, told: tuple[str, ...], *, dry_run: bool = False
) -> RegistryApplied:
    shown = within(differences[:MAX_DIFFERENCES], ANSWER_BYTES)
    omitted = len(differences) - len(shown)
    return RegistryApplied(
        version=version, differences=tuple(shown), notes=told[:MAX_ERRORS], dry_run=dry_run, omitted=omitted
    )
