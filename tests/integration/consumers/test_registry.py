"""The registry: asked, changed by operators, with history, events and audit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.authorization import Property
from consumers import announcing
from consumers.registry import RegistryKeeper
from consumers.settings import RegistrySettings
from consumers.store import Store, audit, registry
from schemas.access import AccessRule, Effect, Limit, Measure
from schemas.entries import (
    AnyEntry,
    ComputingEntry,
    ComputingQueue,
    GroupEntry,
    LimitEntry,
    MatchLimitEntry,
    MemberEntry,
    RuleEntry,
    ServiceEntry,
    SiteEntry,
    StorageEntry,
    UserEntry,
)
from schemas.limits import MatchLimit
from schemas.messages.registrar import (
    Blocked,
    ChangeRegistry,
    EntryChange,
    EntryKind,
    HistoryLine,
    IdentityBlocked,
    Operation,
    Policy,
    QueryRegistry,
    QueryRegistryHistory,
    RegistryApplied,
    RegistryChanged,
    RegistryListing,
    RegistryPast,
)
from schemas.messages.service import Refused
from schemas.registry import Message, by_name
from tests.integration.consumers.conftest import REGISTRY
from tests.support.messages import Heard, admitted, tell, user

pytestmark = pytest.mark.integration

OLGA = user("olga", Property.OPERATOR, group="vo_admin")
ADA = user("ada").identity
NEW = "/O=Example/CN=New"

ADD, SET, REMOVE, RESET = Operation.ADD, Operation.SET, Operation.REMOVE, Operation.RESET


@pytest.fixture
def keeper() -> RegistryKeeper:
    return RegistryKeeper(RegistrySettings())


def ask(store: Store, keeper: RegistryKeeper, message: Message) -> Heard:
    return tell(store, keeper, [admitted(message, OLGA)])


def change(
    store: Store,
    keeper: RegistryKeeper,
    *changes: tuple[Operation, AnyEntry],
    dry_run: bool = False,
    force: bool = False,
) -> Heard:
    wanted = tuple(EntryChange(operation=operation, entry=entry) for operation, entry in changes)
    return ask(store, keeper, ChangeRegistry(changes=wanted, reason="because", dry_run=dry_run, force=force))


def applied(heard: Heard) -> RegistryApplied:
    (answer,) = heard.to(OLGA)
    assert isinstance(answer, RegistryApplied), answer
    return answer


def refused(heard: Heard) -> Refused:
    (answer,) = heard.said
    assert isinstance(answer, Refused), answer
    return answer


def known(store: Store) -> registry.Registry:
    with store.reading() as tx:
        return registry.load(tx)


def lines(store: Store, keeper: RegistryKeeper, **wanted: object) -> Sequence[HistoryLine]:
    (answer,) = ask(store, keeper, QueryRegistryHistory(**wanted)).said  # type: ignore[arg-type]  # the test's own words
    assert isinstance(answer, RegistryPast)
    return answer.lines


def listed(store: Store, keeper: RegistryKeeper, query: QueryRegistry) -> RegistryListing:
    (answer,) = ask(store, keeper, query).said
    assert isinstance(answer, RegistryListing)
    return answer


def test_a_user_is_added_and_joins_a_group_in_one_command(store: Store, keeper: RegistryKeeper) -> None:
    before = known(store).version
    heard = change(
        store,
        keeper,
        (ADD, UserEntry(dn=NEW, nickname="new", mail="new@example.org")),
        (ADD, MemberEntry(dn=NEW, group="vo_prod")),
        (ADD, MemberEntry(dn=NEW, group="vo_user")),
    )
    assert [one.before for one in applied(heard).differences] == [None, None, None]
    found = known(store)
    assert found.version > before
    assert found.users[NEW] == registry.User(NEW, "new", False, ("vo_prod", "vo_user"), "new@example.org", "")
    facts = [one for one in heard.said if isinstance(one, RegistryChanged)]
    assert {(one.kind, one.names, one.actor) for one in facts} == {
        (EntryKind.MEMBER, (NEW,), OLGA.identity), (EntryKind.USER, (NEW,), OLGA.identity)
    }  # fmt: skip
    assert {one.version for one in facts} == {found.version}
    assert not [one for one in heard.said if isinstance(one, IdentityBlocked)]
    with store.reading() as tx:
        (entry,) = audit.query(tx, event="registry.change")
    assert (entry.identity, entry.client) == (OLGA.identity, OLGA.cli)
    assert b"because" in entry.detail


def test_all_or_nothing_with_all_errors_at_once(store: Store, keeper: RegistryKeeper) -> None:
    before = known(store)
    answer = refused(
        change(
            store,
            keeper,
            (ADD, UserEntry(dn=NEW)),
            (ADD, UserEntry(dn="no dn")),
            (ADD, MemberEntry(dn=NEW, group="nowhere")),
            (ADD, GroupEntry(name="a b", properties=("Flying",), fqan="nonsense")),
            (ADD, ServiceEntry(dn=ADA, name="matcher", sends=("job.submit.v1",))),
            (ADD, StorageEntry(name="SE9", sites=("S1", "S9"))),
            (ADD, ComputingEntry(name="CE9", site="S9", type="Slurm!", queues=(ComputingQueue(name="q"),) * 2)),
            (ADD, RuleEntry(name="r", effect=Effect.DENY, who="group:none", what="job.invented.v1")),
            (ADD, LimitEntry(who="somebody", measure=Measure.ACTIVE_JOBS)),
        )
    )
    assert answer.code == "invalid"
    told = "\n".join(error.message for error in answer.errors)
    for word in ("no dn", "nowhere", "Flying", "fqan", "a user has this DN", "job.submit.v1", "S9", "Slurm",
                 "twice", "job.invented.v1", "group none", "needs a value", "somebody", "letters"):  # fmt: skip
        assert word.lower() in told.lower(), (word, told)
    assert known(store) == before


@pytest.mark.parametrize("more", ["NormalUser", "GenericPilot", "Operator"])
def test_a_group_of_private_pilots_is_nothing_else(store: Store, keeper: RegistryKeeper, more: str) -> None:
    answer = refused(change(store, keeper, (ADD, GroupEntry(name="own", properties=("PrivatePilot", more)))))
    assert [error.message for error in answer.errors] == [
        "group own: PrivatePilot is for a group of its own: a group has it alone, or not at all"
    ]
    assert applied(change(store, keeper, (ADD, GroupEntry(name="own", properties=("PrivatePilot",)))))


def test_what_is_there_is_not_added_and_what_is_not_is_not_changed(store: Store, keeper: RegistryKeeper) -> None:
    answer = refused(change(store, keeper, (ADD, UserEntry(dn=ADA)), (SET, SiteEntry(name="S9", usable=False))))
    assert [error.message for error in answer.errors] == [f"user {ADA} is there already", "there is no site S9"]


def test_a_dry_run_changes_nothing(store: Store, keeper: RegistryKeeper) -> None:
    before = known(store)
    heard = change(store, keeper, (SET, UserEntry(dn=ADA, suspended=True)), dry_run=True)
    answer = applied(heard)
    assert answer.dry_run
    (one,) = answer.differences
    assert isinstance(one.after, UserEntry)
    assert (one.after.suspended, one.after.reason) == (True, "because")
    assert heard.said == [answer]
    assert known(store) == before
    assert not lines(store, keeper, name=ADA, actor=OLGA.identity)


def test_a_suspended_user_is_named_and_stays_so_whatever_the_seed_says(store: Store, keeper: RegistryKeeper) -> None:
    heard = change(store, keeper, (SET, UserEntry(dn=ADA, suspended=True)))
    (fact,) = [one for one in heard.said if isinstance(one, IdentityBlocked)]
    assert (fact.identity, fact.group, fact.how, fact.by) == (ADA, "", Blocked.SUSPENDED, OLGA.identity)
    assert (fact.reason, fact.jobs) == ("because", Policy.HOLD)
    assert known(store).users[ADA].suspended
    with store.transaction() as tx:
        assert not registry.seed(tx, REGISTRY)
    assert known(store).users[ADA].reason == "because"
    heard = change(store, keeper, (SET, UserEntry(dn=ADA, suspended=False)))
    assert not [one for one in heard.said if isinstance(one, IdentityBlocked)]
    assert known(store).users[ADA] == registry.User(ADA, "ada", False, ("vo_user", "vo_prod"), "", "")


def test_who_was_suspended_is_so_when_he_comes_back(store: Store, keeper: RegistryKeeper) -> None:
    change(store, keeper, (SET, UserEntry(dn=ADA, suspended=True)))
    others = [one for one in REGISTRY["users"] if one["dn"] != ADA]
    with store.transaction() as tx:
        registry.seed(tx, {**REGISTRY, "users": others})
    assert ADA not in known(store).users
    with store.transaction() as tx:
        registry.seed(tx, REGISTRY)
    assert known(store).users[ADA].suspended


def test_operators_remove_only_what_is_theirs(store: Store, keeper: RegistryKeeper) -> None:
    answer = refused(change(store, keeper, (REMOVE, UserEntry(dn=ADA))))
    assert "suspend him instead" in answer.reason
    change(store, keeper, (ADD, UserEntry(dn=NEW)), (ADD, MemberEntry(dn=NEW, group="vo_user")))
    heard = change(store, keeper, (REMOVE, UserEntry(dn=NEW)))
    (fact,) = [one for one in heard.said if isinstance(one, IdentityBlocked)]
    assert (fact.identity, fact.group, fact.how, fact.jobs) == (NEW, "", Blocked.REMOVED, Policy.KILL)
    assert NEW not in known(store).users


def test_a_member_is_taken_out_of_a_group_for_good(store: Store, keeper: RegistryKeeper) -> None:
    heard = change(store, keeper, (REMOVE, MemberEntry(dn=ADA, group="vo_prod")))
    (fact,) = [one for one in heard.said if isinstance(one, IdentityBlocked)]
    assert (fact.identity, fact.group, fact.how) == (ADA, "vo_prod", Blocked.LEFT)
    with store.transaction() as tx:
        registry.seed(tx, REGISTRY)
    assert known(store).groups_of(ADA) == ("vo_user",)
    change(store, keeper, (ADD, MemberEntry(dn=ADA, group="vo_prod")))
    assert known(store).groups_of(ADA) == ("vo_user", "vo_prod")


def test_operators_values_go_before_the_seeds_until_they_are_reset(store: Store, keeper: RegistryKeeper) -> None:
    change(store, keeper, (SET, GroupEntry(name="vo_user", share=5.0)))
    with store.transaction() as tx:
        registry.seed(tx, REGISTRY)
    assert (known(store).groups["vo_user"].share, known(store).groups["vo_user"].fqan) == (5.0, "/vo")
    change(store, keeper, (RESET, GroupEntry(name="vo_user")))
    assert known(store).groups["vo_user"].share == 1.0
    assert "have set nothing" in refused(change(store, keeper, (RESET, GroupEntry(name="vo_user")))).reason


def test_a_site_is_banned_and_allowed(store: Store, keeper: RegistryKeeper) -> None:
    change(store, keeper, (SET, SiteEntry(name="S1", usable=False)))
    with store.transaction() as tx:
        registry.seed(
            tx, {**REGISTRY, "sites": {"S1": {"usable": True}, "S2": {"usable": False, "reason": "seed"}, "S3": {}}}
        )
    assert known(store).sites["S1"] == registry.Site("S1", False, "because")
    assert known(store).sites["S2"] == registry.Site("S2", False, "seed")
    change(store, keeper, (SET, SiteEntry(name="S1", usable=True)), (SET, SiteEntry(name="S2", usable=True)))
    assert known(store).sites["S1"].usable
    assert known(store).sites["S2"].usable


def test_elements_rules_and_limits(store: Store, keeper: RegistryKeeper) -> None:
    queue = ComputingQueue(name="long", wall_seconds=86_400, groups=("vo_user",))
    change(
        store,
        keeper,
        (ADD, ComputingEntry(name="CE1", site="S1", type="slurm", queues=(queue,))),
        (ADD, RuleEntry(name="r1", effect=Effect.DENY, who="group:vo_prod", what="payload.run", site="S1")),
        (ADD, LimitEntry(who="group:vo_user", measure=Measure.ACTIVE_JOBS, value=7)),
    )
    found = known(store)
    assert found.computing_elements["CE1"] == registry.ComputingElement("CE1", "S1", "slurm", "", (queue,))
    assert found.rules == (
        AccessRule(name="r1", effect=Effect.DENY, who="group:vo_prod", what="payload.run", site="S1"),
    )
    assert found.limits == (Limit(who="group:vo_user", measure=Measure.ACTIVE_JOBS, value=7),)
    change(store, keeper, (SET, LimitEntry(who="group:vo_user", measure=Measure.ACTIVE_JOBS, value=8)))
    assert known(store).limits[0].value == 8
    change(
        store,
        keeper,
        (REMOVE, ComputingEntry(name="CE1")),
        (REMOVE, RuleEntry(name="r1")),
        (REMOVE, LimitEntry(who="group:vo_user", measure=Measure.ACTIVE_JOBS)),
    )
    found = known(store)
    assert (found.computing_elements, found.rules, found.limits) == ({}, (), ())


def test_match_limits_are_added_changed_and_removed(store: Store, keeper: RegistryKeeper) -> None:
    scope = f"site=S1,owner={ADA}"
    change(store, keeper, (ADD, MatchLimitEntry(scope=scope, running=7, reason="why")))
    assert known(store).match_limits == (MatchLimit(scope=scope, running=7, reason="why"),)
    change(store, keeper, (SET, MatchLimitEntry(scope=scope, delay_seconds=1.5)))
    assert known(store).match_limits == (MatchLimit(scope=scope, running=7, delay_seconds=1.5, reason="why"),)
    with store.transaction() as tx:  # the seed's word counts less, and stays when the operators take theirs back
        registry.seed(tx, {**REGISTRY, "match_limits": [{"scope": scope, "running": 3}]})
    assert known(store).match_limits[0].running == 7
    change(store, keeper, (REMOVE, MatchLimitEntry(scope=scope)))
    assert known(store).match_limits == (MatchLimit(scope=scope, running=3),)


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        (MatchLimitEntry(scope="site=S1"), "needs running or delay_seconds"),
        (MatchLimitEntry(scope="site=S1", delay_seconds=0.0), "needs running or delay_seconds"),
        (MatchLimitEntry(scope="site=S1,ce=C,group=vo_user", running=1), "one or two"),
        (MatchLimitEntry(scope="weather=bad", running=1), "cannot be limited"),
        (MatchLimitEntry(scope="job-type=MC,site=S1", running=1), "written site=S1,job-type=MC"),
        (MatchLimitEntry(scope="site=S11", running=1), "there is no site S11 (did you mean S1?)"),
        (MatchLimitEntry(scope="group=vo_users", running=1), "no group vo_users (did you mean vo_user?)"),
        (MatchLimitEntry(scope="owner=ada", running=1), f"no user ada (did you mean {ADA}?)"),
    ],
)
def test_a_match_limit_that_could_not_work_is_refused(
    store: Store, keeper: RegistryKeeper, entry: MatchLimitEntry, wrong: str
) -> None:
    answer = refused(change(store, keeper, (ADD, entry)))
    assert wrong in "\n".join(error.message for error in answer.errors)


def test_what_others_refer_to_stays(store: Store, keeper: RegistryKeeper) -> None:
    change(store, keeper, (ADD, SiteEntry(name="S9")), (ADD, ComputingEntry(name="CE9", site="S9", type="slurm")))
    change(store, keeper, (ADD, MatchLimitEntry(scope="site=S9,job-type=*", running=1)))
    told = [error.message for error in refused(change(store, keeper, (REMOVE, SiteEntry(name="S9")))).errors]
    assert any("S9,job-type=*: refers to S9" in one for one in told)
    change(store, keeper, (REMOVE, MatchLimitEntry(scope="site=S9,job-type=*")))
    assert "CE9: refers to S9" in refused(change(store, keeper, (REMOVE, SiteEntry(name="S9")))).reason
    applied(change(store, keeper, (REMOVE, SiteEntry(name="S9")), (REMOVE, ComputingEntry(name="CE9"))))


def test_no_operator_locks_himself_out_by_mistake(store: Store, keeper: RegistryKeeper) -> None:
    for attempt in (
        (SET, UserEntry(dn=OLGA.identity, suspended=True)),
        (REMOVE, MemberEntry(dn=OLGA.identity, group="vo_admin")),
        (SET, GroupEntry(name="vo_admin", properties=("NormalUser",))),
        (SET, GroupEntry(name="vo_admin", fqan="/vo/Role=admin", voms_required=True)),
    ):
        answer = refused(change(store, keeper, attempt))
        assert (answer.code, "no operator would be left" in answer.reason) == ("conflict", True)
    change(store, keeper, (ADD, MemberEntry(dn=ADA, group="vo_admin")))
    answer = refused(change(store, keeper, (REMOVE, MemberEntry(dn=OLGA.identity, group="vo_admin"))))
    assert "lock yourself out" in answer.reason
    applied(change(store, keeper, (REMOVE, MemberEntry(dn=OLGA.identity, group="vo_admin")), force=True))
    assert known(store).groups_of(OLGA.identity) == ()


def test_a_group_asks_for_its_attribute(store: Store, keeper: RegistryKeeper) -> None:
    answer = refused(change(store, keeper, (SET, GroupEntry(name="vo_pilot", voms_required=True))))
    assert "proxies cannot carry its FQAN" in answer.reason
    applied(change(store, keeper, (SET, GroupEntry(name="vo_prod", voms_required=True))))
    assert known(store).groups["vo_prod"].voms_required
    assert not known(store).groups["vo_user"].voms_required
    required = GroupEntry(name="vo_admin", fqan="/vo/Role=admin", voms_required=True)
    applied(change(store, keeper, (SET, required), force=True))
    applied(change(store, keeper, (SET, GroupEntry(name="vo_admin", share=2.0))))  # that changes nothing about it


def test_a_rule_locks_no_operator_out_by_mistake(store: Store, keeper: RegistryKeeper) -> None:
    for who, what in (("*", "*"), ("property:Operator", "registry.change.v1"), (f"dn:{OLGA.identity}", "*")):
        rule = RuleEntry(name="trap", effect=Effect.DENY, who=who, what=what)
        answer = refused(change(store, keeper, (ADD, rule)))
        assert (answer.code, "no operator would be left" in answer.reason) == ("conflict", True)
    applied(change(store, keeper, (ADD, RuleEntry(name="r", effect=Effect.DENY, who="*", what="job.submit.v1"))))
    applied(change(store, keeper, (ADD, RuleEntry(name="s", effect=Effect.DENY, who="*", what="*")), force=True))


def test_no_service_is_silenced_by_mistake(store: Store, keeper: RegistryKeeper) -> None:
    """Whoever takes the registry's name away could not give it back: nobody would believe its answers."""
    first, second = "/O=Example/CN=pa-1", "/O=Example/CN=pa-2"
    applied(change(store, keeper, *((ADD, ServiceEntry(dn=dn, name="pilot-authority")) for dn in (first, second))))
    applied(change(store, keeper, (REMOVE, ServiceEntry(dn=second))))
    for attempt in ((REMOVE, ServiceEntry(dn=first)), (SET, ServiceEntry(dn=first, name="relay"))):
        answer = refused(change(store, keeper, attempt))
        assert (answer.code, "what pilot-authority says would count no more" in answer.reason) == ("conflict", True)
    applied(change(store, keeper, (REMOVE, ServiceEntry(dn=first)), force=True))


