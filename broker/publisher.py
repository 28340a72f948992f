"""From a message to what goes on the wire: addressed, signed, ready to publish.

A :class:`Letter` is a message with its address and its id, as an outbox keeps it; :func:`seal` signs it at the moment
of each publication, so a republication keeps its id and gets a fresh signature.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.access import AccessRule
from schemas.envelope import JWS_HEADER, reply_queue
from schemas.messages.event import EVENTS
from schemas.registry import Kind, Message, by_name, encode, type_of

from .authorization import Door, door_for
from .signing import Signer, uuid7
from .transport import Outgoing


@dataclass(frozen=True, slots=True)
class Letter:
    """A message with its address.

    Attributes:
        name: registered message name.
        audience: what the signed ``aud`` says.
        message_id: the ``jti``, kept by every republication.
        correlation: the ``jti`` that it answers.
    """

    name: str
    payload: bytes
    exchange: str
    routing_key: str
    audience: str
    message_id: str
    correlation: str = ""


def reply(message: Message, client: str, correlation: str = "") -> Letter:
    """A letter to one client's reply queue."""
    return Letter(
        name=type_of(message).name,
        payload=encode(message),
        exchange=Door.REPLIES.value,
        routing_key=reply_queue(client),
        audience=client,
        message_id=uuid7(),
        correlation=correlation,
    )


def event(message: Message) -> Letter:
    """A fact for everybody."""
    name = type_of(message).name
    return Letter(name, encode(message), Door.EVENTS.value, name, EVENTS, uuid7())


def request(message: Message, properties: frozenset[str], group: str, rules: tuple[AccessRule, ...] = ()) -> Letter:
    """A client's letter to a service, by the door that its properties (and operators' rules for it) open.

    Raises:
        RefusalError: the table does not let this client send it.
    """
    row = type_of(message)
    door = door_for(properties, row.name, group, rules)
    return Letter(row.name, encode(message), door.value, row.name, row.audience, uuid7())


def to_queue(message: Message, queue: str) -> Letter:
    """A service's letter straight into a queue (readmissions)."""
    row = type_of(message)
    return Letter(row.name, encode(message), Door.QUEUE.value, queue, row.audience, uuid7())


def seal(letter: Letter, signer: Signer, now: float, *, with_chain: bool = False) -> Outgoing:
    """Sign a letter and dress it for AMQP; plain properties only copy what the signature covers."""
    row = by_name(letter.name)
    asks = row.kind in {Kind.COMMAND, Kind.QUERY}
    jws = signer.sign(
        row,
        letter.payload,
        audience=letter.audience,
        now=now,
        message_id=letter.message_id,
        correlation=letter.correlation,
        with_reply=asks and bool(signer.group),
        with_chain=with_chain,
    )
    return Outgoing(
        exchange=letter.exchange,
        routing_key=letter.routing_key,
        body=letter.payload,
        headers={JWS_HEADER: jws},
        user_id=signer.client,
        message_id=letter.message_id,
        type=letter.name,
        correlation_id=letter.correlation or None,
        timestamp=int(now),
        content_type="application/json",
    )
