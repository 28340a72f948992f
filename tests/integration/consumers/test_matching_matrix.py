"""Rows of the table of DIRAC's matching rules from a description to a pilot's answer, on both databases."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from consumers.directory import Directory
from consumers.job_manager import JobManager
from consumers.matcher import Matcher
from consumers.settings import LeaseSettings
from consumers.store import Store, proxies, registry
from consumers.store.proxies import Proxy
from schemas.messages.event import WorkWaiting
from schemas.messages.pilot import RequestMatch
from schemas.messages.service import JobsSubmitted, MatchResponse
from schemas.messages.user import KillJobs, SubmitJobs
from tests.support import pki
from tests.support.matching_matrix import MATRIX, Row
from tests.support.messages import Heard, Sender, admitted, chores, pilot, service, tell, user

pytestmark = pytest.mark.integration

REGISTRY = {
    "groups": {
        "users": {"properties": ["NormalUser"]},
        "prod": {"properties": ["NormalUser"]},
        "vo_pilot": {"properties": ["GenericPilot"]},
    },
    "users": [
        *({"dn": user(name).identity, "nickname": name, "groups": ["users", "prod"]} for name in ("ada", "bob")),
        {"dn": pilot().identity, "nickname": "pilot", "groups": ["vo_pilot"]},
    ],
    "sites": {site: {} for site in ("A", "B", "C", "a", "any")},
}
NAMES = {name: user(name).identity for name in ("ada", "bob")}


@pytest.mark.parametrize("part", range(4))
def test_rows_from_the_description_to_the_answer(store: Store, authority: pki.Pki, tmp_path: Path, part: int) -> None:
    now = time.time()
    with store.transaction() as tx:
        registry.seed(tx, REGISTRY)
        for dn in NAMES.values():
            for group in ("users", "prod"):
                proxies.put(tx, Proxy(dn, group, "chain", b"key", now + 9e5, now))
    directory = Directory(store, authority.trust)
    manager, matcher = JobManager(directory), Matcher(LeaseSettings(), directory, "here")
    chores(store, matcher, now)
    for number, row in enumerate(MATRIX[part::4]):
        directory.forget()
        with store.transaction() as tx:
            for site in "AB":
                registry.set_site(tx, site, usable=site not in row.banned)
        got, response = play(store, manager, matcher, row, pilot(f"{part}x{number}"))
        if row.expected is None:
            assert [match.job for match in response.matches] == [got], row
        else:
            assert response.matches == (), row
            assert response.reasons, row
            assert response.reasons != ("no job is waiting",), row


def play(store: Store, manager: JobManager, matcher: Matcher, row: Row, asking: Sender) -> tuple[int, MatchResponse]:
    """Submit, ask, and take the job away again."""
    owner = user(row.owner, group=row.group)
    time_wanted = "" if "CPUTime" in row.says else "CPUTime = 360;"
    text = f'[ Executable = "/bin/true"; {time_wanted} {row.says} ]'
    heard = tell(store, manager, [admitted(SubmitJobs(descriptions=(text,)), owner)])
    [answer] = heard.to(owner)
    assert isinstance(answer, JobsSubmitted), answer
    hint(store, matcher, heard)
    offer = row.offer()
    values = {name: getattr(offer, name) for name in offer.__struct_fields__}
    offer = type(offer)(**values | {"owners": tuple(NAMES[one] for one in offer.owners)})
    asked = RequestMatch(slot="one", offer=offer, wait_seconds=0.0, csrs=(b"csr",))
    moment = float(int(time.time()))  # asked and answered at once: an offer is worth less with each second
    [response] = tell(store, matcher, [admitted(asked, asking, now=moment)], moment).to(asking)
    assert isinstance(response, MatchResponse)
    hint(store, matcher, tell(store, manager, [admitted(KillJobs(jobs=(answer.first,)), owner)]))
    return answer.first, response


def hint(store: Store, matcher: Matcher, heard: Heard) -> None:
    """What the job-manager said reaches the matcher."""
    some = [admitted(one, service("job-manager")) for one in heard.said if isinstance(one, WorkWaiting)]
    if some:
        tell(store, matcher, some)
