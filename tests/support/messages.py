"""Messages as a consumer gets them: really signed, really opened, their sender known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from broker.authorization import Principal, Property
from broker.publisher import Letter
from broker.signing import ChainFacts, Signer, open_envelope, uuid7
from broker.subscriber import Admitted
from broker.transport import Delivery, Tag
from consumers.batch import Batch, Consumer
from consumers.outcome import Outcome
from consumers.store import Store
from schemas.envelope import JWS_HEADER
from schemas.identity import make_client_id
from schemas.messages.event import EVENTS
from schemas.registry import Kind, Message, by_name, encode, type_of

KEY = ec.generate_private_key(ec.SECP256R1())  # one for all: making it costs more than using it


@dataclass(frozen=True)
class Sender:
    """Somebody who sends messages.

    Attributes:
        identity: canonical DN.
        group: group acted for.
        properties: of that group.
        service: service name instead of group and properties.
        suffix: tells his clients apart.
        limited: signs with a limited proxy.
        lasts: seconds that his chain is still valid.
    """

    identity: str
    group: str = "vo_user"
    properties: frozenset[str] = frozenset({Property.NORMAL_USER})
    service: str = ""
    suffix: str = "1"
    limited: bool = False
    lasts: float = 30 * 86_400.0

    @property
    def principal(self) -> Principal:
        """As the registry knows him."""
        if self.service:
            return Principal(self.identity, service=self.service)
        return Principal(self.identity, self.group, self.properties, limited=self.limited)

    @property
    def cli(self) -> str:
        """His client id."""
        return self.service or make_client_id(self.identity, self.suffix)


def user(name: str = "ada", *properties: str, group: str = "vo_user", suffix: str = "1") -> Sender:
    """A user, by default a normal one."""
    return Sender(f"/O=Example/CN={name}", group, frozenset(properties or {Property.NORMAL_USER}), suffix=suffix)


def pilot(suffix: str = "1", name: str = "pilot") -> Sender:
    """A pilot."""
    return Sender(f"/O=Example/CN={name}", "vo_pilot", frozenset({Property.GENERIC_PILOT}), suffix=suffix)


def private_pilot(name: str = "ada", *, lasts: float = 30 * 86_400.0, limited: bool = False) -> Sender:
    """A user's own pilot, in the group for such."""
    properties = frozenset({Property.PRIVATE_PILOT})
    return Sender(f"/O=Example/CN={name}", "vo_private", properties, suffix="own", limited=limited, lasts=lasts)


def service(name: str) -> Sender:
    """One of our services."""
    return Sender(f"/O=Example/CN={name}", "", frozenset(), service=name)


def admitted(
    message: Message,
    sender: Sender,
    *,
    now: float | None = None,
    queue: str = "test",
    redelivered: bool = False,
) -> Admitted:
    """The message, signed by its sender and verified."""
    now = time.time() if now is None else now
    row = type_of(message)
    payload = encode(message)
    group = "" if sender.service else sender.group
    signer = Signer(KEY, "thumbprint", sender.identity, sender.cli, group)
    audience = EVENTS if row.kind is Kind.EVENT else row.audience
    jws = signer.sign(row, payload, audience=audience, now=now, message_id=uuid7(now))
    facts = ChainFacts(sender.identity, sender.limited, now - 3600, now + sender.lasts, KEY.public_key())
    verified = open_envelope(jws, payload, resolve=lambda _: facts, audiences={audience}, now=now, user_id=sender.cli)
    return Admitted(
        verified, sender.principal, delivery(payload, jws, queue, sender.cli, redelivered=redelivered),
        user_id=sender.cli, jws=jws,
    )  # fmt: skip


def delivery(
    body: bytes,
    jws: str = "",
    queue: str = "test",
    user_id: str | None = None,
    *,
    redelivered: bool = False,
    headers: dict[str, object] | None = None,
) -> Delivery:
    """A delivery as the broker hands it over."""
    all_headers: dict[str, object] = dict(headers or {})
    if jws:
        all_headers[JWS_HEADER] = jws
    return Delivery(
        queue=queue, exchange="test", routing_key="test", body=body, headers=all_headers, redelivered=redelivered,
        tag=Tag(1, 1, 1), user_id=user_id,
    )  # fmt: skip


@dataclass
class Heard:
    """What a consumer made of a batch.

    Attributes:
        outcomes: one per message.
        letters: kept in the outbox.
        unrecorded: said once.
        again: said again.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    unrecorded: list[Letter] = field(default_factory=list)
    again: list[Letter] = field(default_factory=list)

    @property
    def said(self) -> list[Message]:
        """All messages, in order: kept ones first."""
        return [opened(letter) for letter in [*self.letters, *self.unrecorded]]

    def to(self, sender: Sender) -> list[Message]:
        """What one client is told."""
        return [opened(one) for one in [*self.letters, *self.unrecorded] if one.audience == sender.cli]


def opened(letter: Letter) -> Message:
    """The message of a letter; it fits its type's bounds."""
    return by_name(letter.name).decode(letter.payload)


def tell(store: Store, consumer: Consumer, messages: Sequence[Admitted], now: float | None = None) -> Heard:
    """Let a consumer handle messages in one committed transaction."""
    with store.transaction() as tx:
        batch = Batch(tx, time.time() if now is None else now)
        outcomes = consumer.handle(batch, messages)
    return _heard(batch, outcomes)


def chores(store: Store, consumer: Consumer, now: float | None = None) -> Heard:
    """Let a consumer do its chores."""
    with store.transaction() as tx:
        batch = Batch(tx, time.time() if now is None else now)
        consumer.chores(batch)
    return _heard(batch, [])


def _heard(batch: Batch, outcomes: list[Outcome]) -> Heard:
    for commit in batch.commits:
        commit()
    return Heard(list(outcomes), batch.letters, batch.unrecorded, batch.again)


def description(**fields: object) -> bytes:
    """A job description as the store keeps it."""
    return msgspec.json.encode({"Executable": "/bin/true", **fields})
