"""What is wrong with entries of the registry: all of it at once, in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from schemas.access import ANYTHING, AccessRule
from schemas.entries import (
    AnyEntry,
    ComputingEntry,
    EntryKey,
    GroupEntry,
    LimitEntry,
    MatchLimitEntry,
    RuleEntry,
    ServiceEntry,
    SiteEntry,
    StorageEntry,
    UserEntry,
)
from schemas.errors import InvalidInputError
from schemas.identity import Fqan, canonical_dn
from schemas.limits import EACH, Attribute, parse_scope, scope_text

from .registry import OPERATOR, Draft, ends
from .registry_changes import title

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@-]{0,127}")
_TYPE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_MAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What words of ours mean, given by the shell.

    Attributes:
        properties: that a group may have.
        sends: service name → message types that it may send.
        alone: properties that a group has alone or not at all.
        why_void: why a rule could never do what it says; None if it can.
    """

    properties: Collection[str]
    sends: Mapping[str, Collection[str]]
    why_void: Callable[[AccessRule], str | None]
    alone: Collection[str] = ()


def errors(draft: Draft, words: Vocabulary) -> list[str]:
    """Everything that is wrong with what a draft touches, and with what refers to it."""
    touched = draft.touched()
    found = [f"{title(key)}: {wrong}" for key in touched for wrong in _wrong(draft, key, words)]
    gone = {key for key in touched if draft.entry(key) is None and key in draft.book.entries}
    return found + [f"{title(key)}: {wrong}" for key, wrong in _dangling(draft, gone)]


def _wrong(draft: Draft, key: EntryKey, words: Vocabulary) -> list[str]:
    entry = draft.entry(key)
    match entry:
        case UserEntry():
            return [*_wrong_dn(entry.dn), *_wrong_user(draft, entry)]
        case GroupEntry():
            return [*_wrong_name(entry.name), *_wrong_group(entry, words)]
        case ServiceEntry():
            return [*_wrong_dn(entry.dn), *_wrong_service(draft, entry, words)]
        case SiteEntry():
            return _wrong_name(entry.name)
        case StorageEntry():
            unknown = [name for name in entry.sites or () if draft.entry(("site", name, "")) is None]
            return [*_wrong_name(entry.name), *(f"there is no site {name}" for name in unknown)]
        case ComputingEntry():
            return [*_wrong_name(entry.name), *_wrong_computing(draft, entry)]
        case RuleEntry():
            return [*_wrong_name(entry.name), *_wrong_rule(draft, entry, words)]
        case LimitEntry():
            missing = ["needs a value"] if entry.value is None else []
            who = ["who must be *, dn:… or group:…"] if entry.who.startswith("property:") else []
            return [*missing, *who, *_wrong_who(draft, entry.who)]
        case MatchLimitEntry():
            return _wrong_match_limit(draft, entry)
        case None if key[0] == "member" and any(claim.own for claim in draft.claims(key).values()):
            return [f"there is no {title(end)}" for end in _missing_ends(draft, key)]
    return []


def _missing_ends(draft: Draft, key: EntryKey) -> list[EntryKey]:
    if OPERATOR not in draft.claims(key):
        return []  # another source's: it waits for the rest to come
    return [end for end in ends(key) if draft.entry(end) is None]


def _wrong_dn(dn: str) -> list[str]:
    try:
        canonical = canonical_dn(dn)
    except InvalidInputError as error:
        return [str(error)]
    return [] if canonical == dn else [f"the canonical form is {canonical}"]


def _wrong_name(name: str) -> list[str]:
    return [] if _NAME.fullmatch(name) else ["a name has letters, digits and . _ : + @ -, at most 128"]


def _wrong_user(draft: Draft, entry: UserEntry) -> list[str]:
    found = []
    if draft.entry(("service", entry.dn, "")) is not None:
        found.append("a service has this DN")
    if entry.mail and not _MAIL.fullmatch(entry.mail):
        found.append(f"{entry.mail!r} is no mail address")
    if not (entry.nickname or "").isprintable():
        found.append("the nickname has characters that cannot be shown")
    return found


def _wrong_group(entry: GroupEntry, words: Vocabulary) -> list[str]:
    found = [f"there is no property {name!r}" for name in entry.properties or () if name not in words.properties]
    alone = [name for name in entry.properties or () if name in words.alone]
    if alone and len(set(entry.properties or ())) > 1:
        found.append(f"{alone[0]} is for a group of its own: a group has it alone, or not at all")
    if entry.fqan:
        try:
            Fqan.parse(entry.fqan)
        except InvalidInputError as error:
            found.append(str(error))
    elif entry.voms_required:
        found.append("proxies cannot carry its FQAN: it has none")
    return found


def _wrong_service(draft: Draft, entry: ServiceEntry, words: Vocabulary) -> list[str]:
    found = []
    if draft.entry(("user", entry.dn, "")) is not None:
        found.append("a user has this DN")
    allowed = words.sends.get(entry.name or "")
    if allowed is None:
        return [*found, f"there is no service {entry.name!r}"]
    return [*found, *(f"it may not send {name}" for name in entry.sends or () if name not in allowed)]


