"""Runs one consumer: drain, admit, one transaction, acknowledge, publish.

Promises: a message's effects and the letters it causes are committed together, exactly once per (iss, jti); the
delivery is acknowledged after the commit and never before; what was committed to be said is said, if not by this
process then by the relay. A batch that fails is handled message by message; a redelivered message always alone. While
the store is away nothing is consumed and nothing rejected. Lies elsewhere: what the messages mean (the consumers),
republication of old rows (:mod:`consumers.relay`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog

from broker.connection import Connection
from broker.errors import BackpressureError, ConnectionClosedError
from broker.publisher import Letter, seal
from broker.refusal import RefusalError
from broker.signing import Signer
from broker.subscriber import Admitted, Gate
from broker.subscription import Subscription, Wakeup
from broker.topology import Queue
from broker.transport import Confirm, Delivery
from schemas.errors import TemporaryError

from .admission import Refusals
from .batch import Batch, Consumer
from .outcome import DeadLetter, Outcome, Retry
from .paperwork import Paperwork
from .store import Store
from .store.errors import NotLeader, StoreConflict, StoreUnavailable

UNSENT_MARK = 5_000
"""Above so many unconfirmed letters a consumer stops consuming: the broker is slower than we are."""

IDLE_SECONDS = 0.5
"""How long an idle consumer sleeps at most; also how soon confirmed outbox rows are removed when nothing comes in.
Far below the relay's patience, so that it does not republish them."""

STORE_PAUSE = (0.2, 5.0)
"""First and longest pause, seconds, while the store is away."""

CONFLICT_TRIES = 5
"""A transaction that lost against another one is tried again that often before its messages are handled alone."""

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Sent:
    letter: Letter
    future: Future[Confirm]
    recorded: bool


