from __future__ import annotations

import pytest

from consumers.domain.choose import NoMatch, reserve
from consumers.domain.index import Index
from consumers.domain.requirements import canonical
from consumers.domain.shares import RENORMALIZED_AFTER, Policy
from consumers.domain.standing import Kept, dump, forget, restore
from schemas.messages.pilot import Offer

NODE = Offer(site="A", cpu_seconds=1e9)
DAY = 86_400.0
START = 1.7e9


def index_of(owners: int, jobs: int = 1000) -> Index:
    index = Index()
    index.at(START)
    for number in range(owners):
        index.add_queue(number, canonical(), f"g{number % 3}", f"o{number}")
        index.add(number, 1, jobs, START)
    index.set_share("g0", 3000)
    index.set_share("g2", 500, background=True)
    return index


def give(index: Index, jobs: int, start: float, step: float = 1000.0) -> list[int]:
    given = []
    for number in range(jobs):
        outcome = reserve(NODE, index, start + number * step)
        assert not isinstance(outcome, NoMatch)
        given.append(outcome[0].queue_id)
    return given


def taken_over(index: Index, kept: list[Kept], now: float, policy: Policy | None = None) -> Index:
    """What a new leader has."""
    new = Index(policy)
    new.set_share("g0", 3000)
    new.set_share("g2", 500, background=True)
    restore(new, kept)
    new.at(now)
    for number in index:
        queue = index.queue(number)
        new.add_queue(number, queue.requirements, queue.group.name, queue.owner.name)
        new.set_counts(number, {key: (level.count, level.oldest) for key, level in queue.levels.items()})
    return new


def test_what_is_kept_is_exact() -> None:
    index = index_of(7)
    give(index, 300, START)
    new = taken_over(index, dump(index), START + 300_000)
    assert new.turns.order == index.turns.order
    assert new.turns.last == index.turns.last
    assert new.turns.used == pytest.approx(index.turns.used, rel=1e-12)  # a sum, in another order
    for name, group in index.groups.items():
        assert new.groups[name].turns.order == group.turns.order
        assert new.groups[name].turns.last == group.turns.last
    assert give(new, 500, START + 300_000) == give(index, 500, START + 300_000)


def test_changes_alone_are_enough() -> None:
    index = index_of(7)
    kept = {(one.grp, one.owner): one for one in dump(index)}
    for step in range(20):
        give(index, 3, START + step * DAY, 1.0)
        kept |= {(one.grp, one.owner): one for one in dump(index, index.charged)}
        index.charged.clear()
    new = taken_over(index, list(kept.values()), START + 20 * DAY)
    assert new.turns.order == index.turns.order
    assert give(new, 100, START + 20 * DAY) == give(index, 100, START + 20 * DAY)


def test_rows_of_different_moments_are_brought_to_one() -> None:
    """As after a change of the half-life, or where one row is of before a new beginning of the clock."""
    rows = [Kept("g0", "", 8.0, 8.0, 0.0, 0.0, START), Kept("g1", "", 4.0, 4.0, 0.0, 0.0, START + 2 * DAY)]
    new = taken_over(Index(), rows, START + 2 * DAY)
    assert (new.groups["g0"].turn, new.groups["g1"].turn) == (2.0, 4.0)
    assert new.turns.used == 6.0
    quick = taken_over(Index(), rows, START + 2 * DAY, Policy(half_life=DAY / 2))
    assert quick.groups["g0"].turn == 0.5


def test_nothing_is_kept_of_who_never_had_anything() -> None:
    index = index_of(3)
    assert [(one.grp, one.owner) for one in dump(index)] == [("", "")]
    assert dump(Index()) == []
    restore(index, [])


def test_a_new_beginning_of_the_clock_is_kept_too() -> None:
    index = index_of(7)
    give(index, 50, START)
    later = START + (RENORMALIZED_AFTER + 3) * DAY
    give(index, 1, later)
    assert {one.time for one in dump(index)} == {index.clock.epoch}
    assert index.clock.epoch != START
    new = taken_over(index, dump(index), later)
    assert give(new, 200, later) == give(index, 200, later)


def test_who_is_forgotten_would_be_treated_the_same_anew() -> None:
    one, two = index_of(9), index_of(9)
    for index in (one, two):
        give(index, 200, START)
        for number in (0, 3, 4):
            index.drop_queue(number)
        give(index, 200, START + 30 * DAY)
    gone = forget(one)
    assert {name for _, name in gone} == {"o0", "o3", "o4"}
    assert forget(one) == []
    for index in (one, two):
        for number in (0, 3, 4):
            index.add_queue(number, canonical(), f"g{number % 3}", f"o{number}")
            index.add(number, 1, 1000, START)
    counts = [give(index, 300, START + 31 * DAY, 1.0) for index in (one, two)]
    for number in range(9):
        assert abs(counts[0].count(number) - counts[1].count(number)) <= 1


def test_whose_share_is_set_is_not_forgotten() -> None:
    index = index_of(3)
    index.set_member_share("g1", "o1", 2000)
    for number in range(3):
        index.drop_queue(number)
    forget(index)
    assert index.groups["g1"].owners["o1"].share == 2000
    assert "g0" in index.groups
    index.set_share("g0", 1000)
    forget(index)
    assert "g0" not in index.groups
