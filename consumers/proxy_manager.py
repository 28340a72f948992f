"""proxy-manager: keeps one delegated proxy per (DN, group) and gives pilots limited ones for the jobs that they hold.

Promises: no private key ever leaves this service, and none is kept unencrypted. A pilot gets limited proxies only,
only of the owner of a job whose live lease it holds, never of a pilots' group; every issue and every refusal is
audited. What a user delegates must be a full proxy of his own, for the key that was made here, and end within a day.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import ClassVar

import structlog

from broker.authorization import Property
from broker.identity import (
    CredentialError,
    IdentityError,
    PrivateKey,
    key_pem,
    load_private_key,
    make_csr,
    new_key,
    parse_certificate,
    pem_chain,
    sign_csr,
    split_chain,
)
from broker.identity.keys import public_bytes
from broker.subscriber import Admitted
from schemas.job import LEASED
from schemas.messages.event import ProxyWanted
from schemas.messages.service import DelegationCsr, DelegationStored, ProxyIssued
from schemas.messages.user import PutDelegation, RequestDelegation

from .batch import Batch, Consumer
from .directory import Directory
from .outcome import ACK, DeadLetter, Outcome
from .store import audit, jobs, proxies, sessions
from .store.proxies import Delegation, Issue, Proxy
from .store.rows import JobRow
from .vault import Vault, VaultError

MAX_PENDING = 20
"""Certificate requests under way per DN: many tools of one person at once, but nobody fills the table."""

PENDING_SECONDS = 3600.0
"""How long a request waits for its proxy: as long as ``delegation.put`` may travel."""

LONGEST = 24 * 3600.0
"""A stored proxy ends within a day: what a thief of database and master key could do ends with it."""

SLACK = 600.0
"""Clocks differ; a proxy of exactly a day must not fail for it."""

SHORTEST = 60.0
"""A pilot is given none that ends sooner: it is of no use."""

SHORTEST_DELEGATED = 900.0
"""What a user delegates lives at least so long: a job has to wait, to be matched and to start within it, and a pilot
takes no further job on a proxy that ends sooner."""

ISSUED_SECONDS = 12 * 3600.0
"""Longest proxy on a worker node; a pilot asks again for later jobs."""

UNUSUAL_ISSUES = 200
"""Issues to one pilot within an hour that are worth a line in the audit: a pilot needs one per owner and 12 h."""

RATE_SECONDS = 3600.0

KEPT_ISSUES = 90 * 86_400.0
"""Records of issues are kept for a quarter: so long questions may come up about a node."""

PURGE_SECONDS = 60.0

log = structlog.get_logger(__name__)


class _NotIssuedError(Exception):
    """No proxy for this pilot; the text says why."""


class ProxyManager(Consumer):
    """The consumer.

    Args:
        directory: registry, and verification of chains.
        vault: encrypts private keys.
    """

    name = "proxy-manager"
    handlers: ClassVar = {RequestDelegation: "on_request", PutDelegation: "on_put", ProxyWanted: ""}

    def __init__(self, directory: Directory, vault: Vault) -> None:
        self._directory = directory
        self._vault = vault
        self._next_purge = 0.0

    def handle(self, batch: Batch, messages: Sequence[Admitted]) -> list[Outcome]:
        """Handle delegations one by one, and all orders of pilots with one look at jobs and proxies."""
        orders = [one for message in messages if isinstance(one := message.verified.message, ProxyWanted)]
        if orders:
            Issuing(batch, self._directory, self._vault).issue(orders)
        return [
            ACK if isinstance(message.verified.message, ProxyWanted) else self.dispatch(batch, message)
            for message in messages
        ]

    # -- delegation ---------------------------------------------------------------------------------------------

    def on_request(self, batch: Batch, message: Admitted) -> Outcome:
        """Make a key and give out its certificate request."""
        identity, group = message.principal.identity, message.principal.group
        if proxies.pending(batch.tx, identity, batch.now) >= MAX_PENDING:
            reason = f"{MAX_PENDING} delegations of yours are under way: finish one, or wait an hour"
            return batch.refuse(message, "limit", reason)
        key = new_key()
        delegation = secrets.token_urlsafe(24)
        kept = self._vault.encrypt(key_pem(key))
        row = Delegation(delegation, identity, group, kept, batch.now, batch.now + PENDING_SECONDS)
        proxies.begin(batch.tx, row)
        batch.answer(message, DelegationCsr(delegation=delegation, csr=make_csr(key)))
        return ACK

    def on_put(self, batch: Batch, message: Admitted) -> Outcome:
        """Keep the proxy that was made for one of our keys."""
        asked = message.verified.message
        if not isinstance(asked, PutDelegation):
            return DeadLetter("not delegation.put")
        identity, group = message.principal.identity, message.principal.group
        if "PRIVATE KEY" in asked.chain:
            reason = "there is a private key in what you sent: it is not secret any more, destroy that proxy"
            return self._deny(batch, message, "invalid", reason)
        taken = proxies.take(batch.tx, asked.delegation, identity, group, batch.now)
        if taken is None:
            reason = "there is no such delegation of yours (any more): ask for a new certificate request"
            return self._deny(batch, message, "not-found", reason)
        try:
            chain = self._directory.verify(split_chain(asked.chain))
            key = load_private_key(self._vault.decrypt(taken.key))
        except IdentityError as error:
            return self._deny(batch, message, "invalid", f"the proxy is refused: {error}")
        except (VaultError, CredentialError):
            reason = "the key of that delegation cannot be read any more: ask for a new certificate request"
            return self._deny(batch, message, "failed", reason)
        end = chain.not_after.timestamp()
        reason = ""
        if chain.identity != identity:
            reason = f"the proxy is one of {chain.identity}, not yours"
        elif chain.limited:
            reason = "a limited proxy cannot be delegated: jobs need a full one to start from"
        elif not hmac.compare_digest(public_bytes(chain.public_key), public_bytes(key.public_key())):
            reason = "the proxy is not for the key of this delegation"
        elif end < batch.now + SHORTEST_DELEGATED:
            left = max(0.0, end - batch.now) / 60
            reason = f"the proxy ends in {left:.0f} min, and less than {SHORTEST_DELEGATED / 60:.0f} min serve no job: "
            reason += "make a new proxy"
        elif end > batch.now + LONGEST + SLACK:
            reason = f"the proxy lives longer than {LONGEST / 3600:.0f} h: delegate a shorter one"
        if reason:
            return self._deny(batch, message, "invalid", reason)
        pem = pem_chain(chain.ders).decode("ascii")
        proxies.put(batch.tx, Proxy(identity, group, pem, taken.key, end, batch.now))
        until = proxies.until(batch.tx, identity, group) or end  # an older one that lives longer stays
        detail = {"group": group, "not_after": end, "kept_until": until}
        audit.append(batch.tx, batch.now, "proxy.stored", identity=identity, client=message.client, detail=detail)
        batch.answer(message, DelegationStored(not_after=until))
        return ACK

    @staticmethod
    def _deny(batch: Batch, message: Admitted, code: str, reason: str) -> Outcome:
        audit.append(
            batch.tx,
            batch.now,
            "delegation.refused",
            identity=message.principal.identity,
            client=message.client,
            detail={"group": message.principal.group, "reason": reason[:1000]},
        )
        return batch.refuse(message, code, reason[:4096])

    # -- clean-up -----------------------------------------------------------------------------------------------

    def due_in(self, now: float) -> float | None:
        """Once a minute."""
        return self._next_purge - now

    def chores(self, batch: Batch) -> None:
        """Forget what is over: keys must not lie about longer than they serve."""
        self._next_purge = batch.now + PURGE_SECONDS
        proxies.purge(batch.tx, batch.now, batch.now - KEPT_ISSUES)


class Issuing:
    """Limited proxies for the pilots of one batch.

    Args:
        batch: the batch.
        directory: registry.
        vault: decrypts private keys.
    """

    def __init__(self, batch: Batch, directory: Directory, vault: Vault) -> None:
        self._batch = batch
        self._directory = directory
        self._vault = vault
        self._keys: dict[tuple[str, str], PrivateKey] = {}
        self._issued: list[Issue] = []
        self._lines: list[tuple[float, str, str, str, Mapping[str, object]]] = []

    def issue(self, orders: Sequence[ProxyWanted]) -> None:
        """Answer each order with a proxy or a reason."""
        rows = jobs.load(self._batch.tx, {order.job for order in orders}, for_update=False)
        stored = proxies.get(self._batch.tx, {(order.owner, order.group) for order in orders})
        for order in orders:
            try:
                proxy = self._check(order, rows.get(order.job), stored)
                chain, end = self._sign(order, proxy)
            except _NotIssuedError as refusal:
                self._tell(order, reason=str(refusal))
                self._note("proxy.refused", order, {"reason": str(refusal)})
            else:
                self._tell(order, chain=chain, not_after=end)
                self._note("proxy.issued", order, {"not_after": end})
                issue = Issue(order.client, order.owner, order.group, end, order.job, order.attempt, self._batch.now)
                self._issued.append(issue)
        proxies.record_issues(self._batch.tx, self._issued)
        self._watch_rates()
        audit.append_many(self._batch.tx, self._lines)

    def _check(self, order: ProxyWanted, row: JobRow | None, stored: Mapping[tuple[str, str], Proxy]) -> Proxy:
        if row is None or row.status not in LEASED or (row.attempt, row.pilot) != (order.attempt, order.client):
            raise _NotIssuedError("the pilot does not hold the live lease of that job")
        if (row.owner, row.grp) != (order.owner, order.group):
            raise _NotIssuedError("the job is another owner's")
        group = self._directory.registry().groups.get(order.group)
        if group is None or Property.GENERIC_PILOT in group.properties:
            raise _NotIssuedError("no payload runs with a proxy of that group")
        if self._directory.principal(order.owner, order.group, order.client) is None:
            raise _NotIssuedError("the owner is suspended, or not in that group any more")
        session = sessions.get(self._batch.tx, order.client)
        if session is None:
            raise _NotIssuedError("the pilot's login is not known any more: it must log in anew")
        if self._directory.principal(session.identity, session.grp, order.client) is None:
            raise _NotIssuedError("the pilot is suspended, or not known any more")
        proxy = stored.get((order.owner, order.group))
        if proxy is None or proxy.not_after < self._batch.now + SHORTEST:
            raise _NotIssuedError("the owner's delegated proxy is missing or has expired")
        return proxy

    def _sign(self, order: ProxyWanted, proxy: Proxy) -> tuple[str, float]:
        account = (proxy.dn, proxy.grp)
        try:
            if account not in self._keys:
                self._keys[account] = load_private_key(self._vault.decrypt(proxy.key))
            pem = sign_csr(
                order.csr,
                proxy.chain,
                self._keys[account],
                lifetime=dt.timedelta(seconds=min(ISSUED_SECONDS, proxy.not_after - self._batch.now)),
                limited=True,
                now=dt.datetime.fromtimestamp(self._batch.now, dt.UTC),
            )
        except IdentityError as error:
            raise _NotIssuedError(f"no proxy could be made: {error}") from None
        except (VaultError, CredentialError):
            log.exception("proxy.key_unreadable", owner=proxy.dn, group=proxy.grp)
            raise _NotIssuedError("the repository cannot read the owner's proxy; he must delegate a new one") from None
        leaf = parse_certificate(split_chain(pem)[0]).x509
        return pem.decode("ascii"), leaf.not_valid_after_utc.timestamp()

    def _tell(self, order: ProxyWanted, *, chain: str = "", not_after: float = 0.0, reason: str = "") -> None:
        answer = ProxyIssued(
            owner=order.owner,
            group=order.group,
            csr_sha256=hashlib.sha256(order.csr).hexdigest(),
            chain=chain,
            not_after=not_after,
            reason=reason[:4096],
        )
        self._batch.tell(order.client, answer)

    def _note(self, event: str, order: ProxyWanted, detail: Mapping[str, object]) -> None:
        facts = {"group": order.group, "job": order.job, "attempt": order.attempt, **detail}
        self._lines.append((self._batch.now, event, order.owner, order.client, facts))

    def _watch_rates(self) -> None:
        """A pilot that wants very many proxies is worth a look."""
        now = self._batch.now
        for client in {issue.client for issue in self._issued}:
            count = proxies.issues_since(self._batch.tx, client, now - RATE_SECONDS)
            mine = sum(issue.client == client for issue in self._issued)
            if count >= UNUSUAL_ISSUES > count - mine:
                log.warning("proxy.unusual_rate", client=client, issues=count, seconds=RATE_SECONDS)
                self._lines.append((now, "proxy.unusual-rate", "", client, {"issues": count}))
