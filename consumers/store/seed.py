"""The file that fills the registry, once parsed from TOML.

::

    [groups.vo_user]                       # our name of the group
    fqan = "/vo"                           # what VOMS calls it
    properties = ["NormalUser"]
    share = 1.0                            # default 1
    background = false                     # default
    voms_required = false                  # default; true: only with a proxy that carries the FQAN

    [[users]]
    dn = "/C=XX/O=Example/CN=Jane Doe"     # canonical form
    nickname = "jane"
    groups = ["vo_user"]                   # the first one is taken if none is named
    shares = {vo_user = 2.0}               # of a group's computing, against its other members; default 1
    suspended = false                      # left out: as it was

    [[services]]
    name = "job-manager"
    dn = "/C=XX/O=Example/CN=job-manager"
    sends = ["job.submitted.v1"]

    [sites."Site.Example.org"]
    usable = true                          # left out: as it was
    reason = ""

    [storage_elements.SE-USER]
    sites = ["Site.Example.org"]           # where it is near

    [computing_elements.CE1]
    site = "Site.Example.org"
    type = "slurm"                         # how it is spoken to
    address = "ce1.example.org"
    queues = [{name = "long", wall_seconds = 172800, max_pilots = 50}]

    [[rules]]                              # see schemas/access.py
    name = "no-tests-there"
    effect = "deny"
    who = "group:vo_test"
    what = "payload.run"
    site = "Site.Example.org"
    reason = "its disks are small"

    [[limits]]
    who = "group:vo_user"
    measure = "active-jobs"
    value = 100000

    [[match_limits]]                       # see schemas/limits.py
    scope = "site=Site.Example.org,job-type=MCSim"
    running = 100                          # left out: any number
    delay_seconds = 10                     # left out: none
    reason = "its storage is slow"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from broker.authorization import why_void
from schemas.access import ANYTHING, AccessRule, Limit
from schemas.entries import (
    MAX_DELAY_SECONDS,
    AnyEntry,
    ComputingEntry,
    ComputingQueue,
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
from schemas.errors import ConfigurationError, InvalidInputError
from schemas.limits import EACH, Attribute, MatchLimit, parse_scope, scope_text
from schemas.messages.registrar import Difference


class SeedUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[users]]``."""

    dn: str
    nickname: str = ""
    groups: tuple[str, ...] = ()
    shares: dict[str, Annotated[float, msgspec.Meta(ge=0, le=1e9)]] = {}
    suspended: bool | None = None
    mail: str = ""
    reason: str = ""


class SeedGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[groups.NAME]``."""

    fqan: str = ""
    properties: tuple[str, ...] = ()
    share: float = 1.0
    background: bool = False
    voms_required: bool = False


class SeedService(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[services]]``."""

    name: str
    dn: str
    sends: tuple[str, ...] = ()


class SeedSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[sites.NAME]``."""

    usable: bool | None = None
    reason: str = ""


class SeedStorage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[storage_elements.NAME]``."""

    sites: tuple[str, ...] = ()


class SeedComputing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[computing_elements.NAME]``."""

    site: str
    type: str
    address: str = ""
    queues: tuple[ComputingQueue, ...] = ()


class Seed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    users: tuple[SeedUser, ...] = ()
    groups: dict[str, SeedGroup] = {}
    services: tuple[SeedService, ...] = ()
    sites: dict[str, SeedSite] = {}
    storage_elements: dict[str, SeedStorage] = {}
    computing_elements: dict[str, SeedComputing] = {}
    rules: tuple[AccessRule, ...] = ()
    limits: tuple[Limit, ...] = ()
    match_limits: tuple[MatchLimit, ...] = ()

    def entries(self) -> Iterator[AnyEntry]:
        """What the file says, as entries."""
        for name, group in self.groups.items():
            yield GroupEntry(name=name, **msgspec.structs.asdict(group))
        for user in self.users:
            yield UserEntry(
                dn=user.dn,
                nickname=user.nickname,
                mail=user.mail,
                suspended=user.suspended,
                reason=user.reason if user.suspended else None,
            )
            for place, group_name in enumerate(user.groups):
                yield MemberEntry(dn=user.dn, group=group_name, place=place, share=user.shares.get(group_name))
        for service in self.services:
            yield ServiceEntry(dn=service.dn, name=service.name, sends=service.sends)
        for name, site in self.sites.items():
            yield SiteEntry(name=name, usable=site.usable, reason=site.reason if site.usable is False else None)
        for name, storage in self.storage_elements.items():
            yield StorageEntry(name=name, sites=storage.sites)
        for name, computing in self.computing_elements.items():
            yield ComputingEntry(name=name, **msgspec.structs.asdict(computing))
        for rule in self.rules:
            yield RuleEntry(**msgspec.structs.asdict(rule))
        for limit in self.limits:
            yield LimitEntry(**msgspec.structs.asdict(limit))
        for of_matcher in self.match_limits:
            yield MatchLimitEntry(**msgspec.structs.asdict(of_matcher))


@dataclass
class SeedChanges:
    """What a seeding did, for the log, each as "users /CN=…"."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    differences: Sequence[Difference] = ()
    version: int = 0

    @classmethod
    def of(cls, differences: Sequence[Difference], version: int) -> SeedChanges:
        """From what really changed."""
        changes = cls(differences=differences, version=version)
        for one in differences:
            entry = one.after or one.before
            if entry is not None:
                kind, *names = entry.key
                word = f"{_PLURALS[kind]} {'/'.join(name for name in names if name)}"
                which = changes.added if one.before is None else changes.changed if one.after else changes.removed
                which.append(word)
        return changes

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


