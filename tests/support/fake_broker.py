"""A broker for one consumer's engine: real signatures and encodings, real gate, only AMQP replaced.

Everything that happens is in :attr:`FakeBroker.log`, in order: what is committed, acknowledged, given back, published.
``assert_nothing_else_said()`` tells what a test forgot to expect.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import cast

import msgspec

from broker.authorization import SERVICES, Principal, authorize
from broker.connection import Connection, Wakeup
from broker.errors import BackpressureError
from broker.publisher import Letter, request, seal, to_queue
from broker.signing import ChainFacts, Signer, open_envelope
from broker.subscriber import Gate
from broker.topology import Queue
from broker.transport import Confirm, Delivery, Outgoing, Tag
from consumers.batch import Consumer
from consumers.engine import Engine
from consumers.store import Store
from consumers.store.engine import Transaction
from consumers.store.errors import StoreUnavailable
from schemas.envelope import JWS_HEADER
from schemas.messages.event import EVENTS
from schemas.registry import Message, by_name

from .messages import KEY, Sender, service
from .wait import wait_until

Verdict = Callable[[Message, Outgoing], Confirm | None]


class FakeQueue:
    """Deliveries of one queue; what is neither acknowledged nor given back stays :attr:`unacked`."""

    def __init__(self, queue: str, broker: FakeBroker, wakeup: Wakeup) -> None:
        self.queue = queue
        self.broker = broker
        self.wakeup = wakeup
        self.waiting: deque[Delivery] = deque()
        self.unacked: dict[Tag, Delivery] = {}
        self.paused = False

    @property
    def pending(self) -> int:
        return len(self.waiting)

    def put(self, *deliveries: Delivery) -> None:
        """Hand over, all at once."""
        for delivery in deliveries:
            self.broker.tags += 1
            tagged = delivery_like(delivery, self.queue, Tag(self.broker.epoch, 1, self.broker.tags))
            self.unacked[tagged.tag] = tagged
            self.waiting.append(tagged)
        self.wakeup.set()

    def drain(self, limit: int, timeout: float) -> list[Delivery]:
        return [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self.unacked.pop(delivery.tag, None) is not None:
                self.broker.log.append(("ack", delivery.tag.number))

    def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        for delivery in deliveries:
            if self.unacked.pop(delivery.tag, None) is not None:
                self.broker.log.append(("requeue" if requeue else "reject", delivery.tag.number))

    def lose(self) -> list[Delivery]:
        """The connection is lost: what was not settled comes again, and old tags mean nothing."""
        lost = [replace_delivery(delivery) for delivery in self.unacked.values()]
        self.unacked.clear()
        self.waiting.clear()
        return lost

    def pause(self) -> None:
        self.paused = True
        self.broker.log.append(("pause", self.queue))

    def resume(self) -> None:
        self.paused = False
        self.broker.log.append(("resume", self.queue))

    def cancel(self) -> None:
        self.broker.log.append(("cancel", self.queue))


def delivery_like(delivery: Delivery, queue: str, tag: Tag) -> Delivery:
    """The same in another queue."""
    return msgspec.structs.replace(delivery, queue=queue, tag=tag)


def replace_delivery(delivery: Delivery) -> Delivery:
    """As it comes again."""
    return msgspec.structs.replace(delivery, redelivered=True)


class WatchedStore:
    """A store that can be away, and that tells of its commits."""

    def __init__(self, store: Store, log: list[tuple[str, object]]) -> None:
        self._store = store
        self._log = log
        self.away = False
        self.refused = 0

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self._check()
        with self._store.transaction() as tx:
            yield tx
            self._check()
        self._log.append(("commit", None))

    def _check(self) -> None:
        if self.away:
            self.refused += 1
            raise StoreUnavailable("away")

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class FakeBroker:
    """Takes the place of a consumer's connection, and runs its engine in a thread.

    Attributes:
        log: what happened.
        letters: messages that the consumer published, with their envelopes, oldest first.
        verdict: what becomes of a publication; None keeps its confirm back.
    """

    def __init__(self, store: Store, consumer: Consumer, queues: Sequence[Queue], senders: Sequence[Sender]) -> None:
        self.log: list[tuple[str, object]] = []
        self.store = WatchedStore(store, self.log)
        self.consumer = consumer
        self.queues: dict[str, FakeQueue] = {}
        self.letters: deque[tuple[Message, Outgoing]] = deque()
        self.verdict: Verdict = lambda _message, _outgoing: Confirm.ACKED
        self.pending: list[Future[Confirm]] = []
        self.full = False
        self.tags = 0
        self.epoch = 1
        self.me = service(consumer.name)
        self.senders = {sender.identity: sender for sender in [*senders, *map(service, sorted(SERVICES))]}
        self.engine = Engine(
            consumer,
            store=cast("Store", self.store),
            connection=cast("Connection", self),
            signer=signer_of(self.me),
            gate=Gate({consumer.name, EVENTS}, self.resolve, self),
            queues=queues,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.engine.run, args=(self._stop,), daemon=True)

    # -- the gate's questions -----------------------------------------------------------------------------------

    def principal(self, identity: str, group: str, client: str) -> Principal | None:
        sender = self.senders.get(identity)
        return sender.principal if sender is not None and (sender.service or sender.group == group) else None

    def resolve(self, thumbprint: str) -> ChainFacts | None:
        identity = next((identity for identity in self.senders if _thumbprint(identity) == thumbprint), None)
        if identity is None:
            return None
        return ChainFacts(identity, self.senders[identity].limited, 0.0, time.time() + 1e6, KEY.public_key())

    # -- the engine's connection --------------------------------------------------------------------------------

    def subscribe(self, queue: str, *, prefetch: int, wakeup: Wakeup) -> FakeQueue:
        self.queues[queue] = FakeQueue(queue, self, wakeup)
        return self.queues[queue]

    def publish(self, messages: Sequence[Outgoing]) -> list[Future[Confirm]]:
        if self.full:
            raise BackpressureError
        return [self._take(outgoing) for outgoing in messages]

    def _take(self, outgoing: Outgoing) -> Future[Confirm]:
        row = by_name(outgoing.type or "")
        audience = outgoing.routing_key.removeprefix("reply.") if row.audience == "client" else row.audience
        verified = open_envelope(
            outgoing.headers[JWS_HEADER],
            outgoing.body,
            resolve=self.resolve,
            audiences={audience},
            now=time.time(),
            user_id=outgoing.user_id,
        )
        authorize(self.me.principal, row.name)
        self.log.append(("publish", row.name))
        self.letters.append((verified.message, outgoing))
        future: Future[Confirm] = Future()
        verdict = self.verdict(verified.message, outgoing)
        if verdict is None:
            self.pending.append(future)
        else:
            future.set_result(verdict)
        return future

    # -- what a test says ---------------------------------------------------------------------------------------

    def start(self) -> FakeBroker:
        self._thread.start()
        wait_until(self.engine.ready.is_set, 10, "the engine")
        self.log.clear()  # its beginning
        return self

    def stop(self) -> None:
        self._stop.set()
        self.engine.wake()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the engine does not stop"

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def give(self, *deliveries: Delivery, queue: str = "") -> None:
        """Deliver, all at once."""
        name = queue or next(iter(self.queues))
        self.queues[name].put(*deliveries)

    def settled(self, timeout: float = 10.0) -> None:
        """Wait until nothing is unsettled."""
        wait_until(
            lambda: not any(one.unacked for one in self.queues.values()) or not self.alive,
            timeout,
            "everything to be settled",
        )

    def take(self, kind: type[Message]) -> list[Message]:
        """Published messages of a kind, since the last look."""
        found = [message for message, _ in self.letters if isinstance(message, kind)]
        kept = [one for one in self.letters if not isinstance(one[0], kind)]
        self.letters.clear()
        self.letters.extend(kept)
        return found

    def assert_nothing_else_said(self) -> None:
        assert not self.letters, [message for message, _ in self.letters]


def signer_of(sender: Sender) -> Signer:
    """The sender's signature."""
    group = "" if sender.service else sender.group
    return Signer(KEY, _thumbprint(sender.identity), sender.identity, sender.cli, group)


def _thumbprint(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:43]


def sealed(message: Message, sender: Sender, *, redelivered: bool = False, letter: Letter | None = None) -> Delivery:
    """A message as the broker hands it over."""
    if letter is None:
        letter = to_queue(message, "any") if sender.service else request(message, sender.properties, sender.group)
    outgoing = seal(letter, signer_of(sender), time.time())
    return Delivery(
        queue="any",
        exchange=outgoing.exchange,
        routing_key=outgoing.routing_key,
        body=outgoing.body,
        headers=dict(outgoing.headers),
        redelivered=redelivered,
        tag=Tag(1, 1, 0),
        user_id=outgoing.user_id,
        message_id=outgoing.message_id,
        type=outgoing.type,
    )


__all__ = ["FakeBroker", "FakeQueue", "WatchedStore", "sealed", "signer_of"]
