"""proxy-manager: the proxy repository, and limited proxies for pilots.

Promises: no private key ever leaves this service, and none is kept unencrypted; one full proxy per (DN, group), and
those of single submissions apart from them, are kept while jobs need them and no longer. How it is done lies in
:mod:`.delegating` (users), :mod:`.issuing` (pilots), :mod:`.renewing` and :mod:`.upkeep` (by itself) and
:mod:`.repository` (operators).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from broker.subscriber import Admitted
from schemas.messages.event import ProxyWanted
from schemas.messages.proxies import DeleteProxies, QueryRepository, ReencryptRepository, RequestProxy
from schemas.messages.user import PutDelegation, RequestDelegation

from .batch import Batch, Consumer
from .delegating import Delegating
from .directory import Directory
from .domain.proxy_rules import IssueBounds
from .issuing import REFUSED_PER_MINUTE, Issuing
from .outcome import ACK, Outcome
from .per_minute import PerMinute
from .renewing import Renewing
from .repository import Repository
from .settings import ProxySettings, RenewalSettings
from .upkeep import Upkeep
from .vault import Vault

SOON = 0.5
"""After a proxy was stored: it may want an attribute before its jobs start."""


class ProxyManager(Consumer):
    """The consumer.

    Args:
        directory: registry, and verification of chains.
        vault: encrypts private keys.
        settings: times and bounds.
        renewal: where proxies are renewed and get attributes; nowhere by default.
        clock: server time.
    """

    name = "proxy-manager"
    handlers: ClassVar = {
        RequestDelegation: "on_request",
        PutDelegation: "on_put",
        QueryRepository: "on_query",
        ReencryptRepository: "on_reencrypt",
        DeleteProxies: "on_delete",
        ProxyWanted: "",
        RequestProxy: "",
    }

    def __init__(
        self,
        directory: Directory,
        vault: Vault,
        settings: ProxySettings | None = None,
        renewal: RenewalSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._vault = vault
        self._settings = settings or ProxySettings()
        self._bounds = IssueBounds(self._settings.issue_floor, self._settings.issue_ceiling)
        renewal = renewal or RenewalSettings()
        self._renewing = Renewing(directory, vault, renewal, self._settings.longest, clock)
        self._upkeep = Upkeep(self._settings, self._renewing, renews=renewal.myproxy is not None)
        self._delegating = Delegating(directory, vault, self._settings, self._look_soon)
        self._repository = Repository(
            vault, renews=renewal.myproxy is not None, adds_attributes=renewal.vomses is not None
        )
        self._refusals = PerMinute(REFUSED_PER_MINUTE)
        self._clock = clock
        self._next_look = 0.0

    def handle(self, batch: Batch, messages: Sequence[Admitted]) -> list[Outcome]:
        """Handle delegations one by one, and all that pilots want with one look at jobs and proxies."""
        wanted = [one for message in messages if isinstance(one := message.verified.message, ProxyWanted)]
        asked = [message for message in messages if isinstance(message.verified.message, RequestProxy)]
        if wanted or asked:
            Issuing(batch, self._directory, self._vault, self._bounds, self._refusals).issue(wanted, asked)
        return [
            ACK if isinstance(message.verified.message, ProxyWanted | RequestProxy) else self.dispatch(batch, message)
            for message in messages
        ]

    # -- users, operators ---------------------------------------------------------------------------------------

    def on_request(self, batch: Batch, message: Admitted) -> Outcome:
        """A user wants to delegate."""
        return self._delegating.on_request(batch, message)

    def on_put(self, batch: Batch, message: Admitted) -> Outcome:
        """And sends the proxy."""
        return self._delegating.on_put(batch, message)

    def on_query(self, batch: Batch, message: Admitted) -> Outcome:
        """An operator looks."""
        return self._repository.on_query(batch, message)

    def on_reencrypt(self, batch: Batch, message: Admitted) -> Outcome:
        """An operator has changed the master key."""
        return self._repository.on_reencrypt(batch, message)

    def on_delete(self, batch: Batch, message: Admitted) -> Outcome:
        """An operator takes somebody's proxies away."""
        return self._repository.on_delete(batch, message)

    # -- by itself ----------------------------------------------------------------------------------------------

    def due_in(self, now: float) -> float | None:
        """At once when a renewal came back, else from time to time."""
        return 0.0 if self._renewing.has_results else self._next_look - now

    def chores(self, batch: Batch) -> None:
        """Store what was renewed; look after what is stored."""
        self._renewing.settle(batch)
        if batch.now >= self._next_look:
            self._next_look = batch.now + self._settings.look
            self._upkeep.look(batch)

    def _look_soon(self) -> None:
        self._next_look = min(self._next_look, self._clock() + SOON)
