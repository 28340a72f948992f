"""Turns through the store: operators' changes act at the next match, a new leader goes on where the old one ended."""

from __future__ import annotations

import time
from collections import Counter

import msgspec
import pytest

from broker.authorization import Property
from consumers.directory import Directory
from consumers.domain.requirements import Requirements
from consumers.domain.standing import Kept
from consumers.matcher import LEAD_SECONDS, Matcher
from consumers.matching.turns import KEEP_SECONDS
from consumers.registry import RegistryKeeper
from consumers.settings import LeaseSettings, RegistrySettings
from consumers.store import Store, queues, registry, turns
from schemas.entries import GroupEntry, MemberEntry
from schemas.errors import ConfigurationError
from schemas.messages.pilot import HeldProxy, Offer, RequestMatch
from schemas.messages.registrar import ChangeRegistry, EntryChange, Operation, RegistryApplied
from schemas.messages.service import MatchResponse
from tests.integration.consumers.conftest import REGISTRY
from tests.support.jobs import put_job
from tests.support.messages import Sender, admitted, chores, pilot, tell, user

pytestmark = pytest.mark.integration

ADA, BOB, PROD = user("ada"), user("bob"), user("ada", group="vo_prod")
OLGA = user("olga", Property.OPERATOR, group="vo_admin")
NOW = time.time()


class Site:
    """A matcher with very many jobs of some owners, and a pilot that holds their proxies."""

    def __init__(self, store: Store, directory: Directory) -> None:
        self.store = store
        self.directory = directory
        self.keeper = RegistryKeeper(RegistrySettings())
        self.pilots = 0
        self.owners: dict[int, Sender] = {}
        self.now = NOW
        self.matcher = self.lead("first")

    def lead(self, holder: str) -> Matcher:
        self.now += LEAD_SECONDS + 1
        self.matcher = Matcher(LeaseSettings(), self.directory, holder)
        chores(self.store, self.matcher, self.now)
        assert self.matcher.wants_queues()
        return self.matcher

    def submit(self, *owners: Sender, jobs: int = 150) -> None:
        wanted = Requirements()
        for owner in owners:
            with self.store.transaction() as tx:
                class_id = queues.class_ids(tx, {wanted.digest(): wanted.to_json()})[wanted.digest()]
                key = (class_id, owner.identity, owner.group)
                queue = queues.queue_ids(tx, [key])[key]
            for _ in range(jobs):
                number = len(self.owners) + 1
                self.owners[number] = owner
                put_job(self.store, number, owner, class_id=class_id, queue_id=queue, submitted=float(number))
        self.lead("with jobs")

    def match(self, jobs: int) -> Counter[tuple[str, str]]:
        """Who got them: (identity, group)."""
        holds = tuple(
            HeldProxy(owner=one.identity, group=one.group, not_after=self.now + 1e6) for one in (ADA, BOB, PROD)
        )
        offer = Offer(site="S1", cpu_seconds=1e9, wall_seconds=1e9, processors=1, memory_mb=1e6, disk_mb=1e6)
        counts: Counter[tuple[str, str]] = Counter()
        for _ in range(jobs):
            self.pilots += 1
            request = RequestMatch(slot="main", offer=offer, jobs=1, wait_seconds=60.0, holds=holds)
            asking = pilot(str(self.pilots))
            [answer] = tell(self.store, self.matcher, [admitted(request, asking)], self.now).to(asking)
            assert isinstance(answer, MatchResponse)
            counts.update((match.owner, match.group) for match in answer.matches)
        return counts

    def operate(self, *entries: GroupEntry | MemberEntry) -> None:
        changes = tuple(EntryChange(operation=Operation.SET, entry=entry) for entry in entries)
        heard = tell(self.store, self.keeper, [admitted(ChangeRegistry(changes=changes, reason="test"), OLGA)])
        [answer] = heard.to(OLGA)
        assert isinstance(answer, RegistryApplied), answer
        self.directory.forget()  # as the registry's event lets it


