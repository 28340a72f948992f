"""The registry as services read it: users, groups, services, sites, elements, rules, limits. Read whole.

Each change raises a version, so that readers keep a copy and look only at that number. What each source says, and how
it changes: :mod:`.claims`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from schemas.access import AccessRule, Effect, Limit, Measure
from schemas.entries import KINDS, AnyEntry, ComputingQueue, SiteEntry, UserEntry
from schemas.errors import ConfigurationError, InvalidInputError
from schemas.limits import MatchLimit
from schemas.messages.registrar import EntryChange, Operation

from ..domain.registry import OPERATOR, SEED, Claim, Draft, replace_source
from ..domain.registry_changes import operate
from . import claims, sql
from .claims import version
from .engine import Reading, Transaction
from .seed import SeedChanges, parse_seed
from .tables.identity import (
    access_rules,
    computing_elements,
    groups,
    limits,
    match_limits,
    memberships,
    services,
    sites,
    storage_elements,
    users,
)

__all__ = [
    "ComputingElement",
    "Group",
    "Registry",
    "Service",
    "Site",
    "User",
    "load",
    "seed",
    "set_site",
    "set_suspended",
    "version",
]

_names = msgspec.json.Decoder(tuple[str, ...])
_queues = msgspec.json.Decoder(tuple[ComputingQueue, ...])


class User(msgspec.Struct, frozen=True):
    """A person or a pilot.

    Attributes:
        groups: in order, the first one is taken if none is named.
        reason: why he is suspended.
    """

    dn: str
    nickname: str
    suspended: bool
    groups: tuple[str, ...]
    mail: str = ""
    reason: str = ""


class Group(msgspec.Struct, frozen=True):
    """A group with its rights and its share."""

    name: str
    fqan: str
    properties: tuple[str, ...]
    share: float
    background: bool
    voms_required: bool = False


class Service(msgspec.Struct, frozen=True):
    """A service and the message types that it may send."""

    dn: str
    name: str
    sends: tuple[str, ...]


class Site(msgspec.Struct, frozen=True):
    """A site; ``reason`` says why it is not usable."""

    name: str
    usable: bool
    reason: str


class ComputingElement(msgspec.Struct, frozen=True):
    """A computing element with its queues, in order of preference."""

    name: str
    site: str
    type: str
    address: str
    queues: tuple[ComputingQueue, ...]


class Registry(msgspec.Struct, frozen=True):
    """The whole registry at one version. Users and services by DN, the rest by name."""

    version: int
    users: Mapping[str, User]
    groups: Mapping[str, Group]
    service_rows: Mapping[str, Service]
    sites: Mapping[str, Site]
    storage_elements: Mapping[str, tuple[str, ...]]
    computing_elements: Mapping[str, ComputingElement] = {}
    rules: tuple[AccessRule, ...] = ()
    limits: tuple[Limit, ...] = ()
    match_limits: tuple[MatchLimit, ...] = ()
    member_shares: Mapping[tuple[str, str], float] = {}
    """(DN, group) → share of the group's computing, of those who have another than 1."""

    @property
    def services(self) -> dict[str, str]:
        """DN → service name."""
        return {dn: row.name for dn, row in self.service_rows.items()}

    def service_of(self, dn: str) -> str | None:
        """The service name of a DN."""
        row = self.service_rows.get(dn)
        return None if row is None else row.name

    def groups_of(self, dn: str) -> tuple[str, ...]:
        """Groups for which a DN may act, in order."""
        user = self.users.get(dn)
        return () if user is None else user.groups


