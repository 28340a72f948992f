from __future__ import annotations

from consumers.domain.parked import SECTION, ParkedIndex
from consumers.domain.requirements import canonical
from schemas.messages.pilot import Offer

HERE = Offer(site="A", cpu_seconds=1e6)
THERE = Offer(site="B", cpu_seconds=1e6)


def test_newest_first_over_all_kinds_of_offers() -> None:
    parked: ParkedIndex[str] = ParkedIndex()
    for key, offer in (("p1", HERE), ("p2", THERE), ("p3", HERE), ("p4", THERE)):
        parked.add(key, offer)
    assert list(parked.candidates(canonical())) == ["p4", "p3", "p2", "p1"]
    parked.add("p1", THERE)
    assert list(parked.candidates(canonical())) == ["p1", "p4", "p3", "p2"]
    assert list(parked.candidates(canonical(sites=["B"]))) == ["p1", "p4", "p2"]
    assert parked.offer("p1") == THERE
    assert parked.remove("p2") == THERE
    assert parked.remove("p2") is None
    assert "p2" not in parked
    assert len(parked) == 3


def test_private_pilots_are_for_their_owners() -> None:
    parked: ParkedIndex[str] = ParkedIndex()
    parked.add("p", Offer(site="A", cpu_seconds=1e6, owners=("me",)))
    assert list(parked.candidates(canonical(), "me")) == ["p"]
    assert list(parked.candidates(canonical(), "you")) == []


def test_an_offer_has_less_time_the_longer_it_waits() -> None:
    parked: ParkedIndex[int] = ParkedIndex()
    for number in range(100):
        parked.add(number, Offer(site="A", cpu_seconds=40_000, wall_seconds=4_000 + number), since=1000.0)
    want = canonical(cpu_seconds=20_000, wall_seconds=3600)
    assert len(list(parked.candidates(want, now=1000.0))) == 100
    assert list(parked.candidates(want, now=1480.0)) == list(range(99, 79, -1))
    assert list(parked.candidates(want, now=1480.0)) == list(range(99, 79, -1))
    assert list(parked.candidates(want, now=2000.0)) == []


def test_the_rest_is_asked_for_by_place_and_old_sections_go() -> None:
    parked: ParkedIndex[int] = ParkedIndex()
    for number in range(3 * SECTION):
        parked.add(number, HERE)
    found = list(parked.candidates(canonical()))
    assert found == list(range(3 * SECTION - 1, -1, -1))
    assert list(parked.candidates(canonical(), below=parked.place(1500))) == list(range(1499, -1, -1))
    for number in range(2 * SECTION):
        parked.remove(number)
    assert len(parked._sections) == 1
    assert len(list(parked.candidates(canonical()))) == len(parked) == SECTION
