"""What a VO's own source says, as claims of the registry; and whether it can be believed.

A source names people with what VOMS calls them (FQANs); ours are groups, each with its FQAN. Who is in a group or role
there is in each of our groups of that FQAN. Groups that give power (:data:`POWERFUL`) are fed only where the source's
settings name them: nobody becomes an operator because somebody else mapped his VO's plain group to one.

A source writes its own claims only. If it suddenly names nobody, or many fewer, that is taken for a fault of its: it is
refused, and what is known stays, until an operator says that it is true.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from schemas.entries import MAX_KEY, MAX_REASON, AnyEntry, EntryKey, GroupEntry, MemberEntry, UserEntry
from schemas.errors import InvalidInputError
from schemas.identity import Fqan, canonical_dn

from .registry import SYNC, Book, Claim, Draft, replace_source
from .registry_losses import anybody, locked_out

MAX_LOSS = 0.2
"""Of its users or memberships a source may take away at once: more than a VO loses between two looks, far less than
what a broken query or an empty page takes."""

FREE_LOSS = 5
"""So many may always go: in a small VO a fifth is nobody."""

POWERFUL = frozenset({"Operator", "JobAdministrator", "GenericPilot", "DataManager"})
"""Properties by which somebody acts on what is not his."""

MAX_NOTES = 50
"""Of what was left out; the others are only counted."""

FIRST_PLACE = 1000
"""Memberships of sources come after those that the seed and operators put in order."""

KINDS = ("user", "member")


class SourceUser(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody in a VO, as its source tells it.

    Attributes:
        dn: in slash form, not yet canonical.
        fqans: groups and roles.
    """

    dn: str
    nickname: str = ""
    mail: str = ""
    suspended: bool = False
    reason: str = ""
    fqans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """How a source is understood.

    Attributes:
        name: of the source.
        groups: our groups that it feeds; empty for all whose FQAN it knows and that give no power.
        max_loss: share of its users or memberships that it may take away at once.
    """

    name: str
    groups: Collection[str] = ()
    max_loss: float = MAX_LOSS


@dataclass(frozen=True, slots=True)
class Plan:
    """What a source would change.

    Attributes:
        draft: the change.
        refused: why it is not believed; empty if it is.
        notes: what was left out.
        users: that it names.
    """

    draft: Draft
    refused: str
    notes: tuple[str, ...]
    users: int


def plan(book: Book, users: Iterable[SourceUser], mapping: SourceMapping) -> Plan:
    """Compare what a source says with what the registry holds from it."""
    source = SYNC + mapping.name
    merged, notes = _merged(users)
    wanted = wanted_claims(book, merged, mapping, notes)
    draft = Draft(book)
    replace_source(draft, source, wanted, KINDS)
    refused = _too_much(book, wanted, source, mapping.max_loss) or locked_out(draft, anybody)
    shown = [*notes[:MAX_NOTES], *([f"… and {len(notes) - MAX_NOTES} more"] if len(notes) > MAX_NOTES else [])]
    return Plan(draft, refused, tuple(shown), len(merged))


def _merged(users: Iterable[SourceUser]) -> tuple[dict[str, SourceUser], list[str]]:
    """Users by canonical DN; one that is there twice has the groups of both, and is suspended if one is."""
    found: dict[str, SourceUser] = {}
    notes: list[str] = []
    for user in users:
        try:
            dn = canonical_dn(user.dn)
        except InvalidInputError as error:
            notes.append(f"{user.dn[:200]!r} is left out: {error}")
            continue
        known = found.get(dn)
        if known is not None:
            notes.append(f"{dn} is there more than once")
        found[dn] = _both(dn, user, known or user)
    return found, notes


def _both(dn: str, one: SourceUser, other: SourceUser) -> SourceUser:
    return msgspec.structs.replace(
        other,
        dn=dn,
        fqans=tuple({*one.fqans, *other.fqans}),
        suspended=one.suspended or other.suspended,
        reason=other.reason or one.reason,
    )


