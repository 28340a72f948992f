"""What the registry says to the matcher: usable sites, shares, and who may have jobs run where.

Looked at once for each batch, by the registry's version; what follows from one version is remembered.
"""

from __future__ import annotations

from broker.authorization import Principal, may_run_payload, payload_rules
from schemas.access import AccessRule

from ..directory import Directory
from ..domain.index import Index
from ..domain.shares import DEFAULT_SHARE
from ..store.registry import Registry


class Rights:
    """The registry as the matcher sees it.

    Args:
        directory: gives the registry.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._registry: Registry | None = None
        self._bars: tuple[AccessRule, ...] = ()
        self._barred: dict[tuple[str, str, str], bool] = {}

    @property
    def outdated(self) -> bool:
        """Whether the registry has changed since :meth:`note`: parked requests may have become answerable."""
        return self._registry is None or self._registry.version != self._directory.registry().version

    def note(self, index: Index) -> bool:
        """Give sites and shares as they are now to an index; unchanged they cost one comparison for each batch.

        Returns:
            Whether anything has changed.
        """
        registry = self._directory.registry()
        if self._registry is not None and registry.version == self._registry.version:
            return False
        self._registry = registry
        self._bars, self._barred = payload_rules(registry.rules), {}
        usable = {name for name, site in registry.sites.items() if site.usable}
        index.set_usable_sites(usable if registry.sites else None)
        for group in registry.groups.values():
            index.set_share(group.name, round(group.share * DEFAULT_SHARE))
        return True

    def is_barred(self, owner: str, group: str, site: str) -> bool:
        """Whether the owner has lost his rights, or operators' rules keep his jobs from a site."""
        registry = self._registry or self._directory.registry()
        user = registry.users.get(owner)
        if user is None or user.suspended or group not in user.groups:
            return True  # his jobs wait until he is let in again
        if not self._bars:
            return False
        key = (owner, group, site)
        if key not in self._barred:
            known = registry.groups.get(group)
            principal = Principal(owner, group, frozenset(known.properties if known else ()))
            self._barred[key] = may_run_payload(principal, site, self._bars) is not None
        return self._barred[key]