def test_history_says_who_what_when_and_why(store: Store, keeper: RegistryKeeper) -> None:
    change(store, keeper, (SET, SiteEntry(name="S1", usable=False)))
    change(store, keeper, (SET, SiteEntry(name="S1", usable=True)))
    allowed, banned, seeded = lines(store, keeper, kind=EntryKind.SITE, name="S1")
    assert (seeded.source, seeded.actor, seeded.before) == ("seed", "seed", None)
    assert (banned.source, banned.actor, banned.reason) == ("operator", OLGA.identity, "because")
    assert banned.after == SiteEntry(name="S1", usable=False, reason="because") == allowed.before
    assert seeded.time <= banned.time <= allowed.time
    assert [one.id for one in lines(store, keeper, before=allowed.id, limit=1)] == [banned.id]
    assert len(lines(store, keeper, actor=OLGA.identity)) == 2


def test_listings_are_filtered_and_paged(store: Store, keeper: RegistryKeeper) -> None:
    one = listed(store, keeper, QueryRegistry(kind=EntryKind.USER, names=("ada",))).entries
    assert [(item.entry.key, item.groups, item.sources) for item in one] == [
        (("user", ADA, ""), ("vo_user", "vo_prod"), ("seed",))
    ]
    assert len(listed(store, keeper, QueryRegistry(kind=EntryKind.USER, group="vo_prod")).entries) == 2
    assert len(listed(store, keeper, QueryRegistry(kind=EntryKind.USER, contains="OLGA")).entries) == 1
    assert not listed(store, keeper, QueryRegistry(kind=EntryKind.USER, contains="nickname")).entries
    page = listed(store, keeper, QueryRegistry(kind=EntryKind.MEMBER, limit=2))
    found = list(page.entries)
    while page.more:
        last = found[-1].entry.key
        page = listed(store, keeper, QueryRegistry(kind=EntryKind.MEMBER, after=last[1], scope=last[2], limit=2))
        found.extend(page.entries)
    assert len({item.entry.key for item in found}) == len(found) == 8