def load(tx: Reading) -> Registry:
    """The whole registry."""
    number = version(tx)  # first: what changes while we read is read again at the next look
    member_of: dict[str, list[str]] = {}
    shares: dict[tuple[str, str], float] = {}
    m = memberships.c
    for dn, grp, share in sql.fetch(tx, sa.select(m.dn, m.grp, m.share).order_by(m.dn, m.place, m.grp)):
        member_of.setdefault(dn, []).append(grp)
        if share is not None and share != 1.0:
            shares[dn, grp] = share
    return Registry(
        number,
        {
            dn: User(dn, nickname, suspended, tuple(member_of.get(dn, ())), mail or "", reason or "")
            for dn, nickname, suspended, mail, reason in _rows(
                tx, users, "dn", "nickname", "suspended", "mail", "reason"
            )
        },
        {
            name: Group(name, fqan, _names.decode(properties), share, background, bool(voms_required))
            for name, fqan, properties, share, background, voms_required in _rows(
                tx, groups, "name", "fqan", "properties", "share", "background", "voms_required"
            )
        },
        {dn: Service(dn, name, _names.decode(sends)) for dn, name, sends in _rows(tx, services, "dn", "name", "sends")},
        {name: Site(name, usable, why) for name, usable, why in _rows(tx, sites, "name", "usable", "reason")},
        {name: _names.decode(near) for name, near in _rows(tx, storage_elements, "name", "sites")},
        {
            name: ComputingElement(name, site, kind, address, _queues.decode(found))
            for name, site, kind, address, found in _rows(
                tx, computing_elements, "name", "site", "type", "address", "queues"
            )
        },
        tuple(
            AccessRule(name=name, effect=Effect(effect), who=who, what=what, site=site, reason=reason)
            for name, effect, who, what, site, reason in sorted(
                _rows(tx, access_rules, "name", "effect", "who", "what", "site", "reason")
            )
        ),
        tuple(
            Limit(who=who, measure=Measure(measure), value=value)
            for who, measure, value in sorted(_rows(tx, limits, "who", "measure", "value"))
        ),
        tuple(
            MatchLimit(scope=scope, running=running, delay_seconds=delay, reason=reason)
            for scope, running, delay, reason in sorted(
                _rows(tx, match_limits, "scope", "running", "delay_seconds", "reason"), key=lambda row: str(row[0])
            )
        ),
        shares,
    )


def seed(tx: Transaction, parsed: Mapping[str, object], now: float | None = None) -> SeedChanges:
    """Make the seed's word in the registry what a parsed file says (see :mod:`.seed`): add, change, remove; no more.

    What operators and the VO's sources say stays.

    Raises:
        ConfigurationError: the file is wrong; the message says where.
    """
    wanted = parse_seed(parsed)
    claims.lock(tx)
    draft = Draft(claims.book(tx))
    replace_source(draft, SEED, [Claim(SEED, True, entry) for entry in wanted.entries()], KINDS)
    try:
        found = claims.write(tx, draft, now=now or time.time(), source=SEED, actor=SEED, reason="")
    except InvalidInputError as error:
        raise ConfigurationError(f"registry: {error}") from None
    return SeedChanges.of(*found)


def set_site(tx: Transaction, name: str, *, usable: bool, reason: str = "") -> bool:
    """Ban a site or allow it again, as operators do; whether there is such a site."""
    return _set(tx, SiteEntry(name=name, usable=usable, reason=reason), reason)


def set_suspended(tx: Transaction, dn: str, *, suspended: bool, reason: str = "") -> bool:
    """Suspend a user or let him in again, as operators do; whether there is such a user."""
    return _set(tx, UserEntry(dn=dn, suspended=suspended), reason)


def _set(tx: Transaction, entry: AnyEntry, reason: str) -> bool:
    claims.lock(tx)
    draft = Draft(claims.book(tx))
    if operate(draft, EntryChange(operation=Operation.SET, entry=entry), reason):
        return False
    claims.write(tx, draft, now=time.time(), source=OPERATOR, actor=OPERATOR, reason=reason)
    return True


def _rows(tx: Reading, table: sa.Table, *names: str) -> Sequence[sql.Found]:
    return sql.fetch(tx, sa.select(*(table.c[name] for name in names)))
