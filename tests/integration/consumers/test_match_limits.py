"""The matcher keeps limits on both databases: exactly, at once, after a takeover, while leases end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from consumers.batch import Batch
from consumers.directory import Directory
from consumers.domain.requirements import Requirements
from consumers.job_state import JobState
from consumers.matcher import LEAD_SECONDS, RECONCILE_SECONDS, Matcher
from consumers.settings import LeaseSettings
from consumers.store import Store, leases, queues
from consumers.store.errors import NotLeader
from schemas.limits import MatchLimit
from schemas.messages.event import EndedLease, LeasesEnded, WorkWaiting
from schemas.messages.pilot import Goodbye, Offer, RequestMatch
from schemas.messages.service import MatchResponse
from tests.support.jobs import job_of, put_job
from tests.support.messages import Heard, Sender, admitted, chores, pilot, service, tell, user
from tests.support.rules import set_match_limits

pytestmark = pytest.mark.integration

ADA, BOB = user("ada"), user("bob")
HINT = service("job-state")
NOW = time.time()

Put = Callable[..., int]
Make = Callable[..., Matcher]


def request(site: str = "S1", *, jobs: int = 1, wait: float = 3600.0, ce: str = "") -> RequestMatch:
    offer = Offer(site=site, ce=ce, cpu_seconds=1e9, wall_seconds=1e9, processors=8, memory_mb=1e6, disk_mb=1e6)
    return RequestMatch(slot="main", offer=offer, jobs=jobs, wait_seconds=wait, csrs=(b"csr",))


@pytest.fixture
def put(store: Store) -> Put:
    """Waiting jobs of one owner; returns their queue."""

    def make(*ids: int, owner: Sender = ADA, job_type: str = "User") -> int:
        wanted = Requirements(job_type=job_type)
        with store.transaction() as tx:
            class_id = queues.class_ids(tx, {wanted.digest(): wanted.to_json()})[wanted.digest()]
            key = (class_id, owner.identity, owner.group)
            queue = queues.queue_ids(tx, [key])[key]
        for job in ids:
            put_job(store, job, owner, class_id=class_id, queue_id=queue, submitted=float(job), job_type=job_type)
        return queue

    return make


@pytest.fixture
def make(store: Store, directory: Directory) -> Make:
    """A matcher that leads, with these limits."""

    def made(*limits: MatchLimit, holder: str = "here", now: float = NOW) -> Matcher:
        if limits:
            limit(store, directory, *limits)
        found = Matcher(LeaseSettings(), directory, holder)
        chores(store, found, now)
        return found

    return made


def limit(store: Store, directory: Directory, *limits: MatchLimit) -> None:
    set_match_limits(store, *limits)
    directory.forget()


def ask(store: Store, matcher: Matcher, *asked: tuple[RequestMatch, Sender], now: float = NOW) -> Heard:
    return tell(store, matcher, [admitted(message, sender) for message, sender in asked], now)


def settle(store: Store, matcher: Matcher, now: float) -> list[Heard]:
    """All that the matcher wants to do by itself at this time."""
    heard = []
    for _ in range(50):
        if (matcher.due_in(now) or 0.0) > 0:
            break
        heard.append(chores(store, matcher, now))
    return heard


def given(*heard: Heard) -> list[int]:
    return [
        match.job for one in heard for said in one.said if isinstance(said, MatchResponse) for match in said.matches
    ]


def live(store: Store) -> list[leases.LeaseRow]:
    with store.reading() as tx:
        return sorted(leases.live(tx), key=lambda row: row.job)


def leave(store: Store, sender: Sender, now: float = NOW, *, limited: bool = True) -> list[LeasesEnded]:
    """A pilot ends, and with it its leases; what is said about them."""
    state = JobState(LeaseSettings(), lambda: True, "state", lambda: limited)
    heard = tell(store, state, [admitted(Goodbye(reason="over"), sender)], now)
    return [said for said in heard.said if isinstance(said, LeasesEnded)]


def holder_of(store: Store, job: int) -> Sender:
    """The pilot that has a job."""
    return pilot(job_of(store, job).pilot.partition(".")[2])


def guarded(work: Callable[[], None], errors: list[BaseException]) -> Callable[[], None]:
    """A thread's work, whose error is told."""

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
            raise

    return run


