"""The registry: users, groups, services, sites, storage elements. Read whole, changed in small steps.

Each change raises a version, so that readers keep a copy and look only at that number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from schemas.access import AccessRule, Effect, Limit, Measure
from schemas.entries import ComputingQueue

from . import counters, sql
from .engine import Reading, Transaction
from .seed import Seed, SeedChanges, parse_seed
from .tables.identity import (
    access_rules,
    computing_elements,
    groups,
    limits,
    memberships,
    services,
    sites,
    storage_elements,
    users,
)
from .tables.messages import counters as counters_table

VERSION = "registry"

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


def version(tx: Reading) -> int:
    """The registry's version; 0 if it was never written."""
    row = sql.fetch_one(tx, sa.select(counters_table.c.next).where(counters_table.c.name == VERSION))
    return 0 if row is None else int(row[0])


def load(tx: Reading) -> Registry:
    """The whole registry."""
    number = version(tx)  # first: what changes while we read is read again at the next look
    member_of: dict[str, list[str]] = {}
    m = memberships.c
    for dn, grp in sql.fetch(tx, sa.select(m.dn, m.grp).order_by(m.dn, m.place)):
        member_of.setdefault(dn, []).append(grp)
    return Registry(
        number,
        {
            dn: User(dn, nickname, suspended, tuple(member_of.get(dn, ())), mail or "", reason or "")
            for dn, nickname, suspended, mail, reason in _rows(
                tx, users, "dn", "nickname", "suspended", "mail", "reason"
            )
        },
        {
            name: Group(name, fqan, _names.decode(properties), share, background)
            for name, fqan, properties, share, background in _rows(
                tx, groups, "name", "fqan", "properties", "share", "background"
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
    )


def seed(tx: Transaction, parsed: Mapping[str, object]) -> SeedChanges:
    """Make the registry what a parsed seed file says (see :mod:`.seed`): add, change, remove; nothing else.

    What the file does not say about a site's usability or a user's suspension stays as operators set it.

    Raises:
        ConfigurationError: the file is wrong; the message says where.
    """
    wanted = parse_seed(parsed)
    now = load(tx)
    changes = SeedChanges()
    _sync(tx, changes, users, ("dn",), _user_rows(wanted, now))
    _sync(tx, changes, memberships, ("dn", "grp"), [
        {"dn": user.dn, "grp": grp, "place": place} for user in wanted.users for place, grp in enumerate(user.groups)
    ])  # fmt: skip
    _sync(tx, changes, groups, ("name",), [
        {"name": name, "fqan": one.fqan, "properties": _json(one.properties), "share": float(one.share),
         "background": one.background}
        for name, one in wanted.groups.items()
    ])  # fmt: skip
    _sync(tx, changes, services, ("dn",), [
        {"dn": one.dn, "name": one.name, "sends": _json(one.sends)} for one in wanted.services
    ])  # fmt: skip
    _sync(tx, changes, sites, ("name",), _site_rows(wanted, now))
    _sync(tx, changes, storage_elements, ("name",), [
        {"name": name, "sites": _json(one.sites)} for name, one in wanted.storage_elements.items()
    ])  # fmt: skip
    if changes:
        _raise_version(tx)
    return changes


def set_site(tx: Transaction, name: str, *, usable: bool, reason: str = "") -> bool:
    """Ban a site or allow it again; whether there is such a site."""
    found = sql.run(tx, sa.update(sites).where(sites.c.name == name).values(usable=usable, reason=reason))
    if found:
        _raise_version(tx)
    return bool(found)


def set_suspended(tx: Transaction, dn: str, *, suspended: bool) -> bool:
    """Suspend a user or let him in again; whether there is such a user."""
    found = sql.run(tx, sa.update(users).where(users.c.dn == dn).values(suspended=suspended))
    if found:
        _raise_version(tx)
    return bool(found)


def _user_rows(wanted: Seed, now: Registry) -> list[dict[str, object]]:
    def suspended(dn: str, said: bool | None) -> bool:
        known = now.users.get(dn)
        return said if said is not None else known is not None and known.suspended

    return [
        {"dn": one.dn, "nickname": one.nickname, "suspended": suspended(one.dn, one.suspended), "mail": None,
         "reason": None}
        for one in wanted.users
    ]  # fmt: skip


def _site_rows(wanted: Seed, now: Registry) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, one in wanted.sites.items():
        known = now.sites.get(name)
        if one.usable is None and known is not None:
            rows.append({"name": name, "usable": known.usable, "reason": known.reason})
        else:
            rows.append({"name": name, "usable": one.usable is not False, "reason": one.reason})
    return rows


def _raise_version(tx: Transaction) -> None:
    counters.reserve(tx, VERSION, 1)


def _rows(tx: Reading, table: sa.Table, *names: str) -> Sequence[sql.Found]:
    return sql.fetch(tx, sa.select(*(table.c[name] for name in names)))


def _json(values: Sequence[str]) -> bytes:
    return msgspec.json.encode(values)


def _sync(
    tx: Transaction,
    changes: SeedChanges,
    table: sa.Table,
    keys: tuple[str, ...],
    wanted: Sequence[Mapping[str, object]],
) -> None:
    """Make a table's rows the wanted ones, touching only those that differ."""
    columns = [column.name for column in table.c]
    present = {
        tuple(row[columns.index(key)] for key in keys): dict(zip(columns, row, strict=True))
        for row in _rows(tx, table, *columns)
    }
    target = {tuple(row[key] for key in keys): row for row in wanted}
    new = [row for key, row in target.items() if key not in present]
    changed = [row for key, row in target.items() if key in present and dict(row) != present[key]]
    old = [key for key in present if key not in target]
    sql.insert(tx, table, new)
    sql.update(tx, table, changed, keys)
    for key in old:
        sql.run(tx, sa.delete(table).where(*(table.c[name] == value for name, value in zip(keys, key, strict=True))))
    name = table.name.removeprefix("vo_")
    changes.added += [f"{name} {'/'.join(map(str, key))}" for key in target if key not in present]
    changes.changed += [f"{name} {'/'.join(str(row[key]) for key in keys)}" for row in changed]
    changes.removed += [f"{name} {'/'.join(map(str, key))}" for key in old]
