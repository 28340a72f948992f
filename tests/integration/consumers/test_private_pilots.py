"""What the matcher believes of an offer: whose jobs a private pilot gets, and how much time is really left."""

from __future__ import annotations

import time
from dataclasses import replace

import msgspec
import pytest

from broker.subscriber import Admitted
from consumers.directory import Directory
from consumers.domain.requirements import Requirements
from consumers.matcher import LEAD_SECONDS, Matcher
from consumers.settings import LeaseSettings
from consumers.store import Store, parked, pilots, queues, registry, sessions
from schemas.messages.event import WorkWaiting
from schemas.messages.pilot import Offer, RequestMatch
from schemas.messages.service import MatchResponse
from schemas.registry import Message
from tests.integration.consumers.conftest import REGISTRY
from tests.support.jobs import put_job
from tests.support.messages import Heard, Sender, admitted, chores, pilot, private_pilot, service, tell, user

pytestmark = pytest.mark.integration

ADA, BOB = user("ada"), user("bob")
MINE = private_pilot("ada")
HINT = service("job-manager")
NOW = time.time()
SIX_HOURS = 6 * 3600
POWER = 10.0


def request(jobs: int = 5, *, wait: float = 0.0, wall: float = 1e6, owners: tuple[str, ...] = (),
            groups: tuple[str, ...] = ()) -> RequestMatch:  # fmt: skip
    offer = Offer(site="S1", cpu_seconds=wall * POWER, wall_seconds=wall, processors=8, total_processors=8,
                  memory_mb=1e6, total_memory_mb=1e6, disk_mb=1e6, owners=owners, groups=groups)  # fmt: skip
    return RequestMatch(slot="main", offer=offer, jobs=jobs, wait_seconds=wait, csrs=(b"csr 0", b"csr 1"))


def put(store: Store, *ids: int, owner: Sender, cpu_class: int = 360, processors: int = 1) -> int:
    wanted = Requirements(cpu_class=cpu_class, min_processors=processors, max_processors=processors)
    with store.transaction() as tx:
        class_id = queues.class_ids(tx, {wanted.digest(): wanted.to_json()})[wanted.digest()]
        key = (class_id, owner.identity, owner.group)
        queue = queues.queue_ids(tx, [key])[key]
    for job in ids:
        put_job(store, job, owner, class_id=class_id, queue_id=queue, submitted=float(job))
    return queue


@pytest.fixture
def matcher(store: Store, directory: Directory) -> Matcher:
    made = Matcher(LeaseSettings(), directory, "here")
    chores(store, made, NOW)
    return made


def ask(store: Store, matcher: Matcher, message: Message, sender: Sender, now: float = NOW) -> Heard:
    return tell(store, matcher, [admitted(message, sender, now=now)], now)


def hint(store: Store, matcher: Matcher, queue: int, now: float = NOW) -> Heard:
    return ask(store, matcher, WorkWaiting(queues=(queue,)), HINT, now)


def given(heard: Heard, sender: Sender) -> list[int]:
    return [one.job for answer in heard.to(sender) if isinstance(answer, MatchResponse) for one in answer.matches]


# -- whose jobs ---------------------------------------------------------------------------------------------------


def test_a_private_pilot_gets_its_owners_jobs_only(store: Store, matcher: Matcher) -> None:
    for queue in (put(store, 1, 2, owner=BOB), put(store, 3, 4, owner=ADA)):
        hint(store, matcher, queue)
    assert given(ask(store, matcher, request(), MINE), MINE) == [3, 4]
    assert given(ask(store, matcher, request(), pilot()), pilot()) == [1, 2]


@pytest.mark.parametrize("owners", [(BOB.identity,), (BOB.identity, ADA.identity), ("*",)])
def test_what_it_says_of_owners_does_not_count(store: Store, matcher: Matcher, owners: tuple[str, ...]) -> None:
    for queue in (put(store, 1, owner=BOB), put(store, 3, owner=ADA)):
        hint(store, matcher, queue)
    assert given(ask(store, matcher, request(owners=owners), MINE), MINE) == [3]


