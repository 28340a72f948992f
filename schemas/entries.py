"""What the registry knows, one struct per kind of entry: the shape in messages, in the store and in histories alike.

An entry is named by its kind and its key fields; every other field may be absent, which means "says nothing about it".
So the same struct is a whole entry (in a listing), a change of a few fields (in a command), and what one source says
about an entry (in the store). What an entry is in the end: :mod:`consumers.domain.registry`.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from .access import Effect, Measure

MAX_NAMES = 1000
"""Properties of a group, types of a service, sites near a storage element, queues of a computing element."""

MAX_NUMBER = 2**53

MAX_DELAY_SECONDS = 86_400.0
"""Longest time between two matches: one job a day. Slower is a ban."""

MAX_KEY = 1024
MAX_REASON = 1000

Key = Annotated[str, Meta(min_length=1, max_length=MAX_KEY)]
Line = Annotated[str, Meta(max_length=MAX_KEY)]
Reason = Annotated[str, Meta(max_length=MAX_REASON)]
Names = Annotated[tuple[Key, ...], Meta(max_length=MAX_NAMES)]
Amount = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]

EntryKey: TypeAlias = tuple[str, str, str]
"""Kind, name, and within the name (a membership: name is the DN and this is the group; a limit: what is limited)."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """Base of all kinds."""

    @property
    def key(self) -> EntryKey:
        """By which it is known."""
        raise NotImplementedError


class UserEntry(Entry, frozen=True, kw_only=True, tag="user"):
    """A person or a pilot.

    Attributes:
        dn: canonical form.
        nickname: a short name for people.
        mail: where he is reached.
        suspended: he may do nothing, for now.
        reason: why he is suspended.
    """

    dn: Key
    nickname: Line | None = None
    mail: Line | None = None
    suspended: bool | None = None
    reason: Reason | None = None

    @property
    def key(self) -> EntryKey:
        """Kind and DN."""
        return "user", self.dn, ""


class GroupEntry(Entry, frozen=True, kw_only=True, tag="group"):
    """A group.

    Attributes:
        fqan: what VOMS calls it; empty if VOMS does not know it.
        properties: what its members may do.
        share: of the computing, against other groups.
        background: gets only what others leave.
        voms_required: a member acts for it only with a proxy that carries its FQAN, proven by the VO.
    """

    name: Key
    fqan: Line | None = None
    properties: Names | None = None
    share: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    background: bool | None = None
    voms_required: bool | None = None

    @property
    def key(self) -> EntryKey:
        """Kind and name."""
        return "group", self.name, ""


class MemberEntry(Entry, frozen=True, kw_only=True, tag="member"):
    """Somebody may act for a group.

    Attributes:
        place: in the user's list; the first is taken if none is named.
        share: of the group's computing, against its other members; 0: only what they leave.
        barred: he may not, whatever other sources say.
        reason: why he is barred.
    """

    dn: Key
    group: Key
    place: Amount | None = None
    share: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    barred: bool | None = None
    reason: Reason | None = None

    @property
    def key(self) -> EntryKey:
        """Kind, DN and group."""
        return "member", self.dn, self.group


class ServiceEntry(Entry, frozen=True, kw_only=True, tag="service"):
    """A service and the message types that it may send."""

    dn: Key
    name: Line | None = None
    sends: Names | None = None

    @property
    def key(self) -> EntryKey:
        """Kind and DN."""
        return "service", self.dn, ""


class SiteEntry(Entry, frozen=True, kw_only=True, tag="site"):
    """A site.

    Attributes:
        usable: gets jobs.
        reason: why not.
    """

    name: Key
    usable: bool | None = None
    reason: Reason | None = None

    @property
    def key(self) -> EntryKey:
        """Kind and name."""
        return "site", self.name, ""


class StorageEntry(Entry, frozen=True, kw_only=True, tag="se"):
    """A storage element and the sites that are near."""

    name: Key
    sites: Names | None = None

    @property
    def key(self) -> EntryKey:
        """Kind and name."""
        return "se", self.name, ""


class ComputingQueue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One queue of a computing element: what who fills it with pilots must know.

    Attributes:
        cpu_seconds: most that a pilot may use there; 0 if not limited.
        wall_seconds: and by the clock.
        processors: of one pilot.
        memory_mb: of one pilot; 0 if not told.
        max_waiting: pilots that may wait there.
        max_pilots: pilots that may be there at all.
        platform: of its nodes; empty if any.
        tags: that its nodes carry.
        groups: of ours whose jobs may run there; empty for all.
    """

    name: Key
    cpu_seconds: Amount = 0
    wall_seconds: Amount = 0
    processors: Annotated[int, Meta(ge=1, le=1024)] = 1
    memory_mb: Amount = 0
    max_waiting: Amount = 10
    max_pilots: Amount = 100
    platform: Line = ""
    tags: Names = ()
    groups: Names = ()


