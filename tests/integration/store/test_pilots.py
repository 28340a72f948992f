"""Pilots, parked requests, orders."""

from __future__ import annotations

import pytest

from consumers.store import Store, orders, parked, pilots
from consumers.store.orders import OrderRow
from consumers.store.parked import ParkedRow
from consumers.store.pilots import Beat, PilotRow

pytestmark = pytest.mark.integration


def request(client: str, slot: str = "0", *, since: float = 1.0, deadline: float = 50.0) -> ParkedRow:
    return ParkedRow(client, slot, "/CN=p", b'{"slot":"0"}', f"reply.{client}", "cid", since, deadline)


def test_a_pilot_comes_offers_beats_and_goes(store: Store) -> None:
    with store.transaction() as tx:
        pilots.seen(tx, "a.1", "/CN=p", 1.0)
        pilots.offered(tx, [PilotRow("a.1", "/CN=p", "Site", "ce", first_seen=2.0, last_seen=2.0, offer=b'{"a":1}')])
        pilots.beat(
            tx, [Beat("a.1", "/CN=p", "Site", 0.5, 100.0, 200.0, 4), Beat("b.2", "/CN=q", "X", 0, 0, 0, 1)], 3.0
        )
        row = pilots.get(tx, ["a.1", "zz"])["a.1"]
        assert (row.first_seen, row.last_seen, row.offer, row.load, row.ce) == (1.0, 3.0, b'{"a":1}', 0.5, "ce")
        pilots.seen(tx, "a.1", "/CN=p", 9.0)
        assert [p.client for p in pilots.mark_lost(tx, 5.0)] == ["b.2"]
        assert pilots.mark_lost(tx, 5.0) == []
        pilots.beat(tx, [Beat("b.2", "/CN=q", "X", 0, 0, 0, 1)], 10.0)
        pilots.gone(tx, ["a.1", "unknown"], 11.0)
        pilots.drain(tx, ["b.2"])
        assert [(p.client, p.status, p.draining) for p in pilots.query(tx)] == [
            ("a.1", pilots.GONE, False),
            ("b.2", pilots.ALIVE, True),
        ]
        assert [p.client for p in pilots.query(tx, status=pilots.ALIVE, site="X")] == ["b.2"]
        assert [p.client for p in pilots.query(tx, after="a.1")] == ["b.2"]
        assert pilots.purge(tx, 100.0) == 1


def test_a_newer_request_of_a_slot_replaces_the_older(store: Store) -> None:
    with store.transaction() as tx:
        parked.put(tx, [request("a", since=1.0), request("a", "1", since=2.0), request("b", since=3.0, deadline=9.0)])
        parked.put(tx, [request("a", since=4.0)])
        rows = parked.page(tx)
        assert [(r.client, r.slot, r.since) for r in rows] == [("b", "0", 3.0), ("a", "0", 4.0), ("a", "1", 2.0)]
        assert parked.page(tx, (rows[0].deadline, "b", "0"), 1) == rows[1:2]
        parked.remove(tx, [("a", "1"), ("c", "9")])
        parked.remove_clients(tx, ["b"])
        assert parked.page(tx) == [request("a", since=4.0)]


def test_orders_are_sent_until_done(store: Store) -> None:
    one = OrderRow(1, 1, "kill", "a", "by me", 10.0, 10.0)
    two = OrderRow(2, 3, "abandon", "a", "", 10.0, 10.0)
    with store.transaction() as tx:
        orders.add(tx, [two, one])
        orders.add(tx, [OrderRow(1, 1, "kill", "a", "again", 12.0, 12.0)])
        assert orders.pending(tx, 11.0, 10) == [two]
        assert [o.job for o in orders.pending(tx, 13.0, 10)] == [2, 1]
        orders.sent(tx, [(2, 3, "abandon")], 20.0)
        orders.done(tx, [((1, 1, "kill"), "killed"), ((9, 9, "kill"), "?")], 15.0)
        assert [(o.job, o.sent) for o in orders.pending(tx, 99.0, 10)] == [(2, 20.0)]
        orders.drop(tx, [(2, 3)])
        assert orders.pending(tx, 99.0, 10) == []
        assert orders.purge(tx, 99.0) == 1
