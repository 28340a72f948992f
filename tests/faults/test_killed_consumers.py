"""Each consumer dies by SIGKILL between delivery, commit, acknowledgement, publication and confirm; then it comes back.

Every service is a process of its own here, on PostgreSQL. A case arms one service, does what brings the message to it,
waits for its death, starts it again, and holds everything to the invariants.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from compose.local.configs import STORAGE_ELEMENT as SE
from compose.services import NAMES
from consumers.store import dead, jobs
from producers.errors import TimedOutError
from schemas.envelope import JWS_HEADER
from schemas.job import JobStatus
from schemas.messages.common import InputFile
from schemas.messages.user import SubmitJobs
from tests.support.wait import wait_until

from .harness import Meanwhile, Stand, stand
from .invariants import check, no_letter_died, nothing_left
from .serve_with_faults import POINTS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def place(tmp_path_factory, postgres) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("killed"), postgres) as one:
        one.serve_each(faults=True)
        one.start_pilot(1, hurry=True)
        one.start_pilot(2, hurry=True)
        yield one


@pytest.fixture(autouse=True)
def all_well(place) -> Iterator[None]:
    """A failed case must not take the following ones with it."""
    yield
    place.disarm()
    for name in NAMES:
        if name not in place.processes or place.processes[name].poll() is not None:
            place.processes.pop(name, None)
            place.serve(name, faults=True)


@pytest.fixture(scope="module")
def user(place):
    """One standing login: what is under test here is the other side."""
    return place.client()


@pytest.fixture(scope="module")
def seeds(place, user) -> str:
    """An input file in the catalog, so that the optimizer has something to look up."""
    file = place.place.layout.storage / "faults" / "seeds.txt"
    file.parent.mkdir(parents=True)
    file.write_text("12345", "ascii")
    lfn = "/local/faults/seeds.txt"
    user.register_replica(lfn, SE, file.as_uri(), 5)
    return lfn


def submit_through(place: Stand, user, victim: str, **how) -> list[int]:
    """Submit while a service is to die, bring it back when it is dead, and wait for the jobs."""
    submitting = Meanwhile(lambda: place.submit(client=user, **how))
    place.await_death(victim)
    place.serve(victim, faults=True)
    ids = submitting.result()
    assert isinstance(ids, list)
    place.wait_for(ids)
    return ids


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    ("victim", "kind"),
    [
        ("job-manager", "job.submit.v1"),
        ("matcher", "work.waiting.v1"),
        ("job-state", "job.report.v1"),
        ("optimizer", "jobs.received.v1"),
        ("sandbox-store", "sandbox.put.v1"),
    ],
)
def test_a_consumer_dies_on_the_way_of_a_job(place, user, seeds, victim, kind, point):
    more = f'InputData = {{"LFN:{seeds}"}};'
    if victim == "sandbox-store":
        more += 'OutputSandbox = {"std.out", "large.bin"};'  # too large for a report: goes in chunks
    place.arm(victim, point, kind)
    ids = submit_through(place, user, victim, jobs=5, more=more)
    check(place, ids)
    no_letter_died(place)
    if victim == "sandbox-store":
        assert {file.name for file in user.job(ids[-1]).outputs} == {"std.out", "large.bin"}


@pytest.mark.parametrize("point", POINTS)
def test_job_state_dies_with_an_acceptance_or_a_heartbeat(place, user, point):
    for kind in ("job.accept.v1", "pilot.heartbeat.v1"):
        place.arm("job-state", point, kind)
        # Long enough to be told of in a heartbeat.
        ids = submit_through(place, user, "job-state", jobs=2, tenths=3 if kind == "job.accept.v1" else 12)
        check(place, ids)
        assert {row.attempt for row in place.jobs(ids).values()} == {1}, "nothing was lost, so nothing runs again"


@pytest.mark.parametrize("point", POINTS)
def test_the_matcher_dies_with_a_request(place, user, point):
    place.arm("matcher", point, "match.request.v1")
    # More than there are slots, so that pilots ask again while jobs wait, and are answered at once.
    ids = submit_through(place, user, "matcher", jobs=16, tenths=2)
    check(place, ids)


@pytest.mark.parametrize("point", POINTS)
def test_the_catalog_dies_with_a_registration(place, user, point):
    lfn = f"/local/faults/{point}.txt"
    place.arm("replica-catalog", point, "replica.register.v1")
    registering = Meanwhile(lambda: user.register_replica(lfn, SE, "file:///nowhere", 5))
    place.await_death("replica-catalog")
    place.serve("replica-catalog", faults=True)
    answer = registering.result()
    assert isinstance(answer, InputFile)
    assert list(user.replicas([lfn])) == [lfn]
    assert place.count("replicas", f"lfn = '{lfn}'") == 1


@pytest.mark.parametrize("point", POINTS)
def test_the_monitor_dies_with_a_question(place, user, point):
    [job] = place.submit(client=user)
    place.wait_for([job])
    place.arm("job-monitor", point, "job.inspect.v1")
    asker = place.client(timeout=3.0 if point == "acknowledged" else 30.0)
    asking = Meanwhile(lambda: asker.job(job))
    place.await_death("job-monitor")
    place.serve("job-monitor", faults=True)
    if point == "acknowledged":  # answers to questions are not kept: whoever misses one asks again
        with pytest.raises(TimedOutError):
            asking.result()
        assert asker.job(job).summary.status is JobStatus.DONE
    else:
        assert asking.result().summary.status is JobStatus.DONE  # type: ignore[attr-defined]


@pytest.mark.parametrize("point", POINTS)
def test_the_keeper_of_dead_letters_dies_with_a_replay(place, user, point):
    """A genuine submission that died comes back on the operator's word: once, whatever happens to who brings it."""
    place.wait_for(place.submit(client=user))  # his proxy is there
    before = place.count("submissions")
    with place.place.session(place.place.user()) as session:
        sealed = session.seal(session.letter(SubmitJobs(descriptions=('[Executable = "/bin/true"; CPUTime = 600;]',))))
        died = dead.NewLetter(
            time=time.time(),
            queue="submissions",
            typ="job.submit.v1",
            issuer=session.identity,
            client=session.client,
            reason="a test",
            body=sealed.body,
            jws=sealed.headers[JWS_HEADER],
            user_id=session.client,
        )
        with place.store.transaction() as tx:
            dead.add(tx, [died])
    [letter] = [one for one in user.dead_letters().letters if one.reason == "a test"]
    place.arm("dead-letters", point, "dead.replay.v1")
    replaying = Meanwhile(lambda: user.replay([letter.id]))
    place.await_death("dead-letters")
    place.serve("dead-letters", faults=True)
    replaying.result()
    wait_until(lambda: place.count("submissions") == before + 1, 20, "the submission")
    with place.store.reading() as tx:
        ids = [row.id for row in jobs.query(tx, jobs.JobFilter(limit=1))[0]]
    place.wait_for(ids)
    assert place.statuses(ids) == dict.fromkeys(ids, JobStatus.DONE)
    assert len(place.attempts(ids[0])) == 1
    assert place.count("submissions") == before + 1
    no_letter_died(place)


