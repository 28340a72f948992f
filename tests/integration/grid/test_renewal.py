"""Stored proxies are renewed by a real myproxy-server and attributed by a real voms-server."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from broker.grid import myproxy
from broker.grid.voms_client import load_vomses, request_ac
from broker.identity import Credential, VerifiedChain, create_proxy, key_pem, load_private_key, split_chain
from broker.identity.keys import public_bytes
from compose.local.ports import free_port
from consumers.directory import Directory
from consumers.proxy_manager import ProxyManager
from consumers.settings import MyProxySettings, ProxySettings, RenewalSettings
from consumers.store import Store, audit, proxies, proxy_care, registry
from consumers.store.proxies import Proxy
from consumers.vault import Vault
from schemas.identity import Fqan
from schemas.messages.proxies import ProxyExpiring, ProxyRenewal
from tests.support.grid_servers import GridCa, GridUser, MyProxyServer, VomsServer
from tests.support.jobs import put_job
from tests.support.messages import Heard, Sender, chores
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

HOUR = 3600.0
GROUP = "vo_user"
FQAN = "/testvo/Role=user"
NAMES = iter(range(1000))


@pytest.fixture
def user(grid_ca: GridCa) -> GridUser:
    return grid_ca.user(f"Rene Wal {next(NAMES)}")


@pytest.fixture
def sender(user: GridUser) -> Sender:
    return Sender(user.dn)


@pytest.fixture
def store(tmp_path: Path, user: GridUser) -> Iterator[Store]:
    seed = {
        "groups": {
            GROUP: {"fqan": FQAN, "properties": ["NormalUser"]},
            "vo_pilot": {"fqan": "/testvo/Role=pilot", "properties": ["GenericPilot"]},
        },
        "users": [{"dn": user.dn, "nickname": "rene", "groups": [GROUP]}],
    }
    with Store.open(f"sqlite:///{tmp_path}/data/store.db") as opened:
        with opened.transaction() as tx:
            registry.seed(tx, seed)
        yield opened


@pytest.fixture
def vault() -> Vault:
    return Vault([Fernet.generate_key()])


class Place:
    """A proxy manager and what it has stored for one user."""

    def __init__(self, store: Store, vault: Vault, ca: GridCa, user: GridUser, renewal: RenewalSettings) -> None:
        self.store, self.vault, self.user = store, vault, user
        self.directory = Directory(store, ca.trust(), ca.voms_trust())
        self.manager = ProxyManager(self.directory, vault, ProxySettings(look=0.001), renewal)

    def keep(self, credential: Credential, *, stored: float, not_after: float) -> None:
        place = proxies.place_of(self.user.dn, GROUP)
        sealed = self.vault.encrypt(key_pem(credential.key), place)
        row = Proxy(self.user.dn, GROUP, credential.chain_pem.decode(), sealed, not_after, stored)
        with self.store.transaction() as tx:
            proxies.put(tx, row)

    def kept(self) -> tuple[VerifiedChain, Proxy]:
        """What is stored now, verified; its key fits."""
        with self.store.reading() as tx:
            (row,) = proxies.get(tx, [(self.user.dn, GROUP)]).values()
        chain = self.directory.verify(split_chain(row.chain))
        key = load_private_key(self.vault.decrypt(row.key, row.place))
        assert public_bytes(key.public_key()) == public_bytes(chain.public_key)
        assert abs(chain.not_after.timestamp() - row.not_after) < 1
        return chain, row

    def look(self) -> Heard:
        """It looks, and deals with whatever came back from other servers."""
        first = chores(self.store, self.manager)
        wait_until(lambda: self.manager.due_in(0.0) == 0.0, 30, "an answer from elsewhere")
        second = chores(self.store, self.manager)
        return Heard(letters=[*first.letters, *second.letters])

    def events(self) -> list[str]:
        with self.store.reading() as tx:
            return [row.event for row in audit.query(tx)][::-1]


def proxy_of(user: GridUser, hours: float, acs: tuple[bytes, ...] = ()) -> Credential:
    his = user.credential
    return create_proxy(
        his.ders,
        his.key,
        lifetime=dt.timedelta(hours=hours),
        limited=False,
        now=dt.datetime.now(dt.UTC),
        acs=acs,
    )


@pytest.fixture
def where(grid_ca: GridCa, myproxy_server: MyProxyServer, tmp_path: Path) -> MyProxySettings:
    credential = tmp_path / "wms.pem"
    credential.touch(mode=0o600)
    credential.write_bytes(myproxy_server.renewer.to_pem())
    return MyProxySettings(myproxy_server.host, credential, myproxy_server.port)


def leave(user: GridUser, myproxy_server: MyProxyServer, *, days: float = 7) -> None:
    server = myproxy.Server(myproxy_server.host, user.trust_dir, myproxy_server.port)
    myproxy.put(
        server,
        user.credential,
        user.dn,
        lifetime=dt.timedelta(days=days),
        longest=dt.timedelta(hours=12),
        renewer=myproxy_server.renewer_dn,
        name=myproxy.CREDENTIAL_NAME,
        now=dt.datetime.now(dt.UTC),
    )


def test_a_proxy_with_active_jobs_is_renewed_before_it_ends(
    store: Store, vault: Vault, grid_ca: GridCa, user: GridUser, sender: Sender, where: MyProxySettings,
    myproxy_server: MyProxyServer,
) -> None:  # fmt: skip
    leave(user, myproxy_server)
    place = Place(store, vault, grid_ca, user, RenewalSettings(grid_ca.trust_dir, where))
    now = time.time()
    place.keep(proxy_of(user, 2.2), stored=now - 10 * HOUR, not_after=now + 2.2 * HOUR)
    before, _ = place.kept()
    put_job(store, 1, sender)
    heard = place.look()
    after, row = place.kept()
    assert after.identity == user.dn
    assert not after.limited
    assert 11.9 * HOUR < row.not_after - now <= 12 * HOUR + 60
    assert public_bytes(after.public_key) != public_bytes(before.public_key)
    assert place.events() == ["proxy.renewed"]
    (fact,) = heard.said
    assert isinstance(fact, ProxyRenewal)
    assert (fact.owner, fact.group, fact.what, fact.renewed) == (user.dn, GROUP, "proxy", True)
    assert chores(store, place.manager).said == [], "it is fresh: nothing is due"
    assert place.manager.due_in(0.0) != 0.0


def test_without_active_jobs_nothing_is_renewed(
    store: Store, vault: Vault, grid_ca: GridCa, user: GridUser, where: MyProxySettings, myproxy_server: MyProxyServer
) -> None:
    leave(user, myproxy_server)
    place = Place(store, vault, grid_ca, user, RenewalSettings(grid_ca.trust_dir, where))
    now = time.time()
    place.keep(proxy_of(user, 2.2), stored=now - 10 * HOUR, not_after=now + 2.2 * HOUR)
    chores(store, place.manager)
    with store.reading() as tx:
        (care,) = proxy_care.load(tx).values()
    assert care.not_before is None


def test_nobody_renews_for_the_suspended(
    store: Store, vault: Vault, grid_ca: GridCa, user: GridUser, sender: Sender, where: MyProxySettings,
    myproxy_server: MyProxyServer,
) -> None:  # fmt: skip
    leave(user, myproxy_server)
    with store.transaction() as tx:
        registry.set_suspended(tx, user.dn, suspended=True)
    place = Place(store, vault, grid_ca, user, RenewalSettings(grid_ca.trust_dir, where))
    now = time.time()
    place.keep(proxy_of(user, 2.2), stored=now - 10 * HOUR, not_after=now + 2.2 * HOUR)
    put_job(store, 1, sender)
    chores(store, place.manager)
    with store.reading() as tx:
        assert proxy_care.load(tx) == {}


@pytest.mark.parametrize("trouble", ["down", "nothing left", "almost over"])
def test_a_failure_is_told_and_tried_again_later(
    store: Store, vault: Vault, grid_ca: GridCa, user: GridUser, sender: Sender, where: MyProxySettings,
    myproxy_server: MyProxyServer, trouble: str,
) -> None:  # fmt: skip
    if trouble == "almost over":
        leave(user, myproxy_server, days=1.95 / 24)
    if trouble == "down":
        where = MyProxySettings(where.host, where.credential, free_port())
    place = Place(store, vault, grid_ca, user, RenewalSettings(grid_ca.trust_dir, where))
    now = time.time()
    place.keep(proxy_of(user, 1.9), stored=now - 10 * HOUR, not_after=now + 1.9 * HOUR)
    _, before = place.kept()
    put_job(store, 1, sender)
    heard = place.look()
    assert place.kept()[1] == before
    why = {"down": "cannot talk", "nothing left": "refused", "almost over": "must leave a new one"}[trouble]
    expiring, fact = heard.said
    assert isinstance(expiring, ProxyExpiring)
    assert (expiring.jobs, expiring.seconds, expiring.renewable) == (1, 2 * HOUR, True)
    assert isinstance(fact, ProxyRenewal)
    assert not fact.renewed
    assert why in fact.reason
    assert fact.next_try is not None
    assert 50 < fact.next_try - now < 100
    assert place.events() == ["proxy.proxy-failed"]
    assert chores(store, place.manager).said == [], "neither warned again nor tried again so soon"
    with store.reading() as tx:
        (care,) = proxy_care.load(tx).values()
    assert (care.failures, care.warned) == (1, 2 * HOUR)
    assert why in care.trouble


def test_a_failing_key_is_in_no_message(
    store: Store, vault: Vault, grid_ca: GridCa, user: GridUser, sender: Sender, where: MyProxySettings,
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    place = Place(store, vault, grid_ca, user, RenewalSettings(grid_ca.trust_dir, where))
    now = time.time()
    secret = proxy_of(user, 2)
    place.keep(secret, stored=now - 10 * HOUR, not_after=now + 2 * HOUR)
    with store.transaction() as tx:
        (row,) = proxies.get(tx, [(user.dn, GROUP)]).values()
        broken = vault.encrypt(key_pem(secret.key)[:-40], row.place)
        proxies.put(tx, Proxy(row.dn, row.grp, row.chain, broken, row.not_after, row.stored))
    put_job(store, 1, sender)
    heard = place.look()
    printed = capsys.readouterr()
    said = repr(heard.said) + caplog.text + printed.out + printed.err
    assert "no private key found" in said
    for line in key_pem(secret.key).decode().splitlines()[1:-1]:
        assert line not in said


# -- VOMS -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def member(user: GridUser, voms_server: VomsServer) -> GridUser:
    voms_server.add_member(user.dn, "/testvo", "/testvo/analysis", "/testvo/Role=user", "/testvo/Role=pilot")
    return user


def test_a_proxy_without_attribute_gets_the_groups_and_lives_no_longer(
    store: Store, vault: Vault, grid_ca: GridCa, member: GridUser
) -> None:
    place = Place(store, vault, grid_ca, member, RenewalSettings(grid_ca.trust_dir, None, grid_ca.vomses))
    now = time.time()
    place.keep(proxy_of(member, 3), stored=now, not_after=int(now + 3 * HOUR))
    before, row_before = place.kept()
    assert before.fqans == ()
    heard = place.look()
    after, row = place.kept()
    assert after.fqans[0].startswith(FQAN)
    assert [ac.valid for ac in after.acs] == [True]
    assert row.not_after <= row_before.not_after
    assert after.not_after <= before.not_after
    assert after.depth == before.depth + 1
    (fact,) = heard.said
    assert isinstance(fact, ProxyRenewal)
    assert (fact.what, fact.renewed) == ("attribute", True)
    assert place.events() == ["proxy.attributed"]
    assert chores(store, place.manager).said == []


def test_an_attribute_is_renewed_before_it_ends(store: Store, vault: Vault, grid_ca: GridCa, member: GridUser) -> None:
    place = Place(store, vault, grid_ca, member, RenewalSettings(grid_ca.trust_dir, None, grid_ca.vomses))
    (server,) = (one for one in load_vomses([grid_ca.vomses]).entries if one.vo == "testvo")
    first = request_ac(
        server, proxy_of(member, 10), grid_ca.trust_dir, [Fqan.parse(FQAN)], lifetime=dt.timedelta(hours=2)
    )
    now = time.time()
    place.keep(proxy_of(member, 10, (first.der,)), stored=now - 2 * HOUR, not_after=int(now + 10 * HOUR))
    before, _ = place.kept()
    (ac,) = before.acs
    assert ac.not_after is not None
    assert ac.not_after.timestamp() < now + 3 * HOUR
    place.look()
    after, _ = place.kept()
    ends = [one.not_after.timestamp() for one in after.acs if one.valid and one.not_after is not None]
    assert max(ends) > now + 9 * HOUR
    assert after.not_after <= before.not_after


def test_a_renewed_proxy_gets_its_attribute_at_once(
    store: Store, vault: Vault, grid_ca: GridCa, member: GridUser, sender: Sender, where: MyProxySettings,
    myproxy_server: MyProxyServer,
) -> None:  # fmt: skip
    leave(member, myproxy_server)
    place = Place(store, vault, grid_ca, member, RenewalSettings(grid_ca.trust_dir, where, grid_ca.vomses))
    now = time.time()
    place.keep(proxy_of(member, 2.2), stored=now - 10 * HOUR, not_after=now + 2.2 * HOUR)
    put_job(store, 1, sender)
    place.look()
    after, row = place.kept()
    assert after.fqans[0].startswith(FQAN)
    assert row.not_after > now + 11.9 * HOUR
    assert place.events() == ["proxy.renewed"]


def test_who_is_no_member_keeps_his_proxy_as_it_is(
    store: Store, vault: Vault, grid_ca: GridCa, user: GridUser, voms_server: VomsServer
) -> None:
    place = Place(store, vault, grid_ca, user, RenewalSettings(grid_ca.trust_dir, None, grid_ca.vomses))
    now = time.time()
    place.keep(proxy_of(user, 3), stored=now, not_after=int(now + 3 * HOUR))
    before = place.kept()[1]
    heard = place.look()
    assert place.kept()[1] == before
    (fact,) = heard.said
    assert isinstance(fact, ProxyRenewal)
    assert (fact.what, fact.renewed) == ("attribute", False)
    assert "unknown" in fact.reason
    assert place.events() == ["proxy.attribute-failed"]