def pilots(count: int) -> list[Sender]:
    return [pilot(str(number)) for number in range(count)]


def test_no_more_run_than_may_and_the_next_starts_when_one_ends(store: Store, put: Put, make: Make) -> None:
    put(*range(1, 9), job_type="MC")
    put(11, 12)
    matcher = make(MatchLimit(scope="site=S1,job-type=MC", running=2))
    crowd = pilots(7)
    first = given(ask(store, matcher, *((request(), one) for one in crowd[:3])))
    assert len(first) == 3  # the third got another type
    rest = ask(store, matcher, *((request(), one) for one in crowd[3:6]), (request("S2"), crowd[6]))
    assert sorted(first + given(rest))[:3] == [1, 2, 3]  # one more at the other site
    assert {row.job for row in live(store)} == {1, 2, 3, 11, 12}
    [ended] = leave(store, crowd[0])
    heard = tell(store, matcher, [admitted(ended, HINT), admitted(ended, HINT)], NOW)
    assert len(given(heard, *settle(store, matcher, NOW))) == 1
    assert len([row for row in live(store) if (row.site, row.job_type) == ("S1", "MC")]) == 2
    assert given(tell(store, matcher, [admitted(ended, HINT)], NOW), *settle(store, matcher, NOW)) == []


def test_several_jobs_for_a_request_count_each(store: Store, put: Put, make: Make) -> None:
    put(*range(1, 9))
    put(*range(11, 19), owner=BOB)
    matcher = make(
        MatchLimit(scope=f"owner={ADA.identity}", running=3),
        MatchLimit(scope="site=*", running=5),
        MatchLimit(scope="group=vo_user", running=9),
    )
    one, other = pilots(2)
    both = request(jobs=8), request("S2", jobs=8)
    heard = ask(
        store,
        matcher,
        *((replace(asked, csrs=(b"a", b"b")), who) for asked, who in zip(both, (one, other), strict=True)),
    )
    assert len(given(heard)) == 9
    assert sorted(row.site for row in live(store)) == ["S1"] * 5 + ["S2"] * 4
    assert len([row for row in live(store) if row.owner == ADA.identity]) == 3


def test_starts_keep_their_distance(store: Store, put: Put, make: Make) -> None:
    put(*range(1, 9))
    matcher = make(MatchLimit(scope="site=S1", delay_seconds=10.0))
    one, other, third = pilots(3)
    assert given(ask(store, matcher, *((request(), who) for who in (one, other, third)))) == [1]
    assert given(*settle(store, matcher, NOW + 9.5)) == []
    assert matcher.due_in(NOW + 9.5) == pytest.approx(0.5)
    assert given(*settle(store, matcher, NOW + 10.0)) == [2]
    assert given(*settle(store, matcher, NOW + 19.0)) == []


def test_a_new_leader_counts_what_runs_and_what_started_lately(store: Store, put: Put, make: Make) -> None:
    queue = put(*range(1, 9))
    put(*range(11, 19), job_type="MC")
    matcher = make(
        MatchLimit(scope="job-type=User", running=2), MatchLimit(scope="site=S1,job-type=MC", delay_seconds=30.0)
    )
    crowd = pilots(6)
    assert len(given(ask(store, matcher, *((request(), one) for one in crowd[:5])))) == 3
    [short] = [row.job for row in live(store) if row.job_type == "MC"]
    leave(store, holder_of(store, short), NOW + 1)
    later = NOW + LEAD_SECONDS + 1
    other = make(holder="there", now=later)
    assert other.wants_queues()
    assert given(*settle(store, other, later), ask(store, other, (request(), crowd[5]), now=later)) == []
    with pytest.raises(NotLeader):  # the old one was paused, and counts for itself
        tell(store, matcher, [admitted(WorkWaiting(queues=(queue,)), HINT)], later)
    assert len(live(store)) == 2
    assert given(*settle(store, other, NOW + 29.9)) == []
    assert [job > 10 for job in given(*settle(store, other, NOW + 30.0))] == [True]