_PLURALS = {
    "user": "users",
    "group": "groups",
    "member": "memberships",
    "service": "services",
    "site": "sites",
    "se": "storage_elements",
    "ce": "computing_elements",
    "rule": "rules",
    "limit": "limits",
    "match-limit": "match_limits",
}


def parse_seed(parsed: Mapping[str, object]) -> Seed:
    """Check a parsed file.

    Raises:
        ConfigurationError: with all that is wrong in it, as far as its shape can be read.
    """
    try:
        found = msgspec.convert(dict(parsed), Seed)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"registry: {error}") from None
    wrong = [
        f"user {user.dn}: no group {group!r}"
        for user in found.users
        for group in user.groups
        if group not in found.groups
    ]
    wrong += [
        f"storage element {name}: no site {site!r}"
        for name, storage in found.storage_elements.items()
        for site in storage.sites
        if site not in found.sites
    ]
    dns = Counter([*(user.dn for user in found.users), *(service.dn for service in found.services)])
    wrong += [f"{dn} is there {count} times" for dn, count in dns.items() if count > 1]
    wrong += [
        f"user {user.dn}: a share of {group!r}, which is not among the groups"
        for user in found.users
        for group in user.shares
        if group not in user.groups
    ]
    wrong += [f"user {user.dn}: a group twice" for user in found.users if len(set(user.groups)) < len(user.groups)]
    wrong += _wrong_elements(found) + _wrong_rules(found) + _wrong_match_limits(found)
    if wrong:
        raise ConfigurationError("registry: " + "; ".join(wrong))
    return found


def _wrong_elements(found: Seed) -> list[str]:
    wrong = [
        f"group {name}: voms_required, but proxies cannot carry its FQAN: it has none"
        for name, group in found.groups.items()
        if group.voms_required and not group.fqan
    ]
    for name, element in found.computing_elements.items():
        if element.site not in found.sites:
            wrong.append(f"computing element {name}: no site {element.site!r}")
        if len({queue.name for queue in element.queues}) < len(element.queues):
            wrong.append(f"computing element {name}: a queue twice")
        groups = {group for queue in element.queues for group in queue.groups}
        wrong += [f"computing element {name}: no group {group!r}" for group in sorted(groups - found.groups.keys())]
    return wrong


def _wrong_rules(found: Seed) -> list[str]:
    wrong: list[str] = []
    for name, count in Counter(rule.name for rule in found.rules).items():
        wrong += [f"rule {name} is there {count} times"] if count > 1 else []
    for who, measure in {(one.who, one.measure) for one in found.limits if _twice(one, found.limits)}:
        wrong.append(f"limit {who} {measure}: twice")
    for rule in found.rules:
        wrong += [f"rule {rule.name}: {why}" for why in _wrong_who(rule.who, found)]
        if rule.site not in {ANYTHING, *found.sites}:
            wrong.append(f"rule {rule.name}: no site {rule.site!r}")
        void = why_void(rule)
        wrong += [f"rule {rule.name}: {void}"] if void else []
    for limit in found.limits:
        wrong += [f"limit {limit.who} {limit.measure}: {why}" for why in _wrong_who(limit.who, found)]
        if limit.value < 0 or limit.who.startswith("property:"):
            wrong.append(f"limit {limit.who} {limit.measure}: a value from 0 on, for *, dn:… or group:…")
    return wrong


def _wrong_match_limits(found: Seed) -> list[str]:
    counts = Counter(limit.scope for limit in found.match_limits)
    wrong = [f"match limit {scope} is there {count} times" for scope, count in counts.items() if count > 1]
    for limit in found.match_limits:
        wrong += [f"match limit {limit.scope}: {why}" for why in _wrong_match_limit(limit, found)]
    return wrong


def _wrong_match_limit(limit: MatchLimit, found: Seed) -> list[str]:
    try:
        scope = parse_scope(limit.scope)
    except InvalidInputError as error:
        return [str(error)]
    wrong = [] if limit.scope == scope_text(scope) else [f"write the scope as {scope_text(scope)}"]
    delay = limit.delay_seconds or 0.0
    if limit.running is None and not delay:
        wrong.append("needs running or delay_seconds")
    if (limit.running or 0) < 0 or not 0 <= delay <= MAX_DELAY_SECONDS:
        wrong.append(f"running is from 0 on, delay_seconds from 0 to {MAX_DELAY_SECONDS:.0f}")
    known: Mapping[Attribute, tuple[str, Collection[str]]] = {
        Attribute.SITE: ("site", found.sites),
        Attribute.GROUP: ("group", found.groups),
    }
    for attribute, value in scope:
        word, names = known.get(attribute, ("", ()))
        if word and value not in {EACH, *names}:
            wrong.append(f"no {word} {value!r}")
    return wrong


def _twice(limit: Limit, limits: Sequence[Limit]) -> bool:
    return sum((one.who, one.measure) == (limit.who, limit.measure) for one in limits) > 1


def _wrong_who(who: str, found: Seed) -> list[str]:
    kind, _, name = who.partition(":")
    if kind == "group" and name not in found.groups:
        return [f"no group {name!r}"]
    return [] if who == ANYTHING or kind in {"dn", "group", "property"} else [f"{who!r} is nobody"]