def test_it_is_told_why_it_gets_none_of_others_jobs(store: Store, matcher: Matcher) -> None:
    hint(store, matcher, put(store, 1, owner=BOB))
    answer = next(one for one in ask(store, matcher, request(), MINE).to(MINE) if isinstance(one, MatchResponse))
    assert answer.matches == ()
    assert any("owners" in reason for reason in answer.reasons)


def test_a_parked_one_waits_for_its_owners_jobs_only(store: Store, matcher: Matcher) -> None:
    assert not given(ask(store, matcher, request(wait=600, owners=(BOB.identity,)), MINE), MINE)
    assert not given(hint(store, matcher, put(store, 1, owner=BOB)), MINE)
    assert given(hint(store, matcher, put(store, 3, owner=ADA)), MINE) == [3]


def test_a_new_leader_believes_it_no_more_than_the_old_one(
    store: Store, matcher: Matcher, directory: Directory
) -> None:
    ask(store, matcher, request(wait=600, owners=(BOB.identity,)), MINE)
    successor = Matcher(LeaseSettings(), directory, "elsewhere")
    later = NOW + LEAD_SECONDS + 1
    chores(store, successor, later)
    assert not given(hint(store, successor, put(store, 1, owner=BOB), later), MINE)
    assert given(hint(store, successor, put(store, 3, owner=ADA), later), MINE) == [3]


def test_it_gets_its_owners_jobs_of_every_group_and_may_narrow_that(store: Store, matcher: Matcher) -> None:
    prod = user("ada", group="vo_prod")
    for queue in (put(store, 3, owner=ADA), put(store, 5, owner=prod)):
        hint(store, matcher, queue)
    assert given(ask(store, matcher, request(groups=("vo_prod",)), MINE), MINE) == [5]
    assert given(ask(store, matcher, request(), MINE), MINE) == [3]


def test_lists_of_owners_and_groups_narrow_a_generic_pilot(store: Store, matcher: Matcher) -> None:
    prod = user("bob", group="vo_prod")
    for queue in (put(store, 1, owner=BOB), put(store, 3, owner=ADA), put(store, 5, owner=prod)):
        hint(store, matcher, queue)
    narrow = request(owners=(BOB.identity,), groups=("vo_prod",))
    assert given(ask(store, matcher, narrow, pilot()), pilot()) == [5]
    assert given(ask(store, matcher, narrow, pilot()), pilot()) == []
    assert set(given(ask(store, matcher, request(groups=("vo_user",)), pilot()), pilot())) == {1, 3}


@pytest.mark.parametrize(
    ("properties", "gets"),
    [(["GenericPilot"], [1]), (["PrivatePilot"], []), (["NormalUser"], []), (None, [])],
    ids=["as before", "private now", "no pilots any more", "no group any more"],
)
def test_who_parked_a_request_before_he_lost_his_rights(
    store: Store, matcher: Matcher, directory: Directory, properties: list[str] | None, gets: list[int]
) -> None:
    """Also if nobody could cut him off, because he was not there."""
    his = pilot()
    with store.transaction() as tx:
        sessions.put(tx, his.cli, his.identity, his.group, "t", "pilot", NOW)
    assert not given(ask(store, matcher, request(wait=600), his), his)
    groups = {**REGISTRY["groups"], his.group: {"properties": properties}}
    if properties is None:
        del groups[his.group]
    users = [{**one, "groups": [name for name in one["groups"] if name in groups]} for one in REGISTRY["users"]]
    with store.transaction() as tx:
        registry.seed(tx, {**REGISTRY, "groups": groups, "users": users})
    directory.forget()
    assert given(hint(store, matcher, put(store, 1, owner=BOB)), his) == gets
    with store.reading() as tx:
        assert not parked.page(tx)


# -- how many -----------------------------------------------------------------------------------------------------


def test_jobs_wait_on_a_pilot_only_if_it_asks_for_more_than_it_can_run(store: Store, matcher: Matcher) -> None:
    hint(store, matcher, put(store, *range(1, 21), owner=ADA, processors=4))
    assert len(given(ask(store, matcher, request(8), pilot("1")), pilot("1"))) == 2  # side by side on 8 processors
    assert len(given(ask(store, matcher, request(9), pilot("2")), pilot("2"))) == 9


