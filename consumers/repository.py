"""What operators ask of the proxy repository: look, encrypt anew, forget. Private keys never show."""

from __future__ import annotations

from collections import Counter

import structlog

from broker.subscriber import Admitted
from schemas.errors import ConfigurationError
from schemas.messages.proxies import (
    DeleteProxies,
    MasterKey,
    QueryRepository,
    ReencryptRepository,
    RepositoryDeleted,
    RepositoryListing,
    RepositoryReencrypted,
    StoredProxy,
)

from .batch import Batch
from .outcome import ACK, DeadLetter, Outcome
from .store import Transaction, audit, proxies, proxy_care, submission_proxies
from .vault import Vault, VaultError, key_id

REENCRYPT_AT_ONCE = 5_000
"""Keys in one transaction: a tenth of a second. The operator's tool asks again while some are left."""

MAX_OWN_LISTED = 1000
"""Proxies of submissions in one answer; with the accounts' thousand it stays below its bound."""

log = structlog.get_logger(__name__)


class Repository:
    """Handles operators' messages.

    Args:
        vault: the master keys.
        renews: MyProxy is configured.
        adds_attributes: VOMS servers are configured.
    """

    def __init__(self, vault: Vault, *, renews: bool, adds_attributes: bool) -> None:
        self._vault = vault
        self._renews = renews
        self._adds_attributes = adds_attributes

    def on_query(self, batch: Batch, message: Admitted) -> Outcome:
        """Whose proxies there are, and which master keys they need."""
        asked = message.message
        if not isinstance(asked, QueryRepository):
            return DeadLetter("not repository.query")
        tx, care = batch.tx, proxy_care.load(batch.tx)
        found = proxies.listing(tx, asked.owner, asked.offset, asked.limit + 1) if asked.limit else []
        page = [
            StoredProxy(
                owner=one.dn,
                group=one.grp,
                not_after=one.not_after,
                stored=one.stored,
                jobs=proxies.count_active(tx, one.dn, one.grp),
                key=key_id(one.key),
                trouble=care[one.dn, one.grp].trouble[:4096] if (one.dn, one.grp) in care else "",
            )
            for one in found[: asked.limit]
        ]
        if not asked.offset and asked.limit:
            page += [
                StoredProxy(
                    owner=one.dn,
                    group=one.grp,
                    submission=one.submission or 0,
                    not_after=one.not_after,
                    stored=one.stored,
                    jobs=submission_proxies.count_active(tx, one.submission) if one.submission else 0,
                    key=key_id(one.key),
                )
                for one in submission_proxies.listing(tx, asked.owner)[:MAX_OWN_LISTED]
            ]
        answer = RepositoryListing(
            proxies=tuple(page),
            more=len(found) > asked.limit,
            keys=self._keys(tx),
            renews=self._renews,
            adds_attributes=self._adds_attributes,
        )
        batch.say(message, answer)
        return ACK

    def on_reencrypt(self, batch: Batch, message: Admitted) -> Outcome:
        """Take in the key files as they are now, and encrypt all keys with the first."""
        if not isinstance(message.message, ReencryptRepository):
            return DeadLetter("not repository.reencrypt")
        try:
            self._vault.reload()
        except ConfigurationError as error:
            return batch.refuse(message, "failed", f"the master keys cannot be read: {error}")
        old = [one for one in proxy_care.sealed(batch.tx) if not self._vault.is_newest(one.token)]
        done = unreadable = 0
        for one in old:
            if done >= REENCRYPT_AT_ONCE:
                break
            try:
                secret = self._vault.decrypt(one.token, one.place)
            except VaultError:
                unreadable += 1
                continue
            done += proxy_care.reseal(batch.tx, one, self._vault.encrypt(secret, one.place))
        left = len(old) - done - unreadable
        detail = {"done": done, "unreadable": unreadable, "left": left, "key": self._vault.key_ids[0]}
        self._audit(batch, message, "repository.reencrypted", detail)
        log.info("repository.reencrypted", done=done, unreadable=unreadable, left=left)
        keys = self._keys(batch.tx)
        batch.answer(message, RepositoryReencrypted(done=done, unreadable=unreadable, left=left, keys=keys))
        return ACK

    def on_delete(self, batch: Batch, message: Admitted) -> Outcome:
        """Forget somebody's proxies and keys."""
        asked = message.message
        if not isinstance(asked, DeleteProxies):
            return DeadLetter("not repository.delete")
        count = proxies.delete(batch.tx, asked.owner, asked.group)
        count += submission_proxies.delete(batch.tx, asked.owner, asked.group)
        proxy_care.forget_orphans(batch.tx)
        detail = {"owner": asked.owner, "group": asked.group, "count": count, "reason": asked.reason[:1000]}
        self._audit(batch, message, "repository.deleted", detail)
        batch.answer(message, RepositoryDeleted(count=count))
        return ACK

    @staticmethod
    def _audit(batch: Batch, message: Admitted, event: str, detail: dict[str, object]) -> None:
        identity = message.principal.identity
        audit.append(batch.tx, batch.now, event, identity=identity, client=message.client, detail=detail)

    def _keys(self, tx: Transaction) -> tuple[MasterKey, ...]:
        """All master keys that are at hand or needed, newest first."""
        rows = Counter(key_id(one.token) for one in proxy_care.sealed(tx))
        at_hand = self._vault.key_ids
        ids = [*at_hand, *sorted(rows.keys() - set(at_hand))]
        return tuple(MasterKey(id=one, rows=rows[one], at_hand=one in at_hand, newest=one == at_hand[0]) for one in ids)
