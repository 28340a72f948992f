"""What is done about refused messages: answered and audited if the sender is proven, else counted and sampled."""

from __future__ import annotations

import json
from collections.abc import Sequence

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

EVENTS_PER_MINUTE = 60
"""Refusals published as events; the others are only counted."""

SAMPLE_BYTES = 64 * 1024
"""Of an unverifiable message no more than this is kept."""

log = structlog.get_logger(__name__)


class Refusals:
    """Deals with the refusals of one service.

    Args:
        service: its name.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._minute = 0
        self._samples = 0
        self._events = 0
        self.count = 0

    def note(self, batch: Batch, refused: Sequence[tuple[Delivery, RefusalError]]) -> None:
        """Write down, answer and count these refusals in the batch's transaction."""
        if not refused:
            return
        if int(batch.now // 60) != self._minute:
            self._minute, self._samples, self._events = int(batch.now // 60), 0, 0
        for delivery, refusal in refused:
            self.count += 1
            self._answer(batch, delivery, refusal)
            if refusal.proven:
                self._audit(batch, refusal)
            elif self._samples < SAMPLES_PER_MINUTE:
                self._samples += 1
                self._sample(batch, delivery, refusal)
            if self._events < EVENTS_PER_MINUTE:
                self._events += 1
                self._publish(batch, delivery, refusal)

    def _answer(self, batch: Batch, delivery: Delivery, refusal: RefusalError) -> None:
        header = refusal.header
        correlation = header.jti[:64] if header is not None else ""
        if refusal.code == "chain-unknown" and delivery.user_id:
            batch.unrecorded.append(reply(ChainUnknown(), delivery.user_id, correlation))
        elif refusal.proven and header is not None:
            answer = Refused(code=_public(refusal.code), reason=str(refusal)[:4096], type=header.typ)
            batch.unrecorded.append(reply(answer, header.cli, correlation))

    def _audit(self, batch: Batch, refusal: RefusalError) -> None:
        header = refusal.header
        audit.append(
            batch.tx,
            batch.now,
            "message.refused",
            identity=header.iss if header else "",
            client=header.cli if header else "",
            detail={"service": self._service, "code": refusal.code, "reason": str(refusal)[:1000]},
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
        log.warning("message.refused", service=self._service, code=refusal.code, reason=str(refusal)[:300])


def _public(code: str) -> str:
    return code if code in {"denied", "expired", "invalid"} else "denied"