def wanted_claims(book: Book, users: Mapping[str, SourceUser], mapping: SourceMapping, notes: list[str]) -> list[Claim]:
    """All that a source says, as claims; what cannot be one goes into the notes."""
    source = SYNC + mapping.name
    by_fqan = _groups_of(book, mapping, notes)
    claims: list[Claim] = []
    for dn, user in users.items():
        if len(dn) > MAX_KEY:
            notes.append(f"{dn[:200]}… is left out: too long")
            continue
        if ("service", dn, "") in book.entries:
            notes.append(f"{dn} is left out: a service has this DN")
            continue
        groups = _member_of(user, by_fqan, notes)
        if groups or user.suspended:
            claims.append(Claim(source, bool(groups), _user(dn, user)))
        claims.extend(
            Claim(source, True, MemberEntry(dn=dn, group=group, place=FIRST_PLACE + place))
            for place, group in enumerate(groups)
        )
    return claims


def _user(dn: str, user: SourceUser) -> UserEntry:
    nickname, mail = user.nickname[:MAX_KEY], user.mail[:MAX_KEY]
    if not user.suspended:
        return UserEntry(dn=dn, nickname=nickname, mail=mail)
    reason = user.reason[:MAX_REASON] or "suspended there"
    return UserEntry(dn=dn, nickname=nickname, mail=mail, suspended=True, reason=reason)


def _groups_of(book: Book, mapping: SourceMapping, notes: list[str]) -> dict[str, list[str]]:
    """Canonical FQAN → our groups that the source feeds."""
    found: dict[str, list[str]] = {}
    for key in book.of_kind("group"):
        entry = book.entries[key]
        if not isinstance(entry, GroupEntry) or not entry.fqan:
            continue
        if entry.name not in mapping.groups if mapping.groups else POWERFUL & set(entry.properties or ()):
            continue
        try:
            found.setdefault(str(Fqan.parse(entry.fqan)), []).append(entry.name)
        except InvalidInputError as error:
            notes.append(f"group {entry.name} is left out: {error}")
    known = {name for names in found.values() for name in names}
    notes.extend(f"there is no group {name} with an FQAN" for name in mapping.groups if name not in known)
    return found


def _member_of(user: SourceUser, by_fqan: Mapping[str, list[str]], notes: list[str]) -> list[str]:
    """Our groups of a user: plain groups before roles, shorter names first."""
    found: dict[str, None] = {}
    for text in sorted(set(user.fqans), key=lambda name: ("/Role=" in name, name.count("/"), name)):
        try:
            fqan = str(Fqan.parse(text))
        except InvalidInputError as error:
            notes.append(f"{text[:100]!r} of {user.dn} is left out: {error}")
            continue
        found.update(dict.fromkeys(by_fqan.get(fqan, ())))
    return list(found)


def _too_much(book: Book, wanted: Iterable[Claim], source: str, max_loss: float) -> str:
    """Why it cannot be that so much is gone; empty if it can."""
    before = _held((key, claim) for key, claims in book.claims.items() if (claim := claims.get(source)) is not None)
    after = _held((claim.entry.key, claim) for claim in wanted)
    for kind, word in (("user", "users"), ("member", "memberships")):
        had = {key for key in before if key[0] == kind}
        lost = had - after
        if had and len(lost) == len(had) and len(had) > 1:
            return f"all {len(had)} {word} would lose their rights"
        if len(lost) > max(FREE_LOSS, int(max_loss * len(had))):
            return f"{len(lost)} of {len(had)} {word} would go at once; at most {max_loss:.0%} are believed"
    return ""


def _held(claims: Iterable[tuple[EntryKey, Claim]]) -> set[EntryKey]:
    """What gives rights: memberships, and users who are not suspended."""
    return {key for key, claim in claims if claim.own and not _is_suspended(claim.entry)}


def _is_suspended(entry: AnyEntry) -> bool:
    return isinstance(entry, UserEntry) and bool(entry.suspended)
