"""Who is who, for one process: the registry and the chains, read from the store and kept fresh.

Promises: a change of the registry (a suspended user, a new group) or of the trust directory (a CRL) is obeyed within
:data:`REFRESH_SECONDS`; a chain is
known as soon as the gatekeeper committed it. Unknown thumbprints are never remembered as unknown.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

from cryptography import x509

from broker.authorization import Principal, Property
from broker.identity import IdentityError, TrustStore, VerifiedChain, VomsDir, verify_chain
from broker.rules import select
from broker.signing import ChainFacts, KnownChain, facts_of
from schemas.errors import InvalidInputError
from schemas.identity import Fqan

from .enrolled import EnrolledPilots
from .store import Reading, Store, chains, registry
from .store.registry import Group, Registry

REFRESH_SECONDS = 2.0
"""Age at which the registry is looked at again: an operator's change acts at once for all practical purposes (the
broker's own cache holds 5 s)."""

CACHED_CHAINS = 20_000
"""About 1 kB each: the pilots and users of a day."""

CACHED_PRINCIPALS = 50_000
"""Identities and groups of a large grid's day, some hundred bytes each."""

RECHECK_SECONDS = 60.0
"""A cached chain is verified again after this time: CRLs end. New CRLs and lost trust anchors act at once."""

Principals: TypeAlias = dict[tuple[str, str], Principal | None]
"""(identity, group) → who that is."""


