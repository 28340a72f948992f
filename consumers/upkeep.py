"""Looks after stored proxies: forgets what serves no job any more, warns of what ends soon, has the rest renewed.

Promises: a proxy is kept only while jobs of its account are active, and some time beyond; a submission's own proxy goes
with its last job; each warning comes once per threshold. Conversations with other servers are :mod:`.renewing`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from schemas.messages.proxies import ProxyExpiring

from .batch import Batch
from .delegating import PENDING_SECONDS
from .domain.proxy_rules import warning_due
from .renewing import Renewing
from .settings import ProxySettings
from .store import audit, proxies, proxy_care, submission_proxies
from .store.proxies import Account, Term
from .store.proxy_care import Care

KEPT_ISSUES = 90 * 86_400.0
"""Records of issues are kept for a quarter: so long questions may come up about a node."""


class Upkeep:
    """One look at the repository after the other.

    Args:
        settings: times.
        renewing: renews and attributes; also knows why it could not.
        renews: MyProxy is configured.
    """

    def __init__(self, settings: ProxySettings, renewing: Renewing, *, renews: bool) -> None:
        self._settings = settings
        self._renewing = renewing
        self._renews = renews

    def look(self, batch: Batch) -> None:
        """Once over everything."""
        proxies.purge(batch.tx, batch.now, batch.now - KEPT_ISSUES)
        self._purge_own(batch)
        proxy_care.forget_orphans(batch.tx)
        terms = proxies.terms(batch.tx)
        active = proxies.active(batch.tx, [term.account for term in terms])
        care = proxy_care.load(batch.tx)
        left = self._forget_idle(batch, terms, active, care)
        self._warn(batch, [term for term in left if term.account in active], care)
        self._warn_own(batch)
        self._renewing.plan(batch, left, active, proxy_care.load(batch.tx))

    def _purge_own(self, batch: Batch) -> None:
        for one in submission_proxies.purge(batch.tx, batch.now, batch.now - PENDING_SECONDS):
            detail = {"group": one.grp, "submission": one.submission, "not_after": one.not_after}
            audit.append(batch.tx, batch.now, "proxy.forgotten", identity=one.dn, detail=detail)

    def _forget_idle(
        self, batch: Batch, terms: Collection[Term], active: Collection[Account], care: Mapping[Account, Care]
    ) -> list[Term]:
        """Forget proxies that serve nobody; those that stay."""
        left, changed = [], []
        for term in terms:
            known = care.get(term.account, Care(term.dn, term.grp))
            idle = known.idle_since if known.idle_since is not None else batch.now
            if term.account in active:
                left.append(term)
                if known.idle_since is not None:
                    changed.append(msgspec.structs.replace(known, idle_since=None))
            elif batch.now - idle >= self._settings.idle:
                proxies.delete(batch.tx, *term.account)
                proxy_care.forget(batch.tx, *term.account)
                detail = {"group": term.grp, "not_after": term.not_after, "idle": round(batch.now - idle)}
                audit.append(batch.tx, batch.now, "proxy.forgotten", identity=term.dn, detail=detail)
            else:
                left.append(term)
                if known.idle_since is None:
                    changed.append(msgspec.structs.replace(known, idle_since=idle))
        proxy_care.put(batch.tx, changed)
        return left

    def _warn(self, batch: Batch, terms: Collection[Term], care: Mapping[Account, Care]) -> None:
        for term in terms:
            known = care.get(term.account, Care(term.dn, term.grp))
            limit = warning_due(term.stored, term.not_after, known.warned, batch.now)
            if limit is None:
                continue
            proxy_care.put(batch.tx, [msgspec.structs.replace(known, warned=limit, idle_since=None)])
            fact = ProxyExpiring(
                time=batch.now,
                owner=term.dn,
                group=term.grp,
                not_after=term.not_after,
                seconds=limit,
                jobs=proxies.count_active(batch.tx, *term.account),
                renewable=self._renews and not known.failures,
                reason=known.trouble[:4096] if self._renews else "this deployment renews no proxies",
            )
            batch.publish(fact)

    def _warn_own(self, batch: Batch) -> None:
        """Of submissions' own proxies."""
        for one in submission_proxies.listing(batch.tx):
            limit = warning_due(one.stored, one.not_after, one.warned, batch.now)
            if limit is None or one.submission is None:
                continue
            submission_proxies.warn(batch.tx, one.id, limit)
            fact = ProxyExpiring(
                time=batch.now,
                owner=one.dn,
                group=one.grp,
                not_after=one.not_after,
                seconds=limit,
                jobs=submission_proxies.count_active(batch.tx, one.submission),
                submission=one.submission,
                reason="the proxy of a single submission is never renewed",
            )
            batch.publish(fact)
