"""One batch of admitted messages inside one transaction, and what the handlers want said once it is committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from broker.publisher import Letter, event, reply
from broker.subscriber import Admitted
from broker.transport import Delivery
from schemas.messages.service import RefusalDetail, Refused
from schemas.registry import Message

from .outcome import ACK, Outcome

if TYPE_CHECKING:
    from broker.signing import Signer

    from .store import Transaction


@dataclass(slots=True)
class Batch:
    """What a handler gets.

    Attributes:
        tx: the open transaction; all state changes go through it.
        now: server time of the batch, seconds since the epoch.
        letters: what will be said after the commit, in order.
        unrecorded: said once after the commit and not kept: answers to questions, refusals.
        again: letters that are in the outbox already and are to be said again (the relay's).
        answers: of the letters the answers to each message, recorded for its redelivery.
        commits: to be called once after the commit (caches, hints); never for anything that must not be lost.
    """

    tx: Transaction
    now: float
    letters: list[Letter] = field(default_factory=list)
    unrecorded: list[Letter] = field(default_factory=list)
    again: list[Letter] = field(default_factory=list)
    answers: dict[tuple[str, str], list[Letter]] = field(default_factory=dict)
    commits: list[Callable[[], None]] = field(default_factory=list)

    def answer(self, to: Admitted, message: Message) -> None:
        """Answer a message; its redelivery gets the same answer."""
        letter = reply(message, to.client, to.verified.header.jti)
        self.letters.append(letter)
        self.answers.setdefault(to.key, []).append(letter)

    def say(self, to: Admitted, message: Message) -> None:
        """Answer a question once; nothing of it is kept, whoever misses it asks again."""
        self.unrecorded.append(reply(message, to.client, to.verified.header.jti))

    def refuse(self, to: Admitted, code: str, reason: str, errors: Sequence[RefusalDetail] = ()) -> Outcome:
        """Say no, and why."""
        self.answer(to, Refused(code=code, reason=reason, type=to.verified.header.typ, errors=tuple(errors)))
        return ACK

    def tell(self, client: str, message: Message, correlation: str = "") -> Letter:
        """Tell another client something."""
        letter = reply(message, client, correlation)
        self.letters.append(letter)
        return letter

    def publish(self, message: Message) -> None:
        """Publish a fact."""
        self.letters.append(event(message))


class Consumer:
    """Base of the consumers: one logical service, its queues, its handlers.

    A subclass names its handlers in :attr:`handlers` (message struct → method name); a consumer that gains by
    handling a whole batch at once overrides :meth:`handle`. Handlers must be harmless when the transaction is rolled
    back and the message comes again.
    """

    name: ClassVar[str]
    """Logical name: audience, broker user, row in the authorization table."""

    handlers: ClassVar[Mapping[type[Message], str]] = {}

    inbox: ClassVar[bool] = True
    """Whether each message is handled once among all processes of the service. False where each process wants to see
    each message and seeing one twice does no harm; such a consumer answers with :meth:`Batch.say` only."""

    hints: ClassVar[frozenset[type[Message]]] = frozenset()
    """Messages that only say where to look: handled as often as they come, so no inbox row is spent on them."""

    batch_size: ClassVar[int] = 256
    """Deliveries handled in one transaction: enough to make a commit cheap, few enough to keep it below 100 ms. Less
    where messages or answers are large: twice as many are in memory."""

    raw_queues: ClassVar[frozenset[str]] = frozenset()
    """Queues whose deliveries come without admission (:meth:`on_raw`): what the broker itself gave up on."""

    unconfirmed: int = 0
    """Set by the engine: letters on their way at its last look; who has much to say waits while there are many."""

    idle: bool = False
    """Set by the engine: the queues were empty at its last look."""

    def handle(self, batch: Batch, messages: Sequence[Admitted]) -> list[Outcome]:
        """Handle admitted messages, in order. One outcome each."""
        return [self.dispatch(batch, message) for message in messages]

    def dispatch(self, batch: Batch, message: Admitted) -> Outcome:
        """Call the handler of one message."""
        handler = getattr(self, self.handlers[type(message.message)])
        outcome: Outcome = handler(batch, message)
        return outcome

    def on_raw(self, batch: Batch, delivery: Delivery) -> None:
        """Handle a delivery of one of :attr:`raw_queues`; nothing in it is verified."""
        raise NotImplementedError(f"{self.name} reads no raw queue")

    def signs_with(self, signer: Signer) -> None:
        """Told by the engine once: the service's identity, for the one that keeps signatures."""

    def start(self, batch: Batch) -> None:
        """Called once, inside a transaction, before the first message."""

    def due_in(self, now: float) -> float | None:  # noqa: ARG002 - for those that override it
        """Seconds until :meth:`chores` wants to be called; 0 or less for now, None for never."""
        return None

    def chores(self, batch: Batch) -> None:
        """Work that no message asks for: leases, leadership, slices. Called inside a transaction when due."""

    def stop(self, batch: Batch) -> None:
        """Called once, inside a transaction, after the last message; not if the process is killed."""

    def wants_queues(self) -> bool:
        """Whether to consume now (the matcher only while it leads)."""
        return True

    def on_rollback(self) -> None:
        """A transaction in which handlers of this consumer ran was rolled back: forget what they kept in memory."""

    def on_returned(self, letter: Letter) -> None:
        """An answer could not be routed: its client's queue is gone."""
