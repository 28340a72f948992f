"""Questions about jobs, and followers."""

from __future__ import annotations

import contextlib
import hashlib

import pytest

from broker.authorization import Property
from consumers import owed_states
from consumers.batch import Batch
from consumers.directory import Directory
from consumers.job_monitor import JobMonitor
from consumers.store import Store, attempts, history, registry, sandboxes
from consumers.store.rows import AttemptRow, HistoryRow
from consumers.store.sandboxes import OutputRow
from schemas.job import JobStatus as S
from schemas.messages.event import JobChange, JobsChanged
from schemas.messages.service import JobDetail, JobListing, JobProgress, Refused
from schemas.messages.user import FollowJobs, InspectJob, QueryJobs
from schemas.registry import Message
from tests.support.jobs import put_job
from tests.support.messages import Heard, Sender, admitted, chores, service, tell, user

pytestmark = pytest.mark.integration

NOW = 1000.0
ADA, BOB = user("ada"), user("bob")
ADA_PROD, BOB_PROD = (
    user(name, Property.NORMAL_USER, Property.JOB_SHARING, Property.DATA_MANAGER, group="vo_prod", suffix="prod")
    for name in ("ada", "bob")
)
OLGA = user("olga", Property.OPERATOR, Property.JOB_ADMINISTRATOR, group="vo_admin")


@pytest.fixture
def monitor(directory: Directory) -> JobMonitor:
    return JobMonitor(directory=directory)


def ask(store: Store, monitor: JobMonitor, message: Message, sender: Sender = ADA, now: float = NOW) -> Heard:
    heard = tell(store, monitor, [admitted(message, sender, now=now)], now)
    assert not heard.letters, "answers to questions are not kept"
    return heard


def listed(store: Store, monitor: JobMonitor, query: QueryJobs, sender: Sender = ADA) -> list[int]:
    (listing,) = ask(store, monitor, query, sender).said
    assert isinstance(listing, JobListing)
    return [one.job for one in listing.jobs]


def three_owners(store: Store) -> None:
    put_job(store, 1, ADA, name="first", cpu_seconds=2.5)
    put_job(store, 2, BOB)
    put_job(store, 3, BOB_PROD, status=S.DONE, site="S1")
    put_job(store, 4, ADA, status=S.DELETED)


def test_people_see_their_own(store: Store, monitor: JobMonitor) -> None:
    three_owners(store)
    assert listed(store, monitor, QueryJobs()) == [1]
    assert listed(store, monitor, QueryJobs(owner="*")) == [1]
    assert listed(store, monitor, QueryJobs(), BOB) == [3, 2]
    assert listed(store, monitor, QueryJobs(owner=BOB.identity)) == []
    assert listed(store, monitor, QueryJobs(status=(S.DELETED,))) == [4]


def test_groups_share_and_operators_see_all(store: Store, monitor: JobMonitor) -> None:
    three_owners(store)
    assert listed(store, monitor, QueryJobs(owner="*"), ADA_PROD) == [3]
    assert listed(store, monitor, QueryJobs(owner=BOB.identity), ADA_PROD) == [3]
    assert listed(store, monitor, QueryJobs(owner="*"), OLGA) == [3, 2, 1]
    assert listed(store, monitor, QueryJobs(owner=ADA.identity), OLGA) == [1]
    assert listed(store, monitor, QueryJobs(), OLGA) == []
    assert listed(store, monitor, QueryJobs(owner="*", site="S1"), OLGA) == [3]


def test_ids_that_may_not_be_seen_are_left_out(store: Store, monitor: JobMonitor) -> None:
    three_owners(store)
    assert listed(store, monitor, QueryJobs(jobs=(1, 2, 3, 99))) == [1]
    assert listed(store, monitor, QueryJobs(jobs=(1, 2, 3, 99)), ADA_PROD) == [3, 1]
    assert listed(store, monitor, QueryJobs(jobs=(1, 2, 3, 99)), OLGA) == [3, 2, 1]


def test_pages_of_ids_hold_together(store: Store, monitor: JobMonitor) -> None:
    for job in range(1, 8):
        put_job(store, job, ADA if job % 2 else BOB)
    seen: list[int] = []
    more, before = True, 0
    while more:
        (page,) = ask(store, monitor, QueryJobs(jobs=tuple(range(1, 8)), limit=2, before=before)).said
        assert isinstance(page, JobListing)
        assert len(page.jobs) <= 2
        seen += [one.job for one in page.jobs]
        more, before = page.more, seen[-1]
    assert seen == [7, 5, 3, 1]


