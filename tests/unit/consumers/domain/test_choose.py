from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest

from consumers.domain.choose import NoMatch, choose, cost, reserve
from consumers.domain.index import AGEING_SECONDS, Index, rank
from consumers.domain.requirements import Condition, canonical
from consumers.domain.shares import MAX_CREDIT, Policy
from schemas.messages.pilot import Offer

NODE = Offer(site="A", cpu_seconds=1e9, processors=8, memory_mb=64_000)
EASY = canonical(cpu_seconds=100)
MANY = 1_000_000


def index_of(*queues: tuple[str, str], jobs: int = MANY) -> Index:
    """One queue per (group, owner), numbered from 0."""
    index = Index()
    for number, (group, owner) in enumerate(queues):
        index.add_queue(number, EASY, group, owner)
        index.add(number, 1, jobs, 0.0)
    return index


def draw(index: Index, times: int, offer: Offer = NODE) -> Counter[int]:
    counts: Counter[int] = Counter()
    for _ in range(times):
        outcome = reserve(offer, index, 0.0)
        assert not isinstance(outcome, NoMatch)
        counts[outcome[0].queue_id] += 1
    return counts


class TestShares:
    def test_equal_groups_get_equal_shares_whatever_their_owners(self) -> None:
        index = index_of(("g0", "o0"), ("g1", "o0"), ("g1", "o1"), ("g1", "o2"))
        assert draw(index, 600) == {0: 300, 1: 100, 2: 100, 3: 100}

    def test_shares_are_exact(self) -> None:
        index = index_of(("big", "o"), ("small", "o"))
        index.set_share("big", 10_000)
        assert draw(index, 1100) == {0: 1000, 1: 100}

    def test_several_at_once_are_as_one_by_one(self) -> None:
        one_by_one, at_once = (index_of(("g0", "o"), ("g1", "o"), ("g2", "o")) for _ in range(2))
        outcome = reserve(NODE, at_once, 0.0, 7)
        assert not isinstance(outcome, NoMatch)
        assert Counter(choice.queue_id for choice in outcome) == draw(one_by_one, 7)

    def test_who_was_idle_has_saved_up_what_the_last_half_hour_gave(self) -> None:
        index = index_of(("g0", "o"), ("g1", "o"))
        index.remove(1, 1, MANY)
        draw(index, 1000)
        index.add(1, 1, MANY, 0.0)
        saved = int(1000 * Policy().lately / 2) + 1  # half of it: there are two
        assert draw(index, saved) == {1: saved}
        assert draw(index, 10) == {0: 5, 1: 5}

    def test_who_was_passed_over_has_saved_up_little(self) -> None:
        index = index_of(("g0", "o"))
        index.add_queue(1, canonical(sites=["B"]), "g1", "o")
        index.add(1, 1, MANY, 0.0)
        draw(index, 10_000)
        counts = draw(index, 1000, Offer(site="B", cpu_seconds=1e9))
        saved = 10_000 * Policy().lately / 2
        assert counts[1] == pytest.approx(saved + (1000 - saved) / 2, abs=2)

    def test_nobody_saves_up_more_than_a_thousand_processors(self) -> None:
        index = index_of(("g0", "o"), ("g1", "o"))
        index.remove(1, 1, MANY)
        for _ in range(2):
            index.take(0, processors=200_000)
        index.add(1, 1, MANY, 0.0)
        index.refund(0, 200_000.0)
        assert draw(index, 2 * MAX_CREDIT)[1] == pytest.approx(MAX_CREDIT * 1.5, abs=2)

    def test_a_turn_given_back_is_had_again(self) -> None:
        index = index_of(("g0", "o"), ("g1", "o"))
        first = reserve(NODE, index, 0.0)
        assert not isinstance(first, NoMatch)
        index.put_back(first[0].queue_id, first[0].priority, first[0].oldest)
        assert reserve(NODE, index, 0.0) == first

    def test_same_input_same_choices(self) -> None:
        queues = [(f"g{number % 3}", f"o{number}") for number in range(20)]
        choices = [reserve(NODE, index_of(*queues), 0.0, 50) for _ in range(2)]
        assert choices[0] == choices[1]