@pytest.fixture
def site(store: Store, directory: Directory) -> Site:
    return Site(store, directory)


def of(owner: Sender) -> tuple[str, str]:
    return owner.identity, owner.group


def test_operators_change_shares_at_the_next_match(site: Site) -> None:
    site.submit(ADA, PROD)
    assert site.match(20) == {of(ADA): 10, of(PROD): 10}
    site.operate(GroupEntry(name="vo_prod", share=4.0))
    counts = site.match(40)
    assert abs(counts[of(PROD)] - 32) <= 1, "no more and no less for what was before"
    site.operate(GroupEntry(name="vo_prod", background=True))
    assert site.match(10) == {of(ADA): 10}


def test_a_members_share_counts_within_his_group(site: Site) -> None:
    site.operate(MemberEntry(dn=ADA.identity, group="vo_user", share=3.0))
    site.submit(ADA, BOB)
    counts = site.match(40)
    assert abs(counts[of(ADA)] - 30) <= 1
    site.operate(MemberEntry(dn=ADA.identity, group="vo_user", share=0.0))
    assert site.match(5) == {of(BOB): 5}
    site.operate(MemberEntry(dn=ADA.identity, group="vo_user", share=1.0))
    counts = site.match(20)
    assert abs(counts[of(ADA)] - 10) <= 1


def test_a_new_leader_goes_on_where_the_old_one_ended(site: Site) -> None:
    site.operate(GroupEntry(name="vo_prod", share=10.0))
    site.submit(ADA, BOB, PROD)
    before = site.match(30)
    site.now += KEEP_SECONDS
    chores(site.store, site.matcher, site.now)
    index = site.matcher._matching._index if site.matcher._matching else None
    kept = {(name, one.turn) for name, one in index.groups.items() if one.turn} if index else set()
    after_index = site.lead("second")._matching
    assert after_index is not None
    assert {(name, one.turn) for name, one in after_index._index.groups.items() if one.turn} == kept
    counts = before + site.match(36)
    assert counts == {of(PROD): 60, of(ADA): 3, of(BOB): 3}


def test_whose_usage_has_faded_is_forgotten(site: Site) -> None:
    site.submit(ADA, jobs=3)
    assert site.match(3) == {of(ADA): 3}
    site.now += KEEP_SECONDS
    chores(site.store, site.matcher, site.now)
    with site.store.transaction() as tx:
        assert {(one.grp, one.owner) for one in turns.load(tx)} == {
            ("", ""), ("vo_user", ""), ("vo_user", ADA.identity)
        }  # fmt: skip
    site.now += 30 * 86_400.0
    site.lead("a month later")
    with site.store.transaction() as tx:
        assert {(one.grp, one.owner) for one in turns.load(tx)} == {("", "")}


def test_what_is_kept_comes_back_as_it_was(store: Store) -> None:
    one = Kept("g", "o", 0.1 + 0.2, 1e300, 3.3, 0.0, NOW)
    with store.transaction() as tx:
        turns.save(tx, [msgspec.structs.replace(one, turn=1.0), one])
        turns.save(tx, [msgspec.structs.replace(one, owner="x"), one])
        turns.forget(tx, [("g", "x")])
        assert turns.load(tx) == [one]


def test_the_registry_file_gives_members_shares(store: Store) -> None:
    users = [{"dn": ADA.identity, "groups": ["vo_user", "vo_prod"], "shares": {"vo_user": 2.5}}]
    with store.transaction() as tx:
        registry.seed(tx, {**REGISTRY, "users": users})
        assert registry.load(tx).member_shares == {(ADA.identity, "vo_user"): 2.5}
        registry.seed(tx, REGISTRY)
        assert registry.load(tx).member_shares == {}
        users[0]["groups"] = ["vo_prod"]
        with pytest.raises(ConfigurationError, match="a share of 'vo_user', which is not among the groups"):
            registry.seed(tx, {**REGISTRY, "users": users})
