"""What nobody got out is said; what has lost its meaning goes."""

from __future__ import annotations

import pytest

from broker.publisher import event, reply, to_queue
from consumers.paperwork import row_of
from consumers.relay import LIMIT, Relay
from consumers.store import Store, chains, inbox, outbox, sessions
from schemas.messages.admin import Readmit
from schemas.messages.event import WorkWaiting
from schemas.messages.service import JobsCommanded
from schemas.registry import DAY, HOUR
from tests.support.messages import chores

pytestmark = pytest.mark.integration

NOW = 1_000_000.0


def put(store: Store, *rows: outbox.OutboxRow) -> None:
    with store.transaction() as tx:
        outbox.add(tx, rows)


def test_what_a_writer_did_not_get_out_is_said_again(store: Store) -> None:
    relay = Relay()
    old, young = reply(JobsCommanded(outcomes=()), "c.1", "cid"), event(WorkWaiting(queues=(1,)))
    put(store, row_of(old, NOW - 6, NOW - 6), row_of(young, NOW - 1, NOW - 1))
    assert chores(store, relay, NOW).again == [old], "the same letter with the same id"
    assert chores(store, relay, NOW + 4).again == [young]
    assert chores(store, relay, NOW + 9).again == []
    assert chores(store, relay, NOW + 10).again == [old], "until it is confirmed"
    with store.transaction() as tx:
        outbox.confirm(tx, [old.message_id, young.message_id])
    assert chores(store, relay, NOW + 60).again == []


def test_a_retry_comes_at_its_time(store: Store) -> None:
    relay = Relay()
    readmit = Readmit(letter=0, queue="control", user="u", jws="j", body=b"{}", operator="")
    letter = to_queue(readmit, "control")
    put(store, row_of(letter, NOW, NOW + 2))
    assert chores(store, relay, NOW + 1).again == []
    assert chores(store, relay, NOW + 2).again == [letter]


def test_more_than_a_turns_worth_follows_at_once(store: Store) -> None:
    relay = Relay()
    put(store, *(row_of(event(WorkWaiting(queues=(n,))), NOW - 60, NOW - 60) for n in range(LIMIT + 1)))
    assert len(chores(store, relay, NOW).again) == LIMIT
    assert relay.due_in(NOW) == 0.0
    assert len(chores(store, relay, NOW).again) == 1
    assert relay.due_in(NOW) == 1.0


def test_an_expired_letter_goes(store: Store) -> None:
    put(store, row_of(event(WorkWaiting(queues=(1,))), NOW - HOUR - 1, NOW - HOUR - 1))
    assert chores(store, Relay(), NOW).again == []
    with store.reading() as tx:
        assert outbox.count(tx) == 0


def test_the_inbox_forgets_each_type_in_its_own_time(store: Store) -> None:
    with store.transaction() as tx:
        for age in (100.0, 2 * HOUR, 10 * DAY, 59 * DAY, 62 * DAY):
            kinds = ("pilot.heartbeat.v1", "job.report.v1", "job.submit.v1", "job.changed.v1", "some.future.v9")
            inbox.admit(tx, [("/CN=x", f"{kind} {age:.0f}", kind) for kind in kinds], NOW * 10 - age)
        chains.put(tx, "old", [b"d"], "/CN=x", NOW * 10 - 91 * DAY, 1.0)
        chains.put(tx, "young", [b"d"], "/CN=x", NOW * 10 - 89 * DAY, 1.0)
        sessions.put(tx, "gone.1", "/CN=x", "g", "old", "user", NOW)
    chores(store, Relay(), NOW * 10)
    with store.reading() as tx:
        left = {
            (kind, age)
            for kind in ("pilot.heartbeat", "job.report", "job.submit", "job.changed")
            for age in (100, 7200, 864_000, 5_097_600, 5_356_800)
            if inbox.outcomes(tx, [("/CN=x", f"{kind}.v1 {age}")])
        }
        future = [age for age in (5_097_600, 5_356_800) if inbox.outcomes(tx, [("/CN=x", f"some.future.v9 {age}")])]
        assert list(chains.get(tx, ["old", "young"])) == ["young"]
        assert sessions.get(tx, "gone.1") is None
    assert left == {
        *((kind, 100) for kind in ("pilot.heartbeat", "job.report", "job.submit", "job.changed")),
        *((kind, 7200) for kind in ("job.report", "job.submit", "job.changed")),
        *((kind, 864_000) for kind in ("job.submit", "job.changed")),
        ("job.changed", 5_097_600),
    }
    assert future == [5_097_600]
