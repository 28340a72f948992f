"""Who loses rights by a change of the registry, and whether an operator is left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from schemas.access import AccessRule
from schemas.entries import AnyEntry, EntryKey, GroupEntry, MemberEntry, RuleEntry, ServiceEntry, UserEntry
from schemas.messages.registrar import Blocked, Difference

from .registry import Draft, ends
from .registry_checks import as_rule

OPERATOR_PROPERTY = "Operator"

May: TypeAlias = Callable[[str, str, frozenset[str], tuple[AccessRule, ...]], bool]
"""Whether a DN in a group with these properties may change the registry, these rules being all; given by the shell."""


def anybody(_dn: str, _group: str, _properties: frozenset[str], _rules: tuple[AccessRule, ...]) -> bool:
    """For changes that touch no rule."""
    return True


@dataclass(frozen=True, slots=True)
class Loss:
    """Somebody who loses rights by a change; ``group`` is empty if he loses all."""

    identity: str
    group: str
    how: Blocked
    reason: str = ""


def operators(draft: Draft, may: May) -> tuple[set[str], set[str]]:
    """DNs that may operate the system: before a draft, and after it."""
    book = draft.book
    members = {key for key in book.entries if key[0] == "member"}
    before = _able(members, book.entries.get, _rules(book.entries.values()), may)
    members |= {key for key in draft.touched() if key[0] == "member"}
    rules = _rules(entry for key in draft.keys("rule") if (entry := draft.entry(key)) is not None)
    return before, _able(members, draft.entry, rules, may, _asking_anew(draft))


def _asking_anew(draft: Draft) -> set[str]:
    """Groups that from now on ask for their VOMS attribute: nobody knows which of their members have it."""
    found = set()
    for key in draft.touched():
        before, after = draft.book.entries.get(key), draft.entry(key)
        if isinstance(after, GroupEntry) and after.voms_required:
            asked = isinstance(before, GroupEntry) and before.voms_required and before.fqan == after.fqan
            found |= set() if asked else {after.name}
    return found


def _able(
    members: Iterable[EntryKey],
    find: Callable[[EntryKey], AnyEntry | None],
    rules: tuple[AccessRule, ...],
    may: May,
    doubtful: Collection[str] = (),
) -> set[str]:
    found: set[str] = set()
    for key in members:
        user, group = (find(end) for end in ends(key))
        if not isinstance(group, GroupEntry) or OPERATOR_PROPERTY not in (group.properties or ()):
            continue
        if group.name in doubtful:
            continue
        if not isinstance(user, UserEntry) or user.suspended or find(key) is None:
            continue
        if may(user.dn, group.name, frozenset(group.properties or ()), rules):
            found.add(user.dn)
    return found


def _rules(entries: Iterable[AnyEntry]) -> tuple[AccessRule, ...]:
    return tuple(as_rule(entry) for entry in entries if isinstance(entry, RuleEntry))


def locked_out(draft: Draft, may: May, actor: str = "") -> str:
    """Whether a draft leaves no operator or silences a service, or takes this one's right away; why, empty if not."""
    silent = _services(draft.book.entries.values()) - _services(map(draft.entry, draft.keys("service")))
    if silent:
        return f"what {min(silent)} says would count no more"
    before, after = operators(draft, may)
    if before and not after:
        return "no operator would be left"
    if actor and actor in before and actor not in after:
        return "you would lock yourself out"
    return ""


def _services(entries: Iterable[AnyEntry | None]) -> set[str]:
    return {entry.name or "" for entry in entries if isinstance(entry, ServiceEntry)}


def losses(differences: Sequence[Difference]) -> list[Loss]:
    """Who loses rights by these differences."""
    found: list[Loss] = []
    whole: set[str] = set()
    for one in differences:
        if isinstance(one.before, UserEntry) and not one.before.suspended:
            after = one.after
            if after is None:
                whole.add(one.before.dn)
                found.append(Loss(one.before.dn, "", Blocked.REMOVED))
            elif isinstance(after, UserEntry) and after.suspended:
                whole.add(after.dn)
                found.append(Loss(after.dn, "", Blocked.SUSPENDED, after.reason or ""))
    found.extend(
        Loss(one.before.dn, one.before.group, Blocked.LEFT)
        for one in differences
        if isinstance(one.before, MemberEntry) and one.after is None and one.before.dn not in whole
    )
    return found