class Engine:
    """One consumer at work in one thread.

    Args:
        consumer: what it thinks.
        store: the state.
        connection: the consumer's own, started.
        signer: its identity.
        gate: admits its deliveries.
        queues: what it reads, most urgent first.
        clock: server time.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        store: Store,
        connection: Connection,
        signer: Signer,
        gate: Gate,
        queues: Sequence[Queue],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._consumer = consumer
        self._store = store
        self._connection = connection
        self._signer = signer
        self._gate = gate
        self._queues = queues
        self._clock = clock
        self._wakeup = Wakeup()
        self._subscriptions: dict[str, Subscription] = {}
        self._consuming = True
        self._sent: deque[_Sent] = deque()
        self._confirmed: list[str] = []
        self._refused: list[Letter] = []
        self._paperwork = Paperwork(consumer.name, inbox=consumer.inbox, hints=consumer.hints)
        self._refusals = Refusals(consumer.name)
        consumer.signs_with(signer)
        self.handled = 0
        self.ready = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop, then say what is still to be said."""
        self._patiently(self._begin, stop)
        prefetch = 2 * self._consumer.batch_size  # one batch at work and one on its way
        for queue in self._queues:
            self._subscriptions[queue.name] = self._connection.subscribe(
                queue.name, prefetch=prefetch, wakeup=self._wakeup
            )
        self.ready.set()
        try:
            while not stop.is_set():
                self._turn(stop)
        except ConnectionClosedError:
            log.info("consumer.connection_closed", consumer=self._consumer.name)
        finally:
            for subscription in self._subscriptions.values():
                subscription.cancel()
            self._finish()

    def wake(self) -> None:
        """Let the thread look up (a hint from outside, or the stop)."""
        self._wakeup.set()

    # -- one turn -----------------------------------------------------------------------------------------------

    def _turn(self, stop: threading.Event) -> None:
        due = self._consumer.due_in(self._clock())
        if due is not None and due <= 0:
            self._patiently(self._chores, stop)
            due = self._consumer.due_in(self._clock())
        self._settle()
        self._consumer.unconfirmed = len(self._sent)
        wanted = self._consumer.wants_queues()
        self._consume(wanted and len(self._sent) <= UNSENT_MARK)
        deliveries = self._drain()
        self._consumer.idle = not deliveries
        if deliveries and wanted:
            raw = [delivery for delivery in deliveries if delivery.queue in self._consumer.raw_queues]
            others = [delivery for delivery in deliveries if delivery.queue not in self._consumer.raw_queues]
            if raw:
                self._patiently(lambda: self._work_raw(raw), stop)
            if others:
                self._patiently(lambda: self._work(others), stop)
            return
        self._give_back(deliveries)
        if (self._confirmed or self._refused) and not self._sent:
            self._patiently(self._forget_confirmed, stop)
        if self._refusals.owes(self._clock()):
            self._patiently(self._sum_up_refusals, stop)
        self._wakeup.wait(IDLE_SECONDS if due is None else min(IDLE_SECONDS, max(0.0, due)))

    def _drain(self) -> list[Delivery]:
        deliveries: list[Delivery] = []
        most = self._consumer.batch_size
        for subscription in self._subscriptions.values():
            if len(deliveries) < most:
                deliveries.extend(subscription.drain(most - len(deliveries), 0))
            elif subscription.pending:
                self._wakeup.set()
        return deliveries

    def _consume(self, wanted: bool) -> None:
        if wanted != self._consuming:
            self._consuming = wanted
            for subscription in self._subscriptions.values():
                (subscription.resume if wanted else subscription.pause)()

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._subscriptions[delivery.queue].reject([delivery], requeue=True)

    def _patiently(self, action: Callable[[], T], stop: threading.Event) -> T | None:
        """Do it; while the store is away wait for it, keeping what was delivered unacknowledged."""
        pause, longest = STORE_PAUSE
        while not stop.is_set():
            try:
                return action()
            except (StoreUnavailable, StoreConflict) as error:
                # A conflict comes here from where nobody else tries again: after the last resort of a batch.
                log.warning("consumer.store_away", consumer=self._consumer.name, reason=str(error), pause=pause)
                stop.wait(pause)
                pause = min(longest, pause * 2)
        return None

    # -- a batch ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._in_transaction(self._consumer.start)

    def _chores(self) -> None:
        try:
            self._in_transaction(self._consumer.chores)
        except StoreUnavailable:
            raise
        except TemporaryError as error:
            log.info("consumer.chores_later", consumer=self._consumer.name, reason=str(error))
        except Exception:
            log.exception("consumer.chores_failed", consumer=self._consumer.name)

    def _sum_up_refusals(self) -> None:
        self._in_transaction(lambda batch: self._refusals.note(batch, []))

    def _in_transaction(self, action: Callable[[Batch], None]) -> None:
        with self._undone_on_failure(), self._store.transaction() as tx:
            batch = Batch(tx, self._clock())
            action(batch)
            self._paperwork.post(batch)
        self._after(batch)

    @contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._consumer.on_rollback()
            raise

    def _after(self, batch: Batch) -> None:
        for commit in batch.commits:
            commit()
        self._publish(batch.letters, recorded=True)
        self._publish(batch.again, recorded=True)
        self._publish(batch.unrecorded, recorded=False)

    def _work_raw(self, raw: Sequence[Delivery]) -> None:
        self._in_transaction(lambda batch: self._take_raw(batch, raw))
        self._acknowledge(raw)

    def _work(self, deliveries: Sequence[Delivery]) -> None:
        admitted, refused = self._admit(deliveries)
        together = [message for message in admitted if not message.delivery.redelivered]
        alone = [message for message in admitted if message.delivery.redelivered]
        try:
            if refused or together:
                self._together(together, refused)
            for message in alone:
                self._alone(message)
        except NotLeader:
            log.warning("consumer.not_leader", consumer=self._consumer.name)
            self._give_back(deliveries)  # those that are settled already are not affected

    def _take_raw(self, batch: Batch, raw: Sequence[Delivery]) -> None:
        for delivery in raw:
            self._consumer.on_raw(batch, delivery)

    def _admit(self, deliveries: Iterable[Delivery]) -> tuple[list[Admitted], list[tuple[Delivery, RefusalError]]]:
        now = self._clock()
        admitted: list[Admitted] = []
        refused: list[tuple[Delivery, RefusalError]] = []
        for delivery in deliveries:
            try:
                admitted.append(self._gate.admit(delivery, now))
            except RefusalError as refusal:
                refused.append((delivery, refusal))
            except TemporaryError:
                raise
            except Exception:
                # Ours to mend; until then it must not come again and again: the broker's dead queue keeps it.
                log.exception("consumer.admission_failed", consumer=self._consumer.name)
                self._subscriptions[delivery.queue].reject([delivery], requeue=False)
        return admitted, refused

    def _together(self, messages: list[Admitted], refused: list[tuple[Delivery, RefusalError]]) -> None:
        for _ in range(CONFLICT_TRIES):
            try:
                self._transact(messages, refused)
            except (StoreUnavailable, NotLeader):
                raise
            except TemporaryError as error:
                log.info("consumer.conflict", consumer=self._consumer.name, reason=str(error))
                continue
            except Exception:
                log.exception("consumer.batch_failed", consumer=self._consumer.name, messages=len(messages))
            else:
                return
            break
        if refused:
            self._refuse(refused)
        for message in messages:
            self._alone(message)

    def _refuse(self, refused: list[tuple[Delivery, RefusalError]]) -> None:
        """Nobody stops a consumer by sending what cannot even be noted."""
        try:
            self._transact([], refused)
        except TemporaryError:
            raise
        except Exception:
            log.exception("consumer.refusals_not_noted", consumer=self._consumer.name, messages=len(refused))
            self._acknowledge([delivery for delivery, _ in refused])

    def _alone(self, message: Admitted) -> None:
        for _ in range(CONFLICT_TRIES):
            try:
                self._transact([message], [])
            except (StoreUnavailable, NotLeader):
                raise
            except TemporaryError as error:
                log.info("consumer.conflict", consumer=self._consumer.name, reason=str(error))
                reason = str(error)
            except Exception as error:
                log.exception("consumer.message_failed", consumer=self._consumer.name, key=message.key)
                self._bury(message, f"{type(error).__name__}: {error}")
                return
            else:
                return
        self._transact([message], [], verdict=Retry(5.0, reason))

    def _bury(self, message: Admitted, reason: str) -> None:
        try:
            self._transact([message], [], verdict=DeadLetter(reason))
        except TemporaryError:
            raise
        except Exception:
            log.exception("consumer.message_not_buried", consumer=self._consumer.name, key=message.key)
            # The broker's dead-letter exchange takes it, raw.
            self._subscriptions[message.delivery.queue].reject([message.delivery], requeue=False)

    def _transact(
        self,
        messages: list[Admitted],
        refused: list[tuple[Delivery, RefusalError]],
        verdict: Outcome | None = None,
    ) -> None:
        """One transaction: inbox, state, outbox; then acknowledge and publish."""
        if messages and verdict is None and not self._consumer.wants_queues():
            # It wanted to when they came. Its memory went with the rollback before this: its chores bring it back, or
            # every other message of the batch would go back to the broker, once for each that fails.
            self._chores()
        confirmed = self._confirmed
        with self._undone_on_failure(), self._store.transaction() as tx:
            batch = Batch(tx, self._clock())
            fresh, repeated = self._paperwork.admit(batch, messages)
            if verdict is not None:
                outcomes: list[Outcome] = [verdict for _ in fresh]
            else:
                outcomes = self._consumer.handle(batch, fresh) if fresh else []
            self._refusals.note(batch, refused)
            self._paperwork.close(batch, fresh, outcomes, confirmed)
        self._confirmed = []
        self.handled += len(fresh)
        self._acknowledge([*(message.delivery for message in messages), *(delivery for delivery, _ in refused)])
        self._after(batch)
        self._publish(repeated, recorded=False)

    def _acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        by_queue: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            by_queue.setdefault(delivery.queue, []).append(delivery)
        for name, some in by_queue.items():
            self._subscriptions[name].ack(some)

    # -- saying it ----------------------------------------------------------------------------------------------

    def _publish(self, letters: Sequence[Letter], *, recorded: bool) -> None:
        if not letters:
            return
        now = self._clock()
        try:
            futures = self._connection.publish([seal(letter, self._signer, now) for letter in letters])
        except BackpressureError:
            return  # they are in the outbox: the relay takes them
        self._sent.extend(_Sent(letter, future, recorded) for letter, future in zip(letters, futures, strict=True))

    def _settle(self) -> None:
        """Collect what the broker said about what we said."""
        for _ in range(len(self._sent)):
            sent = self._sent.popleft()
            if not sent.future.done():
                self._sent.append(sent)
                continue
            confirm = sent.future.result()
            if confirm is Confirm.RETURNED:
                self._consumer.on_returned(sent.letter)
            elif confirm is Confirm.REFUSED:
                log.error("consumer.publication_refused", consumer=self._consumer.name, type=sent.letter.name)
                self._refused.append(sent.letter)
            elif confirm is not Confirm.ACKED:
                continue  # lost: the relay will say it
            if sent.recorded:
                self._confirmed.append(sent.letter.message_id)

    def _forget_confirmed(self) -> None:
        confirmed, refused = self._confirmed, self._refused
        with self._store.transaction() as tx:
            batch = Batch(tx, self._clock())
            self._paperwork.confirm(batch, confirmed)
            self._paperwork.bury_unsayable(batch, refused)
        self._confirmed, self._refused = [], []

    def _finish(self) -> None:
        deadline = time.monotonic() + 2.0
        while self._sent and time.monotonic() < deadline:
            self._settle()
            if self._sent:
                self._wakeup.wait(0.02)
        try:
            if self._confirmed:
                self._forget_confirmed()
            if self._refusals.owes():
                self._in_transaction(self._refusals.close)
            self._in_transaction(self._consumer.stop)
        except TemporaryError:
            log.info("consumer.left_to_relay", consumer=self._consumer.name, letters=len(self._confirmed))
