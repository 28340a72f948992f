"""``[registry]`` and ``[[registry.sources]]`` of ``server.toml`` → :class:`consumers.settings.RegistrySettings`.

::

    [registry]
    file = "registry.toml"
    cycle = 300                                         # seconds between two looks at the sources
    on_removed = "kill"                                 # or "hold", "finish"
    on_suspended = "hold"

    [[registry.sources]]
    name = "lhcb"
    kind = "voms-database"
    url = "mysql+pymysql://reader@voms.example.org/voms_lhcb"
    password_file = "voms.secret"                       # mode 0600
    ca_file = "voms-ca.pem"                             # the system's authorities by default
    groups = ["lhcb_user", "lhcb_prod"]                 # which it feeds; needed for groups that give power
    max_loss = 0.2

    [[registry.sources]]
    name = "iam"
    kind = "iam-scim"
    url = "https://iam.example.org"
    token_file = "iam.token"
    ca_file = "iam-ca.pem"
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from consumers.settings import RegistrySettings, SourceKind, SourceSettings
from schemas.errors import ConfigurationError
from schemas.messages.registrar import Policy

KEYS = ("cycle", "on_removed", "on_suspended", "sources")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

MIN_CYCLE = 1.0
"""Seconds; shorter is no configuration but a slip (tests need short ones)."""


class _Source(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    kind: SourceKind
    url: str
    password_file: str = ""
    token_file: str = ""
    ca_file: str = ""
    groups: tuple[str, ...] = ()
    max_loss: float = 0.2


class _Section(msgspec.Struct, forbid_unknown_fields=True):
    cycle: float = 300.0
    on_removed: Policy = Policy.KILL
    on_suspended: Policy = Policy.HOLD
    sources: tuple[_Source, ...] = ()


def read_registry(path: Path, values: Mapping[str, Any]) -> RegistrySettings:
    """What ``[registry]`` says, but for its file.

    Raises:
        ConfigurationError: which key is wrong.
    """
    try:
        section = msgspec.convert({key: value for key, value in values.items() if value is not None}, _Section)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: [registry] {error}") from None
    if not math.isfinite(section.cycle) or section.cycle < MIN_CYCLE:
        raise ConfigurationError(f"{path}: [registry] cycle must be at least {MIN_CYCLE:g} seconds")
    sources = tuple(_source(path, one) for one in section.sources)
    if len({one.name for one in sources}) < len(sources):
        raise ConfigurationError(f"{path}: [[registry.sources]] a name is there twice")
    return RegistrySettings(sources, section.cycle, section.on_removed, section.on_suspended)


def _source(path: Path, one: _Source) -> SourceSettings:
    place = f"{path}: [[registry.sources]] {one.name!r}:"
    if not _NAME.fullmatch(one.name):
        raise ConfigurationError(f"{place} a name has small letters, digits and . _ -, at most 63")
    if not 0 <= one.max_loss <= 1:
        raise ConfigurationError(f"{place} max_loss is a share, from 0 to 1")
    parts = urlsplit(one.url)
    if parts.password is not None:
        raise ConfigurationError(f"{place} no password in the url: it belongs into password_file")
    is_iam = one.kind is SourceKind.IAM_SCIM
    if is_iam and (parts.scheme != "https" or not one.token_file):
        raise ConfigurationError(f"{place} IAM needs an https:// url and a token_file")
    if one.password_file if is_iam else one.token_file:
        raise ConfigurationError(f"{place} password_file is for databases, token_file is for IAM")
    secret = one.token_file if is_iam else one.password_file
    return SourceSettings(
        name=one.name,
        kind=one.kind,
        url=one.url,
        secret_file=path.parent / secret if secret else None,
        ca_file=path.parent / one.ca_file if one.ca_file else None,
        groups=one.groups,
        max_loss=one.max_loss,
    )
