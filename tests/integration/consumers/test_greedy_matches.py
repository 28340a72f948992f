"""What one sender could do to the matcher, and through it to everybody: huge answers, false sizes, endless slots."""

from __future__ import annotations

import hashlib
import time

import pytest

from consumers.job_manager import JobManager
from consumers.job_state import JobState
from consumers.matcher import Matcher
from consumers.matching import MAX_SLOTS, answers
from consumers.sandbox_store import SandboxStore
from consumers.settings import LeaseSettings
from consumers.store import parked, proxies, sandboxes
from consumers.store.proxies import Proxy
from schemas.errors import InvalidInputError
from schemas.job import JobStatus
from schemas.messages.common import SandboxFile
from schemas.messages.pilot import Offer, Report, ReportJobs, RequestMatch
from schemas.messages.service import JobsSubmitted, MatchResponse, Refused
from schemas.messages.user import PutSandbox, SubmitJobs
from schemas.registry import by_name
from tests.support.jobs import job_of, put_job
from tests.support.messages import admitted, chores, pilot, tell, user

pytestmark = pytest.mark.integration

ADA = user("ada")
OFFER = Offer(site="S1", cpu_seconds=1e9, wall_seconds=1e9, processors=8, memory_mb=1e6, disk_mb=1e6)


@pytest.fixture
def submit(store, directory):
    now = time.time()
    with store.transaction() as tx:
        proxies.put(tx, Proxy(ADA.identity, ADA.group, "chain", b"key", now + 3600, now))
    manager = JobManager(directory)

    def send(*descriptions: str, files: tuple[SandboxFile, ...] = ()):
        (answer,) = tell(store, manager, [admitted(SubmitJobs(descriptions=descriptions, files=files), ADA)]).to(ADA)
        return answer

    return send


@pytest.fixture
def matcher(store, directory):
    made = Matcher(LeaseSettings(), directory, "here")
    chores(store, made)
    return made


def request(jobs: int = 1, slot: str = "main", wait: float = 60.0) -> RequestMatch:
    return RequestMatch(slot=slot, offer=OFFER, jobs=jobs, wait_seconds=wait, csrs=(b"csr",))


def test_an_answer_stays_within_its_bound_and_the_rest_waits_uncharged(store, directory, submit, monkeypatch):
    answer = submit(*['[ Executable="/bin/true"; ]'] * 5)
    assert isinstance(answer, JobsSubmitted)
    monkeypatch.setattr(answers, "MAX_RESPONSE_BYTES", 100)
    made = Matcher(LeaseSettings(), directory, "here")
    chores(store, made)
    (response,) = tell(store, made, [admitted(request(5), pilot())]).to(pilot())
    assert isinstance(response, MatchResponse)
    assert 1 <= len(response.matches) < 5
    given = {match.job for match in response.matches}
    for job in range(answer.first, answer.first + 5):
        row = job_of(store, job)
        assert row.status is (JobStatus.MATCHED if job in given else JobStatus.WAITING)
        assert row.infra_failures == 0


def test_a_false_size_is_refused(store, directory, submit):
    data = b"x" * 60_000
    sha256 = hashlib.sha256(data).hexdigest()
    whole = PutSandbox(sha256=sha256, size=len(data), index=0, count=1, data=data)
    tell(store, SandboxStore(directory), [admitted(whole, ADA)])
    lie = SandboxFile(name="a", sha256=sha256, size=0)
    answer = submit('[ Executable="/bin/true"; InputSandbox={"a"}; ]', files=(lie,))
    assert isinstance(answer, Refused)
    assert "60000 bytes" in answer.reason


def test_a_pilot_parks_a_bounded_number_of_requests(store, matcher):
    for start in range(0, 160, 16):
        messages = [admitted(request(slot=f"s{start + n}"), pilot()) for n in range(16)]
        tell(store, matcher, messages)
    with store.reading() as tx:
        assert len(parked.page(tx)) <= MAX_SLOTS + 16
    for _ in range(3):  # a slot that is asked for again replaces its older request, and is no new one
        tell(store, matcher, [admitted(request(slot="s0"), pilot())])
    with store.reading() as tx:
        assert "s0" in {row.slot for row in parked.page(tx)}


def test_an_outputs_size_is_what_came_and_not_what_the_pilot_says(store):
    data = b"x" * 60_000
    lie = SandboxFile(name="out", sha256=hashlib.sha256(data).hexdigest(), size=0, content=data)
    put_job(store, 1, status=JobStatus.RUNNING, attempt=1, pilot=pilot().cli, lease_until=time.time() + 60)
    report = Report(job=1, attempt=1, sequence=1, status=JobStatus.DONE, outputs=(lie,))
    tell(store, JobState(LeaseSettings(), lambda: True, "here"), [admitted(ReportJobs(reports=(report,)), pilot())])
    with store.reading() as tx:
        assert [row.size for row in sandboxes.outputs_of(tx, 1)] == [60_000]


@pytest.mark.parametrize("number", [2**63, 10**40, -1])
def test_a_number_that_no_database_keeps_is_refused_at_the_door(number):
    body = b'{"before":%d}' % number
    with pytest.raises(InvalidInputError):
        by_name("job.query.v1").decode(body)
