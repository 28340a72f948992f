from __future__ import annotations

import pytest

from consumers.domain.shares import (
    DEFAULT_SHARE,
    LEAST_SHARE,
    MAX_CREDIT,
    RENORMALIZED_AFTER,
    Clock,
    Member,
    Policy,
    Turns,
)

DAY = 86_400.0


def turns(*names: str, lately: float = 0.0) -> tuple[Turns, list[Member]]:
    clock = Clock(DAY)
    clock.at(0.0)
    made = Turns(clock, lately)
    members = [Member(name) for name in names]
    for member in members:
        made.join(member)
    return made, members


def first(made: Turns) -> str:
    return made.order[0][-1]


class TestClock:
    def test_a_processor_weighs_twice_as_much_after_each_half_life(self) -> None:
        clock = Clock(DAY)
        assert clock.at(1000.0) == 0
        assert clock.weight == 1.0
        clock.at(1000.0 + DAY)
        assert clock.weight == 2.0
        clock.at(1000.0 + 2.5 * DAY)
        assert clock.weight == pytest.approx(2**2.5)

    def test_it_never_goes_back(self) -> None:
        clock = Clock(DAY)
        clock.at(DAY)
        clock.at(3 * DAY)
        assert clock.at(0.0) == 0
        assert (clock.now, clock.weight) == (3 * DAY, 4.0)

    def test_it_starts_anew_before_the_weight_gets_too_large(self) -> None:
        clock = Clock(DAY)
        clock.at(0.0)
        assert clock.at((RENORMALIZED_AFTER - 1) * DAY) == 0
        assert clock.at((RENORMALIZED_AFTER + 0.5) * DAY) == RENORMALIZED_AFTER
        assert clock.weight == pytest.approx(2**0.5)
        assert clock.epoch == RENORMALIZED_AFTER * DAY


def test_policy_says_which_part_fades_lately() -> None:
    assert Policy(half_life=DAY, credit=DAY).lately == 0.5
    assert Policy().lately == pytest.approx(0.0143, abs=1e-4)


class TestTurns:
    def test_a_charge_is_by_processors_and_share(self) -> None:
        made, [one] = turns("a")
        one.share = 2 * DEFAULT_SHARE
        made.charge(one, 8.0)
        assert (one.turn, one.used, made.used) == (4.0, 8.0, 8.0)
        made.refund(one, 8.0)
        assert (one.turn, one.used, made.used) == (0.0, 0.0, 0.0)

    def test_ties_go_by_name(self) -> None:
        made, [_, two] = turns("b", "a")
        assert first(made) == "a"
        made.charge(two, 1.0)
        assert first(made) == "b"

    def test_a_pass_outlives_an_absence(self) -> None:
        made, [one, two] = turns("a", "b")
        made.charge(one, 5.0)
        made.leave(one)
        made.charge(two, 1.0)
        made.join(one)
        assert one.turn == 5.0
        assert first(made) == "b"

    @pytest.mark.parametrize(
        ("last", "used", "shares", "expected"),
        [
            (1000.0, 1e9, 2000, 1000.0 * 0.1),  # what he would have had
            (1000.0, 1000.0, 4000, 1000.0 * 0.1 / 4),  # his share of what all had
            (1e9, 1e9, 1000, MAX_CREDIT),
        ],
    )
    def test_a_credit_is_the_least_of_three(self, last: float, used: float, shares: float, expected: float) -> None:
        made, [one] = turns("a", lately=0.1)
        made.last[False], made.used, made.shares[False] = last, used, shares
        assert last - made.floor(one) == pytest.approx(expected)
        made.charge(one, 1.0)
        assert one.turn == pytest.approx(last - expected + 1.0)

    def test_the_most_credit_is_counted_as_of_now(self) -> None:
        made, [one] = turns("a", lately=0.5)
        made.last[False] = made.used = 1e9
        made.clock.at(3 * DAY)
        assert 1e9 - made.floor(one) == pytest.approx(8 * MAX_CREDIT)

    def test_a_new_share_keeps_the_processors_that_one_is_ahead_by(self) -> None:
        made, [one, two] = turns("a", "b")
        made.set_share(one, 100)
        made.last[False] = 50.0
        one.turn, two.turn = 60.0, 50.0  # a is ahead by one processor
        made.sort(one)
        made.set_share(one, 1000)
        assert one.turn == 51.0
        made.set_share(one, 0)
        assert (one.background, one.share) == (True, LEAST_SHARE)
        assert [name for *_, name in made.order] == ["b", "a"]
        assert made.shares == [1000.0, LEAST_SHARE]

    def test_background_comes_last_and_has_its_own_virtual_time(self) -> None:
        made, [one, two] = turns("a", "b")
        made.set_share(one, 1000, background=True)
        made.charge(two, 100.0)
        assert [name for *_, name in made.order] == ["b", "a"]
        made.charge(two, 1.0)
        made.charge(one, 7.0)
        made.charge(one, 1.0)
        assert made.last == [100.0, 7.0]

    def test_shares_of_those_who_have_work(self) -> None:
        made, [one, two] = turns("a", "b")
        assert made.shares == [2000.0, 0.0]
        made.set_share(two, 500.5)
        made.leave(one)
        assert made.shares == [500.5, 0.0]
        made.set_share(one, 3.0)
        made.leave(two)
        assert made.shares == [0.0, 0.0]
        made.join(one)
        assert made.shares == [3.0, 0.0]

    def test_dividing_changes_no_order(self) -> None:
        made, members = turns("a", "b", "c")
        for number, member in enumerate(members):
            made.charge(member, 2.0 ** (70 - number))
        before = [name for *_, name in made.order]
        made.divide(64, members)
        assert [name for *_, name in made.order] == before
        assert [member.turn for member in members] == [64.0, 32.0, 16.0]
        made.charge(members[2], 100.0)
        assert [name for *_, name in made.order] == ["b", "a", "c"]

    def test_who_may_be_forgotten(self) -> None:
        made, [one, two] = turns("a", "b")
        made.charge(one, 1.0)
        assert not made.is_forgettable(one), "he has work"
        made.leave(one)
        assert not made.is_forgettable(one), "he would be before his turn"
        made.charge(two, 2.0)
        made.charge(two, 2.0)
        assert not made.is_forgettable(one), "what he used is not faded yet"
        made.clock.at(7 * DAY)
        assert made.is_forgettable(one)
