"""Submissions and commands on both databases: all or nothing, once per key, each job by its own right."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from consumers.command_notes import OWN_PER_MINUTE
from consumers.directory import Directory
from consumers.expansion import SLICE
from consumers.job_manager import JobManager
from consumers.store import Store, audit, history, jobs, orders, proxies, submissions
from consumers.store.proxies import Proxy
from schemas.job import JobStatus
from schemas.messages.common import MAX_INLINE_BYTES, SandboxFile
from schemas.messages.event import JobsChanged, JobsReceived, WorkWaiting
from schemas.messages.service import ControlJobs, JobsCommanded, JobsSubmitted, Refused
from schemas.messages.user import DeleteJobs, KillJobs, RescheduleJobs, SubmitJobs
from schemas.registry import Message
from tests.support.jobs import job_of, put_job
from tests.support.messages import Heard, Sender, admitted, chores, pilot, tell, user

pytestmark = pytest.mark.integration

ADA, BOB = user("ada"), user("bob")
PROD = user("bob", "NormalUser", "JobSharing", group="vo_prod")
ADMIN = user("olga", "JobAdministrator", group="vo_admin")
MONITOR = user("olga", "JobMonitor", group="vo_admin")
ONE = '[ Executable = "/bin/true"; ]'


@pytest.fixture
def manager(store: Store, directory: Directory) -> Iterator[JobManager]:
    now = time.time()
    with store.transaction() as tx:
        proxies.put(tx, Proxy(ADA.identity, ADA.group, "chain", b"key", now + 3600, now))
    return JobManager(directory)


def say(store: Store, manager: JobManager, message: Message, sender: Sender = ADA) -> Heard:
    return tell(store, manager, [admitted(message, sender)])


def submit(store: Store, manager: JobManager, *descriptions: str, sender: Sender = ADA, **fields: object) -> Message:
    asked = SubmitJobs(descriptions=descriptions or (ONE,), **fields)  # type: ignore[arg-type]
    [answer] = say(store, manager, asked, sender).to(sender)
    return answer


def refused(answer: Message) -> Refused:
    assert isinstance(answer, Refused), answer
    return answer


def how_many(store: Store) -> int:
    with store.reading() as tx:
        return len(jobs.load_range(tx, 1, 1_000_000))


def file_of(content: bytes, *, inline: bool = True, name: str = "a.txt", **lies: object) -> SandboxFile:
    values = {
        "name": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content),
        "content": content if inline else None,
    }  # fmt: skip
    return SandboxFile(**(values | lies))  # type: ignore[arg-type]


# -- submissions ------------------------------------------------------------------------------------------------


def test_a_submission_waits_at_once_with_history_and_hints(store: Store, manager: JobManager) -> None:
    heard = say(store, manager, SubmitJobs(descriptions=(ONE, ONE)))
    [answer] = heard.to(ADA)
    assert isinstance(answer, JobsSubmitted)
    assert answer.count == 2
    for job in (answer.first, answer.first + 1):
        row = job_of(store, job)
        assert (row.status, row.owner, row.grp) == (JobStatus.WAITING, ADA.identity, ADA.group)
        assert row.queue_id is not None
    with store.reading() as tx:
        assert [line.status for line in history.of(tx, answer.first)] == [JobStatus.RECEIVED, JobStatus.WAITING]
    assert {type(one) for one in heard.said} == {JobsSubmitted, JobsChanged, WorkWaiting}


def test_the_same_key_gives_the_same_ids_and_another_content_is_a_conflict(store: Store, manager: JobManager) -> None:
    first = submit(store, manager, ONE, key="k")
    assert submit(store, manager, ONE, key="k") == first
    assert refused(submit(store, manager, ONE, ONE, key="k")).code == "conflict"
    assert refused(submit(store, manager, ONE, key="k", files=(file_of(b"x"),))).code == "conflict"
    assert how_many(store) == 1


def test_a_key_is_its_owners(store: Store, manager: JobManager) -> None:
    with store.transaction() as tx:
        proxies.put(tx, Proxy(BOB.identity, BOB.group, "chain", b"key", time.time() + 3600, time.time()))
    one, two = submit(store, manager, key="k"), submit(store, manager, key="k", sender=BOB)
    assert isinstance(one, JobsSubmitted)
    assert isinstance(two, JobsSubmitted)
    assert one.first != two.first


def test_two_of_one_key_in_one_batch(store: Store, manager: JobManager) -> None:
    asked = SubmitJobs(descriptions=(ONE,), key="k")
    heard = tell(store, manager, [admitted(asked, ADA), admitted(asked, ADA)])
    one, two = heard.to(ADA)
    assert one == two
    assert how_many(store) == 1


@pytest.mark.parametrize("seconds", [None, 30.0, -10.0])
def test_no_proxy_no_job(store: Store, manager: JobManager, seconds: float | None) -> None:
    if seconds is not None:
        with store.transaction() as tx:
            now = time.time()
            proxies.put(tx, Proxy(BOB.identity, BOB.group, "chain", b"key", now + seconds, now))
    assert refused(submit(store, manager, sender=BOB)).code == "no-proxy"
    assert how_many(store) == 0


def test_all_errors_are_told_with_their_places_and_nothing_is_kept(store: Store, manager: JobManager) -> None:
    answer = refused(submit(store, manager, ONE, "[ Arguments = 1; ]", '[ Executable = "x"; CPUTime = "soon"; ]'))
    assert answer.code == "invalid"
    texts = [error.message for error in answer.errors]
    assert any(text.startswith("description 2") for text in texts)
    assert any(text.startswith("description 3") for text in texts)
    assert how_many(store) == 0


def test_warnings_come_with_the_ids(store: Store, manager: JobManager) -> None:
    answer = submit(store, manager, '[ Executable = "/bin/true"; Owner = "mallory"; ]')
    assert isinstance(answer, JobsSubmitted)
    assert answer.warnings


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ((file_of(b"x", inline=False),), "was not uploaded"),
        ((file_of(b"x", sha256="0" * 64),), "the content is not what its size and hash say"),
        ((file_of(b"x", size=7),), "the content is not what its size and hash say"),
        ((file_of(b"x"), file_of(b"y")), "is there twice"),
        (
            (file_of(b"x" * MAX_INLINE_BYTES, name="one"), file_of(b"y", name="two")),
            f"{MAX_INLINE_BYTES + 1} bytes of sandbox inside the message",
        ),
    ],
)
def test_files_that_are_not_what_they_say(
    store: Store, manager: JobManager, files: tuple[SandboxFile, ...], what: str
) -> None:
    answer = refused(submit(store, manager, files=files))
    assert any(what in error.message for error in answer.errors), answer.errors
    assert how_many(store) == 0


def test_an_upload_of_somebody_else_gives_no_right(store: Store, manager: JobManager) -> None:
    submit(store, manager, files=(file_of(b"secret"),))
    with store.transaction() as tx:
        proxies.put(tx, Proxy(BOB.identity, BOB.group, "chain", b"key", time.time() + 3600, time.time()))
    answer = refused(submit(store, manager, files=(file_of(b"secret", inline=False),), sender=BOB))
    assert "was not uploaded" in answer.reason
    assert isinstance(submit(store, manager, files=(file_of(b"secret", inline=False),)), JobsSubmitted)


def test_too_many_jobs(store: Store, manager: JobManager) -> None:
    many = '[ Executable = "/bin/true"; Parameters = 60000; ParameterStart = 0; ParameterStep = 1; ]'
    answer = refused(submit(store, manager, many, many))
    assert answer.code == "invalid"
    assert "at most" in answer.reason
    assert how_many(store) == 0


def test_large_submissions_are_written_in_slices(store: Store, manager: JobManager) -> None:
    count = 2 * SLICE + 5
    many = f'[ Executable = "/bin/echo"; Arguments = "%s"; Parameters = {count}; ]'
    answer = submit(store, manager, many)
    assert isinstance(answer, JobsSubmitted)
    assert (answer.count, how_many(store)) == (count, SLICE)
    while manager.due_in(time.time()) == 0.0:
        chores(store, manager)
    assert how_many(store) == count
    with store.reading() as tx:
        assert submissions.unexpanded(tx, 1) == []


def test_a_restart_goes_on_with_the_slices(store: Store, manager: JobManager, directory: Directory) -> None:
    submit(store, manager, f'[ Executable = "/bin/true"; Parameters = {SLICE + 1}; ]')
    other = JobManager(directory)
    due = other.due_in(time.time())
    assert due is not None
    assert due <= 0
    chores(store, other)
    assert how_many(store) == SLICE + 1


def test_jobs_that_need_more_go_to_the_optimizer(store: Store, manager: JobManager) -> None:
    data = '[ Executable = "/bin/true"; InputData = {"LFN:/vo/f"}; ]'
    heard = say(store, manager, SubmitJobs(descriptions=(data, data)))
    [hint] = [one for one in heard.said if isinstance(one, JobsReceived)]
    assert hint.count == 2
    assert job_of(store, hint.first).status is JobStatus.CHECKING


# -- commands ---------------------------------------------------------------------------------------------------


def outcomes(store: Store, manager: JobManager, message: Message, sender: Sender) -> dict[int, tuple[bool, str]]:
    [answer] = [one for one in say(store, manager, message, sender).to(sender) if isinstance(one, JobsCommanded)]
    return {one.job: (one.ok, one.reason) for one in answer.outcomes}


@pytest.mark.parametrize(
    ("sender", "own", "groups", "others"),
    [
        (ADA, True, "no such job", "no such job"),
        (PROD, "no such job", True, "no such job"),
        (ADMIN, True, True, True),
        (MONITOR, "the job is not yours", "the job is not yours", "the job is not yours"),
    ],
)
def test_each_job_by_its_own_right(
    store: Store, manager: JobManager, sender: Sender, own: object, groups: object, others: object
) -> None:
    put_job(store, 1, ADA)
    put_job(store, 2, user("carl", group="vo_prod"))
    put_job(store, 3, user("carl", group="vo_other"))
    found = outcomes(store, manager, KillJobs(jobs=(1, 2, 3, 999)), sender)
    assert found[999] == (False, "no such job")
    for job, right in ((1, own), (2, groups), (3, others)):
        assert found[job] == ((True, "") if right is True else (False, right))
        assert job_of(store, job).status is (JobStatus.KILLED if right is True else JobStatus.WAITING)


def test_a_kill_of_a_running_job_orders_its_pilot(store: Store, manager: JobManager) -> None:
    lease = time.time() + 60
    put_job(store, 1, status=JobStatus.RUNNING, attempt=1, pilot=pilot().cli, lease_until=lease, accepted=True)
    heard = say(store, manager, KillJobs(jobs=(1, 1)), ADA)
    [control] = heard.to(pilot())
    assert isinstance(control, ControlJobs)
    assert [(order.job, order.action) for order in control.orders] == [(1, "kill")]
    row = job_of(store, 1)
    assert (row.status, bool(row.kill_requested)) == (JobStatus.RUNNING, True)
    with store.reading() as tx:
        assert len(orders.pending(tx, time.time() + 100, 10)) == 1


def test_delete_and_reschedule(store: Store, manager: JobManager) -> None:
    put_job(store, 1, status=JobStatus.DONE, attempt=1, ended=5.0, exit_code=0)
    put_job(store, 2, status=JobStatus.FAILED, attempt=1, ended=5.0, exit_code=3)
    assert outcomes(store, manager, DeleteJobs(jobs=(1,)), ADA)[1][0]
    assert outcomes(store, manager, RescheduleJobs(jobs=(2,)), ADA)[2][0]
    assert job_of(store, 1).status is JobStatus.DELETED
    row = job_of(store, 2)
    assert row.status in {JobStatus.WAITING, JobStatus.CHECKING}
    assert (row.ended, row.exit_code) == (None, None)
    assert not outcomes(store, manager, RescheduleJobs(jobs=(1,)), ADA)[1][0]


def test_commands_are_audited_with_whose_jobs_they_touched(store: Store, manager: JobManager) -> None:
    put_job(store, 1, ADA)
    put_job(store, 2, ADA)
    put_job(store, 5, user("carl", group="vo_other"))
    outcomes(store, manager, KillJobs(jobs=(1, 2)), ADA)
    outcomes(store, manager, DeleteJobs(jobs=(1, 2, 5, 999)), ADMIN)
    outcomes(store, manager, KillJobs(jobs=(5,)), MONITOR)
    with store.reading() as tx:
        lines = [(row.identity, json.loads(row.detail)) for row in audit.query(tx, event="job.commanded")][::-1]
    assert lines == [
        (ADA.identity, {"group": "vo_user", "command": "job.kill.v1", "jobs": "1-2", "count": 2}),
        (
            ADMIN.identity,
            {
                "group": "vo_admin", "command": "job.delete.v1", "jobs": "1-2,5,999", "count": 4, "foreign": 3,
                "owners": [ADA.identity, user("carl").identity], "refused": 1,
            },
        ),
        (
            MONITOR.identity,
            {
                "group": MONITOR.group, "command": "job.kill.v1", "jobs": "5", "count": 1, "foreign": 1,
                "owners": [user("carl").identity], "refused": 1,
            },
        ),
    ]  # fmt: skip


def test_a_script_that_commands_without_end_fills_no_audit(store: Store, manager: JobManager) -> None:
    now = 6000.0
    put_job(store, 1, ADA)
    put_job(store, 2, user("carl", group="vo_other"))

    def command(sender: Sender, job: int, times: int, at: float) -> None:
        messages = [admitted(KillJobs(jobs=(job,)), sender, now=at) for _ in range(times)]
        tell(store, manager, messages, at)

    command(ADA, 1, OWN_PER_MINUTE + 30, now)
    command(ADMIN, 2, OWN_PER_MINUTE + 30, now)
    command(ADA, 1, 2, now + 60)
    with store.reading() as tx:
        rows = audit.query(tx, event="job.commanded", limit=1000)
    lines = Counter(row.identity for row in rows)
    assert lines == {ADA.identity: OWN_PER_MINUTE + 2, ADMIN.identity: OWN_PER_MINUTE + 30}
    told = [json.loads(row.detail).get("unrecorded") for row in rows if row.identity == ADA.identity]
    assert [one for one in told if one] == [30]


def test_who_reaches_for_others_jobs_in_vain_is_written_down_and_fills_no_audit(
    store: Store, manager: JobManager
) -> None:
    """Apart from what he does to his own, so that nothing hides it."""
    now = 6000.0
    put_job(store, 1, ADA)
    put_job(store, 2, user("carl", group="vo_other"))
    for job in (1, 2, 999):
        tell(store, manager, [admitted(KillJobs(jobs=(job,)), ADA, now=now) for _ in range(OWN_PER_MINUTE)], now)
    with store.reading() as tx:
        lines = [json.loads(row.detail) for row in audit.query(tx, event="job.commanded", limit=1000)]
    assert Counter(line["jobs"] for line in lines) == {"1": OWN_PER_MINUTE, "2": OWN_PER_MINUTE}
