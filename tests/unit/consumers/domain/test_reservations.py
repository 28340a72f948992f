"""A whole-node job among small ones that never end: it starts, and little is idle for it."""

from __future__ import annotations

import random
from itertools import count

import pytest
from msgspec.structs import replace

from consumers.domain.choose import NoMatch, reserve
from consumers.domain.index import Index
from consumers.domain.requirements import canonical
from consumers.domain.reservations import FORGOTTEN, LONGEST, MOST_PER_QUEUE, PATIENCE, Only, Reservations
from consumers.domain.running_limits import Lease, RunningLimits
from schemas.limits import MatchLimit
from schemas.messages.pilot import Offer

LARGE, SMALL = 1, 2
PROCESSORS = 8
START = 1_000_000.0


def offer(free: int, processors: int = PROCESSORS) -> Offer:
    return Offer(
        site="A",
        cpu_seconds=1e9,
        wall_seconds=1e9,
        processors=free,
        memory_mb=1000.0 * free,
        whole_node=free == processors,
        total_processors=processors,
        total_memory_mb=1000.0 * processors,
    )


@pytest.fixture
def index() -> Index:
    made = Index()
    made.add_queue(LARGE, canonical(whole_node=True, min_processors=4), "large", "ada")
    made.add_queue(SMALL, canonical(), "small", "bob")
    made.add(SMALL, 1, 1_000_000, START)
    return made


def simulate(index: Index, seconds: int, reserving: bool) -> tuple[float | None, float]:
    """Twenty pilots full of jobs of an hour at most; when the large job starts, and which part of all was idle."""
    random_ = random.Random(3)
    reservations = Reservations(index)
    ends = [[START + random_.uniform(0, 3600) for _ in range(PROCESSORS)] for _ in range(20)]
    idle, started = 0.0, None
    for now in (START + step for step in count(0, 10)):
        if now > START + seconds:
            return started, idle / (seconds * 20 * PROCESSORS)
        for number, busy in enumerate(ends):
            busy[:] = [end for end in busy if end > now]
            while len(busy) < PROCESSORS:
                free = offer(PROCESSORS - len(busy))
                key = (f"p{number}", "main")
                queue = reservations.ask(key, free, now, None, None) if reserving else None
                chosen = reserve(free, index, now, 1, None, Only(queue, None) if queue is not None else None)
                if isinstance(chosen, NoMatch):
                    break
                reservations.release(key)
                if chosen[0].queue_id == LARGE:
                    started = now
                    busy.extend([now + 3600] * PROCESSORS)
                else:
                    busy.append(now + random_.uniform(600, 3600))
            idle += 10 * (PROCESSORS - len(busy))
        reservations.review(now)
    raise AssertionError


def test_a_whole_node_job_starts_within_bounded_time_and_loss(index: Index) -> None:
    index.add(LARGE, 1, 1, START)
    started, idle = simulate(index, 20_000, reserving=True)
    assert started is not None
    assert started - START <= PATIENCE + 3600 + 20, "patience, and the longest of what ran there"
    assert idle < 0.01


def test_without_reservations_it_starves(index: Index) -> None:
    index.add(LARGE, 1, 1, START)
    started, _ = simulate(index, 20_000, reserving=False)
    assert started is None


def test_no_more_pilots_are_kept_than_jobs_wait_and_few_at_a_time(index: Index) -> None:
    index.add(LARGE, 1, 2, START)
    reservations = Reservations(index)
    now = START + PATIENCE + 1
    kept = [reservations.ask((f"p{number}", "main"), offer(1), now, None, None) is not None for number in range(5)]
    assert kept == [True, True, False, False, False]
    index.add(LARGE, 1, 100, START)
    for number in range(2, 10):
        reservations.ask((f"p{number}", "main"), offer(1), now, None, None)
    assert len(reservations) == MOST_PER_QUEUE
    index.remove(LARGE, 1, 100)
    assert len(reservations.review(now)) == MOST_PER_QUEUE - 2
    assert len(reservations) == 2


def test_nobody_is_kept_before_patience_is_over_nor_out_of_turn(index: Index) -> None:
    index.add(LARGE, 1, 1, START)
    reservations = Reservations(index)
    assert reservations.ask(("p", "main"), offer(1), START + PATIENCE - 1, None, None) is None
    index.take(LARGE, processors=8)
    index.add(LARGE, 1, 1, START)  # the group has just had its turn
    assert reservations.ask(("p", "main"), offer(1), START + PATIENCE + 1, None, None) is None


@pytest.mark.parametrize("after", [LONGEST + 1, FORGOTTEN + 1])
def test_it_is_given_up_after_a_time(index: Index, after: float) -> None:
    index.add(LARGE, 1, 1, START)
    reservations = Reservations(index)
    now = START + PATIENCE + 1
    assert reservations.ask(("p", "main"), offer(1), now, None, None) is not None
    for later in range(300, int(after) - 300 if after > LONGEST else 0, 300):
        assert reservations.ask(("p", "main"), offer(1), now + later, None, None) is not None
    assert reservations.review(now + after) == [("p", "main")]
    assert ("p", "main") not in reservations
    again = reservations.ask(("p", "main"), offer(1), now + after, None, None)
    assert (again is None) == (after > LONGEST)


def test_it_is_given_up_when_the_job_is_gone(index: Index) -> None:
    index.add(LARGE, 1, 1, START)
    reservations = Reservations(index)
    now = START + PATIENCE + 1
    assert reservations.ask(("p", "main"), offer(1), now, None, None) is not None
    index.remove(LARGE, 1)
    assert reservations.review(now) == [("p", "main")]


def test_it_is_given_up_when_the_pilot_could_not_have_the_job_any_more(index: Index) -> None:
    long = canonical(whole_node=True, cpu_seconds=86400)
    index.add_queue(3, long, "large", "ada")
    index.add(3, 1, 1, START)
    reservations = Reservations(index)
    now, key = START + PATIENCE + 1, ("p", "main")
    kept = reservations.ask(key, replace(offer(1), cpu_seconds=90_000.0), now, None, None)
    assert kept is not None
    assert kept.id == 3
    assert reservations.ask(key, replace(offer(1), cpu_seconds=86_000.0), now + 400, None, None) is None, "too late"
    assert key not in reservations


def test_it_is_given_up_when_a_limit_is_reached_or_the_owner_barred(index: Index) -> None:
    index.add(LARGE, 1, 2, START)
    limits = RunningLimits((MatchLimit(scope="group=large", running=1),))
    now, key = START + PATIENCE + 1, ("p", "main")
    for closing, serving in ((True, True), (False, False)):
        reservations = Reservations(index)
        assert reservations.ask(key, offer(1), now, None, limits.closed_for(offer(1), index, now)) is not None
        if closing:
            limits.started(Lease(1, 1, "B", "", "User", "ada", "large", now))
        closed = limits.closed_for(offer(1), index, now)
        assert reservations.ask(key, offer(1), now + 1, lambda *_, ok=serving: ok, closed) is None
        assert key not in reservations
        limits.ended(1, 1)
