"""A match request at work: what was asked, what was chosen and claimed for it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec.structs import replace

from broker.authorization import is_private_pilot
from broker.subscriber import Admitted
from schemas.messages.pilot import Offer, RequestMatch

from ..domain.choose import Choice
from ..domain.offers import bounded, private
from ..domain.packing import Packing, Placed
from ..store.rows import Claimed

MIN_PROXY_SECONDS = 900.0
"""A proxy that a pilot holds is good for another job if it lives at least so long."""

Key: TypeAlias = tuple[str, str]
"""(client, slot)"""


@dataclass(slots=True)
class Asked:
    """A request at work: new or parked.

    Attributes:
        client: the pilot.
        identity: its canonical DN.
        request: what it asked; its offer as far as it was believed at ``since``.
        correlation: the request's ``jti``, for the answer.
        since: when it asked.
        deadline: when it is answered with nothing.
        message: the request as it came, if it came in this batch.
        choices: jobs chosen in this round and not claimed yet.
        claimed: jobs that are its now.
        packing: its offer, as far as it is filled.
        placed: job → its place there.
        kept: why it gets nothing although something fits (:mod:`consumers.domain.reservations`); else empty.
        seen: generation of the directory in which its sender's rights were looked at again; -1: not since it came.
        csr_of: (owner, group) → place of the certificate request that serves for them; -1: the pilot holds a proxy.
    """

    client: str
    identity: str
    request: RequestMatch
    correlation: str
    since: float
    deadline: float
    message: Admitted | None = None
    choices: list[tuple[Choice, int]] = field(default_factory=list)
    claimed: list[Claimed] = field(default_factory=list)
    packing: Packing | None = None
    placed: dict[int, Placed] = field(default_factory=dict)
    kept: str = ""
    seen: int = -1
    csr_of: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Admitted, request: RequestMatch, now: float) -> Asked:
        """A request that just came.

        Its time is bounded by how long its sender may act, and a private pilot's owner is who signed, whatever it says.
        """
        header, principal = message.verified.header, message.principal
        ends = message.verified.ends if principal.renewed_until is None else principal.renewed_until
        offer = bounded(request.offer, ends - now, now - header.iat)
        if is_private_pilot(principal.properties):
            offer = private(offer, principal.identity)
        return cls(
            client=message.client,
            identity=principal.identity,
            request=request if offer is request.offer else replace(request, offer=offer),
            correlation=header.jti,
            since=now,
            deadline=now + request.wait_seconds,
            message=message,
        )

    def offer(self, now: float) -> Offer:
        """What is offered now: time has passed since it was asked."""
        return bounded(self.request.offer, age=now - self.since)

    def renew(self) -> None:
        """Nothing was got: it waits as if nothing had been tried."""
        self.packing, self.placed, self.csr_of = None, {}, {}

    @property
    def key(self) -> Key:
        """What a newer request replaces."""
        return self.client, self.request.slot

    @property
    def wanted(self) -> int:
        """Jobs still wanted."""
        return self.request.jobs - len(self.claimed)

    def proxy_place(self, owner: str, group: str, now: float) -> int | None:
        """Which certificate request serves for this owner: -1 if the pilot holds his proxy, None if none is left."""
        known = self.csr_of.get((owner, group))
        if known is not None:
            return known
        for held in self.request.holds:
            if held.owner == owner and held.group == group and held.not_after - now > MIN_PROXY_SECONDS:
                return -1
        used = sum(1 for place in self.csr_of.values() if place >= 0)
        return used if used < len(self.request.csrs) else None
