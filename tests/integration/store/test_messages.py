"""Inbox and outbox: an effect once, a message until it is confirmed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from consumers.store import OutboxRow, Store, inbox, outbox

pytestmark = pytest.mark.integration

ISSUER = "/C=XX/O=Test/CN=Jane Doe"


def row(jti: str, *, created: float = 100.0, not_before: float = 0.0, expires: float = 1e6) -> OutboxRow:
    return OutboxRow(jti, "pilotage.replies", "reply.x", "t.v1", "x", "c", b'{"a":"\xc3\xa4\\u0000"}', created,
                     not_before or created, expires)  # fmt: skip


def test_a_message_is_admitted_once_and_its_outcome_is_remembered(store: Store) -> None:
    with store.transaction() as tx:
        fresh, known = inbox.admit(tx, [(ISSUER, "a", "t.v1"), (ISSUER, "b", "t.v1"), (ISSUER, "a", "t.v1")], 5.0)
        assert fresh == {(ISSUER, "a"), (ISSUER, "b")}
        assert known == {}
        inbox.record(tx, {(ISSUER, "a"): b"\x00\xff answer"})
    with store.transaction() as tx:
        fresh, known = inbox.admit(tx, [(ISSUER, j, "t.v1") for j in "abc"] + [("/CN=Other", "a", "t.v1")], 6.0)
    assert fresh == {(ISSUER, "c"), ("/CN=Other", "a")}
    assert known == {(ISSUER, "a"): b"\x00\xff answer", (ISSUER, "b"): None}


def test_a_rolled_back_admission_leaves_nothing(store: Store) -> None:
    def admit_and_fail() -> None:
        with store.transaction() as tx:
            inbox.admit(tx, [(ISSUER, "a", "t")], 1.0)
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        admit_and_fail()
    with store.transaction() as tx:
        assert inbox.admit(tx, [(ISSUER, "a", "t")], 1.0) == ({(ISSUER, "a")}, {})


def test_of_concurrent_admissions_one_wins(store: Store) -> None:
    keys = [(ISSUER, f"m{i}", "t") for i in range(50)]
    together = threading.Barrier(4)

    def admit(turn: int) -> set[tuple[str, str]]:
        together.wait(10)
        with store.transaction() as tx:
            return inbox.admit(tx, keys[turn:] + keys[:turn], 1.0)[0]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(admit, range(4)))
    assert sorted(key for fresh in results for key in fresh) == sorted((i, j) for i, j, _ in keys)


def test_purge_and_forget(store: Store) -> None:
    with store.transaction() as tx:
        inbox.admit(tx, [(ISSUER, "old", "t")], 1.0)
        inbox.admit(tx, [(ISSUER, "new", "t"), (ISSUER, "again", "t")], 9.0)
        assert inbox.purge(tx, 5.0) == 1
        inbox.forget(tx, [(ISSUER, "again")])
        assert inbox.admit(tx, [(ISSUER, j, "t") for j in ("old", "new", "again")], 10.0)[0] == {
            (ISSUER, "old"),
            (ISSUER, "again"),
        }


def test_an_outbox_row_stays_until_it_is_confirmed(store: Store) -> None:
    rows = [row("1"), row("2", created=101.0), row("later", created=90.0, not_before=200.0), row("dead", expires=1.0)]
    with store.transaction() as tx:
        outbox.add(tx, rows)
        assert tx.fresh == rows
    with store.transaction() as tx:
        assert outbox.due(tx, 150.0, 100.5, 10) == [rows[0]]
        assert outbox.due(tx, 250.0, 240.0, 10) == [rows[0], rows[1], rows[2]]
        assert outbox.due(tx, 250.0, 240.0, 1) == [rows[0]]
        assert outbox.count(tx) == 4
        assert outbox.expire(tx, 50.0) == 1
        outbox.postpone(tx, ["1"], 500.0)
        outbox.confirm(tx, ["2", "unknown"])
    with store.transaction() as tx:
        assert [r.jti for r in outbox.due(tx, 600.0, 0.0, 10)] == ["later", "1"]
        outbox.confirm(tx, [])


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("said", [True, False])
def test_a_batch_ends_with_its_answers_its_letters_and_what_was_confirmed(
    store: Store, answered: bool, said: bool
) -> None:
    with store.transaction() as tx:
        inbox.admit(tx, [("ada", "1", "t.v1"), ("ada", "2", "t.v1")], 100.0)
        outbox.add(tx, [row("old"), row("kept")])
    answers = {("ada", "2"): b"\x00\xff the answer"} if answered else {}
    rows = [row("new", created=101.0), row("next", created=102.0)] if said else []
    with store.transaction() as tx:
        outbox.close(tx, answers, rows, ["old", "unknown"])
        assert tx.fresh == rows
    with store.transaction() as tx:
        assert outbox.due(tx, 150.0, 150.0, 10) == [row("kept"), *rows]
        assert inbox.outcomes(tx, [("ada", "1"), ("ada", "2")]) == {
            ("ada", "1"): None,
            ("ada", "2"): answers.get(("ada", "2")),
        }


def test_two_relays_share_the_work(store: Store) -> None:
    if store.dialect == "sqlite":
        return  # one writer at a time: the second waits for the first
    with store.transaction() as tx:
        outbox.add(tx, [row(f"{i:02}") for i in range(10)])
    with store.transaction() as one, store.transaction() as two:
        first, second = outbox.due(one, 900.0, 900.0, 6), outbox.due(two, 900.0, 900.0, 6)
    assert len(first) == 6
    assert len(second) == 4
    assert not {r.jti for r in first} & {r.jti for r in second}
