"""The matcher is killed and frozen in the middle of its work while limits hold; the database goes away under it.

What limits promise is looked at from outside, in the store: at no moment more leases live than they allow.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from consumers.store import Store
from consumers.store.errors import StoreUnavailable
from schemas.job import LEASED, JobStatus
from schemas.limits import MatchLimit
from tests.support import servers
from tests.support.rules import set_match_limits
from tests.support.wait import wait_until

from .harness import Stand, stand
from .invariants import check, no_letter_died, nothing_left

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150)]

OTHERS = (
    "dead-letters",
    "job-manager",
    "job-monitor",
    "job-state",
    "optimizer",
    "proxy-manager",
    "relay",
    "replica-catalog",
    "sandbox-store",
)
RUNNING = 2
LIMIT = MatchLimit(scope="job-type=User", running=RUNNING)
LOOK_SECONDS = 0.01
"""Between two looks at the store: a lease too many would live for as long as its payload, half a second at least."""


def start(place: Stand, pilots: int) -> None:
    """Everything serves; the matcher can be armed."""
    set_match_limits(place.store, LIMIT)
    place.serve("gatekeeper")
    place.serve(*OTHERS, known_as="others")
    place.serve("matcher", faults=True)
    for number in range(1, pilots + 1):
        place.start_pilot(number)


@pytest.fixture(scope="module")
def place(tmp_path_factory, postgres) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("matcher"), postgres) as one:
        start(one, 2)
        yield one


@pytest.fixture(autouse=True)
def all_well(request) -> Iterator[None]:
    """A failed case must not take the following ones with it."""
    yield
    if "place" in request.fixturenames:
        place = request.getfixturevalue("place")
        place.disarm()
        if "standby" in place.processes:
            place.kill("standby")
        if "matcher" in place.processes:
            place.thaw("matcher")
        else:
            place.serve("matcher", faults=True)


class Watch:
    """Counts live leases again and again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stop = threading.Event()
        self.most = 0
        self.looks = 0

    def run(self) -> None:
        leased = ", ".join(f"'{status}'" for status in LEASED)
        statement = sa.text(f"SELECT count(*) FROM jobs WHERE status IN ({leased})")
        while not self._stop.wait(LOOK_SECONDS):
            with self._store.reading() as tx:
                self.most = max(self.most, int(tx.connection.execute(statement).scalar_one()))
            self.looks += 1

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(10)
        assert self.looks > 10, "nobody looked"
        assert self.most == RUNNING, f"{self.most} leases lived at once"


def ended(place: Stand, ids: list[int]) -> int:
    return sum(1 for status in place.statuses(ids).values() if status is JobStatus.DONE)


def answers(store: Store) -> bool:
    """Whether the database is there: connections from before its end fail once."""
    try:
        store.ping()
    except StoreUnavailable:
        return False
    return True


def test_a_matcher_that_is_killed_under_load_never_exceeds_a_limit(place):
    with Watch(place.store).watching():
        ids = place.submit(10, tenths=5)
        for done in (1, 3, 5):
            wait_until(lambda done=done: ended(place, ids) >= done, 60, f"{done} jobs to end")
            place.kill("matcher")
            place.serve("matcher", faults=True)
        place.wait_for(ids, 90)
    check(place, ids)


@pytest.mark.parametrize("point", ["committed", "acknowledged"])
def test_a_matcher_that_dies_between_claim_and_reply_never_exceeds_a_limit(place, point):
    """What it had claimed counts for the next leader, until it is accepted after all or given to another."""
    place.arm("matcher", point, "work.waiting.v1")
    with Watch(place.store).watching():
        ids = place.submit(4, tenths=5)
        place.await_death("matcher")
        place.serve("matcher", faults=True)
        place.wait_for(ids, 90)
    check(place, ids)


@pytest.mark.parametrize("point", ["delivered", "uncommitted"])
def test_a_leader_that_stands_still_with_a_request_in_its_hands_does_no_harm(place, point):
    """It wakes when another one leads, with a memory in which nothing runs and everything waits."""
    place.wait_for(place.submit(1))  # it leads
    place.serve("matcher", known_as="standby")
    place.arm("matcher", point, "work.waiting.v1", "SIGSTOP")
    with Watch(place.store).watching():
        ids = place.submit(4, tenths=20)
        place.await_stop("matcher")
        wait_until(lambda: ran(place, ids) >= RUNNING, 40, "jobs to run, led by the standby")
        place.thaw("matcher")
        place.wait_for(ids, 90)
    assert place.processes["matcher"].poll() is None
    check(place, ids)


def ran(place: Stand, ids: list[int]) -> int:
    return sum(1 for job, _ in place.told() if job in ids)


def test_nothing_lies_about_after_all_that(place):
    nothing_left(place)
    no_letter_died(place)


def test_the_database_restarts_under_load(tmp_path_factory):
    """In good order and by SIGKILL; no job is lost, and no limit exceeded."""
    with servers.postgres_cluster() as cluster, stand(tmp_path_factory.mktemp("database"), cluster) as place:
        start(place, 2)
        ids = place.submit(8, tenths=5)
        wait_until(lambda: ended(place, ids) >= 1, 60, "a job to end")
        cluster.restart()
        wait_until(lambda: answers(place.store), 20, "the database")
        wait_until(lambda: ended(place, ids) >= 3, 60, "more jobs to end")
        cluster.kill()
        cluster.start()
        wait_until(lambda: answers(place.store), 20, "the database")
        with Watch(place.store).watching():
            place.wait_for(ids, 90)
        check(place, ids)
        no_letter_died(place)
