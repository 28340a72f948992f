"""What became of a message: a value with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ack:
    """Handled, whether the sender liked the answer or not."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: the message comes back after some seconds, by way of the outbox."""

    after: float
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """It cannot be handled: kept with its reason for an operator."""

    reason: str


Outcome = Ack | Retry | DeadLetter

ACK = Ack()
