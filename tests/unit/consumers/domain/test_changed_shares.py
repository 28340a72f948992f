"""Shares or clocks that change while the lead is handed over: nobody is locked out by what he once had."""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from consumers.domain.choose import NoMatch, reserve
from consumers.domain.index import Index
from consumers.domain.requirements import canonical
from consumers.domain.shares import DEFAULT_SHARE
from consumers.domain.standing import LARGEST_JOB, Kept, dump, restore, settle
from schemas.messages.pilot import Offer

NODE = Offer(site="A", cpu_seconds=1e9, processors=LARGEST_JOB)
START = 1.7e9
JOBS = 20_000


def waiting(index: Index, groups: str) -> None:
    for number, group in enumerate(groups):
        index.add_queue(number, canonical(), group, f"owner of {group}")
        index.add(number, 1, 10 * JOBS, START)


def give(index: Index, jobs: int, now: float) -> Counter[str]:
    given: Counter[str] = Counter()
    for _ in range(jobs):
        chosen = reserve(NODE, index, now)
        assert not isinstance(chosen, NoMatch)
        given[index.queue(chosen[0].queue_id).group.name] += 1
    return given


def after_long_work() -> Index:
    index = Index()
    waiting(index, "ab")
    give(index, 2 * JOBS, START)
    return index


def with_a_in_the_background(kept: list[Kept]) -> Index:
    index = Index()
    for group in "ac":
        index.set_share(group, DEFAULT_SHARE, background=True)
    restore(index, kept)
    index.at(START)
    settle(index)
    waiting(index, "ac")
    return index


def test_who_went_into_the_background_while_nobody_led_is_not_locked_out() -> None:
    given = give(with_a_in_the_background(dump(after_long_work())), 2 * LARGEST_JOB, START)
    assert given["a"] >= LARGEST_JOB / 2 - 1, "the others have one job of the largest before him, and no more"


def test_a_change_of_share_is_kept_at_once() -> None:
    index = after_long_work()
    kept = {(one.grp, one.owner): one for one in dump(index)}
    index.charged.clear()
    index.set_share("a", DEFAULT_SHARE, background=True)
    kept |= {(one.grp, one.owner): one for one in dump(index, index.charged)}
    given = give(with_a_in_the_background(list(kept.values())), 100, START)
    assert abs(given["a"] - given["c"]) <= 2


def test_a_change_of_a_members_share_is_kept_at_once() -> None:
    index = after_long_work()
    index.charged.clear()
    index.set_member_share("a", "owner of a", 0)
    assert ("a", "owner of a") in index.charged


def test_a_leader_whose_clock_was_ahead_does_not_stop_the_fading() -> None:
    ahead = Index()
    waiting(ahead, "ab")
    give(ahead, 1000, START + 365 * 86_400)
    index = Index()
    kept = [replace(one, time=START) if one.grp == "b" else one for one in dump(ahead)]  # written since
    restore(index, kept, START)
    index.at(START)
    waiting(index, "ab")
    assert index.turns.order == ahead.turns.order
    used = index.group("a").used / index.clock.weight
    index.at(START + index.policy.half_life)
    assert index.group("a").used / index.clock.weight == used / 2