def test_a_lost_hint_is_made_good(store: Store, put: Put, make: Make) -> None:
    put(1, 2)
    matcher = make(MatchLimit(scope="group=*", running=1))
    one, other = pilots(2)
    assert given(ask(store, matcher, (request(), one), (request(), other))) == [1]
    assert leave(store, one, limited=False) == []
    answers = [given(*settle(store, matcher, NOW + 2 * second)) for second in range(1, int(RECONCILE_SECONDS / 2) + 3)]
    assert answers[0] == []
    assert [job for some in answers for job in some] == [1]  # it waits again, and is the oldest


@pytest.mark.parametrize("again_at", ["S1", "S2"])
def test_a_job_that_is_matched_again_before_its_end_is_told_counts_once(
    store: Store, put: Put, make: Make, again_at: str
) -> None:
    queue = put(1)
    matcher = make(MatchLimit(scope="site=S1", running=2))
    crowd = pilots(5)
    assert given(ask(store, matcher, (request(), crowd[0]))) == [1]
    leave(store, crowd[0], limited=False)  # the end is not told, but that the job waits again
    tell(store, matcher, [admitted(WorkWaiting(queues=(queue,)), HINT)], NOW)
    assert given(ask(store, matcher, (request(again_at), crowd[1]))) == [1]
    settle(store, matcher, NOW)
    put(2, 3, 4)
    tell(store, matcher, [admitted(WorkWaiting(queues=(queue,)), HINT)], NOW)
    assert len(given(ask(store, matcher, *((request(), one) for one in crowd[2:])))) == (1 if again_at == "S1" else 2)
    leave(store, crowd[1], limited=False)
    ended = LeasesEnded(leases=(EndedLease(job=1, attempt=job_of(store, 1).attempt),))
    heard = tell(store, matcher, [admitted(ended, HINT)], NOW)
    assert len(given(heard, *settle(store, matcher, NOW))) == (1 if again_at == "S1" else 0)


def test_limits_are_raised_and_lowered_while_it_runs(store: Store, directory: Directory, put: Put, make: Make) -> None:
    put(*range(1, 9))
    matcher = make()
    crowd = pilots(8)
    assert len(given(ask(store, matcher, *((request(), one) for one in crowd[:3])))) == 3
    limit(store, directory, MatchLimit(scope="site=S1", running=2))
    assert given(ask(store, matcher, *((request(), one) for one in crowd[3:6]))) == []
    assert len(live(store)) == 3  # what runs goes on
    limit(store, directory, MatchLimit(scope="site=S1", running=5))
    assert len(given(*settle(store, matcher, NOW + 1.1))) == 2
    limit(store, directory, MatchLimit(scope="site=S1", running=0, reason="broken"))
    heard = ask(store, matcher, (request(wait=0), crowd[6]), now=NOW + 1.2)
    [answer] = [said for said in heard.said if isinstance(said, MatchResponse)]
    assert "site S1: 5 of 0 jobs run (broken)" in answer.reasons
    set_match_limits(store)
    directory.forget()
    assert len(given(*settle(store, matcher, NOW + 2.2))) == 1


def test_a_claim_that_was_rolled_back_does_not_count(store: Store, put: Put, make: Make) -> None:
    queue = put(1, 2)
    matcher = make(MatchLimit(scope="site=S1", running=1))
    messages = [admitted(request(), pilot("1")), admitted(WorkWaiting(queues=(queue,)), HINT)]

    def fail() -> None:
        with store.transaction() as tx:
            batch = Batch(tx, NOW)
            matcher.handle(batch, messages)
            raise ZeroDivisionError([letter.name for letter in batch.letters])

    with pytest.raises(ZeroDivisionError, match=r"match\.response"):
        fail()
    matcher.on_rollback()
    settle(store, matcher, NOW)
    assert given(ask(store, matcher, (request(), pilot("2")))) == [1]