def test_a_detail_tells_everything(store: Store, monitor: JobMonitor) -> None:
    put_job(store, 1, ADA, attempt=1, status=S.DONE)
    data = b"hello"
    sha256 = hashlib.sha256(data).hexdigest()
    with store.transaction() as tx:
        history.append(tx, [HistoryRow(1, 0, 10.0, S.RECEIVED, "", "job-manager", "x" * 5000)])
        attempts.insert(tx, [AttemptRow(1, 1, "pilot-1", "S1", 11.0, exit_code=3)])
        sandboxes.put_small(tx, "pilot-1", {sha256: data}, 10.0, 1e9)
        sandboxes.bind_outputs(tx, [OutputRow(1, 1, "std.out", sha256, len(data), 0o644)])
    (detail,) = ask(store, monitor, InspectJob(job=1)).said
    assert isinstance(detail, JobDetail)
    assert bytes(detail.description) == b'{"Executable":"/bin/true"}'
    assert [(line.status, len(line.cause)) for line in detail.history] == [(S.RECEIVED, 1000)]
    assert [(one.attempt, one.exit_code) for one in detail.attempts] == [(1, 3)]
    assert [(one.name, one.content) for one in detail.outputs] == [("std.out", data)]


def test_a_hidden_job_and_none_are_alike(store: Store, monitor: JobMonitor) -> None:
    put_job(store, 2, BOB)
    answers = [ask(store, monitor, InspectJob(job=job)).said for job in (2, 99)]
    assert answers[0] == answers[1] == [Refused(code="not-found", reason="no such job", type="job.inspect.v1")]


# -- followers ----------------------------------------------------------------------------------------------------


def changed(job: int, owner: Sender = ADA, status: S = S.RUNNING, time: float = NOW) -> JobChange:
    return JobChange(job=job, status=status, time=time, owner=owner.identity, group=owner.group)


def publish(store: Store, monitor: JobMonitor, *events: list[JobChange], now: float = NOW) -> Heard:
    sender = service("job-state")
    return tell(store, monitor, [admitted(JobsChanged(changes=tuple(some)), sender, now=now) for some in events], now)


def told(heard: Heard, sender: Sender = ADA) -> list[tuple[int, S]]:
    messages = heard.to(sender)
    assert all(isinstance(one, JobProgress) and len(one.changes) <= 500 for one in messages)
    return [(change.job, change.status) for one in messages if isinstance(one, JobProgress) for change in one.changes]


def test_a_follower_hears_the_present_then_each_change(store: Store, monitor: JobMonitor) -> None:
    put_job(store, 1, ADA)
    put_job(store, 2, BOB)
    assert told(ask(store, monitor, FollowJobs(first=1, count=5))) == [(1, S.WAITING)]
    heard = publish(store, monitor, [changed(1, status=S.MATCHED), changed(7)], [changed(1), changed(2, BOB)])
    assert told(heard) == [(1, S.MATCHED), (1, S.RUNNING)]
    assert len(heard.unrecorded) == 1, "one message for the changes of a batch"


def test_a_follow_ends(store: Store, monitor: JobMonitor) -> None:
    ask(store, monitor, FollowJobs(first=1, seconds=60.0))
    assert monitor.due_in(NOW) is not None
    assert told(publish(store, monitor, [changed(1)], now=NOW + 59)) == [(1, S.RUNNING)]
    assert not publish(store, monitor, [changed(1)], now=NOW + 61).said
    chores(store, monitor, NOW + 61)
    assert monitor.due_in(NOW + 61) is None


def test_asking_again_tells_only_what_changed_since(store: Store, monitor: JobMonitor) -> None:
    put_job(store, 1, ADA, changed=NOW - 500)
    put_job(store, 2, ADA, changed=NOW - 10)
    assert told(ask(store, monitor, FollowJobs(first=1, count=2))) == [(1, S.WAITING), (2, S.WAITING)]
    assert told(ask(store, monitor, FollowJobs(first=1, count=2), now=NOW + 30)) == [(2, S.WAITING)]
    late = NOW + 30 + 61
    assert told(ask(store, monitor, FollowJobs(first=1, count=2), now=late)) == [(1, S.WAITING), (2, S.WAITING)]


def test_who_is_suspended_hears_nothing_more(store: Store, directory: Directory) -> None:
    monitor = JobMonitor(directory=directory)
    ask(store, monitor, FollowJobs(first=1))
    with store.transaction() as tx:
        registry.set_suspended(tx, ADA.identity, suspended=True)
    directory._loaded = float("-inf")
    assert not publish(store, monitor, [changed(1)]).said


def test_many_states_come_in_bounded_messages(store: Store, monitor: JobMonitor) -> None:
    for job in range(1, 3):
        put_job(store, job, ADA)
    ask(store, monitor, FollowJobs(first=1, count=2000))
    heard = publish(store, monitor, *([changed(job) for job in range(start, start + 400)] for start in (1, 401, 801)))
    assert [len(one.changes) for one in heard.said if isinstance(one, JobProgress)] == [500, 500, 200]


# -- questions about very many jobs -------------------------------------------------------------------------------


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed_states, "PAGE", 2)
    monkeypatch.setattr(owed_states, "PAGE_RANGE", 7)
    monkeypatch.setattr(owed_states, "PAGE_COST", 1)
    monkeypatch.setattr(owed_states, "STATES_PER_TURN", 4)


def put_many(store: Store, *ids: int) -> None:
    for job in ids:
        put_job(store, job, ADA)


