"""The registry follows the VO's sources: by itself, on an operator's word, and not against reason."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from broker.authorization import Property
from consumers.batch import Batch
from consumers.domain.synchronization import SourceUser
from consumers.iam_scim import SourceRefusedError
from consumers.registry import RegistryKeeper
from consumers.settings import RegistrySettings, SourceKind, SourceSettings
from consumers.sources import Sources
from consumers.store import Store, audit, claims, registry
from consumers.synchronizing import FIRST_LOOK
from schemas.messages.registrar import (
    Blocked,
    IdentityBlocked,
    Policy,
    QueryRegistryHistory,
    RegistryChanged,
    RegistryPast,
    RegistryStale,
    RegistrySynced,
    SyncRegistry,
)
from schemas.messages.service import Refused
from tests.integration.consumers.conftest import REGISTRY
from tests.support.messages import Heard, admitted, chores, tell, user
from tests.support.scim_server import TOKEN, ScimServer, scim_server
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

OLGA = user("olga", Property.OPERATOR, group="vo_admin")
ADA = user("ada").identity
NOW = time.time()
IAM = SourceSettings("iam", SourceKind.IAM_SCIM, "https://iam")
SETTINGS = RegistrySettings(sources=(IAM,), cycle=300.0)


class FakeVo:
    """A VO's source as it is at the moment."""

    def __init__(self) -> None:
        self.users: list[SourceUser] = []
        self.error = ""
        self.reads = 0

    def add(self, *names: str) -> None:
        self.users += [SourceUser(dn=f"/CN={name}", nickname=name, fqans=("/vo",)) for name in names]

    def read(self, source: SourceSettings) -> Sequence[SourceUser]:
        self.reads += 1
        if self.error:
            raise SourceRefusedError(self.error)
        return list(self.users)


@pytest.fixture
def vo() -> FakeVo:
    return FakeVo()


@pytest.fixture
def sources(vo: FakeVo) -> Sources:
    return Sources((IAM,), vo.read)


@pytest.fixture
def keeper(store: Store, sources: Sources) -> RegistryKeeper:
    made = RegistryKeeper(SETTINGS, sources, "here")
    with store.transaction() as tx:
        made.start(Batch(tx, NOW))
    return made


def cycle(store: Store, keeper: RegistryKeeper, sources: Sources, now: float) -> Heard:
    """One look: the source is asked, read, carried out."""
    chores(store, keeper, now)
    wait_until(lambda: sources.ready, 10, "the source to be read")
    return chores(store, keeper, now)


def sync(store: Store, keeper: RegistryKeeper, sources: Sources, **asked: object) -> tuple[RegistrySynced, Heard]:
    tell(store, keeper, [admitted(SyncRegistry(**asked), OLGA)])  # type: ignore[arg-type]  # the test's own words
    wait_until(lambda: sources.ready, 10, "the source to be read")
    assert keeper.due_in(NOW) == 0.0
    heard = chores(store, keeper, NOW)
    (answer,) = heard.to(OLGA)
    assert isinstance(answer, RegistrySynced)
    return answer, heard


def known(store: Store) -> registry.Registry:
    with store.reading() as tx:
        return registry.load(tx)


def blocked(heard: Heard) -> list[tuple[str, str, Blocked, Policy, str]]:
    return [
        (one.identity, one.group, one.how, one.jobs, one.by) for one in heard.said if isinstance(one, IdentityBlocked)
    ]


def test_who_goes_or_is_suspended_there_is_out_within_a_cycle(
    store: Store, keeper: RegistryKeeper, sources: Sources, vo: FakeVo
) -> None:
    vo.add("a", "b", "c", "d")
    assert keeper.due_in(NOW) == FIRST_LOOK
    cycle(store, keeper, sources, NOW + FIRST_LOOK)
    assert known(store).users["/CN=a"] == registry.User("/CN=a", "a", False, ("vo_user",), "", "")
    due = keeper.due_in(NOW + FIRST_LOOK)
    assert due is not None
    assert due <= SETTINGS.cycle
    vo.users = [SourceUser(dn="/CN=a", fqans=("/vo",), suspended=True, reason="AUP"), *vo.users[2:]]
    heard = cycle(store, keeper, sources, NOW + FIRST_LOOK + SETTINGS.cycle)
    assert blocked(heard) == [
        ("/CN=a", "", Blocked.SUSPENDED, Policy.HOLD, "sync:iam"),
        ("/CN=b", "", Blocked.REMOVED, Policy.KILL, "sync:iam"),
    ]
    assert {one.actor for one in heard.said if isinstance(one, RegistryChanged)} == {"sync:iam"}
    found = known(store)
    assert (found.users["/CN=a"].suspended, found.users["/CN=a"].reason) == (True, "AUP")
    assert "/CN=b" not in found.users
    with store.reading() as tx:
        assert len(audit.query(tx, event="registry.sync", identity="sync:iam")) == 2