class TestInsideAnOwner:
    def test_priority_then_age(self) -> None:
        index = Index()
        for number in range(4):
            index.add_queue(number, canonical(memory_mb=number), "g", "o")
        index.add(0, 1, 1, 50.0)
        index.add(1, 1, 1, 40.0)
        index.add(2, 5, 1, 60.0)
        index.add(3, 0, 1, 10.0)
        outcome = reserve(NODE, index, 100.0, 9)
        assert not isinstance(outcome, NoMatch)
        assert [choice.queue_id for choice in outcome] == [2, 1, 0, 3]
        assert [choice.waited for choice in outcome] == [40.0, 60.0, 50.0, 90.0]

    def test_priority_does_not_cross_owners(self) -> None:
        index = Index()
        for number, (owner, priority) in enumerate((("meek", 0), ("pushing", 10))):
            index.add_queue(number, EASY, "g", owner)
            index.add(number, priority, MANY, 0.0)
        assert draw(index, 100) == {0: 50, 1: 50}

    def test_nothing_starves(self) -> None:
        """However many jobs of the highest priority keep coming, the lowest one's turn comes after ten days."""
        index = Index()
        index.add_queue(0, EASY, "g", "o")
        index.add(0, 0, 1, 0.0)
        day = 0
        while True:
            index.add(0, 10, 1, day * AGEING_SECONDS)
            outcome = reserve(NODE, index, day * AGEING_SECONDS)
            assert not isinstance(outcome, NoMatch)
            if outcome[0].priority == 0:
                break
            day += 1
        assert day == 11

    def test_rank_is_priority_plus_age_in_days(self) -> None:
        assert rank(3, 0.0) == rank(4, AGEING_SECONDS)
        assert rank(4, 1.0) < rank(3, 0.0)


class TestNoMatch:
    def test_reasons_are_counted_per_condition(self) -> None:
        index = Index()
        wants = [canonical(sites=[name], cpu_seconds=100) for name in ("B", "C")] + [canonical(cpu_seconds=9e5)]
        for number, want in enumerate(wants):
            index.add_queue(number, want, "g", "o")
            index.add(number, 1, 5, 0.0)
        outcome = choose(Offer(site="A", cpu_seconds=1000.0), index, 0.0)
        assert isinstance(outcome, NoMatch)
        assert outcome.texts() == ("2 classes: site A is not wanted", "1 class: CPU time left is 1000 s")

    def test_nothing_waits(self) -> None:
        outcome = choose(NODE, Index(), 0.0)
        assert isinstance(outcome, NoMatch)
        assert outcome.texts() == ("no job is waiting",)

    def test_private_pilot(self) -> None:
        index = index_of(("g", "o0"), ("g", "o1"))
        private = Offer(site="A", cpu_seconds=1e9, owners=("o1",))
        assert draw(index, 5, private) == {1: 5}
        outcome = choose(Offer(site="A", cpu_seconds=1e9, owners=("o9",)), index, 0.0)
        assert isinstance(outcome, NoMatch)
        assert [reason.condition for reason in outcome.reasons] == [Condition.OWNER]

    def test_groups_that_the_pilot_may_serve(self) -> None:
        index = index_of(("g0", "o"), ("g1", "o"))
        outcome = choose(NODE, index, 0.0, 2, serves=lambda group, _: group == "g1")
        assert not isinstance(outcome, NoMatch)
        assert [choice.queue_id for choice in outcome] == [1, 1]
        assert isinstance(choose(NODE, index, 0.0, serves=lambda group, owner: owner == "nobody"), NoMatch)

    def test_site_mask(self) -> None:
        index = index_of(("g", "o"))
        index.set_usable_sites({"B"})
        assert isinstance(choose(NODE, index, 0.0), NoMatch)
        index.add_queue(5, canonical(job_type="Test"), "g", "o")
        index.add(5, 1, 1, 0.0)
        assert draw(index, 1) == {5: 1}
        index.set_usable_sites(None)
        assert draw(index, 1) == {0: 1}


def test_a_queue_is_known_once() -> None:
    index = index_of(("g", "o"))
    index.add_queue(0, EASY, "g", "o")
    with pytest.raises(ValueError, match="task queue 0 is the same as 7"):
        index.add_queue(7, EASY, "g", "o")
    index.drop_queue(0)
    index.drop_queue(0)
    index.add_queue(7, EASY, "g", "o")
    assert 7 in index
    assert 0 not in index


