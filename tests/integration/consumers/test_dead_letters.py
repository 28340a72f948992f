"""Dead letters: listed, replayed, discarded; and what the broker gave up on."""

from __future__ import annotations

import time

import pytest

from broker.authorization import Property
from broker.publisher import seal
from broker.signing import ChainFacts, Signer
from broker.subscriber import Admitted, Gate
from broker.transport import Delivery, Tag
from consumers.batch import Batch
from consumers.dead_letters import SAMPLES_PER_MINUTE, DeadLetters
from consumers.directory import Directory
from consumers.outcome import DeadLetter
from consumers.paperwork import Paperwork
from consumers.relay import Relay
from consumers.store import Store, audit, dead
from schemas.messages.admin import DiscardDead, QueryDead, Readmit, ReplayDead
from schemas.messages.service import DeadListing, Refused
from schemas.messages.user import KillJobs
from schemas.registry import Message, encode
from tests.support import messages as support
from tests.support.messages import Heard, admitted, chores, delivery, service, tell, user

pytestmark = pytest.mark.integration

OLGA = user("olga", Property.OPERATOR, group="vo_admin")
ADA = user("ada")


@pytest.fixture
def consumer() -> DeadLetters:
    return DeadLetters()


def ask(store: Store, consumer: DeadLetters, message: Message) -> Heard:
    return tell(store, consumer, [admitted(message, OLGA)])


def listing(heard: Heard) -> DeadListing:
    (answer,) = heard.said
    assert isinstance(answer, DeadListing)
    return answer


def bury(store: Store, queue: str = "control", job: int = 1) -> Admitted:
    """A message that its consumer could not handle."""
    message = admitted(KillJobs(jobs=(job,)), ADA, queue=queue)
    paperwork = Paperwork("job-manager")
    with store.transaction() as tx:
        batch = Batch(tx, time.time())
        fresh, _ = paperwork.admit(batch, [message])
        paperwork.close(batch, fresh, [DeadLetter("no luck")], [])
    return message


def raw(store: Store, consumer: DeadLetters, *deliveries: Delivery, now: float | None = None) -> None:
    with store.transaction() as tx:
        for one in deliveries:
            consumer.on_raw(Batch(tx, time.time() if now is None else now), one)


def letters(store: Store) -> list[dead.LetterInfo]:
    with store.reading() as tx:
        return dead.query(tx, closed=True)[0]


def test_letters_are_listed_and_shown(store: Store, consumer: DeadLetters) -> None:
    message = bury(store)
    bury(store, job=2)
    page = listing(ask(store, consumer, QueryDead(limit=1)))
    assert [one.id for one in page.letters] == [2]
    assert page.more
    (one,) = listing(ask(store, consumer, QueryDead(ids=(1,), body=True))).letters
    assert (one.queue, one.type, one.issuer, one.reason) == ("control", "job.kill.v1", ADA.identity, "no luck")
    assert one.body == message.verified.payload
    assert one.size == len(message.verified.payload)


def test_a_discarded_letter_stays_listed(store: Store, consumer: DeadLetters) -> None:
    bury(store)
    done = listing(ask(store, consumer, DiscardDead(ids=(1, 77), reason="old")))
    assert [(one.id, one.state) for one in done.letters] == [(1, "discarded")]
    assert not listing(ask(store, consumer, QueryDead())).letters
    assert listing(ask(store, consumer, QueryDead(all=True))).letters == done.letters
    (again,) = ask(store, consumer, DiscardDead(ids=(1,))).said
    assert isinstance(again, Refused)
    assert again.code == "not-found"
    with store.reading() as tx:
        assert [row.event for row in audit.query(tx)] == ["dead.discarded"]


def test_a_replayed_letter_is_admitted_once_more_and_once_only(
    store: Store, consumer: DeadLetters, directory: Directory
) -> None:
    message = bury(store)
    assert listing(ask(store, consumer, ReplayDead(ids=(1,)))).letters[0].state == "replayed"
    now = time.time() + 1
    (letter,) = [one for one in chores(store, Relay(), now).again if one.name == "message.readmit.v1"]
    assert (letter.exchange, letter.routing_key) == ("", "control")

    gate = gate_for(store)
    paperwork = Paperwork("job-manager")
    with store.transaction() as tx:
        batch = Batch(tx, now)
        admission = gate.admit(on_the_wire(letter, "control"), now)
        assert admission.readmitted
        assert admission.message == message.message
        assert paperwork.admit(batch, [admission])[0] == [admission], "although the inbox knows the message itself"
        assert paperwork.admit(batch, [gate.admit(on_the_wire(letter, "control"), now)])[0] == []
    (again,) = ask(store, consumer, ReplayDead(ids=(1,))).said
    assert isinstance(again, Refused)


