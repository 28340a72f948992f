"""The engine on both databases: what is committed, acknowledged and said, in which order, whatever fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import msgspec
import pytest

from broker.publisher import Letter, request
from broker.subscriber import Admitted
from broker.topology import Queue
from broker.transport import Confirm, Delivery
from consumers import engine as engine_module
from consumers.batch import Batch, Consumer
from consumers.outcome import ACK, DeadLetter, Outcome, Retry
from consumers.paperwork import letter_of, readmission
from consumers.store import Store, audit, dead, outbox, state
from consumers.store.errors import NotLeader, StoreConflict
from schemas.envelope import JWS_HEADER
from schemas.messages.event import MessageRefused
from schemas.messages.service import ChainUnknown, CommandOutcome, JobsCommanded, Refused
from schemas.messages.user import KillJobs
from tests.support.fake_broker import FakeBroker, sealed
from tests.support.messages import delivery, service, user
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

ADA = user("ada")
QUEUE = Queue("commands", "job-manager", (), "test")
RAW = Queue("raw", "job-manager", (), "test")


class Script(Consumer):
    """Does what the test says for each job number; else counts it in the store and answers."""

    name = "job-manager"
    handlers: ClassVar = {KillJobs: "on_kill"}
    raw_queues: ClassVar = frozenset({"raw"})

    def __init__(self) -> None:
        self.plan: dict[int, Callable[[], Outcome]] = {}
        self.batches: list[list[int]] = []
        self.returned: list[Letter] = []
        self.rollbacks = 0
        self.wanted = True
        self.due: float | None = None
        self.chore: Callable[[Batch], None] = lambda _batch: None
        self.chores_done = 0

    def handle(self, batch: Batch, messages: Sequence[Admitted]) -> list[Outcome]:
        self.batches.append([number(one) for one in messages])
        return super().handle(batch, messages)

    def on_kill(self, batch: Batch, message: Admitted) -> Outcome:
        job = number(message)
        count(batch, job)
        if job in self.plan:
            return self.plan[job]()
        batch.answer(message, answer(job))
        return ACK

    def on_raw(self, batch: Batch, delivery: Delivery) -> None:
        count(batch, len(delivery.body))

    def on_returned(self, letter: Letter) -> None:
        self.returned.append(letter)

    def on_rollback(self) -> None:
        self.rollbacks += 1

    def wants_queues(self) -> bool:
        return self.wanted

    def due_in(self, now: float) -> float | None:
        return self.due

    def chores(self, batch: Batch) -> None:
        self.chores_done += 1
        self.due = None
        self.chore(batch)


def number(message: Admitted) -> int:
    assert isinstance(message.message, KillJobs)
    return message.message.jobs[0]


def answer(job: int) -> JobsCommanded:
    return JobsCommanded(outcomes=(CommandOutcome(job=job, ok=True),))


def count(batch: Batch, job: int) -> None:
    known = state.get(batch.tx, f"job {job}")
    state.put(batch.tx, f"job {job}", str(int(known[0]) + 1 if known else 1).encode(), batch.now)


def counted(store: Store, job: int) -> int:
    with store.reading() as tx:
        known = state.get(tx, f"job {job}")
    return int(known[0]) if known else 0


def graves(store: Store) -> list[dead.LetterInfo]:
    with store.reading() as tx:
        return dead.query(tx)[0]


def unsent(store: Store) -> int:
    with store.reading() as tx:
        return outbox.count(tx)


def kill(job: int, *, redelivered: bool = False) -> Delivery:
    return sealed(KillJobs(jobs=(job,)), ADA, redelivered=redelivered)


def fail(error: Exception) -> Callable[[], Outcome]:
    def do() -> Outcome:
        raise error

    return do


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def broker(store: Store, script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroker]:
    monkeypatch.setattr(engine_module, "STORE_PAUSE", (0.02, 0.1))
    monkeypatch.setattr(engine_module, "IDLE_SECONDS", 0.05)
    made = FakeBroker(store, script, [QUEUE, RAW], [ADA]).start()
    yield made
    made.stop()


# -- the order of things ----------------------------------------------------------------------------------------


def test_commit_then_acknowledge_then_publish(broker: FakeBroker, store: Store) -> None:
    broker.give(kill(1), kill(2))
    wait_until(lambda: len(broker.letters) == 2, 10, "the answers")
    assert [what for what, _ in broker.log if what != "commit"] == ["ack", "ack", "publish", "publish"]
    assert broker.log[0] == ("commit", None)
    assert broker.take(JobsCommanded) == [answer(1), answer(2)]
    wait_until(lambda: unsent(store) == 0, 10, "confirmed letters to leave the outbox")


def test_a_batch_is_one_transaction(broker: FakeBroker, script: Script) -> None:
    broker.give(*(kill(job) for job in range(1, 51)))
    broker.settled()
    assert script.batches == [list(range(1, 51))]


def test_nothing_is_said_before_it_is_committed(broker: FakeBroker, store: Store) -> None:
    rows: list[int] = []
    broker.verdict = lambda _message, _outgoing: (rows.append(unsent(store)), Confirm.ACKED)[1]
    broker.give(kill(1))
    broker.settled()
    wait_until(lambda: rows, 10, "the publication")
    assert rows == [1]


# -- once and only once -----------------------------------------------------------------------------------------


def test_the_same_message_twice_in_one_batch_is_handled_once(broker: FakeBroker, store: Store) -> None:
    one = kill(1)
    broker.give(one, one, kill(2))
    broker.settled()
    assert (counted(store, 1), counted(store, 2)) == (1, 1)
    wait_until(lambda: len(broker.letters) == 2, 10, "the answers")


def test_a_redelivery_gets_the_recorded_answer_with_its_own_id(broker: FakeBroker, store: Store) -> None:
    one = kill(1)
    broker.give(one)
    wait_until(lambda: len(broker.letters) == 1, 10, "the answer")
    broker.give(msgspec.structs.replace(one, redelivered=True))
    wait_until(lambda: len(broker.letters) == 2, 10, "the answer again")
    (_, first), (_, second) = broker.letters
    assert counted(store, 1) == 1
    assert (first.message_id, first.body, first.correlation_id) == (
        second.message_id, second.body, second.correlation_id
    )  # fmt: skip


def test_redelivered_messages_are_handled_alone(broker: FakeBroker, script: Script) -> None:
    broker.give(kill(1), kill(2, redelivered=True), kill(3), kill(4, redelivered=True))
    broker.settled()
    assert script.batches == [[1, 3], [2], [4]]


# -- what fails -------------------------------------------------------------------------------------------------


def test_a_poisoned_message_dies_and_the_others_live(broker: FakeBroker, store: Store, script: Script) -> None:
    script.plan[2] = fail(ValueError("poison"))
    broker.give(kill(1), kill(2), kill(3))
    broker.settled()
    assert script.batches == [[1, 2, 3], [1], [2], [3]]
    assert [counted(store, job) for job in (1, 2, 3)] == [1, 0, 1]
    [grave] = graves(store)
    assert (grave.reason, grave.queue, grave.typ) == ("ValueError: poison", "commands", "job.kill.v1")
    assert script.rollbacks == 2
    broker.give(kill(4))
    broker.settled()
    assert counted(store, 4) == 1


class Forgetful(Script):
    """Keeps something in memory that a rollback takes and its chores bring back, as the matcher does."""

    def on_rollback(self) -> None:
        super().on_rollback()
        self.wanted, self.due = False, 0.0

    def chores(self, batch: Batch) -> None:
        super().chores(batch)
        self.wanted = True

    def on_kill(self, batch: Batch, message: Admitted) -> Outcome:
        if not self.wanted:
            raise NotLeader("test")
        return super().on_kill(batch, message)


@pytest.fixture
def forgetful(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroker]:
    monkeypatch.setattr(engine_module, "IDLE_SECONDS", 0.05)
    made = FakeBroker(store, Forgetful(), [QUEUE], [ADA]).start()
    yield made
    made.stop()


def test_whoever_forgets_by_a_rollback_remembers_before_the_others_are_handled(
    forgetful: FakeBroker, store: Store
) -> None:
    """However many are poisoned, the broker never hears of the others: it would count and in the end bury them."""
    script = forgetful.consumer
    assert isinstance(script, Forgetful)
    poisoned = range(2, 62, 2)
    for job in poisoned:
        script.plan[job] = fail(ValueError("poison"))
    forgetful.give(*(kill(job) for job in range(1, 62)))
    forgetful.settled(30)
    assert [counted(store, job) for job in range(1, 62)] == [job % 2 for job in range(1, 62)]
    assert len(graves(store)) == len(poisoned)
    assert {what for what, _ in forgetful.log if what in {"ack", "requeue", "reject"}} == {"ack"}


def test_whoever_forgets_by_a_conflict_remembers_too(forgetful: FakeBroker, store: Store) -> None:
    script = forgetful.consumer
    assert isinstance(script, Forgetful)
    tries: list[int] = []

    def clash() -> Outcome:
        tries.append(1)
        if len(tries) < 3:
            raise StoreConflict
        return ACK

    script.plan[2] = clash
    forgetful.give(kill(1), kill(2), kill(3))
    forgetful.settled()
    assert [counted(store, job) for job in (1, 2, 3)] == [1, 1, 1]
    assert {what for what, _ in forgetful.log if what in {"ack", "requeue", "reject"}} == {"ack"}


def test_whoever_cannot_remember_gives_back(forgetful: FakeBroker, store: Store) -> None:
    script = forgetful.consumer
    assert isinstance(script, Forgetful)
    script.plan[1] = fail(ValueError("poison"))
    failures = [1, 2]

    def chore(_batch: Batch) -> None:
        if failures:
            failures.pop()
            script.due = 0.0
            raise NotLeader("another leads")

    script.chore = chore
    forgetful.give(kill(1), kill(2))
    forgetful.settled()
    assert [what for what, _ in forgetful.log if what in {"ack", "requeue"}] == ["requeue", "requeue"]
    wait_until(lambda: script.wanted, 10, "the chores")


def test_a_dead_letter_keeps_the_message_as_it_came(broker: FakeBroker, store: Store, script: Script) -> None:
    script.plan[1] = lambda: DeadLetter("no good")
    one = kill(1)
    broker.give(one)
    broker.settled()
    [grave] = graves(store)
    with store.reading() as tx:
        kept = dead.get(tx, [grave.id])[grave.id]
    assert (kept.body, kept.jws, kept.user_id) == (one.body, one.headers[JWS_HEADER], ADA.cli)


def test_a_message_that_cannot_even_be_buried_goes_to_the_brokers_dead_queue(
    broker: FakeBroker, store: Store, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.plan[1] = fail(ValueError("poison"))
    monkeypatch.setattr(dead, "add", lambda *_: (_ for _ in ()).throw(RuntimeError("no grave")))
    broker.give(kill(1), kill(2))
    broker.settled()
    assert [what for what, _ in broker.log if what in {"ack", "reject", "requeue"}] == ["reject", "ack"]
    assert broker.alive


def test_a_conflict_is_tried_again_and_then_later(broker: FakeBroker, store: Store, script: Script) -> None:
    tries: list[int] = []

    def clash() -> Outcome:
        tries.append(1)
        if len(tries) < 3:
            raise StoreConflict
        return ACK

    script.plan[1] = clash
    broker.give(kill(1))
    broker.settled()
    assert (len(tries), counted(store, 1)) == (3, 1)
    script.plan[2] = fail(StoreConflict())
    broker.give(kill(2))
    broker.settled()
    assert graves(store) == []
    assert unsent(store) == 1  # it comes back by way of the outbox


def test_retry_comes_back_once_after_its_pause(broker: FakeBroker, store: Store, script: Script) -> None:
    script.plan[1] = lambda: Retry(0.0, "not now")
    one = kill(1)
    broker.give(one)
    broker.settled()
    assert unsent(store) == 1
    with store.reading() as tx:
        [row] = outbox.due(tx, time.time() + 1, time.time() + 1, 10)
    letter = letter_of(row)
    assert (letter.exchange, letter.routing_key) == ("", "commands")
    del script.plan[1]
    back = sealed(KillJobs(jobs=(1,)), service("relay"), letter=letter)
    broker.give(back, back)
    broker.give(msgspec.structs.replace(back, redelivered=True))
    broker.settled()
    assert counted(store, 1) == 2  # once when it asked for the retry, once when it came back
    wait_until(lambda: len(broker.letters) >= 1, 10, "the answer")
    broker.give(msgspec.structs.replace(one, redelivered=True))  # the original once more: answered, not handled
    broker.settled()
    assert counted(store, 1) == 2
    wait_until(lambda: len(broker.take(JobsCommanded)) >= 1, 10, "the recorded answer")


def test_a_message_that_never_reached_the_inbox_can_be_readmitted(broker: FakeBroker, store: Store) -> None:
    one = kill(1)
    broker.give(delivery(b"x"))
    broker.settled()
    gate = broker.engine._gate
    admitted = gate.admit(msgspec.structs.replace(one, queue="commands"), time.time())
    broker.give(sealed(readmission(admitted, 1, "olga"), service("dead-letters")))
    broker.give(msgspec.structs.replace(one, redelivered=True))
    broker.settled()
    assert counted(store, 1) == 1


# -- the store is away ------------------------------------------------------------------------------------------


def test_while_the_store_is_away_nothing_is_settled_and_then_all(broker: FakeBroker, store: Store) -> None:
    broker.store.away = True
    broker.give(kill(1), kill(2))
    wait_until(lambda: broker.store.refused >= 3, 10, "some tries")
    assert broker.log == []
    broker.store.away = False
    broker.settled()
    assert (counted(store, 1), counted(store, 2)) == (1, 1)


def test_an_answer_by_a_stale_tag_does_not_count(broker: FakeBroker, store: Store) -> None:
    broker.store.away = True
    broker.give(kill(1))
    wait_until(lambda: broker.store.refused >= 2, 10, "some tries")
    again = broker.queues["commands"].lose()  # the connection went away meanwhile
    broker.store.away = False
    wait_until(lambda: counted(store, 1) == 1, 10, "the message to be handled")
    broker.give(*again)
    broker.settled()
    assert counted(store, 1) == 1
    wait_until(lambda: len(broker.letters) == 2, 10, "the answer, twice")


def test_chores_wait_for_the_store(broker: FakeBroker, script: Script) -> None:
    broker.store.away = True
    script.due = 0.0
    broker.engine.wake()
    wait_until(lambda: broker.store.refused >= 2, 10, "some tries")
    broker.store.away = False
    wait_until(lambda: script.chores_done == 1, 10, "the chores")


# -- chores, leadership, wishes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("broken"), StoreConflict(), NotLeader("x")])
def test_chores_that_fail_do_not_stop_the_loop(
    broker: FakeBroker, store: Store, script: Script, error: Exception
) -> None:
    def chore(batch: Batch) -> None:
        count(batch, 99)
        raise error

    script.chore = chore
    script.due = 0.0
    broker.engine.wake()
    wait_until(lambda: script.chores_done, 10, "the chores")
    broker.give(kill(1))
    broker.settled()
    assert (counted(store, 1), counted(store, 99), script.rollbacks) == (1, 0, 1)


def test_not_leader_gives_everything_back(broker: FakeBroker, store: Store, script: Script) -> None:
    script.plan[2] = fail(NotLeader("test"))
    broker.give(kill(1), kill(2))
    broker.settled()
    assert [what for what, _ in broker.log] == ["requeue", "requeue"]
    assert counted(store, 1) == 0
    assert graves(store) == []


def test_a_consumer_that_does_not_want_to_gives_back_and_pauses(broker: FakeBroker, script: Script) -> None:
    script.wanted = False
    broker.give(kill(1))
    broker.settled()
    assert ("pause", "commands") in broker.log
    assert [what for what, _ in broker.log if what in {"ack", "requeue"}] == ["requeue"]
    script.wanted = True
    broker.engine.wake()
    wait_until(lambda: ("resume", "commands") in broker.log, 10, "the resumption")


def test_too_many_unconfirmed_letters_pause_consuming(
    broker: FakeBroker, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "UNSENT_MARK", 3)
    broker.verdict = lambda _message, _outgoing: None
    broker.give(*(kill(job) for job in range(1, 6)))
    wait_until(lambda: ("pause", "commands") in broker.log, 10, "the pause")
    for future in broker.pending:
        future.set_result(Confirm.ACKED)
    broker.engine.wake()
    wait_until(lambda: ("resume", "commands") in broker.log, 10, "the resumption")


# -- publications -----------------------------------------------------------------------------------------------


def test_backpressure_leaves_the_letters_to_the_outbox(broker: FakeBroker, store: Store) -> None:
    broker.full = True
    broker.give(kill(1))
    broker.settled()
    assert (counted(store, 1), unsent(store)) == (1, 1)
    assert broker.alive


@pytest.mark.parametrize(("confirm", "left"), [(Confirm.LOST, 1), (Confirm.NACKED, 1), (Confirm.RETURNED, 0)])
def test_what_the_broker_says_of_a_letter(
    broker: FakeBroker, store: Store, script: Script, confirm: Confirm, left: int
) -> None:
    broker.verdict = lambda _message, _outgoing: confirm
    broker.give(kill(1))
    broker.settled()
    if left:
        broker.verdict = lambda _message, _outgoing: Confirm.ACKED
        broker.give(kill(2))  # its letter is confirmed and goes; the first one's stays for the relay
        broker.settled()
        wait_until(lambda: not broker.engine._sent and not broker.engine._confirmed, 10, "the books")
    wait_until(lambda: unsent(store) == left, 10, "the outbox")
    assert [letter.name for letter in script.returned] == ([] if left else ["job.commanded.v1"])


# -- refusals ---------------------------------------------------------------------------------------------------


def test_garbage_is_sampled_within_a_quota(broker: FakeBroker, store: Store) -> None:
    for _ in range(3):
        broker.give(*(delivery(b"\x00garbage") for _ in range(20)), kill(1))
        broker.settled()
    assert len(graves(store)) in {20, 40}  # 40 if a minute ended in between
    assert counted(store, 1) == 3
    assert broker.take(Refused) == []
    assert len(broker.take(MessageRefused)) <= 120


def test_garbage_kept_is_bounded(broker: FakeBroker, store: Store) -> None:
    huge = msgspec.structs.replace(delivery(b"x" * 200_000, "y" * 200_000), type="t" * 9999, user_id="u" * 9999)
    broker.give(huge)
    broker.settled()
    [grave] = graves(store)
    with store.reading() as tx:
        kept = dead.get(tx, [grave.id])[grave.id]
    assert len(kept.body) == len(kept.jws) == 64 * 1024
    assert len(grave.typ) == len(kept.user_id) == 256


@pytest.mark.parametrize("text", ["\x00", "\ud800", "'; drop table jobs; --"])
def test_strange_texts_of_strangers_stop_nothing(broker: FakeBroker, store: Store, text: str) -> None:
    broker.give(msgspec.structs.replace(delivery(b"x", text), type=text, user_id=text), kill(1))
    broker.settled()
    assert broker.alive
    assert counted(store, 1) == 1


def test_a_proven_sender_is_told_and_the_refusal_audited(broker: FakeBroker, store: Store) -> None:
    bob = user("bob", "JobMonitor")  # may see, not kill
    broker.senders[bob.identity] = bob
    one = sealed(KillJobs(jobs=(1,)), bob, letter=_letter(KillJobs(jobs=(1,))))
    broker.give(one)
    broker.settled()
    wait_until(lambda: len(broker.letters) == 2, 10, "answer and event")
    [refused] = broker.take(Refused)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.type) == ("denied", "job.kill.v1")
    with store.reading() as tx:
        [line] = audit.query(tx, event="message.refused")
    assert (line.identity, line.client) == (bob.identity, bob.cli)
    assert graves(store) == []


def _letter(message: KillJobs) -> Letter:
    return request(message, ADA.properties, ADA.group)


def test_an_unknown_chain_is_told_so(broker: FakeBroker, store: Store) -> None:
    stranger = user("nobody")
    broker.give(sealed(KillJobs(jobs=(1,)), stranger))
    broker.settled()
    wait_until(lambda: broker.take(ChainUnknown), 10, "the answer")
    assert counted(store, 1) == 0


# -- raw deliveries ---------------------------------------------------------------------------------------------


def test_raw_deliveries_are_taken_once_although_the_store_goes_away_after_them(
    broker: FakeBroker, store: Store, script: Script
) -> None:
    def leave() -> Outcome:
        if not broker.store.refused:
            broker.store.away = True
        return ACK

    script.plan[1] = leave
    broker.queues["raw"].waiting.clear()
    broker.queues["raw"].put(delivery(b"12345"))
    broker.give(kill(1))
    wait_until(lambda: broker.store.refused >= 2, 10, "some tries")
    broker.store.away = False
    broker.settled()
    assert (counted(store, 5), counted(store, 1)) == (1, 1)


def test_the_end_says_what_is_still_to_be_said(store: Store, script: Script) -> None:
    broker = FakeBroker(store, script, [QUEUE], [ADA]).start()
    broker.give(kill(1))
    wait_until(lambda: broker.letters, 10, "the answer")
    broker.stop()
    assert unsent(store) == 0
    assert broker.log[-1][0] == "commit" or ("cancel", "commands") in broker.log
