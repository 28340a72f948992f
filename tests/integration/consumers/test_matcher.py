"""The matcher's shell on both databases: claims, parked requests, proxies, hints, takeovers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import pytest

from broker.publisher import reply
from broker.topology import Queue
from consumers.batch import Batch
from consumers.directory import Directory
from consumers.domain.requirements import Requirements
from consumers.domain.reservations import PATIENCE, Reservation
from consumers.matcher import LEAD_SECONDS, RECONCILE_SECONDS, Matcher
from consumers.matching import Asked, Matching, lobby, serving
from consumers.matching.choosing import KEPT
from consumers.settings import LeaseSettings
from consumers.store import Store, dead, jobs, parked, queues, registry
from consumers.store.errors import NotLeader
from schemas.access import AccessRule, Effect
from schemas.job import JobStatus
from schemas.messages.event import ProxyWanted, WorkWaiting
from schemas.messages.pilot import HeldProxy, Offer, RequestMatch
from schemas.messages.service import MatchResponse
from tests.integration.consumers.conftest import REGISTRY
from tests.support.fake_broker import FakeBroker, sealed
from tests.support.jobs import job_of, put_job
from tests.support.messages import Heard, Sender, admitted, chores, pilot, service, tell, user
from tests.support.rules import set_rules
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

ADA, BOB = user("ada"), user("bob")
P1, P2 = pilot("1"), pilot("2")
HINT = service("job-manager")
NOW = time.time()

Put = Callable[..., int]


def request(jobs: int = 1, *, slot: str = "main", wait: float = 60.0, csrs: int = 1, site: str = "S1",
            holds: tuple[HeldProxy, ...] = ()) -> RequestMatch:  # fmt: skip
    offer = Offer(site=site, cpu_seconds=1e9, wall_seconds=1e9, processors=8, memory_mb=1e6, disk_mb=1e6)
    names = tuple(b"csr %d" % number for number in range(csrs))
    return RequestMatch(slot=slot, offer=offer, jobs=jobs, wait_seconds=wait, csrs=names, holds=holds)


@pytest.fixture
def put(store: Store) -> Put:
    """Waiting jobs of one owner; returns their queue."""

    def make(*ids: int, owner: Sender = ADA, sites: tuple[str, ...] = ()) -> int:
        wanted = Requirements(sites=sites)
        with store.transaction() as tx:
            class_id = queues.class_ids(tx, {wanted.digest(): wanted.to_json()})[wanted.digest()]
            key = (class_id, owner.identity, owner.group)
            queue = queues.queue_ids(tx, [key])[key]
        for job in ids:
            put_job(store, job, owner, class_id=class_id, queue_id=queue, submitted=float(job))
        return queue

    return make


@pytest.fixture
def matcher(store: Store, directory: Directory) -> Matcher:
    made = Matcher(LeaseSettings(), directory, "here")
    chores(store, made, NOW)
    return made


def ask(store: Store, matcher: Matcher, *asked: tuple[RequestMatch, Sender], now: float = NOW) -> Heard:
    return tell(store, matcher, [admitted(message, sender) for message, sender in asked], now)


def hint(store: Store, matcher: Matcher, queue: int, now: float = NOW) -> Heard:
    return tell(store, matcher, [admitted(WorkWaiting(queues=(queue,)), HINT)], now)


def given(heard: Heard, sender: Sender) -> list[int]:
    return [one.job for answer in heard.to(sender) if isinstance(answer, MatchResponse) for one in answer.matches]


def waiting(store: Store) -> set[tuple[str, str]]:
    with store.reading() as tx:
        return {(row.client, row.slot) for row in parked.page(tx)}


def test_a_claim_is_a_lease_an_answer_and_an_order_for_a_proxy(store: Store, put: Put, matcher: Matcher) -> None:
    hint(store, matcher, put(1))
    heard = ask(store, matcher, (request(), P1))
    [response] = heard.to(P1)
    assert isinstance(response, MatchResponse)
    [match] = response.matches
    row = job_of(store, 1)
    assert (row.status, row.pilot, row.attempt, row.site) == (JobStatus.MATCHED, P1.cli, 1, "S1")
    assert (match.owner, match.csr, match.lease_until) == (ADA.identity, 0, pytest.approx(NOW + 20))
    [wanted] = [one for one in heard.said if isinstance(one, ProxyWanted)]
    assert (wanted.client, wanted.owner, wanted.job, wanted.csr) == (P1.cli, ADA.identity, 1, b"csr 0")


def test_requests_of_one_batch_never_get_the_same_job(store: Store, put: Put, matcher: Matcher) -> None:
    hint(store, matcher, put(*range(1, 11)))
    pilots = [pilot(str(number)) for number in range(6)]
    heard = ask(store, matcher, *((request(2), one) for one in pilots))
    jobs_given = [job for one in pilots for job in given(heard, one)]
    assert sorted(jobs_given) == list(range(1, 11))
    assert len(waiting(store)) == 1


def test_a_parked_request_is_answered_once_when_work_comes(store: Store, put: Put, matcher: Matcher) -> None:
    assert ask(store, matcher, (request(), P1)).said == []
    assert waiting(store) == {(P1.cli, "main")}
    queue = put(1, 2)
    heard = hint(store, matcher, queue)
    assert len(given(heard, P1)) == 1
    assert waiting(store) == set()
    assert given(hint(store, matcher, queue), P1) == []


def test_the_newest_request_of_a_slot_replaces_the_older(store: Store, put: Put, matcher: Matcher) -> None:
    ask(store, matcher, (request(1), P1))
    ask(store, matcher, (request(1), P1), (request(3), P1))
    ask(store, matcher, (request(1, slot="other"), P1))
    heard = hint(store, matcher, put(*range(1, 11)))
    assert sorted(len(one.matches) for one in heard.to(P1) if isinstance(one, MatchResponse)) == [1, 3]


def test_a_request_that_is_answered_at_once_removes_the_parked_one(store: Store, put: Put, matcher: Matcher) -> None:
    ask(store, matcher, (request(), P1))
    put(1, 2)
    chores(store, matcher, NOW + RECONCILE_SECONDS + 2)
    ask(store, matcher, (request(), P1), now=NOW + RECONCILE_SECONDS + 2)
    assert waiting(store) == set()


def test_the_deadline_is_answered_with_reasons(store: Store, put: Put, matcher: Matcher) -> None:
    hint(store, matcher, put(1, sites=("S2",)))
    ask(store, matcher, (request(wait=10), P1))
    due = matcher.due_in(NOW)
    assert due is not None
    assert due <= 10
    assert chores(store, matcher, NOW + 9).to(P1) == []
    [response] = chores(store, matcher, NOW + 10.1).to(P1)
    assert isinstance(response, MatchResponse)
    assert response.matches == ()
    assert response.reasons
    assert waiting(store) == set()
    assert chores(store, matcher, NOW + 12).to(P1) == []


def test_a_request_that_does_not_wait_is_answered_at_once(store: Store, matcher: Matcher) -> None:
    [response] = ask(store, matcher, (request(wait=0), P1)).to(P1)
    assert isinstance(response, MatchResponse)
    assert response.matches == ()


def test_one_certificate_request_serves_one_owner(store: Store, put: Put, matcher: Matcher) -> None:
    hint(store, matcher, put(1, 3))
    hint(store, matcher, put(2, 4, owner=BOB))
    heard = ask(store, matcher, (request(4, csrs=1), P1))
    owners = {job_of(store, job).owner for job in given(heard, P1)}
    assert len(owners) == 1
    assert len(given(heard, P1)) == 2
    assert len([one for one in heard.said if isinstance(one, ProxyWanted)]) == 1
    heard = ask(store, matcher, (request(4, csrs=2), P2))
    assert len(given(heard, P2)) == 2
    assert {job_of(store, job).status for job in (1, 2, 3, 4)} == {JobStatus.MATCHED}


def test_a_held_proxy_needs_no_certificate_request(store: Store, put: Put, matcher: Matcher) -> None:
    hint(store, matcher, put(1))
    held = HeldProxy(owner=ADA.identity, group=ADA.group, not_after=NOW + 3600)
    heard = ask(store, matcher, (request(csrs=0, holds=(held,)), P1))
    [response] = heard.to(P1)
    assert isinstance(response, MatchResponse)
    assert response.matches[0].csr == -1
    assert not [one for one in heard.said if isinstance(one, ProxyWanted)]


def test_a_held_proxy_that_ends_soon_does_not_do(store: Store, put: Put, matcher: Matcher) -> None:
    hint(store, matcher, put(1))
    held = HeldProxy(owner=ADA.identity, group=ADA.group, not_after=NOW + 60)
    assert given(ask(store, matcher, (request(csrs=0, holds=(held,)), P1)), P1) == []


def test_jobs_killed_meanwhile_are_skipped(store: Store, put: Put, matcher: Matcher) -> None:
    hint(store, matcher, put(1, 2, 3, 4))
    assert given(ask(store, matcher, (request(), P1)), P1) == [1]  # the others are in a page now
    with store.transaction() as tx:
        jobs.update_many(tx, {2: {"status": JobStatus.KILLED}, 3: {"status": JobStatus.KILLED}})
    assert given(ask(store, matcher, (request(), P2)), P2) == [4]
    assert {job_of(store, job).attempt for job in (2, 3)} == {0}


def test_a_parked_request_whose_jobs_were_gone_keeps_its_certificate_requests(store: Store, matcher: Matcher) -> None:
    ask(store, matcher, (request(csrs=1), P1))
    matching = matcher._matching
    assert matching is not None
    [one] = [matching._lobby[key] for key in matching._lobby]
    one.csr_of = {(ADA.identity, ADA.group): 0}  # chosen, and not claimed: another transaction was faster
    with store.transaction() as tx:
        matching._answer(Batch(tx, NOW), [one], known=(), replaced=())
    assert one.proxy_place(BOB.identity, BOB.group, NOW) == 0


def test_a_newer_request_that_can_have_nothing_keeps_no_other_from_it(store: Store, put: Put, matcher: Matcher) -> None:
    ask(store, matcher, (request(), P1))
    ask(store, matcher, (request(csrs=0), P2))  # it holds no proxy and cannot have one made
    assert given(hint(store, matcher, put(1)), P1) == [1]


def test_two_queues_that_the_newest_request_fits_both_find_somebody(store: Store, put: Put, matcher: Matcher) -> None:
    ask(store, matcher, (request(), P1))
    ask(store, matcher, (request(), P2), now=NOW + 0.1)
    one, other = put(1), put(2, owner=BOB)
    heard = tell(store, matcher, [admitted(WorkWaiting(queues=(one, other)), HINT)], NOW + 0.2)
    assert matcher.due_in(NOW + 0.2) == 0.0
    then = chores(store, matcher, NOW + 0.2)
    assert sorted(given(heard, P2) + given(heard, P1) + given(then, P1)) == [1, 2]


def test_what_a_request_for_many_jobs_cannot_take_goes_to_the_next(store: Store, put: Put, matcher: Matcher) -> None:
    ask(store, matcher, (request(), P1))
    ask(store, matcher, (request(jobs=4, csrs=1), P2), now=NOW + 0.1)
    one, other = put(1, 2), put(3, 4, owner=BOB)
    heard = tell(store, matcher, [admitted(WorkWaiting(queues=(one, other)), HINT)], NOW + 0.2)
    then = chores(store, matcher, NOW + 0.2)
    assert len(given(heard, P2)) == 2
    assert len(given(heard, P1) + given(then, P1)) == 1


def test_a_new_leader_loads_what_was_parked(store: Store, put: Put, matcher: Matcher, directory: Directory) -> None:
    ask(store, matcher, (request(wait=600), P1))
    put(1)
    other = Matcher(LeaseSettings(), directory, "there")
    chores(store, other, NOW + 1)
    assert not other.wants_queues()
    with pytest.raises(NotLeader):
        hint(store, other, 1, NOW + 1)
    heard = chores(store, other, NOW + LEAD_SECONDS + 1)
    assert other.wants_queues()
    assert given(heard, P1) == [1]
    with pytest.raises(NotLeader):  # the old one was paused and does no harm
        ask(store, matcher, (request(), P2), now=NOW + LEAD_SECONDS + 1)
    chores(store, matcher, NOW + LEAD_SECONDS + 1)
    assert not matcher.wants_queues()


def test_an_old_leader_whose_clock_is_behind_does_nothing_either(
    store: Store, put: Put, matcher: Matcher, directory: Directory
) -> None:
    """It thinks that it has just said that it leads."""
    ask(store, matcher, (request(wait=600), P1))
    other = Matcher(LeaseSettings(), directory, "there")
    chores(store, other, NOW + LEAD_SECONDS + 1)
    assert other.wants_queues()
    matcher.on_returned(reply(MatchResponse(slot="main", reasons=("none",)), P1.cli))
    with pytest.raises(NotLeader):
        chores(store, matcher, NOW + 0.1)
    assert waiting(store) == {(P1.cli, "main")}, "the request is still there for who leads"


def test_reconciling_repairs_lost_hints(store: Store, put: Put, matcher: Matcher) -> None:
    ask(store, matcher, (request(wait=600), P1))
    put(1)  # no hint came
    epoch = matcher._epoch
    answers = [given(chores(store, matcher, NOW + second), P1) for second in range(2, int(RECONCILE_SECONDS) + 4, 2)]
    assert matcher._epoch == epoch  # it led all the time
    assert answers[0] == []
    assert [jobs_given for jobs_given in answers if jobs_given] == [[1]]


def test_banned_sites_get_nothing(store: Store, put: Put, matcher: Matcher) -> None:
    with store.transaction() as tx:
        registry.set_site(tx, "S1", usable=False, reason="downtime")
    matcher._directory._loaded = float("-inf")
    chores(store, matcher, NOW + RECONCILE_SECONDS + 1)
    now = NOW + RECONCILE_SECONDS + 1
    hint(store, matcher, put(1), now)
    assert given(ask(store, matcher, (request(), P1), now=now), P1) == []
    assert given(ask(store, matcher, (request(site="S2"), P2), now=now), P2) == [1]


@pytest.mark.parametrize("loss", ["suspended", "out of the group", "removed"])
def test_jobs_of_who_lost_his_rights_wait_until_he_is_back(store: Store, put: Put, matcher: Matcher, loss: str) -> None:
    queue = put(1)
    users = [one for one in REGISTRY["users"] if one["dn"] != ADA.identity]
    if loss == "out of the group":
        users.append({"dn": ADA.identity, "groups": ["vo_prod"]})
    with store.transaction() as tx:
        if loss == "suspended":
            registry.set_suspended(tx, ADA.identity, suspended=True)
        else:
            registry.seed(tx, {**REGISTRY, "users": users})
    matcher._directory._loaded = float("-inf")
    hint(store, matcher, queue)
    assert given(ask(store, matcher, (request(wait=600), P1)), P1) == []
    with store.transaction() as tx:
        registry.seed(tx, REGISTRY)
        registry.set_suspended(tx, ADA.identity, suspended=False)
    matcher._directory._loaded = float("-inf")
    assert given(chores(store, matcher, NOW + 2), P1) == [1]  # no hint was needed


def test_shares_are_the_registrys(store: Store, put: Put, matcher: Matcher) -> None:
    with store.transaction() as tx:
        registry.seed(tx, {**REGISTRY, "groups": {**REGISTRY["groups"], "vo_user": {"share": 9.0}}})
    matcher._directory._loaded = float("-inf")
    put(*range(1, 101), owner=ADA)
    put(*range(101, 201), owner=user("bob", group="vo_prod"))
    chores(store, matcher, NOW + RECONCILE_SECONDS + 1)
    found = given(ask(store, matcher, (request(jobs=50, csrs=2), P1), now=NOW + RECONCILE_SECONDS + 1), P1)
    assert len([job for job in found if job <= 100]) == 45


def test_a_match_that_came_back_is_given_to_another_uncharged(store: Store, put: Put, matcher: Matcher) -> None:
    hint(store, matcher, put(1))
    [response] = ask(store, matcher, (request(), P1)).to(P1)
    ask(store, matcher, (request(wait=600), P2))
    matcher.on_returned(reply(response, P1.cli))
    assert matcher.due_in(NOW) == 0.0
    heard = chores(store, matcher, NOW + 0.5)
    assert given(heard, P2) == [1]
    row = job_of(store, 1)
    assert (row.status, row.pilot, row.infra_failures) == (JobStatus.MATCHED, P2.cli, 0)


def test_after_a_rollback_the_index_is_made_anew(store: Store, put: Put, matcher: Matcher) -> None:
    put(1)
    matcher.on_rollback()
    assert not matcher.wants_queues()
    chores(store, matcher, NOW + 0.1)
    assert given(ask(store, matcher, (request(), P1)), P1) == [1]


# -- poison -------------------------------------------------------------------------------------------------------


def test_many_poisoned_requests_send_no_other_back_to_the_broker(
    store: Store, put: Put, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index goes with each rollback; it is there again before the next request is looked at."""
    serve = Matching.serve

    def poisoned(self: Matching, batch: Batch, asked: Sequence[Asked], hinted: Collection[int]) -> None:
        serve(self, batch, asked, hinted)
        if any(one.request.slot == "poison" for one in asked):
            raise ValueError("poison")

    monkeypatch.setattr(Matching, "serve", poisoned)
    put(*range(1, 31))
    pilots = [pilot(str(number)) for number in range(55)]
    broker = FakeBroker(
        store, Matcher(LeaseSettings(), directory, "here"), [Queue("matching", "matcher", (), "test")], pilots
    ).start()
    try:
        wait_until(broker.consumer.wants_queues, 10, "leadership")
        slots = ["poison" if number < 25 else "main" for number in range(55)]
        broker.give(
            *(sealed(request(slot=slot), sender) for slot, sender in zip(slots, pilots, strict=True))
        )  # more poison than the broker delivers a message again
        broker.settled(60)
    finally:
        broker.stop()
    assert {what for what, _ in broker.log if what in {"ack", "requeue", "reject"}} == {"ack"}
    with store.reading() as tx:
        assert len(dead.query(tx)[0]) == 25
        given_to = [row.pilot for row in jobs.load_range(tx, 1, 30)]
    assert sorted(given_to) == sorted(one.cli for one in pilots[25:])


