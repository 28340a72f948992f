from __future__ import annotations

from consumers.domain.parked import ParkedIndex
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


def test_reasons_for_a_waiting_job() -> None:
    parked: ParkedIndex[int] = ParkedIndex()
    for number in range(3):
        parked.add(number, HERE)
    parked.add(9, THERE)
    found = parked.why_not(canonical(sites=["B"], memory_mb=10))
    assert [(reason.count, reason.text) for reason in found] == [
        (3, "site A is not wanted"),
        (1, "the node has 0 MB of memory free; it needs 10 MB"),
    ]
