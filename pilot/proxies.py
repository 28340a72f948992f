"""The pilot's payload proxies: keys made for certificate requests, chains that answered them. Memory only.

One key per certificate request and one request per owner: owners never share a key. A key whose request was not used
is forgotten with its match request.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

from broker.identity import Credential, PrivateKey, der_chain, make_csr, new_key
from schemas.messages.pilot import HeldProxy
from schemas.messages.service import ProxyIssued

REMEMBERED_REQUESTS = 16
"""Match requests under way at most; older ones were replaced long ago."""

SPARE_SECONDS = 60.0
"""A proxy that ends within this time is not offered for new jobs."""


class Proxies:
    """Keys under way and proxies held."""

    def __init__(self) -> None:
        self._requested: OrderedDict[str, list[str]] = OrderedDict()
        self._keys: dict[str, PrivateKey] = {}
        self._wanted: dict[str, tuple[str, str]] = {}
        self._early: dict[str, ProxyIssued] = {}
        self._held: dict[tuple[str, str], tuple[Credential, float]] = {}

    def new_requests(self, count: int) -> tuple[bytes, ...]:
        """Certificate requests (DER) with fresh keys; name them with :meth:`sent`."""
        csrs = []
        for _ in range(count):
            key = new_key()
            csr = make_csr(key)
            self._keys[hashlib.sha256(csr).hexdigest()] = key
            csrs.append(csr)
        return tuple(csrs)

    def sent(self, message_id: str, csrs: Iterable[bytes]) -> None:
        """These requests travelled with that match request."""
        self._requested[message_id] = [hashlib.sha256(csr).hexdigest() for csr in csrs]
        while len(self._requested) > REMEMBERED_REQUESTS:
            _, old = self._requested.popitem(last=False)
            self._forget(old)

    def assign(self, message_id: str, place: int, owner: str, group: str) -> bool:
        """That request's certificate request at ``place`` will be answered for this owner; False if unknown."""
        digests = self._requested.get(message_id, [])
        if not 0 <= place < len(digests):
            return False
        digest = digests[place]
        self._wanted[digest] = (owner, group)
        early = self._early.pop(digest, None)
        if early is not None:
            self.issued(early)
        return True

    def settle(self, message_id: str) -> None:
        """The match request was answered: keys that it did not use are of no use any more."""
        self._forget(digest for digest in self._requested.pop(message_id, []) if digest not in self._wanted)

    def issued(self, message: ProxyIssued) -> bool:
        """A proxy came; False if nobody asked for it, or if it is for somebody else."""
        if message.csr_sha256 in self._keys and message.csr_sha256 not in self._wanted:
            self._early[message.csr_sha256] = message  # it overtook the match that says whose it is
            return True
        account = self._wanted.pop(message.csr_sha256, None)
        key = self._keys.pop(message.csr_sha256, None)
        if account != (message.owner, message.group) or key is None or not message.chain:
            return False
        self._held[account] = (Credential(key, tuple(der_chain(message.chain))), message.not_after)
        return True

    def get(self, owner: str, group: str, now: float) -> Credential | None:
        """The proxy of an owner, if it is still valid."""
        held = self._held.get((owner, group))
        return held[0] if held is not None and held[1] > now else None

    def holds(self, now: float) -> tuple[HeldProxy, ...]:
        """What need not be issued again."""
        self._held = {account: held for account, held in self._held.items() if held[1] > now}
        return tuple(
            HeldProxy(owner=owner, group=group, not_after=end)
            for (owner, group), (_, end) in self._held.items()
            if end > now + SPARE_SECONDS
        )[:64]

    def _forget(self, digests: Iterable[str]) -> None:
        for digest in digests:
            self._keys.pop(digest, None)
            self._wanted.pop(digest, None)
            self._early.pop(digest, None)