def test_jobs_of_whom_a_rule_bars_from_a_site_wait_for_another(
    store: Store, put: Put, matcher: Matcher, directory: Directory
) -> None:
    set_rules(
        store,
        AccessRule(name="ban", effect=Effect.DENY, who=f"dn:{ADA.identity}", what="payload.run", site="S1"),
    )
    directory.forget()
    ask(store, matcher, (request(site="S2"), P1), (request(site="S1"), P2))
    heard = hint(store, matcher, put(1))
    assert given(heard, P1) == [1]  # although the other request is the newer one
    assert given(heard, P2) == []
    put(2)
    assert given(ask(store, matcher, (request(site="S1", slot="b"), P2)), P2) == []
    set_rules(store)
    directory.forget()
    assert given(hint(store, matcher, put(3)), P2) == [2, 3]  # both of its slots


def test_the_order_of_an_owners_jobs_is_exact_across_his_queues(store: Store, put: Put, matcher: Matcher) -> None:
    """Each page tells how old the next job is; a queue is not served for its oldest job's sake."""
    queues_ = {put(*range(first, 40, 3), sites=sites) for first, sites in ((1, ()), (2, ("S1",)), (3, ("S1", "S2")))}
    tell(store, matcher, [admitted(WorkWaiting(queues=tuple(queues_)), HINT)], NOW)
    order = [given(ask(store, matcher, (request(), pilot(str(turn)))), pilot(str(turn))) for turn in range(39)]
    assert order == [[job] for job in range(1, 40)]


