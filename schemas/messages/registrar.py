"""The registry: what operators ask of it and tell it, what it answers, and the facts that it publishes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from ..entries import AnyEntry
from ..registry import DAY, HOUR, MINUTE, Kind, Message, register
from .common import Count, Epoch, Name, Text, Value
from .event import EVENTS
from .service import CLIENT

MAX_CHANGES = 1000
"""Changes in one command: all or nothing."""

MAX_DIFFERENCES = 2000
"""Differences that one answer shows: half a kilobyte each; the others are only counted."""

LISTING_BYTES = 4 << 20


class EntryKind(StrEnum):
    """What entries there are."""

    USER = "user"
    GROUP = "group"
    MEMBER = "member"
    SERVICE = "service"
    SITE = "site"
    STORAGE_ELEMENT = "se"
    COMPUTING_ELEMENT = "ce"
    RULE = "rule"
    LIMIT = "limit"
    MATCH_LIMIT = "match-limit"


class Operation(StrEnum):
    """What is done to an entry."""

    ADD = "add"
    """It must not be there."""
    SET = "set"
    """It must be there; only the fields that are named change."""
    REMOVE = "remove"
    """The operators' entry goes. What another source says stays."""
    RESET = "reset"
    """Forget what operators set: the other sources' word counts again."""


class Blocked(StrEnum):
    """How somebody lost his rights."""

    SUSPENDED = "suspended"
    REMOVED = "removed"
    LEFT = "left"
    """A group."""


class Policy(StrEnum):
    """What becomes of the jobs of somebody who is blocked."""

    KILL = "kill"
    """All end."""
    HOLD = "hold"
    """Running ones end; waiting ones wait for him to come back."""
    FINISH = "finish"
    """Running ones go on; waiting ones wait for him to come back."""


@register("registry.query.v1", Kind.QUERY, "registry", lifetime=5 * MINUTE)
class QueryRegistry(Message, frozen=True, kw_only=True):
    """What does the registry know? Answer: ``registry.listing.v1``, in order of names.

    Attributes:
        names: only these; empty for all.
        contains: only entries in which this text is found, whatever its case.
        group: only members of this group (users and memberships).
        after: only what follows this name: the next page.
        scope: with ``after``, for memberships and limits: within that name.
    """

    kind: EntryKind
    names: Annotated[tuple[Name, ...], Meta(max_length=1000)] = ()
    contains: Text = ""
    group: Text = ""
    after: Text = ""
    scope: Text = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class EntryChange(Value, frozen=True, kw_only=True):
    """One change.

    Attributes:
        operation: what is done.
        entry: which, and its fields.
    """

    operation: Operation
    entry: AnyEntry


@register("registry.change.v1", Kind.COMMAND, "registry", lifetime=HOUR)
class ChangeRegistry(Message, frozen=True, kw_only=True):
    """Change the registry: all of it or nothing. Answer: ``registry.applied.v1``.

    Attributes:
        reason: why; kept in the history.
        dry_run: only tell what would change.
        force: even if no operator is left.
    """

    changes: Annotated[tuple[EntryChange, ...], Meta(min_length=1, max_length=MAX_CHANGES)]
    reason: Annotated[str, Meta(min_length=1, max_length=1000)]
    dry_run: bool = False
    force: bool = False


@register("registry.history.v1", Kind.QUERY, "registry", lifetime=5 * MINUTE)
class QueryRegistryHistory(Message, frozen=True, kw_only=True):
    """Who changed what, when and why? Answer: ``registry.past.v1``, newest first.

    Attributes:
        kind: only of this kind.
        name: only of this entry.
        actor: only what this DN or source did.
        before: only lines below this number: the next page.
    """

    kind: EntryKind | None = None
    name: Text = ""
    actor: Text = ""
    before: Count = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


@register("registry.sync.v1", Kind.COMMAND, "registry", lifetime=10 * MINUTE)
class SyncRegistry(Message, frozen=True, kw_only=True):
    """Read a source now, and do what it says. Answer: ``registry.synced.v1``.

    Attributes:
        source: its name; empty for all.
        dry_run: only tell what would change.
        force: even if it would take away much, or all operators.
        reason: why; kept in the history.
    """

    source: Text = ""
    dry_run: bool = False
    force: bool = False
    reason: Annotated[str, Meta(max_length=1000)] = ""


