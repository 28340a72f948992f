"""What owners used, and sessions, on both databases."""

from __future__ import annotations

import pytest

from consumers.store import Store, sessions, usage
from consumers.store.usage import Usage

pytestmark = pytest.mark.integration

ADA, BOB, GROUP, PROD = "/CN=Ada", "/CN=Bob", "vo_user", "vo_prod"
NOW = 1_800_000_000.0


def test_what_is_added_is_summed_by_owner_and_by_group(store: Store) -> None:
    with store.transaction() as tx:
        usage.hold(tx)
        usage.add(tx, ADA, GROUP, NOW, count=3, size=10)
        usage.add(tx, ADA, GROUP, NOW + 1, count=2, size=5)
        usage.add(tx, ADA, PROD, NOW, count=1, size=1)
        usage.add(tx, BOB, GROUP, NOW, count=7, size=2)
    with store.reading() as tx:
        assert usage.of_owner(tx, ADA, NOW) == Usage(active=6, submissions=3, jobs=6, bytes=16)
        assert usage.of_group(tx, GROUP, NOW) == Usage(active=12, submissions=3, jobs=12, bytes=17)
        assert usage.of_owner(tx, "/CN=nobody", NOW) == Usage()


def test_windows_end_active_jobs_do_not(store: Store) -> None:
    with store.transaction() as tx:
        usage.add(tx, ADA, GROUP, NOW, count=3, size=10)
    with store.reading() as tx:
        assert usage.of_owner(tx, ADA, NOW + 60) == Usage(active=3, jobs=3, bytes=10)
        assert usage.of_owner(tx, ADA, NOW + 3600) == Usage(active=3)
    with store.transaction() as tx:
        usage.add(tx, ADA, GROUP, NOW + 3600, count=1, size=1)
        assert usage.of_owner(tx, ADA, NOW + 3600) == Usage(active=4, submissions=1, jobs=1, bytes=1)


def test_jobs_that_run_again(store: Store) -> None:
    with store.transaction() as tx:
        usage.add_active(tx, ADA, GROUP, 2)
        usage.add_active(tx, ADA, GROUP, 1)
        usage.add(tx, ADA, GROUP, NOW, count=1, size=1)
        assert usage.of_owner(tx, ADA, NOW) == Usage(active=4, submissions=1, jobs=1, bytes=1)


def test_a_count_touches_only_whom_it_counts(store: Store) -> None:
    with store.transaction() as tx:
        for owner, grp in ((ADA, GROUP), (ADA, PROD), (BOB, GROUP)):
            usage.add(tx, owner, grp, NOW, count=5, size=1)
        usage.recount(tx, NOW + 1, owner=ADA)
        assert (usage.of_owner(tx, ADA, NOW).active, usage.of_owner(tx, ADA, NOW).counted) == (0, NOW + 1)
        assert usage.of_owner(tx, BOB, NOW).active == 5
        usage.recount(tx, NOW + 2, grp=GROUP)
        assert usage.of_group(tx, GROUP, NOW).active == 0


def test_sessions_of_many_and_forgetting_one_that_did_not_come_back(store: Store) -> None:
    with store.transaction() as tx:
        sessions.put(tx, "a.1", ADA, GROUP, "t1", "user", NOW)
        sessions.put(tx, "b.1", BOB, GROUP, "t2", "pilot", NOW)
    with store.reading() as tx:
        assert sessions.get_many(tx, []) == {}
        found = sessions.get_many(tx, ["a.1", "b.1", "c.1"])
        assert {client: row.identity for client, row in found.items()} == {"a.1": ADA, "b.1": BOB}
    with store.transaction() as tx:
        sessions.put(tx, "a.1", ADA, GROUP, "t3", "user", NOW + 2)  # it logged in anew meanwhile
        assert not sessions.remove(tx, "a.1", NOW + 1)
        assert sessions.remove(tx, "b.1", NOW + 1)
        assert not sessions.remove(tx, "b.1", NOW + 1)
    with store.reading() as tx:
        assert set(sessions.get_many(tx, ["a.1", "b.1"])) == {"a.1"}