class ComputingEntry(Entry, frozen=True, kw_only=True, tag="ce"):
    """A computing element.

    Attributes:
        site: where it is.
        type: how it is spoken to (``local``, ``slurm``, ``htcondor``, ``arc``, …).
        address: where it is reached; empty if on this machine.
        queues: in order of preference.
    """

    name: Key
    site: Line | None = None
    type: Annotated[str, Meta(max_length=32)] | None = None
    address: Line | None = None
    queues: Annotated[tuple[ComputingQueue, ...], Meta(max_length=MAX_NAMES)] | None = None

    @property
    def key(self) -> EntryKey:
        """Kind and name."""
        return "ce", self.name, ""


class RuleEntry(Entry, frozen=True, kw_only=True, tag="rule"):
    """An access rule (:class:`schemas.access.AccessRule`)."""

    name: Key
    effect: Effect | None = None
    who: Line | None = None
    what: Line | None = None
    site: Line | None = None
    reason: Reason | None = None

    @property
    def key(self) -> EntryKey:
        """Kind and name."""
        return "rule", self.name, ""


class LimitEntry(Entry, frozen=True, kw_only=True, tag="limit"):
    """A limit (:class:`schemas.access.Limit`)."""

    who: Key
    measure: Measure
    value: Amount | None = None

    @property
    def key(self) -> EntryKey:
        """Kind, who, and what is limited."""
        return "limit", self.who, self.measure.value


class MatchLimitEntry(Entry, frozen=True, kw_only=True, tag="match-limit"):
    """A limit of the matcher (:class:`schemas.limits.MatchLimit`)."""

    scope: Key
    running: Amount | None = None
    delay_seconds: Annotated[float, Meta(ge=0, le=MAX_DELAY_SECONDS)] | None = None
    reason: Reason | None = None

    @property
    def key(self) -> EntryKey:
        """Kind, and which jobs."""
        return "match-limit", self.scope, ""


AnyEntry: TypeAlias = (
    UserEntry
    | GroupEntry
    | MemberEntry
    | ServiceEntry
    | SiteEntry
    | StorageEntry
    | ComputingEntry
    | RuleEntry
    | LimitEntry
    | MatchLimitEntry
)

KINDS: dict[str, type[Entry]] = {
    "user": UserEntry,
    "group": GroupEntry,
    "member": MemberEntry,
    "service": ServiceEntry,
    "site": SiteEntry,
    "se": StorageEntry,
    "ce": ComputingEntry,
    "rule": RuleEntry,
    "limit": LimitEntry,
    "match-limit": MatchLimitEntry,
}
"""Every kind by its word."""

_KEY_FIELDS: dict[type[Entry], frozenset[str]] = {
    UserEntry: frozenset({"dn"}),
    MemberEntry: frozenset({"dn", "group"}),
    ServiceEntry: frozenset({"dn"}),
    LimitEntry: frozenset({"who", "measure"}),
    MatchLimitEntry: frozenset({"scope"}),
}


def key_fields(entry: Entry) -> frozenset[str]:
    """The fields that name an entry."""
    return _KEY_FIELDS.get(type(entry), frozenset({"name"}))
