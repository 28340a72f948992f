"""What operators send."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ..registry import DAY, HOUR, MINUTE, Kind, Message, register
from .common import Count, Text

LetterIds = Annotated[tuple[Count, ...], Meta(min_length=1, max_length=1000)]


@register("dead.query.v1", Kind.QUERY, "dead-letters", lifetime=5 * MINUTE)
class QueryDead(Message, frozen=True, kw_only=True):
    """Which messages could not be handled? Answer: ``dead.listing.v1``; with one id and ``body``, whole."""

    ids: Annotated[tuple[Count, ...], Meta(max_length=1000)] = ()
    before: Count = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    body: bool = False
    all: bool = False
    """Also those that were replayed or discarded."""


@register("dead.replay.v1", Kind.COMMAND, "dead-letters", lifetime=HOUR)
class ReplayDead(Message, frozen=True, kw_only=True):
    """Admit these messages again, on the operator's word: their times are not checked again, their signatures are."""

    ids: LetterIds


@register("dead.discard.v1", Kind.COMMAND, "dead-letters", lifetime=HOUR)
class DiscardDead(Message, frozen=True, kw_only=True):
    """Close these letters for good; they stay listed with the reason."""

    ids: LetterIds
    reason: Text = ""


@register("message.readmit.v1", Kind.COMMAND, "readmit", lifetime=30 * DAY, max_bytes=16 << 20)
class Readmit(Message, frozen=True, kw_only=True):
    """A dead letter on its way back, wrapped by the dead-letters service: the original body and its JWS.

    Attributes:
        queue: where it died and goes back to.
        user: the AMQP user id that the broker had validated then.
    """

    letter: int
    queue: str
    user: str
    jws: str
    body: bytes
    operator: str
    headers: dict[str, str] = msgspec.field(default_factory=dict)
