"""The pilot's payload proxies: keys made for certificate requests, chains that answered them. Memory only.

One key per certificate request and one request per owner: owners never share a key. A key whose request was not used
is forgotten with its match request. A proxy serves all jobs of an owner and group, but for those jobs that have one of
their own (:class:`Slot`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from broker.identity import Credential, PrivateKey, der_chain, make_csr, new_key
from schemas.messages.pilot import HeldProxy
from schemas.messages.service import ProxyIssued

REMEMBERED_REQUESTS = 16
"""Match requests under way at most; older ones were replaced long ago."""

SPARE_SECONDS = 60.0
"""A proxy that ends within this time is not offered for new jobs."""


class Slot(NamedTuple):
    """What a proxy serves: all jobs of an owner and group, or (``job`` above 0) that one alone."""

    owner: str
    group: str
    job: int = 0


class Held(NamedTuple):
    """A proxy at hand, with server times: since when, until when."""

    credential: Credential
    since: float
    until: float


class Proxies:
    """Keys under way and proxies held."""

    def __init__(self) -> None:
        self._requested: OrderedDict[str, list[str]] = OrderedDict()
        self._keys: dict[str, PrivateKey] = {}
        self._wanted: dict[str, Slot] = {}
        self._early: dict[str, tuple[ProxyIssued, float]] = {}
        self._held: dict[Slot, Held] = {}

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
        self._wanted[digest] = Slot(owner, group)
        early = self._early.pop(digest, None)
        if early is not None:
            self.issued(*early)
        return True

    def settle(self, message_id: str) -> None:
        """The match request was answered: keys that it did not use are of no use any more."""
        self._forget(digest for digest in self._requested.pop(message_id, []) if digest not in self._wanted)

    def request(self, slot: Slot) -> bytes:
        """A certificate request (DER) with a fresh key, to be answered for this slot."""
        key = new_key()
        csr = make_csr(key)
        digest = hashlib.sha256(csr).hexdigest()
        self._keys[digest] = key
        self._wanted[digest] = slot
        return csr

    def drop(self, csr: bytes) -> None:
        """That request will not be answered any more, or nobody waits for it."""
        self._forget([hashlib.sha256(csr).hexdigest()])

    def slot_of(self, csr: bytes) -> Slot | None:
        """For what this certificate request was made; None if it is not known (any more)."""
        return self.wanted(hashlib.sha256(csr).hexdigest())

    def wanted(self, csr_sha256: str) -> Slot | None:
        """For what a certificate request was made; None if it is not known (any more)."""
        return self._wanted.get(csr_sha256)

    def issued(self, message: ProxyIssued, now: float = 0.0) -> bool:
        """A proxy came (at server time ``now``); False if nobody asked for it, or if it is for somebody else."""
        if message.csr_sha256 in self._keys and message.csr_sha256 not in self._wanted:
            self._early[message.csr_sha256] = message, now  # it overtook the match that says whose it is
            return True
        slot = self._wanted.pop(message.csr_sha256, None)
        key = self._keys.pop(message.csr_sha256, None)
        if slot is None or slot[:2] != (message.owner, message.group) or key is None or not message.chain:
            return False
        before = self._held.get(slot)
        if before is None or before.until <= message.not_after:
            self._held[slot] = Held(Credential(key, tuple(der_chain(message.chain))), now, message.not_after)
        return True

    def get(self, owner: str, group: str, now: float, job: int = 0) -> Credential | None:
        """The proxy of an owner (or of one job of his), if it is still valid."""
        held = self._held.get(Slot(owner, group, job))
        return held.credential if held is not None and held.until > now else None

    def held(self, slot: Slot) -> Held | None:
        """What there is for a slot, valid or not."""
        return self._held.get(slot)

    def release(self, slot: Slot) -> None:
        """The job that had it for itself is over."""
        self._held.pop(slot, None)
        self._forget([digest for digest, one in self._wanted.items() if one == slot])

    def holds(self, now: float) -> tuple[HeldProxy, ...]:
        """What need not be issued again."""
        self._held = {slot: held for slot, held in self._held.items() if held.until > now}
        return tuple(
            HeldProxy(owner=slot.owner, group=slot.group, not_after=held.until)
            for slot, held in self._held.items()
            if held.until > now + SPARE_SECONDS and not slot.job
        )[:64]

    def _forget(self, digests: Iterable[str]) -> None:
        for digest in digests:
            self._keys.pop(digest, None)
            self._wanted.pop(digest, None)
            self._early.pop(digest, None)
