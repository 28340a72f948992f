"""What refusals leave in the store, on both databases: within quotas, and counted beyond them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from broker.refusal import RefusalError
from broker.topology import Queue
from broker.transport import Delivery
from consumers import admission
from consumers import engine as engine_module
from consumers.admission import AUDITED_PER_MINUTE, EVENTS_PER_MINUTE, SAMPLES_PER_MINUTE, Refusals
from consumers.batch import Batch, Consumer
from consumers.store import Store, audit, dead
from schemas.envelope import Header
from schemas.messages.user import KillJobs
from tests.support.fake_broker import FakeBroker, sealed
from tests.support.messages import Sender, delivery, user
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

ADA, BOB = user("ada"), user("bob")
MINUTE = 60.0
NOW = 1000 * MINUTE

Refused = tuple[Delivery, RefusalError]


def denied(sender: Sender) -> Refused:
    header = Header(
        alg="ES256", typ="job.kill.v1", jti="j", iss=sender.identity, thumbprint="t", cli=sender.cli,
        aud="job-manager", iat=NOW, exp=NOW + 1,
    )  # fmt: skip
    return delivery(b"{}"), RefusalError("denied", "not allowed", header=header, proven=True)


def garbage() -> Refused:
    return delivery(b"junk"), RefusalError("forged", "junk")


def note(store: Store, refusals: Refusals, *refused: Refused, now: float = NOW) -> Batch:
    with store.transaction() as tx:
        batch = Batch(tx, now)
        refusals.note(batch, refused)
    for commit in batch.commits:
        commit()
    return batch


def lines(store: Store, event: str = "message.refused") -> list[audit.AuditRow]:
    with store.reading() as tx:
        return audit.query(tx, event=event, limit=1000)


def test_each_identity_has_its_own_quota_of_lines_and_its_rest_is_one(store: Store) -> None:
    refusals = Refusals("job-manager")
    for _ in range(5):
        note(store, refusals, *[denied(ADA)] * AUDITED_PER_MINUTE, denied(BOB), now=NOW + 1)
    assert [line.identity for line in lines(store)].count(ADA.identity) == AUDITED_PER_MINUTE
    assert [line.identity for line in lines(store)].count(BOB.identity) == 5
    assert lines(store, "message.refused-more") == []
    assert not refusals.owes(NOW + MINUTE - 1)
    assert refusals.owes(NOW + MINUTE)
    note(store, refusals, now=NOW + MINUTE)  # a batch without a refusal sums up, too
    [more] = lines(store, "message.refused-more")
    assert more.identity == ADA.identity
    assert json.loads(more.detail) == {"service": "job-manager", "since": NOW, "count": 4 * AUDITED_PER_MINUTE}
    assert not refusals.owes(NOW + 9 * MINUTE)
    note(store, refusals, denied(ADA), now=NOW + MINUTE + 1)
    assert [line.time for line in lines(store)].count(NOW + MINUTE + 1) == 1
    assert len(lines(store, "message.refused-more")) == 1


def test_what_nobody_is_proven_to_have_sent_is_one_line_a_minute(store: Store) -> None:
    refusals = Refusals("job-manager")
    unknown = delivery(b"{}", user_id="ada.1"), RefusalError("chain-unknown", "not known here")
    for _ in range(4):
        note(store, refusals, *[garbage()] * 50, unknown, now=NOW + 1)
    assert lines(store, "message.unproven") == []
    assert refusals.owes(NOW + MINUTE)
    note(store, refusals, now=NOW + MINUTE)
    [line] = lines(store, "message.unproven")
    assert json.loads(line.detail) == {
        "service": "job-manager", "since": NOW, "count": 204, "codes": {"forged": 200, "chain-unknown": 4},
        "clients": ["ada.1"],
    }  # fmt: skip
    assert line.identity == ""
    assert not refusals.owes(NOW + 9 * MINUTE)


def test_everybody_is_answered_although_not_everything_is_written(store: Store) -> None:
    batch = note(store, Refusals("job-manager"), *[denied(ADA)] * 100)
    names = [letter.name for letter in batch.unrecorded]
    assert names.count("request.refused.v1") == 100
    assert names.count("message.refused.v1") == EVENTS_PER_MINUTE


def test_a_transaction_that_failed_uses_up_nothing(store: Store) -> None:
    refusals = Refusals("job-manager")
    for _ in range(3):
        with contextlib.suppress(RuntimeError), store.transaction() as tx:
            refusals.note(Batch(tx, NOW), [*[denied(ADA)] * AUDITED_PER_MINUTE, *[garbage()] * SAMPLES_PER_MINUTE])
            raise RuntimeError("undone")
    note(store, refusals, *[denied(ADA)] * AUDITED_PER_MINUTE, *[garbage()] * SAMPLES_PER_MINUTE)
    assert len(lines(store)) == AUDITED_PER_MINUTE
    with store.reading() as tx:
        assert len(dead.query(tx)[0]) == SAMPLES_PER_MINUTE


class Idle(Consumer):
    """Is sent nothing that it may handle."""

    name = "job-manager"


@pytest.fixture
def broker(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroker]:
    monkeypatch.setattr(engine_module, "IDLE_SECONDS", 0.02)
    monkeypatch.setattr(admission, "AUDITED_PER_MINUTE", 2)
    made = FakeBroker(store, Idle(), [Queue("commands", "job-manager", (), "test")], [BOB]).start()
    yield made
    made.stop()


def flood(broker: FakeBroker) -> None:
    seer = user("bob", "JobMonitor")  # may see, not kill
    broker.senders[seer.identity] = seer
    for _ in range(10):
        broker.give(sealed(KillJobs(jobs=(1,)), BOB))
    broker.settled()


def test_an_idle_service_sums_up_when_the_minute_is_over(broker: FakeBroker, store: Store) -> None:
    offset = 0.0
    clock = broker.engine._clock
    broker.engine._clock = lambda: clock() + offset
    flood(broker)
    assert 2 <= len(lines(store)) <= 4  # 4 if a minute ended in between
    offset = 61.0
    wait_until(lambda: lines(store, "message.refused-more"), 10, "the sum")
    counts = [json.loads(line.detail)["count"] for line in lines(store, "message.refused-more")]
    assert sum(counts) + len(lines(store)) == 10


def test_a_service_that_ends_sums_up(store: Store, broker: FakeBroker) -> None:
    flood(broker)
    broker.stop()
    counts = [json.loads(line.detail)["count"] for line in lines(store, "message.refused-more")]
    assert sum(counts) + len(lines(store)) == 10
