"""Who loses rights by a change of the registry, and whether an operator is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.entries import AnyEntry, GroupEntry, MemberEntry, UserEntry
from schemas.messages.registrar import Blocked, Difference

from .registry import Draft, ends

OPERATOR_PROPERTY = "Operator"


@dataclass(frozen=True, slots=True)
class Loss:
    """Somebody who loses rights by a change; ``group`` is empty if he loses all."""

    identity: str
    group: str
    how: Blocked
    reason: str = ""


def operators(draft: Draft) -> tuple[set[str], set[str]]:
    """DNs that may operate the system: before a draft, and after it."""
    book = draft.book
    members = {key for key in book.entries if key[0] == "member"}
    before = {key[1] for key in members if _operates(*(book.entries.get(end) for end in ends(key)))}
    members |= {key for key in draft.touched() if key[0] == "member"}
    after = {
        key[1]
        for key in members
        if draft.entry(key) is not None and _operates(*(draft.entry(end) for end in ends(key)))
    }
    return before, after


def _operates(user: AnyEntry | None, group: AnyEntry | None) -> bool:
    able = isinstance(group, GroupEntry) and OPERATOR_PROPERTY in (group.properties or ())
    return able and isinstance(user, UserEntry) and not user.suspended


def locked_out(draft: Draft, actor: str = "") -> str:
    """Whether a draft leaves no operator, or takes this one's right away; why, empty if not."""
    before, after = operators(draft)
    if before and not after:
        return "no operator would be left"
    if actor and actor in before and actor not in after:
        return "you would lock yourself out"
    return ""


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
