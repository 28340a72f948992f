"""What operators may do to the registry's entries.

Each change is tried on a draft; what stands against it comes back as words. What is wrong with the draft as a whole is
:mod:`.registry_checks`', who loses rights by it :mod:`.registry_losses`'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from schemas.entries import AnyEntry, EntryKey, MemberEntry, SiteEntry, UserEntry, key_fields
from schemas.messages.registrar import EntryChange, Operation

from .registry import OPERATOR, Claim, Draft, said

_KIND_WORDS = {
    "user": "user",
    "group": "group",
    "member": "membership",
    "service": "service",
    "site": "site",
    "se": "storage element",
    "ce": "computing element",
    "rule": "rule",
    "limit": "limit",
    "match-limit": "match limit",
}


def title(key: EntryKey) -> str:
    """An entry in words."""
    kind, name, scope = key
    return f"{_KIND_WORDS[kind]} {name}" + (f" in {scope}" if scope else "")


def operate(draft: Draft, change: EntryChange, reason: str) -> str:
    """Do to a draft what an operator wants.

    Returns:
        What stands against it; empty if nothing does.
    """
    match change.operation:
        case Operation.ADD:
            return _add(draft, change.entry)
        case Operation.SET:
            return _set(draft, change.entry, reason)
        case Operation.REMOVE:
            return _remove(draft, change.entry.key, reason)
        case Operation.RESET:
            return _reset(draft, change.entry.key)


def _add(draft: Draft, entry: AnyEntry) -> str:
    key = entry.key
    if draft.entry(key) is not None:
        return f"{title(key)} is there already"
    others = [claim for source, claim in draft.claims(key).items() if source != OPERATOR]
    if isinstance(entry, MemberEntry) and any(claim.own for claim in others):
        draft.drop(key, OPERATOR)  # it was barred; what the other source says counts again
        return ""
    known = draft.claim(key, OPERATOR)
    if isinstance(entry, UserEntry) and entry.suspended is None and known is not None:
        # Whoever was suspended and removed does not come back by the same door with his rights.
        told = known.entry
        if isinstance(told, UserEntry) and told.suspended:
            entry = msgspec.structs.replace(entry, suspended=True, reason=told.reason)
    if isinstance(entry, MemberEntry) and entry.place is None:
        entry = msgspec.structs.replace(entry, place=_next_place(draft, entry.dn))
    draft.put(Claim(OPERATOR, True, entry))
    return ""


def _next_place(draft: Draft, dn: str) -> int:
    entries = [draft.entry(key) for key in draft.memberships(("user", dn, ""))]
    places = [one.place or 0 for one in entries if isinstance(one, MemberEntry)]
    return max(places, default=-1) + 1


def _set(draft: Draft, entry: AnyEntry, reason: str) -> str:
    key = entry.key
    if draft.entry(key) is None:
        return f"there is no {title(key)}"
    if isinstance(entry, MemberEntry) and entry.barred:
        return "take a member out to bar him"
    known = draft.claim(key, OPERATOR)
    values = said(known.entry) if known is not None else {}
    values.update(said(entry))
    own = known is not None and known.own
    if isinstance(entry, UserEntry) and entry.suspended is not None:
        values.pop("reason", None)
        values.update({"suspended": True, "reason": entry.reason or reason} if entry.suspended else {})
        if not entry.suspended:
            values.pop("suspended", None)
    if isinstance(entry, SiteEntry) and entry.usable is False:
        values["reason"] = entry.reason or reason
    if isinstance(entry, SiteEntry) and entry.usable:
        return _allow_site(draft, entry, values, own=own)
    _say(draft, entry, values, own=own)
    return ""


def _allow_site(draft: Draft, entry: SiteEntry, values: dict[str, object], *, own: bool) -> str:
    """Operators' ban goes; only where another source bans they say the contrary."""
    values.pop("usable", None)
    values.pop("reason", None)
    _say(draft, entry, values, own=own)
    after = draft.entry(entry.key)
    if isinstance(after, SiteEntry) and not after.usable:
        _say(draft, entry, {**values, "usable": True}, own=own)
    return ""


def _say(draft: Draft, entry: AnyEntry, values: Mapping[str, object], *, own: bool) -> None:
    if not own and not set(values) - key_fields(entry):
        draft.drop(entry.key, OPERATOR)
        return
    fields = {name: values.get(name) for name in type(entry).__struct_fields__}
    draft.put(Claim(OPERATOR, own, msgspec.structs.replace(entry, **fields)))


def _remove(draft: Draft, key: EntryKey, reason: str) -> str:
    if draft.entry(key) is None:
        return f"there is no {title(key)}"
    known = draft.claim(key, OPERATOR)
    others = [source for source, claim in draft.claims(key).items() if claim.own and source != OPERATOR]
    if key[0] == "member" and others:
        bar = MemberEntry(dn=key[1], group=key[2], barred=True, reason=reason)
        draft.put(Claim(OPERATOR, False, bar))
        return ""
    if known is None or not known.own:
        hint = {"user": ": suspend him instead", "site": ": ban it instead"}.get(key[0], "")
        return f"{title(key)} is not the operators' to remove, it comes from {', '.join(sorted(others))}{hint}"
    if key[0] in {"user", "group"}:  # operators' memberships go with it
        for membership in draft.memberships(key):
            claim = draft.claim(membership, OPERATOR)
            if claim is not None and claim.own:
                draft.drop(membership, OPERATOR)
    suspended = known.entry if isinstance(known.entry, UserEntry) and known.entry.suspended else None
    if suspended is not None:
        bare = UserEntry(dn=suspended.dn, suspended=True, reason=suspended.reason)
        draft.put(Claim(OPERATOR, False, bare))
    else:
        draft.drop(key, OPERATOR)
    return ""


def _reset(draft: Draft, key: EntryKey) -> str:
    known = draft.claim(key, OPERATOR)
    if known is None:
        return f"operators have set nothing of {title(key)}"
    if known.own:
        return f"{title(key)} is the operators' own: remove it, or set what is to change"
    draft.drop(key, OPERATOR)
    return ""


def notes(draft: Draft, changes: Sequence[EntryChange]) -> list[str]:
    """What an operator should know about what he did: another source's word that still stands."""
    found = []
    for change in changes:
        key = change.entry.key
        after = draft.entry(key)
        others = [source for source in draft.claims(key) if source != OPERATOR]
        lifted = isinstance(change.entry, UserEntry) and change.entry.suspended is False
        if lifted and isinstance(after, UserEntry) and after.suspended:
            still = [source for source in others if getattr(draft.claims(key)[source].entry, "suspended", False)]
            found.append(f"{title(key)} stays suspended by {', '.join(sorted(still))}: {after.reason}")
        elif change.operation is Operation.REMOVE and after is not None:
            found.append(f"{title(key)} stays: it also comes from {', '.join(sorted(others))}")
    return found