def test_a_job_that_comes_back_is_next_again(store: Store, put: Put, matcher: Matcher) -> None:
    queue = put(*range(2, 30))
    hint(store, matcher, queue)
    assert given(ask(store, matcher, (request(), P1)), P1) == [2]
    put(1)
    hint(store, matcher, queue)
    assert given(ask(store, matcher, (request(), P2)), P2) == [1]


def test_a_hint_wakes_only_as_many_pilots_as_there_are_jobs(store: Store, put: Put, matcher: Matcher) -> None:
    pilots = [pilot(str(number)) for number in range(20)]
    ask(store, matcher, *((request(wait=600), one) for one in pilots))
    matching = matcher._matching
    assert matching is not None
    heard = hint(store, matcher, put(1, 2, 3))
    assert [given(heard, one) for one in pilots] == [[]] * 17 + [[3], [2], [1]]
    assert len(waiting(store)) == 17
    assert not matching.busy


def test_many_parked_pilots_are_woken_in_slices(
    store: Store, put: Put, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lobby, "AT_ONCE", 3)
    pilots = [pilot(str(number)) for number in range(8)]
    ask(store, matcher, *((request(wait=600), one) for one in pilots))
    hint(store, matcher, put(*range(1, 11)))
    assert len(waiting(store)) == 5
    for left in (2, 0):
        assert matcher.due_in(NOW) == 0.0
        chores(store, matcher, NOW)
        assert len(waiting(store)) == left
    assert matcher.due_in(NOW) != 0.0