def test_one_job_at_a_time_gains_no_turns() -> None:
    """Whose queue runs dry and is dropped after each job stays behind those who have waited longer."""
    index = index_of(("g", "honest"), ("g", "other"))
    counts: Counter[int] = Counter()
    for _ in range(300):
        if 9 not in index:
            index.add_queue(9, EASY, "g", "a trickle")
            index.add(9, 1, 1, 0.0)
        outcome = reserve(NODE, index, 0.0)
        assert not isinstance(outcome, NoMatch)
        counts[outcome[0].queue_id] += 1
        if outcome[0].queue_id == 9:
            index.drop_queue(9)
    assert counts == {0: 100, 1: 100, 9: 100}


class Bars:
    """Limits that close what they are told to."""

    def __init__(self, everybody: int = 0, groups: Mapping[str, int] = {}, owners: Mapping[str, int] = {}) -> None:
        self.classes = everybody
        self.groups = groups
        self.owners = owners

    def of_group(self, group: str) -> int:
        return self.groups.get(group, 0)

    def of_owner(self, group: str, owner: str) -> int:
        return self.owners.get(f"{group}/{owner}", 0)


class TestClosed:
    @staticmethod
    def given(index: Index, closed: Bars) -> int | None:
        outcome = choose(NODE, index, 0.0, closed=closed)
        if isinstance(outcome, NoMatch):
            assert [reason.condition for reason in outcome.reasons] == [Condition.LIMIT]
            return None
        return outcome[0].queue_id

    def test_each_scope_closes_its_own(self) -> None:
        index = index_of(("g0", "o0"), ("g0", "o1"), ("g1", "o0"))
        index.add_queue(9, canonical(memory_mb=5), "g1", "o0")
        index.add(9, 1, 1, 0.0)
        easy, other = (1 << index.queue(number).place for number in (0, 9))
        assert self.given(index, Bars()) == 0
        assert self.given(index, Bars(easy)) == 9
        assert self.given(index, Bars(groups={"g0": -1})) == 2
        assert self.given(index, Bars(groups={"g0": easy, "g1": easy})) == 9
        assert self.given(index, Bars(owners={"g0/o0": easy})) == 1
        assert self.given(index, Bars(other, owners={"g0/o0": -1, "g0/o1": -1})) == 2
        assert self.given(index, Bars(-1)) is None
        assert self.given(index, Bars(easy, groups={"g1": other})) is None

    def test_what_is_held_is_counted_apart_from_what_does_not_fit(self) -> None:
        index = index_of(("g0", "o0"))
        index.add_queue(9, canonical(sites=["B"]), "g1", "o0")
        index.add(9, 1, 1, 0.0)
        outcome = choose(NODE, index, 0.0, closed=Bars(owners={"g0/o0": -1}))
        assert isinstance(outcome, NoMatch)
        assert outcome.texts() == ("1 class: site A is not wanted", "1 class: limits are reached")