def test_other_sources_rows_stay(store: Store, keeper: RegistryKeeper, sources: Sources, vo: FakeVo) -> None:
    before = known(store)
    vo.users = [SourceUser(dn=ADA, nickname="theirs", fqans=("/vo", "/vo/Role=production"))]
    cycle(store, keeper, sources, NOW + FIRST_LOOK)
    assert known(store).users == before.users  # the seed's word goes first, and it knew these groups
    vo.users = []
    cycle(store, keeper, sources, NOW + 2 * SETTINGS.cycle)
    assert known(store).users == before.users
    with store.transaction() as tx:
        registry.seed(tx, {**REGISTRY, "users": [one for one in REGISTRY["users"] if one["dn"] != ADA]})
    vo.users = [SourceUser(dn=ADA, nickname="theirs", fqans=("/vo",))]
    cycle(store, keeper, sources, NOW + 3 * SETTINGS.cycle)
    assert known(store).users[ADA] == registry.User(ADA, "theirs", False, ("vo_user",), "", "")


def test_nobody_becomes_an_operator_by_a_plain_group(store: Store, vo: FakeVo) -> None:
    with store.transaction() as tx:
        groups = {**REGISTRY["groups"], "vo_admin": {"fqan": "/vo", "properties": ["Operator", "JobAdministrator"]}}
        registry.seed(tx, {**REGISTRY, "groups": groups})
    vo.add("a")
    for named, expected in (((), ("vo_user",)), (("vo_admin",), ("vo_admin",))):
        source = SourceSettings("iam", SourceKind.IAM_SCIM, "https://iam", groups=named)
        sources = Sources((source,), vo.read)
        keeper = RegistryKeeper(RegistrySettings(sources=(source,)), sources, "here")
        sync(store, keeper, sources)
        assert known(store).groups_of("/CN=a") == expected


def test_a_dry_run_shows_and_changes_nothing(
    store: Store, keeper: RegistryKeeper, sources: Sources, vo: FakeVo
) -> None:
    vo.add("a")
    vo.users.append(SourceUser(dn="nonsense", fqans=("/vo",)))
    before = known(store)
    answer, heard = sync(store, keeper, sources, dry_run=True)
    (outcome,) = answer.outcomes
    assert (outcome.source, outcome.ok, outcome.users, answer.dry_run) == ("iam", True, 1, True)
    assert [one.after.key for one in outcome.differences if one.after] == [
        ("member", "/CN=a", "vo_user"), ("user", "/CN=a", "")
    ]  # fmt: skip
    assert "nonsense" in outcome.notes[0]
    assert heard.said == [answer]
    assert known(store) == before
    answer, _ = sync(store, keeper, sources, reason="new member")
    assert known(store).users["/CN=a"]
    (past,) = tell(store, keeper, [admitted(QueryRegistryHistory(name="/CN=a"), OLGA)]).said
    assert isinstance(past, RegistryPast)
    assert {(line.source, line.actor, line.reason) for line in past.lines} == {
        ("sync:iam", OLGA.identity, "new member")
    }


def test_mass_removal_is_refused_and_told_until_an_operator_says_so(
    store: Store, keeper: RegistryKeeper, sources: Sources, vo: FakeVo
) -> None:
    vo.add(*(f"m{number}" for number in range(10)))
    cycle(store, keeper, sources, NOW + FIRST_LOOK)
    everybody, vo.users = vo.users, []
    now = NOW + 2 * SETTINGS.cycle
    heard = cycle(store, keeper, sources, now)
    (stale,) = [one for one in heard.said if isinstance(one, RegistryStale)]
    assert "all 10 users would lose their rights" in stale.reason
    assert stale.since == NOW + FIRST_LOOK
    assert len([dn for dn in known(store).users if dn.startswith("/CN=m")]) == 10
    heard = cycle(store, keeper, sources, now + SETTINGS.cycle)
    assert heard.said == []  # told once
    vo.users = everybody[6:]
    answer, _ = sync(store, keeper, sources)
    assert (answer.outcomes[0].ok, "--force" in answer.outcomes[0].reason) == (False, True)
    answer, heard = sync(store, keeper, sources, force=True)
    assert answer.outcomes[0].ok
    assert len(blocked(heard)) == 6
    assert len([dn for dn in known(store).users if dn.startswith("/CN=m")]) == 4


def test_a_source_that_cannot_be_read_changes_nothing(
    store: Store, keeper: RegistryKeeper, sources: Sources, vo: FakeVo
) -> None:
    vo.add("a", "b")
    cycle(store, keeper, sources, NOW + FIRST_LOOK)
    before = known(store)
    vo.error = "HTTP 503"
    heard = cycle(store, keeper, sources, NOW + 2 * SETTINGS.cycle)
    assert [type(one) for one in heard.said] == [RegistryStale]
    assert known(store) == before
    answer, _ = sync(store, keeper, sources)
    assert (answer.outcomes[0].ok, answer.outcomes[0].reason) == (False, "HTTP 503")
    vo.error = ""
    assert cycle(store, keeper, sources, NOW + 3 * SETTINGS.cycle).said == []


