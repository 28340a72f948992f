"""Checking a chain of audit entries, page by page, without believing who hands them out.

Feed :class:`ChainCheck` with what is kept, in order; it recomputes every hash, compares every seal, and tells each
place that is wrong and how. Pure: whether a seal's signature is good is told by a function that the caller brings.

Finds, each for sure: an entry or a hash that was changed, an entry that was removed, inserted or moved, the end cut off
while seals (or a head noted elsewhere) tell of it, a seal that was changed, forged or removed. Cannot find: a whole
database put back to an earlier state, with no head noted elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .audit import GENESIS, digest
from .messages.audit import AuditEntry, AuditLinks, AuditSeal, AuditSealed

MAX_PROBLEMS = 1000
"""Told one by one; after so many nobody needs the next."""

TRIES = 50
"""Wrong entries of which it is found out where they belong; that costs a page of hashes each."""

UNSEALED_SECONDS = 120.0
"""The auditor seals within seconds; an entry that waits longer was kept from it, or it does not run."""


class Kind(StrEnum):
    """What is wrong."""

    CHANGED = "changed"
    """An entry, or the hash kept with it, is not what was sealed."""
    REMOVED = "removed"
    """An entry was sealed and is not there."""
    INSERTED = "inserted"
    """Something stands in the chain that the auditor never sealed."""
    REORDERED = "reordered"
    """An entry stands at another's place."""
    CUT_OFF = "cut off"
    """The chain ends before a head that is known from elsewhere."""
    SEAL_FORGED = "seal forged"
    """A seal is not one of the auditor's, or not this one."""
    SEAL_REMOVED = "seal removed"
    """Entries stand in the chain whose seal is not there."""
    UNSEALED = "unsealed for too long"
    """Entries wait for their place although the auditor should have sealed them."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        place: in the chain; 0 where it concerns none.
        id: number of the entry; 0 if unknown.
        text: for people.
    """

    kind: Kind
    place: int
    text: str
    id: int = 0


class SealError(Exception):
    """A seal's signature is no good; the text says why."""


@dataclass(slots=True)
class _Batch:
    """Where the last good seal left off."""

    last: int = 0
    head: str = GENESIS
    known: bool = True


