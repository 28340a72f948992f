"""What follows from what several sources say about the registry's entries.

A *claim* is what one source says about one entry: that it is there (``own``), some of its fields, or both. Sources are
``operator``, ``seed`` and ``sync:<name>``; each writes its own claims only, so none can take away what another gave.
An entry is there if some claim says so. Its fields are the operators', else the seed's, else the sources' (by name),
else the default. Two things go the safe way instead: a user is suspended if anyone says so, and a membership that the
operators bar is none. A claim that is not ``own`` outlives the entry: who was suspended and comes back is suspended.

A :class:`Book` is the whole registry, a :class:`Draft` a change to it; a draft is thrown away or written, whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from schemas.access import ANYTHING
from schemas.entries import (
    AnyEntry,
    ComputingEntry,
    Entry,
    EntryKey,
    GroupEntry,
    LimitEntry,
    MatchLimitEntry,
    MemberEntry,
    RuleEntry,
    ServiceEntry,
    SiteEntry,
    StorageEntry,
    UserEntry,
)
from schemas.messages.registrar import Difference

OPERATOR = "operator"
SEED = "seed"
SYNC = "sync:"
"""Followed by the name of a VO's source."""

DEFAULTS: Mapping[type[Entry], Mapping[str, object]] = {
    UserEntry: {"nickname": "", "mail": "", "suspended": False, "reason": ""},
    GroupEntry: {"fqan": "", "properties": (), "share": 1.0, "background": False, "voms_required": False},
    MemberEntry: {"place": 0, "share": 1.0, "barred": False, "reason": ""},
    ServiceEntry: {"name": "", "sends": ()},
    SiteEntry: {"usable": True, "reason": ""},
    StorageEntry: {"sites": ()},
    ComputingEntry: {"site": "", "type": "", "address": "", "queues": ()},
    RuleEntry: {"site": ANYTHING, "reason": ""},
    LimitEntry: {},
    MatchLimitEntry: {"reason": ""},
}
"""What holds where nobody says anything; what is not here must be said."""


class Claim(msgspec.Struct, frozen=True):
    """What one source says about one entry.

    Attributes:
        source: who.
        own: it says that the entry is there.
        entry: the fields it tells.
    """

    source: str
    own: bool
    entry: AnyEntry


Claims = Mapping[str, Claim]
"""Of one entry, by source."""


def precedence(source: str) -> tuple[int, str]:
    """For sorting: whose word counts less comes first; of two VO sources the first by name counts more."""
    if source == OPERATOR:
        return 2, ""
    return (1, "") if source == SEED else (0, "".join(chr(0x10FFFF - ord(letter)) for letter in source))


def merged(claims: Claims) -> AnyEntry | None:
    """The entry that follows from what is said about it; None if there is none."""
    if not any(claim.own for claim in claims.values()):
        return None
    ordered = sorted(claims.values(), key=lambda claim: precedence(claim.source))
    first = ordered[0].entry
    values: dict[str, object] = dict(DEFAULTS[type(first)])
    for claim in ordered:
        values.update(said(claim.entry))
    entry = msgspec.structs.replace(first, **values)
    if isinstance(entry, MemberEntry):
        return None if entry.barred else entry
    if isinstance(entry, UserEntry):
        return _suspended_by_any(entry, [claim.entry for claim in ordered if isinstance(claim.entry, UserEntry)])
    if isinstance(entry, SiteEntry) and entry.usable:
        return msgspec.structs.replace(entry, reason="")
    return entry


def _suspended_by_any(entry: UserEntry, said_by: list[UserEntry]) -> UserEntry:
    reasons = [one.reason or "" for one in said_by if one.suspended]
    return msgspec.structs.replace(entry, suspended=bool(reasons), reason=reasons[-1] if reasons else "")


def said(entry: Entry) -> dict[str, object]:
    """The fields that an entry tells."""
    return {name: value for name, value in msgspec.structs.asdict(entry).items() if value is not None}


class Book:
    """The registry at one version: all claims, and the entries that follow.

    Args:
        claims: by entry, then by source.
        version: of the registry.
    """

    def __init__(self, claims: Mapping[EntryKey, Claims], version: int = 0) -> None:
        self.version = version
        self.claims: dict[EntryKey, Claims] = dict(claims)
        self.entries: dict[EntryKey, AnyEntry] = {}
        self.memberships: dict[EntryKey, set[EntryKey]] = {}
        members = [key for key in self.claims if key[0] == "member"]
        for key in self.claims:
            if key[0] != "member":
                self._enter(key, merged(self.claims[key]))
        for key in members:
            for end in ends(key):
                self.memberships.setdefault(end, set()).add(key)
            if all(end in self.entries for end in ends(key)):
                self._enter(key, merged(self.claims[key]))

    def _enter(self, key: EntryKey, entry: AnyEntry | None) -> None:
        if entry is not None:
            self.entries[key] = entry

    def of_kind(self, kind: str) -> Iterator[EntryKey]:
        """Keys of all entries of a kind, in order."""
        return iter(sorted(key for key in self.entries if key[0] == kind))

    def sources(self, key: EntryKey) -> tuple[str, ...]:
        """Who says something about an entry, whose word counts most first."""
        return tuple(sorted(self.claims.get(key, {}), key=precedence, reverse=True))

    def groups_of(self, dn: str) -> tuple[str, ...]:
        """Groups of a user, in order."""
        found = [
            entry
            for key in self.memberships.get(("user", dn, ""), ())
            if isinstance(entry := self.entries.get(key), MemberEntry)
        ]
        return tuple(one.group for one in sorted(found, key=lambda one: (one.place or 0, one.group)))


