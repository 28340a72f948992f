"""How many parked requests are looked at in one transaction."""

from __future__ import annotations

from math import inf

from consumers.domain.index import Index
from consumers.domain.requirements import Requirements
from consumers.matching import lobby
from consumers.matching.asked import Asked
from consumers.matching.lobby import Lobby
from schemas.messages.pilot import Offer, RequestMatch

CROWD = lobby.LOOKS + 100


def crowded() -> tuple[Index, Lobby]:
    index, found = Index(), Lobby()
    for queue in (1, 2):
        index.add_queue(queue, Requirements(memory_mb=queue), "group", "owner")
        index.add(queue, 1, 1, 0.0)
    for number in range(CROWD):
        offer = Offer(site=f"S{number}", cpu_seconds=1e6, wall_seconds=1e6, processors=8, memory_mb=1e6)
        request = RequestMatch(slot="main", offer=offer, jobs=1, wait_seconds=3000, csrs=(b"csr",))
        found.keep(Asked(f"pilot{number:05}", "dn", request, "cid", 0.0, 3000.0))
    return index, found


def test_those_who_may_have_no_job_are_passed_over_some_at_a_time_until_who_may_is_found() -> None:
    index, parked = crowded()
    asked: list[str] = []

    def barred(owner: str, group: str, site: str) -> bool:
        asked.append(site)
        return site != "S0"  # who has waited longest stands last

    keys, more = parked.concerned(index, {1: inf, 2: inf}, barred, 1.0)
    assert (keys, more) == (set(), {1: 100, 2: inf})
    assert len(asked) == lobby.LOOKS
    keys, more = parked.concerned(index, {1: more[1]}, barred, 1.0)
    assert (keys, more) == ({("pilot00000", "main")}, {})