class ListedEntry(Value, frozen=True, kw_only=True):
    """An entry as it is.

    Attributes:
        sources: who says so: ``operator``, ``seed``, ``sync:<name>``.
        groups: of a user, in order.
    """

    entry: AnyEntry
    sources: tuple[str, ...]
    groups: tuple[str, ...] = ()


@register("registry.listing.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=LISTING_BYTES)
class RegistryListing(Message, frozen=True, kw_only=True):
    """Entries, in order of names."""

    entries: tuple[ListedEntry, ...]
    version: Count
    more: bool = False


class Difference(Value, frozen=True, kw_only=True):
    """What becomes of one entry: absent before if it is new, absent after if it goes."""

    before: AnyEntry | None = None
    after: AnyEntry | None = None


@register("registry.applied.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=LISTING_BYTES)
class RegistryApplied(Message, frozen=True, kw_only=True):
    """What a command changed, or would change.

    Attributes:
        version: of the registry afterwards.
        notes: what the operator should know, such as a source that still suspends.
        omitted: differences that are not shown.
    """

    version: Count
    differences: tuple[Difference, ...] = ()
    notes: tuple[Text, ...] = ()
    dry_run: bool = False
    omitted: Count = 0


class HistoryLine(Value, frozen=True, kw_only=True):
    """One change of one entry.

    Attributes:
        source: whose word changed: ``operator``, ``seed``, ``sync:<name>``.
        actor: DN of the operator, or the source.
    """

    id: int
    time: Epoch
    source: str
    actor: str
    reason: Text = ""
    before: AnyEntry | None = None
    after: AnyEntry | None = None


@register("registry.past.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=LISTING_BYTES)
class RegistryPast(Message, frozen=True, kw_only=True):
    """Changes, newest first."""

    lines: tuple[HistoryLine, ...]
    more: bool = False


class SourceOutcome(Value, frozen=True, kw_only=True):
    """What became of one source.

    Attributes:
        ok: it was read and carried out (or would be).
        reason: why not.
        users: that it names.
        notes: what was left out, such as names that are no DN.
    """

    source: str
    ok: bool
    reason: Text = ""
    users: Count = 0
    differences: tuple[Difference, ...] = ()
    omitted: Count = 0
    notes: tuple[Text, ...] = ()


@register("registry.synced.v1", Kind.REPLY, CLIENT, lifetime=HOUR, max_bytes=LISTING_BYTES)
class RegistrySynced(Message, frozen=True, kw_only=True):
    """What became of each source that was asked for."""

    outcomes: tuple[SourceOutcome, ...]
    version: Count
    dry_run: bool = False


@register("registry.changed.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class RegistryChanged(Message, frozen=True, kw_only=True):
    """Entries of one kind changed, came or went.

    Attributes:
        names: of some of them, at most a thousand.
        version: of the registry since then.
        actor: DN of the operator, or the source.
    """

    kind: EntryKind
    names: Annotated[tuple[str, ...], Meta(max_length=1000)]
    version: Count
    time: Epoch
    actor: str = ""
    reason: Text = ""


@register("identity.blocked.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class IdentityBlocked(Message, frozen=True, kw_only=True):
    """Somebody lost his rights: his connections are to be cut, his jobs to be dealt with.

    Attributes:
        identity: canonical DN.
        group: only those that he had in this group; empty for all.
        how: what happened.
        by: DN of the operator, or the source.
        jobs: what becomes of his jobs.
    """

    identity: Name
    group: str = ""
    how: Blocked
    reason: Text = ""
    by: str = ""
    time: Epoch
    jobs: Policy


@register("registry.stale.v1", Kind.EVENT, EVENTS, lifetime=30 * DAY)
class RegistryStale(Message, frozen=True, kw_only=True):
    """A source could not be read, or what it says was refused: what is known from it grows old.

    Attributes:
        since: when it was last carried out; 0 if never.
    """

    source: Name
    reason: Text
    time: Epoch
    since: Epoch = 0.0
