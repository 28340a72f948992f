"""Heads of task queues and pages of job ids, against what is in the table."""

from __future__ import annotations

import random

import pytest

from consumers.store import Store, heads, queues
from consumers.store.heads import FIRST
from schemas.job import JobStatus
from tests.support.jobs import put_job
from tests.support.messages import user

pytestmark = pytest.mark.integration

ADA = user("ada")


@pytest.fixture
def levels(store: Store) -> dict[tuple[int, int], list[tuple[float, int]]]:
    """Jobs in some queues at some priorities, and others that do not wait; what waits, by level."""
    random_ = random.Random(5)
    found: dict[tuple[int, int], list[tuple[float, int]]] = {}
    with store.transaction() as tx:
        keys = queues.queue_ids(tx, [(number, ADA.identity, ADA.group) for number in range(1, 9)])
    for job in range(1, 201):
        queue, priority = random_.choice(sorted(keys.values())), random_.choice((0, 1, 1, 5, 10))
        waits = random_.random() < 0.8
        submitted = float(random_.randrange(20))
        status = JobStatus.WAITING if waits else JobStatus.KILLED
        put_job(store, job, ADA, status=status, queue_id=queue, class_id=1, priority=priority, submitted=submitted)
        if waits:
            found.setdefault((queue, priority), []).append((submitted, job))
    return {level: sorted(found[level]) for level in sorted(found)}


def test_all_levels_are_found_in_order_whole_and_in_slices(
    store: Store, levels: dict[tuple[int, int], list[tuple[float, int]]]
) -> None:
    expected = [(*level, some[0][0]) for level, some in levels.items()]
    with store.reading() as tx:
        assert heads.scan(tx) == expected
        sliced, after = [], FIRST
        while some := heads.scan(tx, after, 3):
            sliced += some
            after = some[-1][:2]
        assert sliced == expected
        wanted = {queue for queue, _ in levels} - {expected[0][0]}
        assert sorted(heads.of(tx, [*wanted, 999])) == [one for one in expected if one[0] in wanted]


def test_pages_go_on_behind_their_mark(store: Store, levels: dict[tuple[int, int], list[tuple[float, int]]]) -> None:
    with store.reading() as tx:
        for level, expected in levels.items():
            read, mark = [], heads.START
            while some := heads.page(tx, level, 2, mark):
                read += some
                mark = some[-1]
            assert read == expected
        assert heads.pages(tx, [(level, heads.START) for level in [*levels, (999, 1)]], 3) == {
            level: some[:3] for level, some in levels.items()
        }
        behind = heads.pages(tx, [(level, some[0]) for level, some in levels.items()], 1000)
        assert behind == {level: some[1:] for level, some in levels.items() if len(some) > 1}