@dataclass(slots=True)
class ChainCheck:
    """The state of one walk along the chain.

    Args:
        open_seal: gives what a seal says, or raises :class:`SealError`.
        start: first place to check; the entry before it is taken as the anchor, as it stands.
        heads: hashes noted elsewhere, by place (0: place not known).

    Attributes:
        problems: what is wrong, in the order of the chain.
        checked: entries whose hash was computed.
        seals: seals whose signature was good.
        last: the place up to which nothing is wrong, with ``head`` as its hash.
        waiting: entries that have no place yet.
    """

    open_seal: Callable[[AuditSeal], AuditSealed]
    start: int = 1
    heads: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    checked: int = 0
    seals: int = 0
    waiting: int = 0
    last: int = 0
    head: str = GENESIS
    _before: str | None = GENESIS
    _earlier: str | None = None
    _expected: int = 1
    _any_seal: bool = False
    _latest: AuditEntry | None = None
    _sealed: _Batch = field(default_factory=_Batch)
    _met: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.start > 1:
            self._expected, self._before = self.start - 1, None
            self._sealed.known = False

    @property
    def after(self) -> int:
        """Ask for what comes after this place."""
        return self._expected - 1

    def page(self, links: AuditLinks) -> None:
        """Check the next part of the chain; it must begin after :attr:`after`."""
        entries = [entry for entry in links.entries if self.after < entry.place <= links.until]
        seals = sorted(links.seals, key=lambda seal: seal.last)
        index = 0
        for entry in entries:
            if entry == self._latest:
                continue  # copies that follow each other share an entry
            self._latest = entry
            while index < len(seals) and seals[index].last < entry.place:
                self._missing(seals[index].last)
                self._seal(seals[index])
                index += 1
            self._missing(entry.place - 1)
            self._entry(entry, entries)
        for seal in seals[index:]:
            self._missing(min(seal.last, links.until))
            self._seal(seal)
        self._missing(links.until)

    def finish(self, links: AuditLinks) -> None:
        """The last page was fed: what is left open?"""
        if links.beyond > links.last:
            text = f"places up to {links.beyond} are there, and nothing after place {links.last} was sealed"
            self._tell(Kind.INSERTED, links.last + 1, text)
        covered = self._sealed.last if self._sealed.known else self.start - 1
        if covered < links.until and (self._sealed.known or not self._any_seal):
            text = f"there is no seal for the places {covered + 1} to {links.until}"
            self._tell(Kind.SEAL_REMOVED, covered + 1, text)
        for head, place in self.heads.items():
            if head not in self._met and (not place or place >= self.start):
                where = f" at place {place}" if place else ""
                if place and place <= links.until:
                    self._tell(Kind.CHANGED, place, f"a head noted elsewhere{where} is not the hash there")
                else:
                    text = f"a head noted elsewhere{where} is not in the chain, which ends at place {links.until}"
                    self._tell(Kind.CUT_OFF, links.until + 1, text)
        self.waiting = links.unsealed
        waited = links.time - links.oldest_unsealed
        if links.unsealed and waited > UNSEALED_SECONDS:
            text = f"{links.unsealed} entries wait to be sealed, the oldest for {waited:.0f} s"
            self._tell(Kind.UNSEALED, 0, text)

    def joined(self, rest: ChainCheck) -> ChainCheck:
        """This check and that of what follows, as one."""
        last = rest if rest.last >= self.last and not self.problems else self
        return replace(
            rest,
            problems=[*self.problems, *rest.problems],
            checked=self.checked + rest.checked,
            seals=self.seals + rest.seals,
            last=last.last,
            head=last.head,
        )

    # -- one by one -----------------------------------------------------------------------------------------------

    def _missing(self, until: int) -> None:
        """Whatever is expected up to a place and did not come."""
        if self._expected > until:
            return
        first, self._expected = self._expected, until + 1
        self._before = None
        span = f"place {first}" if first == until else f"places {first} to {until}"
        self._tell(Kind.REMOVED, first, f"{span}: not there any more")

    def _entry(self, entry: AuditEntry, neighbours: Sequence[AuditEntry]) -> None:
        self._expected = entry.place + 1
        earlier, before = self._earlier, self._before
        self._earlier, self._before = before, entry.hash
        if entry.gone:
            self._tell(Kind.REMOVED, entry.place, f"the entry {entry.id} is not there any more", entry.id)
        elif before is not None:
            self.checked += 1
            if digest(entry.place, before, entry) == entry.hash:
                if not self.problems:
                    self.last, self.head = entry.place, entry.hash
            else:
                self._wrong(entry, before, earlier, neighbours)
        if self.heads.get(entry.hash, -1) in {0, entry.place}:
            self._met.add(entry.hash)

    def _wrong(self, entry: AuditEntry, before: str, earlier: str | None, neighbours: Sequence[AuditEntry]) -> None:
        if earlier is not None and digest(entry.place - 1, earlier, entry) == entry.hash:
            text = "an entry was put in here: what follows stands one place too far"
            self._tell(Kind.INSERTED, entry.place - 1, text, entry.id)
            return
        for other in neighbours if len(self.problems) < TRIES else ():
            if other is not entry and not other.gone and digest(entry.place, before, other) == entry.hash:
                text = f"the entry {other.id} belongs here, {entry.id} stands here"
                self._tell(Kind.REORDERED, entry.place, text, entry.id)
                return
        text = f"the entry {entry.id} is not what was sealed here ({entry.event[:64]})"
        self._tell(Kind.CHANGED, entry.place, text, entry.id)

    def _seal(self, seal: AuditSeal) -> None:
        if self._sealed.known and self._any_seal and seal.last <= self._sealed.last:
            return  # and perhaps its seal
        self._any_seal = True
        try:
            said = self.open_seal(seal)
        except SealError as error:
            self._tell(Kind.SEAL_FORGED, seal.last, f"the seal of place {seal.last}: {error}")
            self._sealed.known = False  # the next one cannot be joined to it
            return
        self.seals += 1
        sealed = self._sealed
        if said.last != seal.last or said.first > said.last:
            text = f"the seal kept for place {seal.last} was made for place {said.last}"
            self._tell(Kind.SEAL_FORGED, seal.last, text)
            sealed.known = False
            return
        if sealed.known:
            if said.first > sealed.last + 1:
                text = f"there is no seal for the places {sealed.last + 1} to {said.first - 1}"
                self._tell(Kind.SEAL_REMOVED, sealed.last + 1, text)
            elif said.first <= sealed.last or said.previous != sealed.head:
                text = f"the seal of place {said.last} does not follow the one of place {sealed.last}"
                self._tell(Kind.SEAL_FORGED, said.last, text)
        # What stands at the sealed place, as far as it stands there.
        kept = self._before if self._expected == said.last + 1 else None
        if kept is not None and kept != said.head:
            text = f"places {said.first} to {said.last} are not what was sealed"
            self._tell(Kind.CHANGED, said.first, text)
        elif kept is None and self._expected == said.last + 1:
            self._before = said.head  # the hash of a removed place is known from its seal: go on from there
        self._sealed = _Batch(said.last, said.head)

    def _tell(self, kind: Kind, place: int, text: str, number: int = 0) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(kind, place, text, number))
