"""What is done about refused messages: answered and audited if the sender is proven, else counted and sampled.

Promises: whoever it is, what he sends in vain is stored within a quota per minute; what is beyond is counted, and the
count is audited when the minute is over: of each proven sender, and of all others together. A transaction that is
rolled back uses up no quota.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from broker.publisher import event, reply
from broker.refusal import RefusalError
from broker.transport import Delivery
from schemas.envelope import JWS_HEADER
from schemas.messages.event import MessageRefused
from schemas.messages.service import ChainUnknown, Refused

from .batch import Batch
from .store import audit, dead

SAMPLES_PER_MINUTE = 20
"""Unverifiable messages kept as dead letters: enough to see what somebody tries, too few to fill a disk."""

AUDITED_PER_MINUTE = 20
"""Refusals of one proven identity written line by line: a tool's mistake is seen whole, and a flood of one user is his
name, a code and a count."""

EVENTS_PER_MINUTE = 60
"""Refusals published as events; the others are only counted."""

MAX_CLIENTS = 20
"""Broker users named in a sum: enough to see whether it is one."""

SAMPLE_BYTES = 64 * 1024
"""Of an unverifiable message no more than this is kept."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Quota:
    """What was written in one minute.

    Attributes:
        minute: since the epoch.
        audited: lines of each proven identity.
        more: refusals of each proven identity beyond its quota.
        unproven: refusals of all others, by code.
        clients: broker users that those came from.
    """

    minute: int
    samples: int = 0
    events: int = 0
    audited: Counter[str] = field(default_factory=Counter)
    more: Counter[str] = field(default_factory=Counter)
    unproven: Counter[str] = field(default_factory=Counter)
    clients: frozenset[str] = frozenset()

    def copy(self) -> _Quota:
        return replace(self, audited=self.audited.copy(), more=self.more.copy(), unproven=self.unproven.copy())

    @property
    def owes(self) -> bool:
        """Whether there is something to be summed up."""
        return bool(self.more or self.unproven)

    def count(self, delivery: Delivery, code: str) -> None:
        """One more whose sender is not proven."""
        self.unproven[code] += 1
        if delivery.user_id and len(self.clients) < MAX_CLIENTS:
            self.clients |= {delivery.user_id[:128]}


class Refusals:
    """Deals with the refusals of one service.

    Args:
        service: its name.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._quota = _Quota(0)

    def note(self, batch: Batch, refused: Sequence[tuple[Delivery, RefusalError]]) -> None:
        """Write down, answer and count these refusals in the batch's transaction."""
        minute = int(batch.now // 60)
        over = minute != self._quota.minute
        if not refused and not (over and self._quota.owes):
            return
        if over:
            self._sum_up(batch)
        quota = _Quota(minute) if over else self._quota.copy()
        for delivery, refusal in refused:
            self._answer(batch, delivery, refusal)
            if refusal.proven:
                self._audit(batch, refusal, quota)
            else:
                quota.count(delivery, refusal.code)
                if quota.samples < SAMPLES_PER_MINUTE:
                    quota.samples += 1
                    self._sample(batch, delivery, refusal)
            if quota.events < EVENTS_PER_MINUTE:
                quota.events += 1
                self._publish(batch, delivery, refusal)
        batch.commits.append(self._adopt(quota))

    def owes(self, now: float | None = None) -> bool:
        """Whether something is still to be summed up of a minute that is over (without ``now``: of any)."""
        return self._quota.owes and (now is None or int(now // 60) != self._quota.minute)

    def close(self, batch: Batch) -> None:
        """Sum up what there is, for the service ends."""
        self._sum_up(batch)
        batch.commits.append(self._adopt(_Quota(self._quota.minute)))

    def _adopt(self, quota: _Quota) -> Callable[[], None]:
        def adopt() -> None:
            self._quota = quota

        return adopt

    def _sum_up(self, batch: Batch) -> None:
        """One line for each identity that sent more in vain than its quota."""
        since = self._quota.minute * 60.0
        lines: list[audit.NewEntry] = [
            (
                batch.now,
                "message.refused-more",
                identity,
                "",
                {"service": self._service, "since": since, "count": count},
            )
            for identity, count in sorted(self._quota.more.items())
        ]
        if self._quota.unproven:
            facts = {
                "service": self._service,
                "since": since,
                "count": self._quota.unproven.total(),
                "codes": dict(self._quota.unproven),
                "clients": sorted(self._quota.clients),
            }
            lines.append((batch.now, "message.unproven", "", "", facts))
        audit.append_many(batch.tx, lines)

    def _answer(self, batch: Batch, delivery: Delivery, refusal: RefusalError) -> None:
        header = refusal.header
        correlation = header.jti[:64] if header is not None else ""
        if refusal.code == "chain-unknown" and delivery.user_id:
            batch.unrecorded.append(reply(ChainUnknown(), delivery.user_id, correlation))
        elif refusal.proven and header is not None:
            answer = Refused(code=_public(refusal.code), reason=str(refusal)[:4096], type=header.typ)
            batch.unrecorded.append(reply(answer, header.cli, correlation))

    def _audit(self, batch: Batch, refusal: RefusalError, quota: _Quota) -> None:
        header = refusal.header
        identity = header.iss if header else ""
        if quota.audited[identity] >= AUDITED_PER_MINUTE:
            quota.more[identity] += 1
            return
        quota.audited[identity] += 1
        audit.append(
            batch.tx,
            batch.now,
            "message.refused",
            identity=identity,
            client=header.cli if header else "",
            detail={
                "service": self._service,
                "code": refusal.code,
                "reason": str(refusal)[:1000],
                "type": header.typ if header else "",
                "thumbprint": header.thumbprint if header else "",
            },
        )

    def _sample(self, batch: Batch, delivery: Delivery, refusal: RefusalError) -> None:
        jws = delivery.headers.get(JWS_HEADER)
        dead.add(
            batch.tx,
            [
                dead.NewLetter(
                    time=batch.now,
                    queue=delivery.queue,
                    typ=(delivery.type or "")[:256],
                    issuer="",
                    client=(delivery.user_id or "")[:256],
                    reason=f"{refusal.code}: {refusal}"[:4096],
                    body=delivery.body[:SAMPLE_BYTES],
                    jws=str(jws)[:SAMPLE_BYTES] if jws is not None else "",
                    user_id=(delivery.user_id or "")[:256],
                    headers=json.dumps({"truncated": len(delivery.body) > SAMPLE_BYTES}),
                )
            ],
        )

    def _publish(self, batch: Batch, delivery: Delivery, refusal: RefusalError) -> None:
        header = refusal.header
        fact = MessageRefused(
            time=batch.now,
            service=self._service,
            queue=delivery.queue,
            type=(header.typ if header else delivery.type or "")[:256],
            client=(delivery.user_id or "")[:256],
            issuer=header.iss[:1024] if header and refusal.proven else "",
            code=refusal.code,
            reason=str(refusal)[:1000],
        )
        batch.unrecorded.append(event(fact))
        # The client is who the broker let in; the issuer is only what the message says of itself until it is proven.
        log.warning(
            "message.refused",
            service=self._service,
            queue=delivery.queue,
            client=fact.client,
            issuer=fact.issuer,
            code=refusal.code,
            reason=str(refusal)[:300],
        )


def _public(code: str) -> str:
    return code if code in {"denied", "expired", "invalid"} else "denied"
