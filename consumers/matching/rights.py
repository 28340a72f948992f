"""What the registry says to the matcher: usable sites, shares, and who may have jobs run where.

Looked at once for each batch, by the registry's version; what follows from one version is remembered.
"""

from __future__ import annotations

from broker.authorization import Principal, Property, is_private_pilot, may_run_payload, payload_rules, why_not
from schemas.access import AccessRule
from schemas.limits import MatchLimit

from ..directory import Directory
from ..domain.index import Index
from ..domain.shares import DEFAULT_SHARE
from ..store.registry import Registry
from ..store.sessions import Session
from .asked import Asked


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
        self._special: set[tuple[str, str]] = set()

    @property
    def outdated(self) -> bool:
        """Whether the registry has changed since :meth:`note`: parked requests may have become answerable."""
        return self._registry is None or self._registry.version != self._directory.registry().version

    @property
    def match_limits(self) -> tuple[MatchLimit, ...]:
        """The matcher's limits as of :meth:`note`."""
        return () if self._registry is None else self._registry.match_limits

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
        self._set_shares(index, registry)
        return True

    @property
    def generation(self) -> int:
        """Changes with every change of what somebody may do."""
        return self._directory.generation()[0]

    def may_still(self, one: Asked, session: Session | None) -> bool:
        """Look again at who parked a request: he may have lost his rights since, or serve his own jobs only now.

        Args:
            one: the request.
            session: its sender's last login. Without one he was cut off: his queue is gone, so that a match comes back,
                and at his next login he is looked at.
        """
        if session is None:
            return True
        one.seen = self.generation
        principal = self._directory.principal(session.identity, session.grp, one.client)
        if principal is None or why_not(principal, "match.request.v1") is not None:
            return False
        return not is_private_pilot(principal.properties) or one.request.offer.owners == (principal.identity,)

    def _set_shares(self, index: Index, registry: Registry) -> None:
        for name in index.groups.keys() - registry.groups.keys():
            index.set_share(name, DEFAULT_SHARE)
        for group in registry.groups.values():
            sharing = Property.JOB_SHARING in group.properties
            index.set_share(group.name, group.share * DEFAULT_SHARE, background=group.background, sharing=sharing)
        for owner, name in self._special - registry.member_shares.keys():
            index.set_member_share(name, owner, DEFAULT_SHARE)
        for (owner, name), share in registry.member_shares.items():
            index.set_member_share(name, owner, share * DEFAULT_SHARE)
        self._special = set(registry.member_shares)

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
