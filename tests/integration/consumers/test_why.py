"""Why jobs wait, on both databases: what people are told, and that it is what the matcher does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import pytest

from broker.authorization import Property
from consumers.directory import Directory
from consumers.domain.requirements import Requirements
from consumers.domain.standing import Kept
from consumers.job_monitor import JobMonitor
from consumers.matcher import Matcher
from consumers.outlook import desk
from consumers.settings import LeaseSettings
from consumers.store import Store, heads, pilots, proxies, queues, registry, turns
from consumers.store.leader import acquire_or_renew
from schemas.access import AccessRule, Effect, Limit, Measure
from schemas.job import JobStatus
from schemas.messages.event import WorkWaiting
from schemas.messages.pilot import Offer, RequestMatch
from schemas.messages.service import MatchResponse, Refused
from schemas.messages.why import (
    ExplainJob,
    Hold,
    InspectQueue,
    JobExplained,
    JobsWeighed,
    Outlook,
    QueryQueues,
    QueueDetail,
    QueueListing,
    WeighJobs,
)
from schemas.registry import Message
from tests.integration.consumers.conftest import REGISTRY
from tests.support.jobs import put_job
from tests.support.messages import Sender, admitted, chores, pilot, service, tell, user
from tests.support.rules import set_limits, set_rules
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

ADA, BOB = user("ada"), user("bob")
BOB_PROD = user("bob", Property.NORMAL_USER, Property.JOB_SHARING, group="vo_prod", suffix="prod")
OLGA = user("olga", Property.OPERATOR, Property.JOB_ADMINISTRATOR, group="vo_admin")
NOW = 1_800_000_000.0
MAIN = Offer(site="S1", cpu_seconds=1e6, wall_seconds=1e6, processors=8, memory_mb=4000, disk_mb=1e6)

Put = Callable[..., int]


@pytest.fixture
def monitor(directory: Directory) -> JobMonitor:
    return JobMonitor(directory=directory)


@pytest.fixture
def put(store: Store) -> Put:
    """Waiting jobs of one owner and class; returns their queue."""

    def make(*ids: int, owner: Sender = ADA, priority: int = 1, **wanted: object) -> int:
        want = Requirements(**wanted)  # type: ignore[arg-type]  # any of its fields
        with store.transaction() as tx:
            class_id = queues.class_ids(tx, {want.digest(): want.to_json()})[want.digest()]
            key = (class_id, owner.identity, owner.group)
            queue = queues.queue_ids(tx, [key])[key]
        for job in ids:
            put_job(store, job, owner, class_id=class_id, queue_id=queue, submitted=float(job), priority=priority)
        return queue

    return make


@pytest.fixture(autouse=True)
def led(store: Store) -> None:
    """A matcher leads, and Ada and Bob have proxies stored."""
    with store.transaction() as tx:
        acquire_or_renew(tx, "matcher", "here", NOW, 3600.0)
        for owner in (ADA, BOB):
            proxies.put(tx, stored_proxy(owner, NOW + 86_400))


def stored_proxy(owner: Sender, until: float) -> proxies.Proxy:
    return proxies.Proxy(owner.identity, owner.group, "chain", b"key", until, NOW)


def alive(store: Store, *offers: Offer) -> None:
    """Busy pilots with these last offers."""
    with store.transaction() as tx:
        rows = [
            pilots.PilotRow(f"busy-{number}", "/O=Example/CN=pilot", offer.site, offer=msgspec.json.encode(offer),
                            first_seen=NOW, last_seen=NOW)
            for number, offer in enumerate(offers)
        ]  # fmt: skip
        pilots.offered(tx, rows)


def ask(store: Store, monitor: JobMonitor, message: Message, sender: Sender = ADA, now: float = NOW) -> Message:
    """The answer, when its thread has found it."""
    said: list[Message] = tell(store, monitor, [admitted(message, sender, now=now)], now).said

    def answered() -> bool:
        said.extend(chores(store, monitor, now).said)
        return bool(said)

    wait_until(answered, 10, "an answer")
    (answer,) = said
    return answer


def explained(store: Store, monitor: JobMonitor, job: int, sender: Sender = ADA, now: float = NOW) -> JobExplained:
    monitor.look_again()
    answer = ask(store, monitor, ExplainJob(job=job), sender, now)
    assert isinstance(answer, JobExplained), answer
    return answer


def outlook(store: Store, monitor: JobMonitor, job: int, sender: Sender = ADA, now: float = NOW) -> Outlook:
    told = explained(store, monitor, job, sender, now).outlook
    assert told is not None
    return told


def held(told: Outlook) -> dict[str, Hold]:
    return {hold.kind: hold for hold in told.holds}


# -- explaining a job ---------------------------------------------------------------------------------------------


def test_the_nearest_misses_and_what_would_help(store: Store, monitor: JobMonitor, put: Put) -> None:
    put(1, memory_mb=8000)
    small = Offer(site="S2", cpu_seconds=10, processors=8, memory_mb=1000)
    alive(store, MAIN, MAIN, small)
    told = outlook(store, monitor, 1)
    assert (told.sight.pilots, told.sight.fitting, told.sight.possible_sites) == (3, 0, 3)
    memory, cpu = told.obstacles
    assert (memory.condition, memory.pilots, memory.only) == ("memory", 3, 2)
    assert (cpu.condition, cpu.pilots, cpu.only) == ("cpu-time", 1, 0)
    assert memory.closest[0].startswith("2 pilots: the node has 4000 MB")
    assert "8000 MB" in memory.needs
    assert told.verdict == "None of the 3 pilots that are alive fits: all of them fail at memory."
    assert told.advice == "2 pilots would fit but for one condition, memory: 8000 MB of memory."
    assert "memory" in told.requirements[-1]


def test_no_single_change_would_do(store: Store, monitor: JobMonitor, put: Put) -> None:
    put(1, memory_mb=8000, min_processors=16, max_processors=16)
    alive(store, MAIN)
    told = outlook(store, monitor, 1)
    assert told.advice == "No single change would do: the nearest 1 pilot fails at processors and memory."


def test_a_pilot_that_fits_and_is_busy(store: Store, monitor: JobMonitor, put: Put) -> None:
    put(1)
    alive(store, MAIN)
    told = outlook(store, monitor, 1)
    assert (told.sight.fitting, told.sight.fitting_parked, told.sight.fitting_sites) == (1, 0, 1)
    assert told.verdict == "1 pilot fits, but it does not ask for a job now: it is busy."
    assert told.obstacles == ()
    assert told.advice == ""


def test_a_busy_pilot_is_judged_by_what_it_will_have_when_its_payloads_end(
    store: Store, monitor: JobMonitor, put: Put
) -> None:
    put(1, memory_mb=8000, min_processors=16, max_processors=16)
    alive(store, Offer(site="S1", cpu_seconds=1e6, wall_seconds=1e6, processors=0, total_processors=16,
                       memory_mb=10, total_memory_mb=16_000))  # fmt: skip
    assert outlook(store, monitor, 1).sight.fitting == 1


def test_nobody_is_alive(store: Store, monitor: JobMonitor, put: Put) -> None:
    put(1)
    told = explained(store, monitor, 1)
    assert told.verdict == "No pilot is alive: it waits for one to start."
    assert told.estimate is not None
    assert told.estimate.seconds is None


def test_no_matcher_leads(store: Store, monitor: JobMonitor, put: Put) -> None:
    put(1)
    told = held(outlook(store, monitor, 1, now=NOW + 4000))["matcher"]
    assert told.whole
    assert told.text.startswith("no matcher leads since 2027-01-15 09:00:00 UTC")


def test_a_suspended_owner(store: Store, monitor: JobMonitor, put: Put, directory: Directory) -> None:
    put(1)
    with store.transaction() as tx:
        registry.set_suspended(tx, ADA.identity, suspended=True)
    directory.forget()
    told = outlook(store, monitor, 1, OLGA)
    assert held(told)["owner"].text.startswith("its owner is suspended")
    assert told.verdict.startswith("It is held: its owner is suspended")


@pytest.mark.parametrize("until", [None, NOW - 5])
def test_no_proxy(store: Store, monitor: JobMonitor, put: Put, until: float | None) -> None:
    put(1)
    with store.transaction() as tx:
        proxies.delete(tx, ADA.identity, ADA.group)
        if until is not None:
            proxies.put(tx, stored_proxy(ADA, until))
    assert held(outlook(store, monitor, 1))["proxy"].whole


def test_rules_at_the_sites_that_would_fit(store: Store, monitor: JobMonitor, put: Put, directory: Directory) -> None:
    put(1)
    alive(store, MAIN)
    rule = AccessRule(name="r", effect=Effect.DENY, who="group:vo_user", what="payload.run", site="S1")
    set_rules(store, rule)
    directory.forget()
    told = held(outlook(store, monitor, 1))["rule"]
    assert told.whole
    assert "S1" in told.text
    put(2, owner=BOB)
    alive(store, MAIN, Offer(site="S2", cpu_seconds=1e6, wall_seconds=1e6, memory_mb=4000))
    assert not held(outlook(store, monitor, 2, BOB))["rule"].whole


def test_wanted_sites_that_are_banned(store: Store, monitor: JobMonitor, put: Put, directory: Directory) -> None:
    put(1, sites=("S1",))
    alive(store, MAIN)
    with store.transaction() as tx:
        registry.set_site(tx, "S1", usable=False, reason="broken disks")
    directory.forget()
    told = outlook(store, monitor, 1)
    assert "S1 (broken disks)" in held(told)["sites"].text
    assert [one.condition for one in told.obstacles] == ["site-unusable", "site"]
    assert (told.sight.usable, told.sight.possible_sites) == (2, 0)


def limit(store: Store, directory: Directory, scope: str, **most: object) -> None:
    with store.transaction() as tx:
        limits = [{"scope": scope, "reason": "fragile", **most}]
        registry.seed(tx, {**REGISTRY, "match_limits": limits})
    directory.forget()


def test_a_limit_at_the_only_place_that_fits(store: Store, monitor: JobMonitor, put: Put, directory: Directory) -> None:
    put(1, sites=("S1",))
    alive(store, MAIN)
    limit(store, directory, "site=S1", running=1)
    assert "limit" not in held(outlook(store, monitor, 1))
    put_job(store, 90, BOB, status=JobStatus.RUNNING, site="S1", matched=NOW, pilot="busy-0")
    told = outlook(store, monitor, 1)
    assert held(told)["limit"].whole
    assert held(told)["limit"].text == "limit site=S1: site S1: 1 of 1 jobs run (fragile)"
    assert told.verdict == "It is held: limit site=S1: site S1: 1 of 1 jobs run (fragile)."


def test_a_limit_at_some_of_the_places(store: Store, monitor: JobMonitor, put: Put, directory: Directory) -> None:
    put(1)
    alive(store, MAIN, Offer(site="S2", cpu_seconds=1e6, wall_seconds=1e6, memory_mb=4000))
    limit(store, directory, "site=S1", running=0)
    assert not held(outlook(store, monitor, 1))["limit"].whole


def test_a_start_delay_with_nobody_alive(store: Store, monitor: JobMonitor, put: Put, directory: Directory) -> None:
    put(1)
    limit(store, directory, "owner=*", delay_seconds=100.0)
    put_job(store, 90, ADA, status=JobStatus.RUNNING, matched=NOW - 40)
    assert "may start in 60 s" in held(outlook(store, monitor, 1))["limit"].text
    put(2, owner=BOB)
    assert "limit" not in held(outlook(store, monitor, 2, BOB))


def test_the_place_among_ones_own(store: Store, monitor: JobMonitor, put: Put) -> None:
    put(*range(1, 6))
    put(50, sites=("S2",), priority=2)  # a priority is worth a day: before all of them
    put(6, owner=BOB)
    place = explained(store, monitor, 4).place
    assert place is not None
    assert (place.before, place.more, place.owners_waiting, place.groups_waiting) == (4, False, 2, 1)
    assert explained(store, monitor, 50).place.before == 0  # type: ignore[union-attr]  # it waits


def test_whose_turn_it_is_is_what_the_matcher_left_in_the_store(store: Store, monitor: JobMonitor, put: Put) -> None:
    put(1)
    put(2, owner=BOB)
    put(3, owner=BOB_PROD)
    with store.transaction() as tx:
        turns.save(tx, [
            Kept("vo_user", ADA.identity, 90.0, 90.0, 0.0, 0.0, NOW),
            Kept("vo_user", BOB.identity, 10.0, 10.0, 0.0, 0.0, NOW),
            Kept("vo_user", "", 100.0, 100.0, 90.0, 0.0, NOW), Kept("", "", 0.0, 0.0, 100.0, 0.0, NOW),
        ])  # fmt: skip
    ada, bob = (explained(store, monitor, job, sender).place for job, sender in ((1, ADA), (2, BOB)))
    assert ada is not None
    assert bob is not None
    assert (ada.owners_before, bob.owners_before) == (1, 0)
    assert (ada.groups_before, ada.groups_waiting) == (1, 2)
    assert (ada.group_used, ada.owner_used, bob.owner_used) == pytest.approx((100.0, 90.0, 10.0), abs=0.2)
    assert explained(store, monitor, 3, BOB_PROD).place.sharing  # type: ignore[union-attr]  # it waits


def test_the_wait_is_told_from_recent_matches(
    store: Store, monitor: JobMonitor, put: Put, directory: Directory
) -> None:
    put(*range(1, 11))
    matcher = Matcher(LeaseSettings(), directory, "here")
    chores(store, matcher, NOW)
    asked = RequestMatch(slot="a", offer=MAIN, jobs=5, csrs=(b"x",))
    given = tell(store, matcher, [admitted(asked, pilot(), now=NOW)], NOW)
    assert sum(len(one.matches) for one in given.said if isinstance(one, MatchResponse)) == 5
    alive(store, MAIN)
    told = explained(store, monitor, 10).estimate
    assert told is not None
    assert told.seconds == pytest.approx(5 * 3600 / 5)
    assert "5 jobs of this owner and group were matched in the last 1 h" in told.basis
    put(20, owner=BOB)
    nothing = explained(store, monitor, 20, BOB).estimate
    assert nothing is not None
    assert nothing.seconds is None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (JobStatus.CHECKING, "being checked"),
        (JobStatus.MATCHED, "pilot p.1 at S1 has it"),
        (JobStatus.RUNNING, "it runs at S1"),
        (JobStatus.STALLED, "not been heard of"),
        (JobStatus.DONE, "It is over"),
        (JobStatus.FAILED, "pilotage job history 1"),
    ],
)
def test_a_job_that_does_not_wait(store: Store, monitor: JobMonitor, status: JobStatus, words: str) -> None:
    put_job(store, 1, ADA, status=status, site="S1", pilot="p.1")
    told = explained(store, monitor, 1)
    assert words in told.verdict
    assert told.outlook is None


def test_others_jobs_are_not_explained(store: Store, monitor: JobMonitor, put: Put) -> None:
    put(1, owner=BOB)
    answers = [ask(store, monitor, ExplainJob(job=job)) for job in (1, 99)]
    assert answers == [Refused(code="not-found", reason="no such job", type="job.explain.v1")] * 2
    assert explained(store, monitor, 1, OLGA).outlook is not None


def test_nobody_hears_of_others(store: Store, monitor: JobMonitor, put: Put) -> None:
    put(1)
    put(2, 3, owner=BOB)
    alive(store, MAIN, Offer(site="S1", owners=(BOB.identity,), cpu_seconds=1e6, memory_mb=4000))
    for question in (ExplainJob(job=1), QueryQueues(), WeighJobs(descriptions=('Executable = "x";',))):
        assert BOB.identity.encode() not in msgspec.json.encode(ask(store, monitor, question))


# -- queues -------------------------------------------------------------------------------------------------------


def listed(store: Store, monitor: JobMonitor, query: QueryQueues, sender: Sender = ADA) -> QueueListing:
    monitor.look_again()
    answer = ask(store, monitor, query, sender)
    assert isinstance(answer, QueueListing)
    return answer


def test_queues_of_those_who_may_see_them(store: Store, monitor: JobMonitor, put: Put) -> None:
    first, second, third = put(5, 6), put(2, owner=BOB), put(3, sites=("S2",))
    alive(store, MAIN)
    mine = listed(store, monitor, QueryQueues())
    assert [(one.queue, one.waiting, one.oldest, one.fitting) for one in mine.queues] == [
        (third, 1, 3.0, 0), (first, 2, 5.0, 1),
    ]  # fmt: skip
    assert [one.queue for one in listed(store, monitor, QueryQueues(), OLGA).queues] == [second, third, first]
    assert [one.queue for one in listed(store, monitor, QueryQueues(owner=BOB.identity), OLGA).queues] == [second]
    by_name = QueryQueues(owner=BOB.identity.rpartition("/CN=")[2])
    assert [one.queue for one in listed(store, monitor, by_name, OLGA).queues] == [second]
    assert [one.queue for one in listed(store, monitor, QueryQueues(group="none"), OLGA).queues] == []
    assert [one.queue for one in listed(store, monitor, QueryQueues(site="S1"), OLGA).queues] == [second, first]
    page = listed(store, monitor, QueryQueues(skip=1, limit=1), OLGA)
    assert ([one.queue for one in page.queues], page.more) == ([third], True)


def test_one_queue(store: Store, monitor: JobMonitor, put: Put) -> None:
    queue = put(5, 6)
    put(7, priority=3)
    monitor.look_again()
    detail = ask(store, monitor, InspectQueue(queue=queue))
    assert isinstance(detail, QueueDetail)
    assert [one.job for one in detail.next] == [7, 5, 6]
    assert detail.queue.waiting == 3
    assert detail.place is not None
    assert detail.place.before == 0
    for hidden in (99, put(8, owner=BOB)):
        monitor.look_again()
        assert isinstance(ask(store, monitor, InspectQueue(queue=hidden)), Refused)


def test_a_count_stops(store: Store, monitor: JobMonitor, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("questions", "outlooks"):
        monkeypatch.setattr(f"consumers.outlook.{module}.MAX_BEFORE", 3)
    put(*range(1, 9))
    (queue,) = listed(store, monitor, QueryQueues()).queues
    assert (queue.waiting, queue.more) == (3, True)
    place = explained(store, monitor, 8).place
    assert place is not None
    assert (place.before, place.more) == (3, True)


# -- jobs that are not there yet ------------------------------------------------------------------------------------


def weighed(store: Store, monitor: JobMonitor, *texts: str, files: Sequence[str] = ()) -> Message:
    monitor.look_again()
    return ask(store, monitor, WeighJobs(descriptions=texts, files=tuple(files)))


def test_imagined_jobs_are_weighed_by_class(store: Store, monitor: JobMonitor) -> None:
    alive(store, MAIN)
    told = weighed(
        store,
        monitor,
        'Executable = "a.sh"; InputSandbox = "a.sh"; JobName = "many"; Parameters = 3;',
        'Executable = "a"; MaxRAM = 9000; JobName = "large";',
        'Executable = "a"; Site = "S9";',
        files=("a.sh",),
    )
    assert isinstance(told, JobsWeighed)
    assert (told.jobs, told.looked_at, told.limit) == (5, 5, "")
    assert [(one.jobs, one.first, one.name) for one in told.classes][:2] == [(3, 1, "many"), (1, 4, "large")]
    many, large, nowhere = told.classes
    assert many.outlook is not None
    assert large.outlook is not None
    assert (many.outlook.sight.fitting, large.outlook.sight.fitting) == (1, 0)
    assert [one.condition for one in large.outlook.obstacles] == ["memory"]
    assert "no such site: S9" in nowhere.refused
    with store.reading() as tx:
        assert heads.scan(tx) == []


def test_weighing_takes_a_bounded_time(store: Store, monitor: JobMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.outlook.imagined.WEIGH_SECONDS", 0.0)
    told = weighed(store, monitor, 'Executable = "a";', 'Executable = "a"; MaxRAM = 9000;')
    assert isinstance(told, JobsWeighed)
    assert (len(told.classes), told.more) == (1, True)


def test_a_snapshot_that_is_kept_for_long_does_not_say_that_nobody_leads(
    store: Store, monitor: JobMonitor, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "KEEP_SECONDS", 1000.0)
    put(1)
    explained(store, monitor, 1)
    later = ask(store, monitor, ExplainJob(job=1), now=NOW + 4000)
    assert isinstance(later, JobExplained)
    assert later.outlook is not None
    assert "matcher" not in held(later.outlook)


def test_errors_are_those_of_a_submission(store: Store, monitor: JobMonitor) -> None:
    told = weighed(store, monitor, "Executable = ;", 'Arguments = "x";')
    assert isinstance(told, Refused)
    assert told.code == "invalid"
    assert {error.message.partition(":")[0] for error in told.errors} == {"description 1", "description 2"}


def test_the_limit_that_would_refuse(store: Store, monitor: JobMonitor, directory: Directory) -> None:
    set_limits(store, Limit(who="*", measure=Measure.JOBS_PER_HOUR, value=2))
    directory.forget()
    told = weighed(store, monitor, 'Executable = "a"; Parameters = 3;')
    assert isinstance(told, JobsWeighed)
    assert told.limit.startswith("limit jobs-per-hour")


# -- the desk -----------------------------------------------------------------------------------------------------


def test_a_flood_of_questions_is_refused(store: Store, monitor: JobMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MAX_EACH", 0)
    assert ask(store, monitor, ExplainJob(job=1)) == Refused(code="limit", reason=desk.BUSY, type="job.explain.v1")


def test_what_explain_says_fits_is_what_the_matcher_takes(
    store: Store, monitor: JobMonitor, put: Put, directory: Directory
) -> None:
    """Parked pilots first, then the job: those that are told to fit get it, one after the other, and no others."""
    now = time.time()
    with store.transaction() as tx:
        acquire_or_renew(tx, "matcher", "here", now, 60.0)
    matcher = Matcher(LeaseSettings(), directory, "here")
    chores(store, matcher, now)
    offers = [MAIN, MAIN, Offer(site="S2", memory_mb=4000, cpu_seconds=1e6, wall_seconds=1e6),
              Offer(site="S1", memory_mb=10, cpu_seconds=1e6, wall_seconds=1e6)]  # fmt: skip
    asked = [
        admitted(RequestMatch(slot="a", offer=offer, wait_seconds=600, csrs=(b"x",)), pilot(str(number)))
        for number, offer in enumerate(offers)
    ]
    tell(store, matcher, asked, now)
    queue = put(*range(1, 10), sites=("S1",), memory_mb=2000)
    told = outlook(store, monitor, 1, now=now)
    assert (told.sight.parked, told.sight.fitting_parked) == (4, 2)
    heard = tell(store, matcher, [admitted(WorkWaiting(queues=(queue,)), service("job-manager"))], now)
    assert sum(len(one.matches) for one in heard.said if isinstance(one, MatchResponse)) == 2