class Directory:
    """Implements :class:`broker.subscriber.Directory` and the chain resolver over a store.

    Args:
        store: the state.
        trust: trust anchors.
        voms: LSC files, if any.
        clock: server time.
    """

    def __init__(
        self, store: Store, trust: TrustStore, voms: VomsDir | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._trust = trust
        self._voms = voms
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot: Registry | None = None
        self._loaded = float("-inf")
        self._principals: Principals = {}
        self._enrolled = EnrolledPilots(store)
        self._chains: OrderedDict[str, tuple[float, ChainFacts]] = OrderedDict()
        self._trusted = trust.generation
        self._looked = float("-inf")

    def reading(self) -> AbstractContextManager[Reading]:
        """A look at the store, for those who read much and outside of a batch."""
        return self._store.reading()

    # -- registry -----------------------------------------------------------------------------------------------

    def registry(self) -> Registry:
        """The registry as of at most :data:`REFRESH_SECONDS` ago."""
        return self._known()[0]

    def _known(self) -> tuple[Registry, Principals]:
        """The registry and what was looked up in it: always of one version."""
        now = time.monotonic()
        with self._lock:
            if self._snapshot is None or now - self._loaded > REFRESH_SECONDS:
                with self._store.reading() as tx:
                    if self._snapshot is None or registry.version(tx) != self._snapshot.version:
                        self._snapshot, self._principals = registry.load(tx), {}
                self._loaded = now
            return self._snapshot, self._principals

    def forget(self) -> None:
        """Look at registry and trust directory again at the next question: somebody said that they changed."""
        with self._lock:
            self._loaded = self._looked = float("-inf")
        self._enrolled.forget()

    def generation(self) -> tuple[int, int]:
        """Changes with every change of registry or trust directory: who was let in before is to be looked at again.

        Revoked pilots count, too: both versions only grow, so their sum tells of each.
        """
        version = self.registry().version + self._enrolled.version()
        self._look_at_trust()
        return version, self._trusted

    def first_group(self, identity: str) -> str:
        """The group that is taken if none is named; empty for who has none."""
        groups = self.registry().groups_of(identity)
        if groups:
            return groups[0]
        pilot = self._enrolled.get(identity)
        return "" if pilot is None else pilot.group

    def principal(self, identity: str, group: str, client: str) -> Principal | None:
        """The sender as the registry knows it; see :class:`broker.subscriber.Directory`."""
        known, principals = self._known()
        service = known.service_of(identity)
        if service is not None and not group:
            return Principal(identity, service=service) if client == service else None
        key = (identity, group)
        if key not in principals:
            if len(principals) >= CACHED_PRINCIPALS:
                principals.clear()
            principals[key] = member_of(known, identity, group)
        found = principals[key]
        return found if found is not None or identity in known.users else self._pilot(known, identity, group)

    def _pilot(self, known: Registry, identity: str, group: str) -> Principal | None:
        """An enrolled pilot: of its group, at its site, and nothing but a pilot."""
        pilot = self._enrolled.get(identity)
        if pilot is None or pilot.revoked:
            return None
        if not group:
            return Principal(identity, site=pilot.site)  # still waiting for its certificate: it may send nothing
        if group != pilot.group or group not in known.groups:
            return None
        properties = frozenset(known.groups[group].properties) & {Property.GENERIC_PILOT}
        rules = select(known.rules, identity, group, properties)
        return Principal(identity, group, properties, rules=rules, site=pilot.site, renewed_until=pilot.ends)

    # -- chains -------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Server time."""
        return self._clock()

    def verify(self, ders: list[bytes]) -> VerifiedChain:
        """Verify a chain against the trust directory now.

        Raises:
            IdentityError: it is not valid, or nobody may act by it.
        """
        self._look_at_trust()
        chain = verify_chain(ders, self._trust, self._voms, dt.datetime.fromtimestamp(self._clock(), dt.UTC))
        chain.check_may_act()
        return chain

    def _look_at_trust(self) -> None:
        """Forget what was verified before the trust directory changed: a CRL acts as fast as the registry."""
        now = time.monotonic()
        with self._lock:
            if now - self._looked <= REFRESH_SECONDS:
                return
            self._looked = now
        self._trust.reload_if_changed()
        with self._lock:
            if self._trust.generation != self._trusted:
                self._trusted = self._trust.generation
                self._chains.clear()

    def __call__(self, thumbprint: str) -> KnownChain | None:
        """Find a signing chain by thumbprint; None if unknown, or not valid any more for another reason than age."""
        self._look_at_trust()
        now = self._clock()
        with self._lock:
            cached = self._chains.get(thumbprint)
            if cached is not None and now - cached[0] < RECHECK_SECONDS:
                self._chains.move_to_end(thumbprint)
                return cached[1]
        with self._store.reading() as tx:
            stored = chains.get(tx, [thumbprint]).get(thumbprint)
        if stored is None:
            return None
        trusted = self._trust.generation
        facts = self._facts(stored.ders, now)
        if facts is not None and trusted == self._trust.generation:  # else it was verified by what counts no more
            self.remember(thumbprint, facts)
        return facts

    def remember(self, thumbprint: str, facts: ChainFacts) -> None:
        """Keep a verified chain at hand."""
        with self._lock:
            self._chains[thumbprint] = (self._clock(), facts)
            self._chains.move_to_end(thumbprint)
            while len(self._chains) > CACHED_CHAINS:
                self._chains.popitem(last=False)

    def _facts(self, ders: list[bytes], now: float) -> ChainFacts | None:
        """Verify a stored chain at a moment of its validity: messages it signed then may be admitted later."""
        ends = x509.load_der_x509_certificate(ders[0]).not_valid_after_utc - dt.timedelta(seconds=1)
        at = min(dt.datetime.fromtimestamp(now, dt.UTC), ends)
        try:
            return facts_of(verify_chain(ders, self._trust, self._voms, at))
        except IdentityError:
            return None


def member_of(known: Registry, identity: str, group: str) -> Principal | None:
    """A user or pilot acting for a group, with the rules that concern him; None if he may not."""
    user = known.users.get(identity)
    if user is None or user.suspended or group not in user.groups or group not in known.groups:
        return None
    entry = known.groups[group]
    properties = frozenset(entry.properties)
    rules = select(known.rules, identity, group, properties)
    return Principal(identity, group, properties, rules=rules, voms=_required(entry))


def _required(group: Group) -> str:
    """The FQAN, in canonical form, that a member's proxy must carry; one that cannot be read is carried by nobody."""
    if not group.voms_required:
        return ""
    try:
        return str(Fqan.parse(group.fqan))
    except InvalidInputError:
        return group.fqan or "(none)"
