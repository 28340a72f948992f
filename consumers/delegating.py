"""Delegation, the user's side: keys for certificate requests, and the proxies that come for them.

Promises: no private key is asked for or accepted; what is kept is a full proxy of the sender's own, for the key that
was made here, bounded in time, without another group's role in its attributes.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable

from broker.authorization import Property
from broker.identity import (
    CredentialError,
    IdentityError,
    VerifiedChain,
    claimed_fqans,
    key_pem,
    load_private_key,
    make_csr,
    new_key,
    pem_chain,
    split_chain,
    thumbprint,
)
from broker.identity.keys import public_bytes
from broker.subscriber import Admitted
from schemas.messages.service import DelegationCsr, DelegationStored
from schemas.messages.user import PutDelegation, RequestDelegation

from .batch import Batch
from .directory import Directory
from .domain.proxy_rules import why_unfit
from .outcome import ACK, DeadLetter, Outcome
from .per_minute import PerMinute
from .settings import ProxySettings
from .store import audit, proxies, submission_proxies
from .store.proxies import Delegation, Proxy
from .store.submission_proxies import SubmissionProxy
from .vault import Vault, VaultError

MAX_PENDING = 20
"""Certificate requests (and proxies whose submission has not come) per DN: many tools of one person at once, but nobody
fills the table."""

PER_MINUTE = 300
"""Delegations that one identity may begin within a minute: each costs us a key and a line in the audit, which is kept
for ever. Tools need one in some hours, and long jobs one for each submission."""

REFUSED_PER_MINUTE = 60
"""Refused proxies of one identity that are audited one by one."""

PENDING_SECONDS = 3600.0
"""How long a request waits for its proxy: as long as ``delegation.put`` may travel."""

SLACK = 600.0
"""Clocks differ; a proxy of exactly the longest life must not fail for it."""

SHORTEST_DELEGATED = 900.0
"""What a user delegates lives at least so long: a job has to wait, to be matched and to start within it, and a pilot
takes no further job on a proxy that ends sooner."""

OWN = "submission"
"""Purpose of a proxy that serves the jobs of one submission only."""


class Delegating:
    """Handles delegation.

    Args:
        directory: registry, and verification of chains.
        vault: encrypts private keys.
        settings: bounds.
        on_stored: called after the commit of each stored proxy.
    """

    def __init__(
        self, directory: Directory, vault: Vault, settings: ProxySettings, on_stored: Callable[[], None]
    ) -> None:
        self._directory = directory
        self._vault = vault
        self._settings = settings
        self._on_stored = on_stored
        self._begun = PerMinute(PER_MINUTE)
        self._refused = PerMinute(REFUSED_PER_MINUTE)

    def on_request(self, batch: Batch, message: Admitted) -> Outcome:
        """Make a key and give out its certificate request."""
        asked = message.verified.message
        if not isinstance(asked, RequestDelegation):
            return DeadLetter("not delegation.request")
        identity, group = message.principal.identity, message.principal.group
        under_way = proxies.pending(batch.tx, identity, batch.now) + submission_proxies.unbound(batch.tx, identity)
        if under_way >= MAX_PENDING:
            reason = f"{MAX_PENDING} delegations of yours are under way: finish one, or wait an hour"
            return batch.refuse(message, "limit", reason)
        if not self._begun.take(identity, batch.now):
            return batch.refuse(message, "limit", f"you have begun {PER_MINUTE} delegations within this minute: wait")
        key = new_key()
        delegation = secrets.token_urlsafe(24)
        row = Delegation(
            delegation, identity, group, b"", batch.now, batch.now + PENDING_SECONDS, asked.purpose or None
        )
        sealed = self._vault.encrypt(key_pem(key), row.place)
        proxies.begin(batch.tx, Delegation(row.id, row.dn, row.grp, sealed, row.created, row.expires, row.purpose))
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
            key = load_private_key(self._vault.decrypt(taken.key, taken.place))
        except IdentityError as error:
            return self._deny(batch, message, "invalid", f"the proxy is refused: {error}")
        except (VaultError, CredentialError):
            reason = "the key of that delegation cannot be read any more: ask for a new certificate request"
            return self._deny(batch, message, "failed", reason)
        own = taken.purpose == OWN
        reason = self._why_not(chain, identity, group, batch.now, own=own)
        if not reason and not hmac.compare_digest(public_bytes(chain.public_key), public_bytes(key.public_key())):
            reason = "the proxy is not for the key of this delegation"
        if reason:
            return self._deny(batch, message, "invalid", reason)
        until = (self._keep_own if own else self._keep)(batch, taken, chain, key_pem(key))
        batch.commits.append(self._on_stored)
        detail = {
            "group": group,
            "not_after": chain.not_after.timestamp(),
            "kept_until": until,
            "own": own,
            "thumbprint": chain.thumbprint_b64url,
            "parent": thumbprint(chain.ders[1]) if len(chain.ders) > 1 else "",
        }
        audit.append(batch.tx, batch.now, "proxy.stored", identity=identity, client=message.client, detail=detail)
        batch.answer(message, DelegationStored(not_after=until))
        return ACK

    def _why_not(self, chain: VerifiedChain, identity: str, group: str, now: float, *, own: bool) -> str:
        """Why a proxy is not kept; empty if it is."""
        end = chain.not_after.timestamp()
        longest = self._settings.longest_own if own else self._settings.longest
        if chain.identity != identity:
            return f"the proxy is one of {chain.identity}, not yours"
        if chain.limited:
            return "a limited proxy cannot be delegated: jobs need a full one to start from"
        if end < now + SHORTEST_DELEGATED:
            left = max(0.0, end - now) / 60
            reason = f"the proxy ends in {left:.0f} min, and less than {SHORTEST_DELEGATED / 60:.0f} min serve no job: "
            return reason + "make a new proxy"
        if end > now + longest + SLACK:
            return f"the proxy lives longer than {longest / 3600:.0f} h: delegate a shorter one"
        unfit = unfit_for(self._directory, group, chain.ders)
        return f"the proxy is refused: {unfit}" if unfit else ""

    def _keep(self, batch: Batch, taken: Delegation, chain: VerifiedChain, pem: bytes) -> float:
        """Keep an account's proxy; its end, or that of an older one that lives longer and stays."""
        end, ders = chain.not_after.timestamp(), pem_chain(chain.ders).decode("ascii")
        sealed = self._vault.encrypt(pem, proxies.place_of(taken.dn, taken.grp))
        if proxies.put(batch.tx, Proxy(taken.dn, taken.grp, ders, sealed, end, batch.now)):
            return end
        return proxies.until(batch.tx, taken.dn, taken.grp) or end

    def _keep_own(self, batch: Batch, taken: Delegation, chain: VerifiedChain, pem: bytes) -> float:
        """Keep a submission's own proxy, until that comes."""
        end, ders = chain.not_after.timestamp(), pem_chain(chain.ders).decode("ascii")
        sealed = self._vault.encrypt(pem, submission_proxies.place_of(taken.id))
        submission_proxies.put(batch.tx, SubmissionProxy(taken.id, taken.dn, taken.grp, ders, sealed, end, batch.now))
        return end

    def _deny(self, batch: Batch, message: Admitted, code: str, reason: str) -> Outcome:
        identity = message.principal.identity
        if self._refused.take(identity, batch.now):
            detail: dict[str, object] = {"group": message.principal.group, "reason": reason[:1000]}
            if left_out := self._refused.owed(identity):
                detail["unrecorded"] = left_out
            audit.append(
                batch.tx, batch.now, "delegation.refused", identity=identity, client=message.client, detail=detail
            )
        return batch.refuse(message, code, reason[:4096])


def unfit_for(directory: Directory, group: str, chain: tuple[bytes, ...]) -> str:
    """Why a chain does not serve jobs of a group, by the attributes that it carries; empty if it does."""
    groups = directory.registry().groups
    own = groups[group].fqan if group in groups else ""
    pilots = [one.fqan for one in groups.values() if Property.GENERIC_PILOT in one.properties]
    others = [one.fqan for name, one in groups.items() if name != group]
    try:
        return why_unfit(claimed_fqans(chain), own, pilots, others)
    except IdentityError as error:
        return str(error)