def test_an_offer_is_filled_side_by_side_and_one_after_the_other(store: Store, put: Put, matcher: Matcher) -> None:
    hint(store, matcher, put(*range(1, 31)))  # one processor and 360 s of CPU each
    offer = Offer(site="S1", cpu_seconds=800, wall_seconds=800, processors=4, memory_mb=1e5, disk_mb=1e5)
    asked = RequestMatch(slot="main", offer=offer, jobs=20, wait_seconds=60, csrs=(b"csr",))
    assert len(given(ask(store, matcher, (asked, P1)), P1)) == 8, "four beside each other, twice"


def test_a_pilot_is_kept_for_a_whole_node_job_that_waited_long(store: Store, matcher: Matcher) -> None:
    small, large = Requirements(), Requirements(whole_node=True)
    with store.transaction() as tx:
        ids = queues.class_ids(tx, {one.digest(): one.to_json() for one in (small, large)})
        keys = [(ids[one.digest()], who.identity, who.group) for one, who in ((small, ADA), (large, BOB))]
        found = queues.queue_ids(tx, keys)
    put_job(store, 1, BOB, class_id=keys[1][0], queue_id=found[keys[1]], submitted=NOW - PATIENCE - 100)
    for job in range(2, 6):
        put_job(store, job, ADA, class_id=keys[0][0], queue_id=found[keys[0]], submitted=NOW - 10)
    tell(store, matcher, [admitted(WorkWaiting(queues=tuple(found.values())), HINT)], NOW)

    def part(free: int) -> RequestMatch:
        offer = Offer(site="S1", cpu_seconds=1e9, wall_seconds=1e9, processors=free, memory_mb=1e6, disk_mb=1e6,
                      whole_node=free == 8, total_processors=8, total_memory_mb=1e6)  # fmt: skip
        return RequestMatch(slot="main", offer=offer, jobs=free, wait_seconds=1.5, csrs=(b"1", b"2"))

    assert given(ask(store, matcher, (request(), P2)), P2) == [2], "after this it is Bob's turn"
    assert given(ask(store, matcher, (part(2), P1)), P1) == []
    assert given(hint(store, matcher, found[keys[0]]), P1) == []
    [answer] = chores(store, matcher, NOW + 2).to(P1)
    assert isinstance(answer, MatchResponse)
    assert KEPT in answer.reasons
    assert given(ask(store, matcher, (part(8), P1), now=NOW + 3), P1) == [1], "and nobody waits behind it"