# -- how much time ------------------------------------------------------------------------------------------------


def test_the_chain_that_signs_bounds_the_time(store: Store, matcher: Matcher) -> None:
    hint(store, matcher, put(store, 1, 2, owner=ADA, cpu_class=SIX_HOURS))
    short, long = private_pilot("ada", lasts=2000.0), private_pilot("ada", lasts=SIX_HOURS / POWER + 60)
    heard = ask(store, matcher, request(), short)
    assert not given(heard, short)
    assert any(
        "CPU time left is 20000 s" in why
        for one in heard.to(short)
        if isinstance(one, MatchResponse)
        for why in one.reasons
    )
    assert given(ask(store, matcher, request(), long), long) == [1, 2]


def test_a_certificate_that_is_renewed_bounds_nothing_but_the_end_of_its_enrolment_does(
    store: Store, matcher: Matcher
) -> None:
    hint(store, matcher, put(store, 1, owner=ADA, cpu_class=SIX_HOURS))

    def enrolled(until: float) -> Admitted:
        came = admitted(request(), replace(pilot(), lasts=100.0), now=NOW)
        return replace(came, principal=replace(came.principal, site="S1", renewed_until=until))

    assert not given(tell(store, matcher, [enrolled(NOW + 2000)], NOW), pilot())
    assert given(tell(store, matcher, [enrolled(NOW + 86_400)], NOW), pilot()) == [1]


def test_who_waited_has_less_time_left_than_he_said(store: Store, matcher: Matcher) -> None:
    waited, fresh = pilot("1"), pilot("2")
    ask(store, matcher, request(1, wait=3600, wall=4000), fresh, NOW)
    ask(store, matcher, request(1, wait=3600, wall=3000), waited, NOW + 0.5)  # asked last: it would be taken first
    chores(store, matcher, NOW + 1500)  # it still leads
    queue = put(store, 1, owner=ADA, cpu_class=SIX_HOURS)
    heard = hint(store, matcher, queue, NOW + 1500)
    assert (given(heard, waited), given(heard, fresh)) == ([], [1])


def test_a_new_leader_knows_how_long_a_request_has_waited(store: Store, matcher: Matcher, directory: Directory) -> None:
    ask(store, matcher, request(1, wait=3600, wall=3000), pilot())
    put(store, 1, owner=ADA, cpu_class=SIX_HOURS)
    put(store, 2, owner=ADA)
    successor = Matcher(LeaseSettings(), directory, "elsewhere")
    assert given(chores(store, successor, NOW + 1500), pilot()) == [2]


# -- what others see ----------------------------------------------------------------------------------------------


def shown(store: Store, sender: Sender) -> Offer:
    with store.reading() as tx:
        return msgspec.json.decode(pilots.get(tx, [sender.cli])[sender.cli].offer, type=Offer)


def test_the_newest_offer_is_shown_soon_though_the_pilot_asks_no_more(store: Store, matcher: Matcher) -> None:
    ask(store, matcher, request(wall=3000), pilot())
    ask(store, matcher, request(wall=2000), pilot(), NOW + 1)
    assert shown(store, pilot()).wall_seconds == 3000
    chores(store, matcher, NOW + 5)
    assert shown(store, pilot()).wall_seconds == 3000, "not with each request"
    chores(store, matcher, NOW + 11)
    assert shown(store, pilot()).wall_seconds == 2000


def test_an_offer_that_is_noted_late_brings_nobody_back(store: Store, matcher: Matcher) -> None:
    ask(store, matcher, request(wall=3000), pilot())
    ask(store, matcher, request(wall=2000), pilot(), NOW + 1)
    with store.transaction() as tx:
        pilots.gone(tx, [pilot().cli], NOW + 2)
    chores(store, matcher, NOW + 11)
    with store.reading() as tx:
        assert pilots.get(tx, [pilot().cli])[pilot().cli].status == pilots.GONE


def test_a_private_pilots_owner_is_shown_whatever_it_says(store: Store, matcher: Matcher) -> None:
    ask(store, matcher, request(owners=(BOB.identity,)), MINE)
    assert shown(store, MINE).owners == (ADA.identity,)