def ends(key: EntryKey) -> tuple[EntryKey, EntryKey]:
    """The user and the group of a membership."""
    return ("user", key[1], ""), ("group", key[2], "")


class Draft:
    """A change of a book that is not written yet."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self._claims: dict[EntryKey, dict[str, Claim]] = {}
        self._new_memberships: dict[EntryKey, set[EntryKey]] = {}

    # -- what is said -------------------------------------------------------------------------------------------

    def claims(self, key: EntryKey) -> Claims:
        """What is said about an entry now."""
        return self._claims.get(key) or ({} if key in self._claims else self.book.claims.get(key, {}))

    def claim(self, key: EntryKey, source: str) -> Claim | None:
        """What one source says about it now."""
        return self.claims(key).get(source)

    def put(self, claim: Claim) -> None:
        """Let a source say this and nothing else about an entry."""
        key = claim.entry.key
        self._changed(key)[claim.source] = claim
        if key[0] == "member":
            for end in ends(key):
                self._new_memberships.setdefault(end, set()).add(key)

    def drop(self, key: EntryKey, source: str) -> None:
        """Let a source say nothing about an entry."""
        self._changed(key).pop(source, None)

    def _changed(self, key: EntryKey) -> dict[str, Claim]:
        if key not in self._claims:
            self._claims[key] = dict(self.book.claims.get(key, {}))
        return self._claims[key]

    # -- what follows -------------------------------------------------------------------------------------------

    def entry(self, key: EntryKey) -> AnyEntry | None:
        """The entry as it would be."""
        if key[0] == "member" and not all(self.entry(end) for end in ends(key)):
            return None
        if key in self._claims:
            return merged(self._claims[key])
        if key[0] == "member" and key not in self.book.entries:
            return merged(self.book.claims.get(key, {}))  # its user or group may have come back
        return self.book.entries.get(key)

    def memberships(self, end: EntryKey) -> set[EntryKey]:
        """Memberships of a user or a group about which something is said."""
        return self.book.memberships.get(end, set()) | self._new_memberships.get(end, set())

    def touched(self) -> list[EntryKey]:
        """Every entry that may differ, in order."""
        keys = set(self._claims)
        for key in self._claims:
            if key[0] in {"user", "group"} and (self.entry(key) is None) != (key not in self.book.entries):
                keys |= self.memberships(key)
        return sorted(keys)

    def differences(self) -> list[Difference]:
        """What would change, in order of kinds and names."""
        found = []
        for key in self.touched():
            before, after = self.book.entries.get(key), self.entry(key)
            if before != after:
                found.append(Difference(before=before, after=after))
        return found

    def written(self) -> tuple[list[Claim], list[tuple[EntryKey, str]]]:
        """Claims to be written, and those to be forgotten (entry and source)."""
        puts: list[Claim] = []
        drops: list[tuple[EntryKey, str]] = []
        for key, now in self._claims.items():
            before = self.book.claims.get(key, {})
            puts.extend(claim for source, claim in now.items() if before.get(source) != claim)
            drops.extend((key, source) for source in before if source not in now)
        return puts, drops

    def result(self, version: int) -> Book:
        """The book once this is written."""
        claims: dict[EntryKey, Claims] = {**self.book.claims, **self._claims}
        return Book({key: some for key, some in claims.items() if some}, version)

    def keys(self, kind: str) -> Iterator[EntryKey]:
        """Keys of all entries of a kind as they would be."""
        candidates = {key for key in self.book.entries if key[0] == kind}
        candidates |= {key for key in self._claims if key[0] == kind}
        return (key for key in sorted(candidates) if self.entry(key) is not None)


def replace_source(draft: Draft, source: str, wanted: Iterable[Claim], kinds: Collection[str]) -> None:
    """Make a source's claims of these kinds exactly the wanted ones."""
    target = {claim.entry.key: claim for claim in wanted}
    for key, claims in draft.book.claims.items():
        if source in claims and key[0] in kinds and key not in target:
            draft.drop(key, source)
    for key, claim in target.items():
        if draft.claim(key, source) != claim:
            draft.put(claim)
