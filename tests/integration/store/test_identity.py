"""Chains, sessions, delegation, proxies, and the registry."""

from __future__ import annotations

import tomllib

import pytest

from consumers.store import Store, chains, proxies, registry, sessions
from consumers.store.proxies import Delegation, Issue, Proxy
from schemas.errors import ConfigurationError

pytestmark = pytest.mark.integration

SEED = """
[groups.vo_user]
fqan = "/vo"
properties = ["NormalUser"]
[groups.vo_pilot]
properties = ["GenericPilot"]
share = 2
background = true
[[users]]
dn = "/CN=Jane"
nickname = "jane"
groups = ["vo_user", "vo_pilot"]
[[users]]
dn = "/CN=Joe"
suspended = true
groups = ["vo_user"]
[[services]]
name = "matcher"
dn = "/CN=matcher"
sends = ["match.response.v1"]
[sites."A.Example"]
[sites."B.Example"]
usable = false
reason = "down"
[storage_elements.SE]
sites = ["A.Example"]
"""


def test_the_registry_is_seeded_and_then_only_changed(store: Store) -> None:
    with store.reading() as tx:
        assert registry.version(tx) == registry.load(tx).version == 0
    with store.transaction() as tx:
        changes = registry.seed(tx, tomllib.loads(SEED))
    assert len(changes.added) == 11
    assert not changes.removed
    with store.reading() as tx:
        found = registry.load(tx)
        assert found.version == registry.version(tx) > 0
    assert found.groups_of("/CN=Jane") == ("vo_user", "vo_pilot")
    assert found.users["/CN=Joe"].suspended
    assert found.service_of("/CN=matcher") == "matcher"
    assert found.services == {"/CN=matcher": "matcher"}
    assert found.service_rows["/CN=matcher"].sends == ("match.response.v1",)
    assert (found.groups["vo_pilot"].share, found.groups["vo_pilot"].background) == (2.0, True)
    assert found.sites["A.Example"].usable
    assert found.sites["B.Example"] == registry.Site("B.Example", False, "down")
    assert found.storage_elements == {"SE": ("A.Example",)}
    with store.transaction() as tx:
        assert not registry.seed(tx, tomllib.loads(SEED))
        assert registry.version(tx) == found.version


def test_a_seed_removes_what_it_does_not_name_and_keeps_what_operators_set(store: Store) -> None:
    with store.transaction() as tx:
        registry.seed(tx, tomllib.loads(SEED))
        assert registry.set_site(tx, "A.Example", usable=False, reason="fire")
        assert registry.set_suspended(tx, "/CN=Jane", suspended=True)
        assert not registry.set_site(tx, "Nowhere", usable=False)
        before = registry.version(tx)
        text = SEED.replace('nickname = "jane"', 'nickname = "jd"').split("[[services]]")[0] + '[sites."A.Example"]\n'
        changes = registry.seed(tx, tomllib.loads(text))
        assert changes.changed == ["users /CN=Jane"]
        assert sorted(changes.removed) == ["services /CN=matcher", "sites B.Example", "storage_elements SE"]
        found = registry.load(tx)
        assert found.version > before
        assert found.sites == {"A.Example": registry.Site("A.Example", False, "fire")}
        assert (found.users["/CN=Jane"].nickname, found.users["/CN=Jane"].suspended) == ("jd", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[users]]\ndn = "/CN=x"\ngroups = ["nope"]', "no group 'nope'"),
        ("[[users]]\nnickname = 'x'", "dn"),
        ("[site.X]\n", "site"),
        ('[storage_elements.X]\nsites = ["Y"]', "no site 'Y'"),
        ('[[users]]\ndn = "/CN=x"\n[[services]]\ndn = "/CN=x"\nname="s"', "2 times"),
        ('[computing_elements.C]\nsite = "Y"\ntype = "slurm"', "no site 'Y'"),
        ('[[rules]]\nname = "r"\neffect = "deny"\nwho = "group:g"\nwhat = "job.submit.v1"', "no group 'g'"),
        ('[[rules]]\nname = "r"\neffect = "deny"\nwho = "*"\nwhat = "job.invented.v1"', "job.invented.v1"),
        ('[[limits]]\nwho = "property:x"\nmeasure = "active-jobs"\nvalue = 1', "group:"),
        ('[[limits]]\nwho = "*"\nmeasure = "size"\nvalue = 1', "size"),
        ("[[users]]\ndn = '/CN=" + "x" * 2000 + "'", "1024"),
    ],
)
def test_a_wrong_seed_is_refused_whole(store: Store, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message), store.transaction() as tx:
        registry.seed(tx, tomllib.loads(text))
    with store.reading() as tx:
        assert registry.version(tx) == 0


