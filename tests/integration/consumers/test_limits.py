"""Each limit on its own, on both databases: what is refused, what is said, and that two at once get what one gets."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from consumers import allowance
from consumers.batch import Batch
from consumers.directory import Directory
from consumers.expansion import SLICE
from consumers.job_manager import JobManager
from consumers.store import Store, jobs, proxies, submissions, usage
from consumers.store.errors import StoreConflict
from consumers.store.proxies import Proxy
from schemas.access import Limit, Measure
from schemas.job import JobStatus
from schemas.messages.service import JobsSubmitted, Refused
from schemas.messages.user import KillJobs, RescheduleJobs, SubmitJobs
from schemas.registry import Message
from tests.support.messages import Sender, admitted, chores, tell, user
from tests.support.rules import set_limits

pytestmark = pytest.mark.integration

ADA, BOB = user("ada"), user("bob")
ADA_PROD = user("ada", "NormalUser", "JobSharing", group="vo_prod")
ONE = '[ Executable = "/bin/true"; ]'
HOUR = time.time() // 3600 * 3600  # of the delegated proxies' life, too
EVERYBODY = (ADA, BOB, ADA_PROD)

Clock = Callable[[float], None]


def jdl(count: int) -> str:
    return f'[ Executable = "/bin/true"; Parameters = {count}; ]'


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    def set_to(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: HOUR + seconds)

    return set_to


@pytest.fixture
def manager(store: Store, directory: Directory, clock: Clock) -> Iterator[JobManager]:
    clock(20)
    with store.transaction() as tx:
        for sender in EVERYBODY:
            proxies.put(tx, Proxy(sender.identity, sender.group, "chain", b"key", HOUR + 90_000, HOUR))
    return JobManager(directory)


@pytest.fixture
def limit(store: Store, directory: Directory) -> Callable[..., None]:
    def set_to(*some: tuple[str, Measure, int]) -> None:
        set_limits(store, *(Limit(who=who, measure=measure, value=value) for who, measure, value in some))
        directory.forget()

    return set_to


def submit(store: Store, manager: JobManager, text: str = ONE, sender: Sender = ADA, **fields: object) -> Message:
    asked = SubmitJobs(descriptions=(text,), **fields)  # type: ignore[arg-type]
    [answer] = tell(store, manager, [admitted(asked, sender)]).to(sender)
    return answer


def refused(answer: Message) -> str:
    assert isinstance(answer, Refused), answer
    assert answer.code == "limit"
    return answer.reason


def until_full(store: Store, manager: JobManager, text: str = ONE, sender: Sender = ADA) -> tuple[int, str]:
    """How many submissions are taken, and what is said to the next one."""
    for taken in range(20):
        answer = submit(store, manager, text, sender)
        if isinstance(answer, Refused):
            return taken, refused(answer)
    raise AssertionError("no end")


def how_many(store: Store) -> int:
    with store.reading() as tx:
        return len(jobs.load_range(tx, 1, 1_000_000))


def finish(store: Store, *ids: int) -> None:
    with store.transaction() as tx:
        jobs.update_many(tx, {job: {"status": JobStatus.DONE} for job in ids})


# -- windows ----------------------------------------------------------------------------------------------------


def test_submissions_per_minute(store: Store, manager: JobManager, clock: Clock, limit: Callable[..., None]) -> None:
    limit(("*", Measure.SUBMISSIONS_PER_MINUTE, 3))
    taken, reason = until_full(store, manager)
    assert taken == 3
    assert reason == (
        "limit submissions-per-minute: 3 submissions of yours within this minute; at most 3 (set for everybody): "
        "try again in 41 s, or send many jobs in one submission"
    )
    assert how_many(store) == 3
    assert isinstance(submit(store, manager, sender=BOB), JobsSubmitted)
    clock(61)
    assert until_full(store, manager)[0] == 3


def test_an_idempotent_repetition_costs_nothing(store: Store, manager: JobManager, limit: Callable[..., None]) -> None:
    limit(("*", Measure.SUBMISSIONS_PER_MINUTE, 1))
    first = submit(store, manager, key="k")
    assert submit(store, manager, key="k") == first


def test_jobs_per_hour(store: Store, manager: JobManager, clock: Clock, limit: Callable[..., None]) -> None:
    limit(("*", Measure.JOBS_PER_HOUR, 25))
    taken, reason = until_full(store, manager, jdl(10))
    assert taken == 2
    assert reason == (
        "limit jobs-per-hour: 20 jobs of yours within this hour, and this submission has 10 more; "
        "at most 25 (set for everybody): try again in 3581 s"
    )
    assert isinstance(submit(store, manager, jdl(5)), JobsSubmitted)
    assert refused(submit(store, manager, jdl(26))).endswith("send fewer at once")
    clock(3601)
    assert isinstance(submit(store, manager, jdl(25)), JobsSubmitted)


def test_bytes_per_hour(store: Store, manager: JobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "BYTES_PER_HOUR", 150)
    taken, reason = until_full(store, manager, '[ Executable = "/bin/true"; JobName = "' + "x" * 60 + '"; ]')
    assert taken == 1
    assert "at most 150 (built in)" in reason


def test_bytes_of_a_submission(store: Store, manager: JobManager, limit: Callable[..., None]) -> None:
    limit((f"dn:{ADA.identity}", Measure.SUBMISSION_BYTES, 100))
    text = '[ Executable = "/bin/true"; JobName = "' + "x" * 100 + '"; ]'
    reason = refused(submit(store, manager, text))
    assert reason.startswith("limit submission-bytes: this submission has ")
    assert "at most 100 (set for you)" in reason
    assert isinstance(submit(store, manager, text, BOB), JobsSubmitted)


def test_a_batch_gets_no_more_and_a_rollback_costs_nothing(
    store: Store, manager: JobManager, limit: Callable[..., None]
) -> None:
    limit(("*", Measure.SUBMISSIONS_PER_MINUTE, 3))
    three = [admitted(SubmitJobs(descriptions=(ONE,)), ADA) for _ in range(3)]
    with contextlib.suppress(RuntimeError), store.transaction() as tx:
        manager.handle(Batch(tx, time.time()), three)
        raise RuntimeError("undone")
    heard = tell(store, manager, [admitted(SubmitJobs(descriptions=(ONE,)), ADA) for _ in range(5)])
    assert [type(answer) for answer in heard.to(ADA)] == [JobsSubmitted] * 3 + [Refused] * 2


def test_another_process_counts_too(
    store: Store, manager: JobManager, directory: Directory, limit: Callable[..., None]
) -> None:
    limit(("*", Measure.SUBMISSIONS_PER_MINUTE, 2))
    assert isinstance(submit(store, manager), JobsSubmitted)
    assert until_full(store, JobManager(directory))[0] == 1


# -- active jobs ------------------------------------------------------------------------------------------------


def test_active_jobs_of_a_user_in_all_his_groups(
    store: Store, manager: JobManager, clock: Clock, limit: Callable[..., None]
) -> None:
    limit((f"dn:{ADA.identity}", Measure.ACTIVE_JOBS, 10))
    assert isinstance(submit(store, manager, jdl(6)), JobsSubmitted)
    assert isinstance(submit(store, manager, jdl(3), ADA_PROD), JobsSubmitted)
    assert refused(submit(store, manager, jdl(2))) == (
        "limit active-jobs: 9 jobs of yours are not final yet, and this submission has 2 more; "
        "at most 10 (set for you): try again when some have ended"
    )
    assert isinstance(submit(store, manager, jdl(11), BOB), JobsSubmitted)
    finish(store, 1)
    refused(submit(store, manager, jdl(2)))  # counted a moment ago
    clock(20 + allowance.RECOUNT_SECONDS)
    assert isinstance(submit(store, manager, jdl(2)), JobsSubmitted)
    clock(20 + 2 * allowance.RECOUNT_SECONDS)
    refused(submit(store, manager))


def test_active_jobs_of_a_group_together(
    store: Store, manager: JobManager, clock: Clock, limit: Callable[..., None]
) -> None:
    limit(("group:vo_user", Measure.ACTIVE_JOBS, 10), ("*", Measure.ACTIVE_JOBS, 4))
    assert isinstance(submit(store, manager, jdl(6)), JobsSubmitted)
    assert isinstance(submit(store, manager, jdl(3), BOB), JobsSubmitted)
    reason = refused(submit(store, manager, jdl(2), BOB))
    assert reason.startswith("limit active-jobs: 9 jobs of your group are not final yet")
    assert "at most 10 (set for group 'vo_user')" in reason
    refused(submit(store, manager, jdl(5), ADA_PROD))  # there everybody's limit counts
    finish(store, 1, 2)
    clock(40)
    assert isinstance(submit(store, manager, jdl(3), BOB), JobsSubmitted)


def test_jobs_that_are_still_to_be_written_count(
    store: Store, manager: JobManager, clock: Clock, limit: Callable[..., None]
) -> None:
    limit(("*", Measure.ACTIVE_JOBS, SLICE + 600))
    assert isinstance(submit(store, manager, jdl(SLICE + 500)), JobsSubmitted)
    assert "1,500 jobs" in refused(submit(store, manager, jdl(101)))
    clock(40)
    chores(store, manager, time.time())
    assert "1,500 jobs" in refused(submit(store, manager, jdl(101)))
    assert isinstance(submit(store, manager, jdl(100)), JobsSubmitted)


def test_what_a_batch_has_not_written_yet_counts(store: Store, manager: JobManager, limit: Callable[..., None]) -> None:
    limit(("*", Measure.ACTIVE_JOBS, 5))
    with store.transaction() as tx:
        usage.add_active(tx, ADA.identity, ADA.group, 1)  # counted too high: it will be counted anew
    asked = [admitted(SubmitJobs(descriptions=(jdl(3),)), ADA), admitted(SubmitJobs(descriptions=(jdl(2),)), ADA)]
    heard = tell(store, manager, [*asked, admitted(SubmitJobs(descriptions=(ONE,)), ADA)])
    assert [type(answer) for answer in heard.to(ADA)] == [JobsSubmitted, JobsSubmitted, Refused]
    assert how_many(store) == 5


def test_jobs_that_run_again_count_again(
    store: Store, manager: JobManager, clock: Clock, limit: Callable[..., None]
) -> None:
    limit(("*", Measure.ACTIVE_JOBS, 3))
    submit(store, manager, jdl(3))
    tell(store, manager, [admitted(KillJobs(jobs=(1, 2)), ADA)])
    clock(40)
    assert isinstance(submit(store, manager, jdl(2)), JobsSubmitted)
    tell(store, manager, [admitted(RescheduleJobs(jobs=(1,)), ADA)])
    clock(60)
    tell(store, manager, [admitted(KillJobs(jobs=(4,)), ADA)])
    assert "3 jobs of yours" in refused(submit(store, manager))


def test_two_submissions_at_once_get_no_more_than_the_limit(
    store: Store, manager: JobManager, directory: Directory, limit: Callable[..., None]
) -> None:
    limit(("*", Measure.ACTIVE_JOBS, 20), ("*", Measure.JOBS_PER_HOUR, 20), ("*", Measure.SUBMISSIONS_PER_MINUTE, 6))
    taken: list[int] = []
    start = threading.Barrier(4)

    def worker() -> None:
        mine = JobManager(directory)
        start.wait(10)
        for _ in range(5):
            with contextlib.suppress(StoreConflict):
                answer = submit(store, mine, jdl(4))
                if isinstance(answer, JobsSubmitted):
                    taken.append(answer.count)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert taken == [4] * 5
    assert how_many(store) == 20


def test_the_migration_counts_what_is_there(store: Store, manager: JobManager) -> None:
    submit(store, manager, jdl(SLICE + 3))
    finish(store, 1, 2)
    with store.transaction() as tx:
        usage.recount(tx, 5.0, owner=ADA.identity)
        found = usage.of_owner(tx, ADA.identity, time.time())
        assert (found.active, found.counted) == (SLICE + 1, 5.0)
        assert [row.count - row.expanded for row in submissions.load(tx, [1]).values()] == [3]
