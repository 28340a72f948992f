"""The jobs of who lost his rights: stopped as the policy says, all of them, and only as long as he is out."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from consumers import blocked_jobs
from consumers.blocked_jobs import SETTLE_SECONDS
from consumers.job_state import JobState
from consumers.settings import LeaseSettings
from consumers.store import Store, blocks, registry
from schemas.job import JobStatus
from schemas.messages.registrar import Blocked, IdentityBlocked, Policy
from schemas.messages.service import ControlJobs
from tests.integration.consumers.conftest import REGISTRY
from tests.support.jobs import job_of, put_job
from tests.support.messages import Heard, Sender, admitted, chores, pilot, service, tell, user

pytestmark = pytest.mark.integration

ADA, BOB = user("ada"), user("bob")
ADA_PROD = user("ada", group="vo_prod")
PILOT = pilot()
NOW = time.time()
S = JobStatus
RUNNING = {"pilot": PILOT.cli, "attempt": 1, "accepted": True, "lease_until": NOW + 7200, "heartbeat": NOW,
           "matched": NOW, "lease_seconds": 7200.0}  # fmt: skip


@pytest.fixture
def state() -> JobState:
    return JobState(LeaseSettings(), lambda: True, "here")


def put(store: Store, job: int, status: JobStatus, owner: Sender = ADA) -> None:
    put_job(store, job, owner, status=status, **(RUNNING if status is S.RUNNING else {}))


def block(store: Store, state: JobState, policy: Policy, how: Blocked = Blocked.SUSPENDED, group: str = "") -> None:
    fact = IdentityBlocked(
        identity=ADA.identity, group=group, how=how, reason="stolen key", by="/CN=op", time=NOW, jobs=policy
    )
    tell(store, state, [admitted(fact, service("registry"))], NOW)


def suspend(store: Store) -> None:
    with store.transaction() as tx:
        registry.set_suspended(tx, ADA.identity, suspended=True)


def statuses(store: Store, ids: Iterable[int]) -> list[JobStatus]:
    return [job_of(store, job).status for job in ids]


def orders(heard: Heard) -> list[int]:
    return [one.job for said in heard.to(PILOT) if isinstance(said, ControlJobs) for one in said.orders]


def test_kill_ends_all_that_lives(store: Store, state: JobState) -> None:
    suspend(store)
    for job, status in enumerate((S.WAITING, S.RECEIVED, S.DONE, S.RUNNING), 1):
        put(store, job, status)
    put(store, 5, S.WAITING, BOB)
    block(store, state, Policy.KILL)
    heard = chores(store, state, NOW + 1)
    assert statuses(store, range(1, 6)) == [S.KILLED, S.KILLED, S.DONE, S.RUNNING, S.WAITING]
    assert orders(heard) == [4]
    assert job_of(store, 4).kill_requested == "the registry: owner suspended, stolen key"


def test_hold_ends_what_runs_and_keeps_what_waits(store: Store, state: JobState) -> None:
    suspend(store)
    put(store, 1, S.WAITING)
    put(store, 2, S.RUNNING)
    block(store, state, Policy.HOLD)
    assert orders(chores(store, state, NOW + 1)) == [2]
    assert statuses(store, (1, 2)) == [S.WAITING, S.RUNNING]


def test_finish_leaves_everything(store: Store, state: JobState) -> None:
    suspend(store)
    put(store, 1, S.RUNNING)
    block(store, state, Policy.FINISH)
    assert orders(chores(store, state, NOW + 1)) == []
    assert job_of(store, 1).kill_requested == ""


def test_out_of_a_group_only_its_jobs_end(store: Store, state: JobState) -> None:
    users = [one for one in REGISTRY["users"] if one["dn"] != ADA.identity]
    with store.transaction() as tx:
        registry.seed(tx, {**REGISTRY, "users": [*users, {"dn": ADA.identity, "groups": ["vo_user"]}]})
    put(store, 1, S.WAITING)
    put(store, 2, S.WAITING, ADA_PROD)
    block(store, state, Policy.KILL, Blocked.LEFT, "vo_prod")
    chores(store, state, NOW + 1)
    assert statuses(store, (1, 2)) == [S.WAITING, S.KILLED]


def test_who_is_back_keeps_the_rest(store: Store, state: JobState) -> None:
    put(store, 1, S.WAITING)
    block(store, state, Policy.KILL)
    chores(store, state, NOW + 1)
    assert statuses(store, (1,)) == [S.WAITING]
    with store.reading() as tx:
        assert blocks.oldest(tx, 10) == []


def test_many_jobs_end_in_slices_and_late_ones_too(
    store: Store, state: JobState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked_jobs, "SLICE", 3)
    suspend(store)
    for job in range(1, 8):
        put(store, job, S.WAITING)
    block(store, state, Policy.KILL)
    counts = []
    for _ in range(3):
        assert state.due_in(NOW + 1) <= 0
        chores(store, state, NOW + 1)
        counts.append(statuses(store, range(1, 8)).count(S.KILLED))
    assert counts == [3, 6, 7]
    put(store, 8, S.WAITING)  # accepted by a service that did not know yet
    chores(store, state, NOW + 5)
    assert statuses(store, (8,)) == [S.KILLED]
    chores(store, state, NOW + SETTLE_SECONDS + 1)
    with store.reading() as tx:
        assert blocks.oldest(tx, 10) == []
