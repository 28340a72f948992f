"""Reading the monitoring stream: every event, live or from a point in the past.

A stream reader has a connection of its own (RabbitMQ pauses a stream by closing its channel, and a slow reader must
not hold up answers). Every event is verified like any message; what does not verify is passed over and counted.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from schemas.errors import InvalidInputError
from schemas.messages.event import EVENTS
from schemas.registry import Message

if TYPE_CHECKING:
    from broker.session import Session

Since = dt.datetime | Literal["first", "next"]

STREAM = "monitoring"
PREFETCH = 256
"""Events in flight; a stream consumer needs a bound, and this one keeps a fast reader busy."""

BATCH = 256
POLL = 1.0
"""Seconds after which a quiet stream lets the caller stop."""

START = 15.0
"""Seconds until the broker has let us in."""

_WORDS: dict[str, Literal["first", "next"]] = {"first": "first", "next": "next"}
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Event:
    """One verified fact.

    Attributes:
        type: registered message name.
        time: when it was signed, seconds since the epoch.
        source: name of the service that said it.
        offset: position in the stream.
    """

    type: str
    time: float
    source: str
    offset: int
    message: Message


def parse_since(text: str, now: dt.datetime) -> Since:
    """Read ``first``, ``next``, ``90s``/``10m``/``1h``/``2d`` (ago) or an ISO date and time (local if without zone).

    Raises:
        InvalidInputError: none of these.
    """
    if text in _WORDS:
        return _WORDS[text]
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - dt.timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{text!r} is no time: use 'first', 'next', '1h' (ago; s, m, h, d) or '2026-11-30T12:00'"
        ) from None
    return moment.astimezone(dt.UTC)


def read_events(session: Session, since: Since, stop: Callable[[], bool]) -> Iterator[Event]:
    """Events of the stream, for ever or until ``stop()`` says so at a quiet moment."""
    from broker.refusal import RefusalError

    subscription = session.connection.subscribe(STREAM, prefetch=PREFETCH, arguments={"x-stream-offset": since})
    subscription.wait_active(START)
    after = since.timestamp() if isinstance(since, dt.datetime) else 0.0
    while True:
        deliveries = subscription.drain(BATCH, POLL)
        for delivery in deliveries:
            try:
                verified = session.open_delivery(delivery, audiences=(EVENTS,))
            except RefusalError:
                continue  # expired hints, or facts signed by certificates of the past
            if verified.header.iat >= after:  # the broker starts at the beginning of a chunk
                offset = int(delivery.stream_offset or 0)
                yield Event(verified.type.name, verified.header.iat, verified.client, offset, verified.message)
        subscription.ack(deliveries)
        if not deliveries and stop():
            return
