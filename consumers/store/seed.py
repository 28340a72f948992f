"""The file that fills the registry, once parsed from TOML.

::

    [groups.vo_user]                       # our name of the group
    fqan = "/vo"                           # what VOMS calls it
    properties = ["NormalUser"]
    share = 1.0                            # default 1
    background = false                     # default

    [[users]]
    dn = "/C=XX/O=Example/CN=Jane Doe"     # canonical form
    nickname = "jane"
    groups = ["vo_user"]                   # the first one is taken if none is named
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
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from schemas.errors import ConfigurationError


class SeedUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[users]]``."""

    dn: str
    nickname: str = ""
    groups: tuple[str, ...] = ()
    suspended: bool | None = None


class SeedGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[groups.NAME]``."""

    fqan: str = ""
    properties: tuple[str, ...] = ()
    share: float = 1.0
    background: bool = False


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


class Seed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    users: tuple[SeedUser, ...] = ()
    groups: dict[str, SeedGroup] = {}
    services: tuple[SeedService, ...] = ()
    sites: dict[str, SeedSite] = {}
    storage_elements: dict[str, SeedStorage] = {}


@dataclass
class SeedChanges:
    """What a seeding did, for the log, each as "users /CN=…"."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


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
    wrong += [f"user {user.dn}: a group twice" for user in found.users if len(set(user.groups)) < len(user.groups)]
    if wrong:
        raise ConfigurationError("registry: " + "; ".join(wrong))
    return found