def test_one_process_looks_and_another_takes_over(
    store: Store, keeper: RegistryKeeper, sources: Sources, vo: FakeVo
) -> None:
    other_sources = Sources((IAM,), vo.read)
    other = RegistryKeeper(SETTINGS, other_sources, "there")
    with store.transaction() as tx:
        other.start(Batch(tx, NOW))
    cycle(store, keeper, sources, NOW + FIRST_LOOK)
    chores(store, other, NOW + FIRST_LOOK)
    assert vo.reads == 1
    assert not other_sources.ready
    cycle(store, other, other_sources, NOW + 2 * SETTINGS.cycle)  # the first one is gone
    assert vo.reads == 2


def test_unknown_sources_are_refused(store: Store, keeper: RegistryKeeper) -> None:
    (answer,) = tell(store, keeper, [admitted(SyncRegistry(source="voms"), OLGA)]).said
    assert isinstance(answer, Refused)
    assert "there are iam" in answer.reason
    none = RegistryKeeper(RegistrySettings())
    assert none.due_in(NOW) is None
    (answer,) = tell(store, none, [admitted(SyncRegistry(), OLGA)]).said
    assert isinstance(answer, Refused)


def test_a_source_that_nobody_follows_any_more_is_forgotten_on_an_operators_word(
    store: Store, keeper: RegistryKeeper, sources: Sources, vo: FakeVo
) -> None:
    vo.add("a", "b")
    sync(store, keeper, sources)
    later = RegistryKeeper(RegistrySettings())  # the configuration does not name it any more
    (answer,) = tell(store, later, [admitted(SyncRegistry(source="iam"), OLGA)]).said
    assert isinstance(answer, Refused)
    assert "/CN=a" in known(store).users
    heard = tell(store, later, [admitted(SyncRegistry(source="iam", force=True, reason="moved"), OLGA)])
    assert {identity for identity, _, how, _, _ in blocked(heard)} == {"/CN=a", "/CN=b"}
    assert "/CN=a" not in known(store).users
    (answer,) = tell(store, later, [admitted(SyncRegistry(source="iam", force=True), OLGA)]).said
    assert isinstance(answer, Refused)


def test_what_was_rolled_back_is_carried_out_again(
    store: Store, keeper: RegistryKeeper, sources: Sources, vo: FakeVo
) -> None:
    vo.add("a")
    chores(store, keeper, NOW + FIRST_LOOK)
    wait_until(lambda: sources.ready, 10, "the source to be read")
    with contextlib.suppress(ZeroDivisionError), store.transaction() as tx:
        keeper.chores(Batch(tx, NOW))
        raise ZeroDivisionError
    keeper.on_rollback()
    chores(store, keeper, NOW + FIRST_LOOK)
    assert "/CN=a" in known(store).users
    assert not sources.ready


def test_what_cannot_be_carried_out_is_given_up(
    store: Store, keeper: RegistryKeeper, sources: Sources, vo: FakeVo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.synchronizing.plan", lambda *_: 1 // 0)
    tell(store, keeper, [admitted(SyncRegistry(), OLGA)])
    wait_until(lambda: sources.ready, 10, "the source to be read")
    with pytest.raises(ZeroDivisionError):
        chores(store, keeper, NOW)
    (answer,) = chores(store, keeper, NOW).to(OLGA)
    assert isinstance(answer, RegistrySynced)
    assert not answer.outcomes[0].ok
    assert keeper.due_in(NOW) != 0.0


def test_names_beyond_all_bounds_stop_nobody(
    store: Store, keeper: RegistryKeeper, sources: Sources, vo: FakeVo
) -> None:
    vo.add("a")
    vo.users += [
        SourceUser(dn="/CN=" + "x" * 3000, fqans=("/vo",)),
        SourceUser(
            dn="/CN=long", nickname="n" * 5000, mail="m" * 5000, suspended=True, reason="r" * 5000, fqans=("/vo",)
        ),
    ]
    answer, _ = sync(store, keeper, sources)
    assert "too long" in answer.outcomes[0].notes[0]
    with store.reading() as tx:
        book = claims.book(tx)
    assert {key[1] for key in book.entries if key[0] == "user"} >= {"/CN=a", "/CN=long"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScimServer]:
    with scim_server(tmp_path / "tls") as running:
        running.add_group("vo")
        yield running


def test_from_iam_to_the_registry(store: Store, server: ScimServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    source = SourceSettings("iam", SourceKind.IAM_SCIM, server.url, token, server.ca_file)
    sources = Sources((source,))
    keeper = RegistryKeeper(RegistrySettings(sources=(source,)), sources)
    for number in range(25):
        server.add_user(f"u{number}", [f"CN=User {number},O=Grid"], "vo")
    sync(store, keeper, sources)
    assert known(store).users["/O=Grid/CN=User 24"].mail == "u24@example.org"
    server.set_active("u3", False)
    server.remove_user("u4")
    _, heard = sync(store, keeper, sources)
    assert [(identity, how) for identity, _, how, _, _ in blocked(heard)] == [
        ("/O=Grid/CN=User 3", Blocked.SUSPENDED), ("/O=Grid/CN=User 4", Blocked.REMOVED)
    ]  # fmt: skip
    server.fault = lambda _path, _page: 500
    answer, _ = sync(store, keeper, sources)
    assert not answer.outcomes[0].ok
    assert TOKEN not in str(answer)
