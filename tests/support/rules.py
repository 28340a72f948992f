"""Rules and limits for tests, written straight into the registry's tables."""

from __future__ import annotations

from msgspec.structs import asdict

from consumers.store import Store, counters, sql
from consumers.store.tables.identity import access_rules, limits, match_limits
from schemas.access import AccessRule, Limit
from schemas.limits import MatchLimit

VERSION = "registry"
"""Counter that readers of the registry look at."""


def set_rules(store: Store, *rules: AccessRule) -> None:
    """The rules from now on."""
    with store.transaction() as tx:
        sql.run(tx, access_rules.delete())
        sql.insert(tx, access_rules, [_plain(rule) for rule in rules])
        counters.reserve(tx, VERSION, 1)


def set_limits(store: Store, *some: Limit) -> None:
    """The limits from now on."""
    with store.transaction() as tx:
        sql.run(tx, limits.delete())
        sql.insert(tx, limits, [_plain(limit) for limit in some])
        counters.reserve(tx, VERSION, 1)


def set_match_limits(store: Store, *some: MatchLimit) -> None:
    """The matcher's limits from now on."""
    with store.transaction() as tx:
        sql.run(tx, match_limits.delete())
        sql.insert(tx, match_limits, [asdict(limit) for limit in some])
        counters.reserve(tx, VERSION, 1)


def _plain(row: AccessRule | Limit) -> dict[str, object]:
    return {name: str(value) if isinstance(value, str) else value for name, value in asdict(row).items()}
