"""Every empty answer to a pilot says why: each thing that can keep all jobs from it has its reason."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from broker.authorization import Property
from consumers.directory import Directory
from consumers.domain.requirements import Requirements
from consumers.matcher import Matcher
from consumers.settings import LeaseSettings
from consumers.store import Store, queues, registry
from schemas.access import AccessRule, Effect
from schemas.job import JobStatus
from schemas.messages.pilot import Offer, RequestMatch
from schemas.messages.service import MatchResponse
from tests.integration.consumers.conftest import REGISTRY
from tests.support.jobs import put_job
from tests.support.messages import Sender, admitted, chores, pilot, tell, user
from tests.support.rules import set_rules

pytestmark = pytest.mark.integration

ADA, BOB = user("ada"), user("bob")
NOW = time.time()
OFFER = Offer(site="S1", cpu_seconds=1e6, wall_seconds=1e6, processors=8, memory_mb=4000, disk_mb=1e6)

Why = Callable[..., tuple[str, ...]]


def put(store: Store, job: int, owner: Sender = ADA, **wanted: object) -> None:
    want = Requirements(**wanted)  # type: ignore[arg-type]  # any of its fields
    with store.transaction() as tx:
        class_id = queues.class_ids(tx, {want.digest(): want.to_json()})[want.digest()]
        key = (class_id, owner.identity, owner.group)
        queue = queues.queue_ids(tx, [key])[key]
    put_job(store, job, owner, class_id=class_id, queue_id=queue)


@pytest.fixture
def why(store: Store, directory: Directory) -> Why:
    """What a pilot is told that asks a matcher which has just begun to lead."""

    def ask(offer: Offer = OFFER, csrs: tuple[bytes, ...] = (b"x",), sender: Sender | None = None) -> tuple[str, ...]:
        directory.forget()
        matcher = Matcher(LeaseSettings(), directory, "here")
        chores(store, matcher, NOW)
        sender = sender or pilot()
        heard = tell(store, matcher, [admitted(RequestMatch(slot="a", offer=offer, csrs=csrs), sender, now=NOW)], NOW)
        (answer,) = heard.to(sender)
        assert isinstance(answer, MatchResponse)
        assert not answer.matches
        return answer.reasons

    return ask


def test_nothing_waits(why: Why) -> None:
    assert why() == ("no job is waiting",)


def test_too_small(store: Store, why: Why) -> None:
    put(store, 1, memory_mb=8000)
    put(store, 2, memory_mb=9000)
    assert why() == ("2 classes: the node has 4000 MB of memory free",)


def test_a_limit(store: Store, why: Why) -> None:
    put(store, 1)
    with store.transaction() as tx:
        registry.seed(tx, {**REGISTRY, "match_limits": [{"scope": "site=S1", "running": 1, "reason": "fragile"}]})
    put_job(store, 9, BOB, status=JobStatus.RUNNING, site="S1", matched=NOW, pilot="x", attempt=1)
    assert why() == ("1 class: limits are reached", "site S1: 1 of 1 jobs run (fragile)")


def test_a_private_pilot(store: Store, why: Why) -> None:
    put(store, 1)
    bob = Sender(BOB.identity, "vo_private", frozenset({Property.PRIVATE_PILOT}))
    assert why(sender=bob) == ("1 class: the pilot takes only jobs of certain owners",)


def test_a_rule(store: Store, why: Why) -> None:
    put(store, 1)
    put(store, 2, BOB)
    set_rules(store, AccessRule(name="r", effect=Effect.DENY, who="group:vo_user", what="payload.run", site="S1"))
    assert why() == ("2 owners: rules, or the loss of their rights, keep their jobs from site S1",)


def test_a_suspended_owner(store: Store, why: Why) -> None:
    put(store, 1)
    with store.transaction() as tx:
        registry.set_suspended(tx, ADA.identity, suspended=True)
    assert why() == ("1 owner: rules, or the loss of their rights, keep their jobs from site S1",)


def test_no_certificate_request_is_left(store: Store, why: Why) -> None:
    put(store, 1)
    assert why(csrs=()) == ("1 owner: the request brought no certificate request for their proxies",)


def test_an_answer_is_bounded(store: Store, why: Why) -> None:
    for job in range(1, 15):
        put(store, job, ces=(f"ce{job}",), memory_mb=job * 1000, tags=(f"tag{job}",))
    reasons = why(Offer(site="S" * 1000, required_tags=tuple("r" * 1000 + str(n) for n in range(60))))
    assert 1 <= len(reasons) <= 10
    assert max(map(len, reasons)) <= 500