def _wrong_computing(draft: Draft, entry: ComputingEntry) -> list[str]:
    found = []
    if draft.entry(("site", entry.site or "", "")) is None:
        found.append(f"there is no site {entry.site or '(none given)'}")
    if not _TYPE.fullmatch(entry.type or ""):
        found.append("the type is a word such as slurm or htcondor")
    queues = entry.queues or ()
    if len({one.name for one in queues}) < len(queues):
        found.append("a queue is there twice")
    groups = {name for one in queues for name in one.groups}
    return [*found, *(f"there is no group {name}" for name in sorted(groups) if not _has(draft, "group", name))]


def _wrong_rule(draft: Draft, entry: RuleEntry, words: Vocabulary) -> list[str]:
    missing = [name for name in ("effect", "who", "what") if not getattr(entry, name)]
    if missing:
        return [f"needs {' and '.join(missing)}"]
    rule = as_rule(entry)
    void = words.why_void(rule)
    site = [f"there is no site {rule.site}"] if rule.site != ANYTHING and not _has(draft, "site", rule.site) else []
    return [*([void] if void else []), *site, *_wrong_who(draft, rule.who)]


def _wrong_who(draft: Draft, who: str) -> list[str]:
    kind, _, name = who.partition(":")
    if kind == "dn":
        return _wrong_dn(name)
    if kind == "group":
        return [] if _has(draft, "group", name) else [f"there is no group {name}"]
    return [] if who == ANYTHING or kind == "property" else [f"{who!r} is nobody: it must be *, dn:… or group:…"]


def _wrong_match_limit(draft: Draft, entry: MatchLimitEntry) -> list[str]:
    try:
        scope = parse_scope(entry.scope)
    except InvalidInputError as error:
        return [str(error)]
    if scope_text(scope) != entry.scope:
        return [f"the scope is written {scope_text(scope)}"]
    found = [] if entry.running is not None or entry.delay_seconds else ["needs running or delay_seconds"]
    kinds = {Attribute.SITE: "site", Attribute.GROUP: "group", Attribute.OWNER: "user"}
    for attribute, value in scope:
        kind = kinds.get(attribute)
        if kind is not None and value != EACH and not _has(draft, kind, value):
            found.append(f"there is no {kind} {value}{_hint(draft, kind, value)}")
    return found


def _hint(draft: Draft, kind: str, name: str) -> str:
    """What may have been meant: a user by his nickname, else what is written nearly so."""
    names = [key[1] for key in draft.keys(kind)]
    if kind == "user":
        users = (draft.entry((kind, dn, "")) for dn in names)
        meant = [one.dn for one in users if isinstance(one, UserEntry) and one.nickname == name]
    else:
        meant = []
    meant = meant or get_close_matches(name, names, n=2)
    return f" (did you mean {' or '.join(meant)}?)" if meant else ""


def _has(draft: Draft, kind: str, name: str) -> bool:
    return draft.entry((kind, name, "")) is not None


def as_rule(entry: RuleEntry) -> AccessRule:
    """A whole entry as whoever evaluates it takes it.

    Raises:
        ValueError: it is not whole.
    """
    if entry.effect is None or entry.who is None or entry.what is None:
        raise ValueError(entry.name)
    return AccessRule(
        name=entry.name,
        effect=entry.effect,
        who=entry.who,
        what=entry.what,
        site=entry.site or ANYTHING,
        reason=entry.reason or "",
    )


def _dangling(draft: Draft, gone: Collection[EntryKey]) -> list[tuple[EntryKey, str]]:
    """What would refer to entries that go."""
    sites = {key[1] for key in gone if key[0] == "site"}
    groups = {key[1] for key in gone if key[0] == "group"}
    if not sites and not groups:
        return []
    found: list[tuple[EntryKey, str]] = []
    for kind in ("se", "ce", "rule", "limit", "match-limit"):
        for key in draft.keys(kind):
            entry = draft.entry(key)
            found.extend((key, f"refers to {name}, which would be gone") for name in _named(entry, sites, groups))
    return found


def _named(entry: AnyEntry | None, sites: Collection[str], groups: Collection[str]) -> list[str]:
    match entry:
        case StorageEntry():
            return [name for name in entry.sites or () if name in sites]
        case ComputingEntry():
            of_queues = {name for one in entry.queues or () for name in one.groups if name in groups}
            return [*({entry.site or ""} & set(sites)), *sorted(of_queues)]
        case RuleEntry() | LimitEntry():
            kind, _, name = (entry.who or "").partition(":")
            of_site = [entry.site] if isinstance(entry, RuleEntry) and entry.site and entry.site in sites else []
            return [*of_site, *([name] if kind == "group" and name in groups else [])]
        case MatchLimitEntry():
            going = {Attribute.SITE: sites, Attribute.GROUP: groups}
            return [value for attribute, value in parse_scope(entry.scope) if value in going.get(attribute, ())]
    return []