def test_a_copy_in_memory_sees_what_another_process_wrote(store: Store, keeper: RegistryKeeper) -> None:
    assert listed(store, keeper, QueryRegistry(kind=EntryKind.SITE, names=("S1",))).entries
    change(store, RegistryKeeper(RegistrySettings()), (SET, SiteEntry(name="S1", usable=False)))
    (item,) = listed(store, keeper, QueryRegistry(kind=EntryKind.SITE, names=("S1",))).entries
    assert item.entry == SiteEntry(name="S1", usable=False, reason="because")
    assert item.sources == ("operator", "seed")


def test_all_who_change_at_once_have_their_way(store: Store) -> None:
    def work(number: int) -> None:
        keeper = RegistryKeeper(RegistrySettings())
        for turn in range(5):
            dn = f"/CN=w{number}-{turn}"
            applied(change(store, keeper, (ADD, UserEntry(dn=dn)), (ADD, MemberEntry(dn=dn, group="vo_user"))))

    before = known(store).version
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    found = known(store)
    assert found.version == before + 20
    assert all(found.groups_of(f"/CN=w{number}-{turn}") == ("vo_user",) for number in range(4) for turn in range(5))


def test_what_the_seed_takes_away_is_said_as_well(store: Store) -> None:
    others = [one for one in REGISTRY["users"] if one["dn"] != ADA]
    with store.transaction() as tx:
        changes = announcing.seed(tx, {**REGISTRY, "users": others}, RegistrySettings(), 5.0)
        rows = list(tx.fresh)
    assert changes.removed
    (fact,) = [by_name(row.typ).decode(row.payload) for row in rows if row.typ == "identity.blocked.v1"]
    assert isinstance(fact, IdentityBlocked)
    assert (fact.identity, fact.how, fact.by, fact.jobs) == (ADA, Blocked.REMOVED, "seed", Policy.KILL)
    assert {row.typ for row in rows} == {"identity.blocked.v1", "registry.changed.v1"}
    with store.transaction() as tx:
        assert not announcing.seed(tx, {**REGISTRY, "users": others}, RegistrySettings(), 6.0)
        assert not tx.fresh
