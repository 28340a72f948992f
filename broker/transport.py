"""The values that go in and out of a :class:`broker.connection.Connection`.

Pure data, no I/O, and no pika: a module that only builds or reads messages imports this one and stays cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import msgspec


@dataclass(frozen=True)
class Endpoint:
    """Where the broker listens, and how its certificate is verified.

    Attributes:
        server_name: the name that the certificate must carry; ``None`` means ``host``.
        heartbeat: seconds; 10-20 notices a dead peer within half a minute without chatter.
    """

    host: str
    port: int
    ca_file: Path
    server_name: str | None = None
    virtual_host: str = "/"
    heartbeat: int = 15


@dataclass(frozen=True)
class Login:
    """A user name and what proves it; the proof never shows in a representation."""

    user: str
    secret: str = field(repr=False)


# Called anew at every (re)connect, on the I/O thread: a short-lived assertion is fresh each time.
LoginSource = Callable[[], Login]


@dataclass(frozen=True)
class Pace:
    """How eagerly a lost connection is tried again, in seconds.

    Attributes:
        first: upper bound of the first delay. A blip heals at once.
        longest: upper bound of any later delay. A thousand pilots must not storm a broker that comes back:
            it takes 140-200 logins per second.
        refused: shortest delay after a permanent refusal; the longest is three times that.
        doubted: shortest delay after the first refusals of somebody who was let in before; the longest is twice that.
            The broker remembers an answer of its gatekeeper for five seconds.
        stable: a connection that lived so long starts the delays anew.
    """

    first: float = 0.25
    longest: float = 20.0
    refused: float = 20.0
    doubted: float = 5.0
    stable: float = 10.0


class State(Enum):
    """What the connection is doing."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    BLOCKED = "blocked"  # connected, but the broker takes no publications for now
    DISCONNECTED = "disconnected"  # will try again by itself
    REFUSED = "refused"  # permanently refused; tried again at a slow pace
    CLOSED = "closed"


class Confirm(Enum):
    """What became of one publication."""

    ACKED = "acked"  # the broker has taken responsibility
    NACKED = "nacked"  # the broker could not; try again
    RETURNED = "returned"  # no queue is bound for it
    REFUSED = "refused"  # this very message is not acceptable (no right, no such exchange, wrong user id)
    LOST = "lost"  # unknown: perhaps sent, perhaps not; the owner decides


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One message to publish.

    Attributes:
        user_id: checked by the broker against the login; ``None`` leaves it unset.
        expiration: milliseconds as decimal text, as AMQP 0-9-1 has it.
        timestamp: seconds since the epoch.
        mandatory: an unroutable message comes back as ``Confirm.RETURNED`` instead of vanishing.
    """

    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, str] = {}
    user_id: str | None = None
    message_id: str | None = None
    type: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    expiration: str | None = None
    timestamp: int | None = None
    content_type: str | None = None
    persistent: bool = True
    mandatory: bool = True


class Tag(NamedTuple):
    """Names one delivery until it is settled. Opaque to everyone but the subscription."""

    epoch: int
    channel: int
    number: int


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it came in. Everything in it is unverified.

    Attributes:
        headers: empty if the broker passed on a property table that cannot be decoded.
        delivery_count: earlier deliveries, where the queue counts them (quorum queues).
        stream_offset: the position in a stream.
    """

    queue: str
    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, object]
    redelivered: bool
    tag: Tag
    user_id: str | None = None
    message_id: str | None = None
    type: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    timestamp: int | None = None
    delivery_count: int | None = None
    stream_offset: int | None = None


class QueueInfo(NamedTuple):
    """The broker's answer to a queue declaration."""

    name: str
    messages: int
    consumers: int