class TestSharingGroup:
    def shared(self) -> Index:
        index = index_of(("g", "o0"), ("g", "o1"), ("g", "o2"), jobs=0)
        index.set_share("g", 1000, sharing=True)
        for number, submitted in enumerate((30.0, 10.0, 20.0)):
            index.add(number, 1, 2, submitted)
        return index

    def test_all_jobs_are_in_one_order(self) -> None:
        index = self.shared()
        index.add_queue(7, canonical(memory_mb=1), "g", "o0")
        index.add(7, 3, 1, 50.0)
        outcome = reserve(NODE, index, 0.0, 9)
        assert not isinstance(outcome, NoMatch)
        assert [one.queue_id for one in outcome] == [7, 1, 1, 2, 2, 0, 0]

    def test_an_owner_who_may_not_is_passed_over(self) -> None:
        index = self.shared()
        outcome = choose(NODE, index, 0.0, serves=lambda _, owner: owner != "o1")
        assert not isinstance(outcome, NoMatch)
        assert outcome[0].queue_id == 2

    def test_the_first_job_that_fits_counts_not_the_first(self) -> None:
        index = self.shared()
        index.add_queue(7, canonical(sites=["B"]), "g", "o0")
        index.add(7, 1, 1, 0.0)  # o0 is first by this one, and it does not fit
        outcome = choose(NODE, index, 0.0)
        assert not isinstance(outcome, NoMatch)
        assert outcome[0].queue_id == 1

    def test_everybody_is_where_he_should_be_after_any_change(self) -> None:
        random_ = random.Random(5)
        index = index_of(*[(f"g{number % 2}", f"o{number % 5}") for number in range(10)], jobs=0)
        for number in range(10):
            index.add_queue(100 + number, canonical(memory_mb=1), f"g{number % 2}", f"o{number % 5}")
        for step in range(3000):
            number = random_.choice((0, 100)) + random_.randrange(10)
            levels = index.queue(number).levels
            match random_.randrange(7):
                case 0:
                    index.set_share("g0", random_.choice((0, 10, 1000)), sharing=random_.random() < 0.7)
                case 1:
                    index.set_member_share("g1", f"o{number % 5}", random_.choice((0, 10, 1000)))
                case 2 if levels:
                    index.set_head(number, random_.choice(list(levels)), random_.random() * 1e6)
                case 3 if levels:
                    index.remove(number, random_.choice(list(levels)), MANY)
                case 4 | 5:
                    index.add(number, random_.randrange(3), 1, random_.random() * 1e6)
                case _:
                    reserve(NODE, index, float(step * 100))
            for group in index.groups.values():
                assert group.turns.order == sorted(one.standing() for one in group.owners.values() if one.active)
                shares = [
                    sum(one.share for one in group.owners.values() if one.active and one.background == background)
                    for background in (False, True)
                ]
                assert group.turns.shares == shares
            assert index.turns.order == sorted(one.standing() for one in index.groups.values() if one.active)

    def test_turns_come_back_with_the_flag(self) -> None:
        index = self.shared()
        index.set_share("g", 1000)
        assert draw(index, 3) == {0: 1, 1: 1, 2: 1}
        index.set_share("g", 1000, sharing=True)
        assert draw(index, 3) == {1: 1, 2: 1, 0: 1}


@pytest.mark.parametrize("owners", [3, 60])
def test_few_who_fit_among_many_keep_their_turns(owners: int) -> None:
    """Looked up by class, or found on a walk through all: the order is the same."""
    index = index_of(*[("g", f"o{number}") for number in range(owners)])
    rare = canonical(sites=["B"])
    for number in (0, 2):
        index.add_queue(1000 + number, rare, "g", f"o{number}")
        index.add(1000 + number, 1, MANY, 0.0)
    for number in range(owners):
        index.remove(number, 1, MANY)
        index.drop_queue(number)
        index.add_queue(number, canonical(sites=["A"]), "g", f"o{number}")
        index.add(number, 1, MANY, 0.0)
    at_b = Offer(site="B", cpu_seconds=1e9)
    assert draw(index, 5, at_b) == {1000: 3, 1002: 2}
    assert draw(index, 5, at_b) == {1000: 2, 1002: 3}


def test_a_match_costs_the_processors_that_it_takes() -> None:
    index = Index()
    wants = (EASY, canonical(min_processors=4, max_processors=8), canonical(whole_node=True))
    for number, want in enumerate(wants):
        index.add_queue(number, want, f"g{number}", "o")
        index.add(number, 1, MANY, 0.0)
    node = Offer(site="A", cpu_seconds=1e9, processors=8, memory_mb=64_000, whole_node=True)
    assert [cost(want, node) for want in wants] == [1, 4, 8]
    assert draw(index, 110, node) == pytest.approx({0: 80, 1: 20, 2: 10}, abs=1)


def test_a_group_bound_pilot() -> None:
    index = index_of(("g0", "o"), ("g1", "o"))
    assert draw(index, 3, Offer(site="A", cpu_seconds=1e9, groups=("g1",))) == {1: 3}
    outcome = choose(Offer(site="A", cpu_seconds=1e9, groups=("g9",)), index, 0.0)
    assert isinstance(outcome, NoMatch)
    assert [reason.condition for reason in outcome.reasons] == [Condition.GROUP]


def test_owners_without_a_share_get_what_the_others_leave() -> None:
    index = index_of(("g", "o0"), ("g", "o1"), jobs=3)
    index.set_member_share("g", "o0", 0)
    assert draw(index, 3) == {1: 3}
    assert draw(index, 3) == {0: 3}