def test_a_site_without_room_costs_nobody_elsewhere_his_job(store: Store, put: Put, make: Make) -> None:
    matcher = make(MatchLimit(scope="site=S1", running=1), MatchLimit(scope="ce=ce1", running=0))
    crowd = pilots(60)
    asked = [(request("S2" if number < 2 else "S1", ce="ce1" if number == 1 else ""), one)
             for number, one in enumerate(crowd)]  # fmt: skip
    for number in range(0, 60, 6):
        ask(store, matcher, *asked[number : number + 6], now=NOW + number / 100)
    queue = put(*range(1, 5))
    heard = tell(store, matcher, [admitted(WorkWaiting(queues=(queue,)), HINT)], NOW + 1)
    assert len(given(heard, *settle(store, matcher, NOW + 1.0))) == 2
    assert sorted(row.site for row in live(store)) == ["S1", "S2"]


def test_room_that_the_first_cannot_use_is_the_next_ones(store: Store, put: Put, make: Make) -> None:
    matcher = make(MatchLimit(scope="site=S1", running=1))
    able, unable = pilots(2)
    ask(store, matcher, (request(), able))
    ask(store, matcher, (replace(request(), csrs=()), unable), now=NOW + 0.1)  # newer, so it is looked at first
    queue = put(1, 2)
    heard = tell(store, matcher, [admitted(WorkWaiting(queues=(queue,)), HINT)], NOW + 0.2)
    assert given(heard, *settle(store, matcher, NOW + 0.2)) == [1]


def test_never_above_with_leases_that_end_at_the_same_time(store: Store, put: Put, make: Make) -> None:
    """One thread ends leases as pilots do, one looks at the store all the time, one matches."""
    put(*range(1, 161), job_type="MC")
    put(*range(201, 361), owner=BOB)
    matcher = make(
        MatchLimit(scope="site=S1", running=7),
        MatchLimit(scope="job-type=*", running=5),
        MatchLimit(scope=f"site=S2,owner={BOB.identity}", running=2),
        now=time.time(),
    )
    stop = threading.Event()
    hints: list[LeasesEnded] = []
    worst: list[int] = []
    errors: list[BaseException] = []

    def look() -> None:
        while not stop.is_set():
            rows = live(store)
            worst.append(
                max(
                    sum(row.site == "S1" for row in rows) - 7,
                    sum(row.job_type == "MC" for row in rows) - 5,
                    sum(row.job_type == "User" for row in rows) - 5,
                    sum((row.site, row.owner) == ("S2", BOB.identity) for row in rows) - 2,
                )
            )

    def end() -> None:
        number = 0
        while not stop.is_set():
            for row in live(store):
                number += 1
                if number % 2:
                    continue
                found = leave(store, holder_of(store, row.job), time.time(), limited=number % 3 > 0)
                hints.extend(found)

    threads = [threading.Thread(target=guarded(one, errors)) for one in (look, end)]
    for thread in threads:
        thread.start()
    matched, number = 0, 0
    until = time.monotonic() + 3
    try:
        while time.monotonic() < until:
            number += 1
            some = [
                (request("S1" if (number + n) % 2 else "S2", jobs=1 + n % 2), pilot(f"{number}x{n}")) for n in range(4)
            ]
            told = [admitted(hints.pop(), HINT) for _ in range(len(hints))]
            now = time.time()
            heard = tell(store, matcher, [*told, *(admitted(message, sender) for message, sender in some)], now)
            matched += len(given(heard, *settle(store, matcher, now)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors
    assert max(worst) <= 0
    assert matched > 20
