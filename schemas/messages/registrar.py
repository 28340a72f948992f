"""The registry: what operators ask of it and tell it, what it answers, and the facts that it publishes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from ..registry import DAY, Kind, Message, register
from .common import Count, Epoch, Name, Text
from .event import EVENTS


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