def turns(store: Store, monitor: JobMonitor, first: Heard, now: float = NOW) -> list[Heard]:
    """All that is told, turn by turn."""
    heard = [first]
    while monitor.due_in(now) == 0.0:
        heard.append(chores(store, monitor, now))
        assert len(heard) < 100
    return heard


@pytest.mark.usefixtures("small_pages")
def test_very_many_states_are_told_turn_by_turn(store: Store, monitor: JobMonitor) -> None:
    put_many(store, *range(1, 12), 30)
    chores(store, monitor)  # follows that are over are looked for from time to time only
    asked = admitted(FollowJobs(first=1, count=100), ADA, now=NOW)
    heard = turns(store, monitor, tell(store, monitor, [asked], NOW))
    assert [job for one in heard for job, _ in told(one)] == [*range(1, 12), 30]
    assert max(len(told(one)) for one in heard) <= 5, "what a turn may tell, and the rest of a page"
    assert len(heard) >= 3
    letters = [letter for one in heard for letter in one.unrecorded]
    assert {letter.correlation for letter in letters} == {asked.verified.header.jti}
    assert monitor.due_in(NOW) != 0.0


@pytest.mark.usefixtures("small_pages")
def test_a_small_question_does_not_wait_for_a_large_one(store: Store, monitor: JobMonitor) -> None:
    put_many(store, *range(1, 30))
    ask(store, monitor, FollowJobs(first=1, count=1000))
    second = user("ada", suffix="2")
    assert [job for job, _ in told(ask(store, monitor, FollowJobs(first=29), second), second)] == [29]


@pytest.mark.usefixtures("small_pages")
def test_a_question_about_nothing_that_may_be_seen_gets_one_empty_answer(store: Store, monitor: JobMonitor) -> None:
    for job in range(1, 12):
        put_job(store, job, BOB)
    heard = turns(store, monitor, ask(store, monitor, FollowJobs(first=1, count=50)))
    assert [one for turn in heard for one in turn.said] == [JobProgress(changes=())]


@pytest.mark.usefixtures("small_pages")
def test_asked_again_meanwhile_it_goes_on_for_the_newer_question(store: Store, monitor: JobMonitor) -> None:
    put_many(store, *range(1, 12))
    first = ask(store, monitor, FollowJobs(first=1, count=20))
    again = admitted(FollowJobs(first=1, count=20), ADA, now=NOW)
    rest = turns(store, monitor, tell(store, monitor, [again], NOW + 1), NOW + 1)
    assert [job for one in [first, *rest] for job, _ in told(one)] == list(range(1, 12))
    assert {letter.correlation for one in rest for letter in one.unrecorded} == {again.verified.header.jti}


@pytest.mark.usefixtures("small_pages")
def test_a_rollback_loses_no_state(store: Store, monitor: JobMonitor) -> None:
    put_many(store, *range(1, 8))
    asked = admitted(FollowJobs(first=1, count=7), ADA, now=NOW)
    with contextlib.suppress(RuntimeError), store.transaction() as tx:
        monitor.handle(Batch(tx, NOW), [asked])
        raise RuntimeError("undone")
    heard = turns(store, monitor, tell(store, monitor, [asked], NOW + 1), NOW + 1)
    assert [job for one in heard for job, _ in told(one)] == list(range(1, 8))


@pytest.mark.usefixtures("small_pages")
def test_nothing_is_told_while_the_broker_does_not_take_it(store: Store, monitor: JobMonitor) -> None:
    put_many(store, 1, 2)
    monitor.unconfirmed = owed_states.MAX_UNCONFIRMED
    assert ask(store, monitor, FollowJobs(first=1, count=2)).said == []
    due = monitor.due_in(NOW)
    assert due is not None
    assert 0 < due < 1
    monitor.unconfirmed = 0
    assert [job for job, _ in told(chores(store, monitor, NOW))] == [1, 2]


@pytest.mark.usefixtures("small_pages")
def test_who_leaves_or_is_suspended_is_told_no_more(store: Store, directory: Directory) -> None:
    put_many(store, *range(1, 30))
    monitor = JobMonitor(directory=directory)
    ask(store, monitor, FollowJobs(first=1, count=50, seconds=10))
    assert chores(store, monitor, NOW + 11).said == []
    assert monitor.due_in(NOW + 11) != 0.0
    ask(store, monitor, FollowJobs(first=1, count=50), now=NOW + 20)
    with store.transaction() as tx:
        registry.set_suspended(tx, ADA.identity, suspended=True)
    directory._loaded = float("-inf")
    assert chores(store, monitor, NOW + 21).said == []


def test_long_texts_do_not_make_answers_that_nobody_may_read(store: Store, monitor: JobMonitor) -> None:
    for job in range(1, 401):
        put_job(store, job, ADA, minor="\x01" * 4096)
    heard = turns(store, monitor, ask(store, monitor, FollowJobs(first=1, count=400)))
    assert len([job for one in heard for job, _ in told(one)]) == 400  # each message within its type's bound