def test_a_pilot_is_kept_no_longer_when_the_job_is_gone(store: Store, put: Put, matcher: Matcher) -> None:
    matching = matcher._matching
    assert matching is not None
    ask(store, matcher, (request(wait=600), P1))
    [one] = [matching._lobby[key] for key in matching._lobby]
    one.kept = KEPT
    matching._lobby.show(one.key)
    queue = put(1)
    assert given(hint(store, matcher, queue), P1) == []
    matching._reservations._held[one.key] = Reservation(999, NOW, NOW)
    chores(store, matcher, NOW + 1)
    assert job_of(store, 1).pilot == P1.cli


def test_a_new_leader_reads_what_was_parked_in_slices(
    store: Store, put: Put, matcher: Matcher, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks meanwhile is answered once, and his older request never."""
    monkeypatch.setattr(serving, "ROWS", 3)
    pilots = [pilot(str(number)) for number in range(8)]
    for number, one in enumerate(pilots):
        ask(store, matcher, (request(wait=600 + number), one))
    put(*range(1, 4))  # the hint is lost
    later = NOW + LEAD_SECONDS + 1
    successor = Matcher(LeaseSettings(), directory, "there")
    heard = [chores(store, successor, later)]  # it has read the first of them
    assert successor.due_in(later) == 0.0
    heard.append(ask(store, successor, (request(wait=600), pilots[7]), now=later))
    assert given(heard[-1], pilots[7]) == [1]
    assert (pilots[7].cli, "main") not in waiting(store)
    while successor.due_in(later) == 0.0:
        heard.append(chores(store, successor, later))
    got = {one.cli: [job for some in heard for job in given(some, one)] for one in pilots}
    assert sorted(job for some in got.values() for job in some) == [1, 2, 3]
    assert got[pilots[7].cli] == [1]
    assert len(waiting(store)) == 5


def test_who_takes_long_to_read_what_waits_leads_nevertheless(
    store: Store, directory: Directory, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(1)
    clock = iter((100.0, 100.0 + 3 * LEAD_SECONDS))
    monkeypatch.setattr("consumers.matcher.monotonic", lambda: next(clock))
    slow = Matcher(LeaseSettings(), directory, "slow")
    chores(store, slow, NOW)
    later = NOW + 3 * LEAD_SECONDS
    other = Matcher(LeaseSettings(), directory, "other")
    chores(store, other, later)
    assert not other.wants_queues()
    assert given(ask(store, slow, (request(), P1), now=later), P1) == [1]
    chores(store, slow, later)  # it reads nothing anew: the clock has no third time
    assert slow.wants_queues()
