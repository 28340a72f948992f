"""Dead letters, the audit, and what services remember."""

from __future__ import annotations

import pytest

from consumers.store import Store, audit, dead, state

pytestmark = pytest.mark.integration


def letter(number: int) -> dead.NewLetter:
    return dead.NewLetter(time=float(number), queue="q", typ="t.v1", issuer="/CN=a", client="c", reason=f"r{number}\0",
                          body=b"\x00\xff" * number, jws="a..b", user_id="c", headers='{"x":"ä"}')  # fmt: skip


def test_dead_letters_are_listed_read_and_closed(store: Store) -> None:
    with store.transaction() as tx:
        dead.add(tx, [letter(i) for i in range(1, 6)])
        page, more = dead.query(tx, limit=3)
        assert more
        assert [(one.time, one.size) for one in page] == [(5.0, 10), (4.0, 8), (3.0, 6)]
        rest, more = dead.query(tx, before=page[-1].id, limit=3)
        assert not more
        assert [one.time for one in rest] == [2.0, 1.0]
        ids = [one.id for one in page]
        body = dead.get(tx, ids)[ids[0]]
        assert (body.body, body.jws, body.headers) == (b"\x00\xff" * 5, "a..b", '{"x":"ä"}'.encode())
        assert dead.close(tx, ids[:2], dead.REPLAYED, "/CN=op", "fixed", 50.0) == set(ids[:2])
        assert dead.close(tx, ids, dead.DISCARDED, "/CN=op", "", 51.0) == {ids[2]}
        assert len(dead.query(tx)[0]) == 2
        closed = dead.query(tx, ids=ids, closed=True)[0]
        assert [(one.state, one.closed_by) for one in closed] == [("replayed", "/CN=op")] * 2 + [
            ("discarded", "/CN=op")
        ]
        assert dead.purge(tx, 50.5) == 2


def test_the_audit_is_read_backwards(store: Store) -> None:
    with store.transaction() as tx:
        audit.append(tx, 1.0, "login", identity="/CN=a", client="c", detail={"group": "vo"})
        audit.append_many(tx, [(2.0, "login.denied", "/CN=b", "d", {}), (3.0, "login", "/CN=b", "d", {})])
        assert [row.time for row in audit.query(tx)] == [3.0, 2.0, 1.0]
        first = audit.query(tx, event="login", identity="/CN=a")[0]
        assert (first.detail, first.client) == (b'{"group":"vo"}', "c")
        assert [row.time for row in audit.query(tx, before=audit.query(tx)[0].id, limit=1)] == [2.0]


def test_state_is_kept(store: Store) -> None:
    with store.transaction() as tx:
        assert state.get(tx, "drained") is None
        state.put(tx, "drained", b"[1]", 5.0)
        state.put(tx, "drained", b"[2]", 6.0)
        assert state.get(tx, "drained") == (b"[2]", 6.0)