def test_chains(store: Store) -> None:
    with store.transaction() as tx:
        chains.put(tx, "t1", [b"\x00leaf", b"ca"], "/CN=a", 100.0, 1.0)
        chains.put(tx, "t2", (b"x",), "/CN=a", 200.0, 2.0)
        chains.put(tx, "t1", [b"ignored"], "/CN=a", 100.0, 3.0)
        assert chains.get(tx, ["t1", "zz"]) == {"t1": chains.Chain("t1", [b"\x00leaf", b"ca"], "/CN=a", 100.0, 3.0)}
        assert [c.thumbprint for c in chains.of_identity(tx, "/CN=a", valid_at=50.0)] == ["t1", "t2"]
        assert [c.thumbprint for c in chains.of_identity(tx, "/CN=a", valid_at=150.0)] == ["t2"]
        assert chains.purge(tx, 150.0) == 1


def test_sessions(store: Store) -> None:
    with store.transaction() as tx:
        sessions.put(tx, "c.1", "/CN=a", "vo", "t1", "user", 1.0)
        sessions.put(tx, "c.1", "/CN=a", "vo2", "t2", "user", 5.0)
        assert sessions.get(tx, "c.1") == sessions.Session("c.1", "/CN=a", "vo2", "t2", "user", 1.0, 5.0)
        assert sessions.get(tx, "c.2") is None
        sessions.touch(tx, ["c.1", "zz"], 9.0)
        assert [s.seen for s in sessions.of_identity(tx, "/CN=a")] == [9.0]
        assert sessions.purge(tx, 10.0) == 1


def test_a_delegation_serves_once_and_only_its_own(store: Store) -> None:
    row = Delegation("id", "/CN=a", "vo", b"\x00secret", 1.0, 10.0)
    with store.transaction() as tx:
        proxies.begin(tx, row)
        assert proxies.pending(tx, "/CN=a", 5.0) == 1
        assert proxies.take(tx, "id", "/CN=b", "vo", 5.0) is None
        assert proxies.take(tx, "id", "/CN=a", "other", 5.0) is None
        assert proxies.take(tx, "id", "/CN=a", "vo", 10.0) is None
        assert proxies.take(tx, "id", "/CN=a", "vo", 5.0) == row
        assert proxies.take(tx, "id", "/CN=a", "vo", 5.0) is None


def test_the_repository_keeps_the_longer_proxy(store: Store) -> None:
    with store.transaction() as tx:
        assert proxies.put(tx, Proxy("/CN=a", "vo", "PEM1", b"k1", 100.0, 1.0))
        assert not proxies.put(tx, Proxy("/CN=a", "vo", "PEM2", b"k2", 50.0, 2.0))
        assert proxies.until(tx, "/CN=a", "vo") == 100.0
        assert proxies.put(tx, Proxy("/CN=a", "vo", "PEM3", b"k3\x00", 300.0, 3.0))
        assert proxies.get(tx, [("/CN=a", "vo"), ("/CN=b", "vo")]) == {
            ("/CN=a", "vo"): Proxy("/CN=a", "vo", "PEM3", b"k3\x00", 300.0, 3.0)
        }
        assert proxies.until(tx, "/CN=b", "vo") is None
        proxies.record_issues(
            tx, [Issue("p", "/CN=a", "vo", 80.0, 1, 1, 5.0), Issue("p", "/CN=a", "vo", 90.0, 2, 1, 6.0)]
        )
        assert proxies.issued_until(tx, "p") == {("/CN=a", "vo"): 90.0}
        assert proxies.issues_since(tx, 5.5, client="p") == 1
        assert proxies.purge(tx, 400.0, 100.0) == 1
        assert proxies.issued_until(tx, "p") == {}