@pytest.mark.parametrize("point", ["uncommitted", "acknowledged", "published"])
def test_the_relay_dies_with_letters_of_another_that_died(place, user, point):
    place.arm("job-manager", "acknowledged", "job.submit.v1")
    submitting = Meanwhile(lambda: place.submit(client=user, jobs=3))
    place.await_death("job-manager")
    wait_until(lambda: place.count("outbox") > 0, 10, "letters that were not said")
    place.arm("relay", point, "chores")
    place.await_death("relay")
    place.serve("job-manager", faults=True)
    place.serve("relay", faults=True)
    ids = submitting.result()
    place.wait_for(ids)
    check(place, ids)


@pytest.mark.parametrize("point", POINTS)
def test_the_proxy_manager_dies_with_an_order(place, user, point):
    for name in ("pilot-1", "pilot-2"):
        if name in place.processes:
            place.stop(name)
    place.start_pilot(1, hurry=True)  # it holds no proxy yet
    place.arm("proxy-manager", point, "proxy.wanted.v1")
    ids = submit_through(place, user, "proxy-manager", jobs=3)
    check(place, ids)
    assert {row.attempt for row in place.jobs(ids).values()} == {1}


def test_nothing_lies_about_after_all_that(place):
    nothing_left(place)
    no_letter_died(place)