def on_the_wire(letter: object, queue: str) -> Delivery:
    """A letter as the relay publishes it."""
    signer = Signer(support.KEY, "thumbprint", service("relay").identity, "relay")
    sealed = seal(letter, signer, time.time())  # type: ignore[arg-type]  # a letter
    return Delivery(
        queue=queue, exchange="", routing_key=queue, body=sealed.body, headers=sealed.headers, redelivered=False,
        tag=Tag(1, 1, 1), user_id="relay",
    )  # fmt: skip


def gate_for(store: Store) -> Gate:
    class People:
        def principal(self, identity: str, group: str, client: str) -> object:
            sender = ADA if group else service(client)
            return sender.principal if sender.identity == identity else None

    class Chains:
        """Both sign with the helper's one key; the first to ask is the wrapper, the second the message inside."""

        def __init__(self) -> None:
            self.turn = 0

        def __call__(self, thumbprint: str) -> ChainFacts:
            self.turn += 1
            identity = service("relay").identity if self.turn % 2 else ADA.identity
            return ChainFacts(identity, False, 0.0, 1e12, support.KEY.public_key())

    return Gate({"job-manager"}, Chains(), People())  # type: ignore[arg-type]  # a small registry


def test_what_cannot_go_back_says_why(store: Store, consumer: DeadLetters) -> None:
    bury(store, queue="gone")
    (answer,) = ask(store, consumer, ReplayDead(ids=(1,))).said
    assert isinstance(answer, Refused)
    assert "no queue 'gone'" in answer.reason
    assert [one.state for one in letters(store)] == ["dead"]


DIED = {"x-first-death-reason": "delivery_limit", "x-first-death-queue": "reports"}


def test_the_brokers_own_dead_are_kept_with_the_reason(store: Store, consumer: DeadLetters) -> None:
    one = delivery(b"{}", "jws", "dead", "client.1", headers=dict(DIED))
    raw(store, consumer, one)
    raw(store, consumer, delivery(b"{}", "jws", "dead", "client.1", headers=dict(DIED), redelivered=True))
    (kept,) = letters(store)
    assert (kept.queue, kept.client, kept.issuer) == ("reports", "client.1", "")
    assert kept.reason.startswith("delivery limit")


def test_older_headers_and_none_at_all(store: Store, consumer: DeadLetters) -> None:
    deaths = [{"reason": "maxlen", "queue": "later"}, {"reason": "rejected", "queue": "reports"}]
    raw(store, consumer, delivery(b"1", headers={"x-death": deaths}), delivery(b"2", headers={"x-death": "odd"}))
    found = [(one.queue, one.reason) for one in reversed(letters(store))]
    assert found == [("reports", "rejected by its consumer"), ("dead", "unknown")]


def test_what_outlived_its_use_is_sampled(store: Store, consumer: DeadLetters) -> None:
    headers: dict[str, object] = {"x-first-death-reason": "expired", "x-first-death-queue": "heartbeats"}
    some = [delivery(str(number).encode(), headers=dict(headers)) for number in range(SAMPLES_PER_MINUTE + 30)]
    raw(store, consumer, *some, now=30.0)
    assert len(letters(store)) == SAMPLES_PER_MINUTE
    assert consumer.outlived == len(some)
    raw(store, consumer, delivery(b"next", headers=dict(headers)), now=61.0)
    assert len(letters(store)) == SAMPLES_PER_MINUTE + 1


def test_a_readmission_that_died_goes_back_as_what_it_carried(store: Store, consumer: DeadLetters) -> None:
    inner = admitted(KillJobs(jobs=(1,)), ADA)
    wrapper = Readmit(letter=9, queue="control", user=ADA.cli, jws=inner.jws, body=inner.verified.payload, operator="o")
    headers: dict[str, object] = {"x-first-death-reason": "delivery_limit", "x-first-death-queue": "control"}
    raw(store, consumer, delivery(encode(wrapper), "outer", "dead", "relay", headers=headers))
    listing(ask(store, consumer, ReplayDead(ids=(1,))))
    (letter,) = [one for one in chores(store, Relay(), time.time() + 1).again if one.routing_key == "control"]
    back = support.opened(letter)
    assert isinstance(back, Readmit)
    assert (back.letter, back.user, back.jws, back.body) == (1, ADA.cli, inner.jws, inner.verified.payload)
    assert back.operator == OLGA.identity


def test_closed_letters_go_in_time(store: Store, consumer: DeadLetters) -> None:
    bury(store)
    bury(store, job=2)
    ask(store, consumer, DiscardDead(ids=(1,)))
    chores(store, consumer, time.time() + 91 * 86_400)
    assert [one.id for one in letters(store)] == [2]
