"""Delegation and limited proxies for pilots, with real certificates."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time

import pytest
from cryptography.fernet import Fernet

from broker.identity import Credential, make_csr, new_key, parse_certificate, sign_csr, split_chain
from consumers import delegating
from consumers.delegating import MAX_PENDING, PER_MINUTE, REFUSED_PER_MINUTE
from consumers.directory import Directory
from consumers.proxy_manager import ProxyManager
from consumers.store import Store, audit, proxies, registry, sessions
from consumers.vault import Vault
from schemas.job import JobStatus as S
from schemas.messages.event import ProxyWanted
from schemas.messages.service import DelegationCsr, DelegationStored, ProxyIssued, Refused
from schemas.messages.user import PutDelegation, RequestDelegation
from schemas.registry import Message
from tests.support import pki
from tests.support.jobs import put_job
from tests.support.messages import Sender, admitted, chores, pilot, service, tell

pytestmark = pytest.mark.integration

REAL = Sender(pki.USER_DN)
PILOT = pilot("1")
KEY = Fernet.generate_key()


@pytest.fixture
def manager(directory: Directory) -> ProxyManager:
    return ProxyManager(directory=directory, vault=Vault([KEY]))


def ask(store: Store, manager: ProxyManager, message: Message, sender: Sender = REAL) -> Message:
    (answer,) = tell(store, manager, [admitted(message, sender)]).said
    return answer


def events(store: Store) -> list[str]:
    with store.reading() as tx:
        return [row.event for row in audit.query(tx)][::-1]


def signed(csr: bytes, issuer: Credential, *, hours: float = 12, limited: bool = False) -> str:
    now = dt.datetime.now(dt.UTC)
    chain = sign_csr(csr, issuer.ders, issuer.key, lifetime=dt.timedelta(hours=hours), limited=limited, now=now)
    return chain.decode()


def begin(store: Store, manager: ProxyManager) -> DelegationCsr:
    asked = ask(store, manager, RequestDelegation())
    assert isinstance(asked, DelegationCsr)
    return asked


def delegate(store: Store, manager: ProxyManager, issuer: Credential, **options: float) -> Message:
    asked = begin(store, manager)
    return ask(
        store,
        manager,
        PutDelegation(delegation=asked.delegation, chain=signed(asked.csr, issuer, **options)),  # type: ignore[arg-type]  # lifetime and flag
    )


def test_a_proxy_is_delegated_and_kept_encrypted(store: Store, manager: ProxyManager, authority: pki.Pki) -> None:
    stored = delegate(store, manager, authority.user)
    assert isinstance(stored, DelegationStored)
    assert 11.9 * 3600 < stored.not_after - time.time() <= 12 * 3600
    with store.reading() as tx:
        (kept,) = proxies.get(tx, [(REAL.identity, REAL.group)]).values()
    assert kept.not_after == stored.not_after
    assert b"PRIVATE" not in kept.key
    assert "PRIVATE" not in kept.chain
    assert events(store) == ["proxy.stored"]


def test_a_delegation_serves_once(store: Store, manager: ProxyManager, authority: pki.Pki) -> None:
    asked = begin(store, manager)
    put = PutDelegation(delegation=asked.delegation, chain=signed(asked.csr, authority.user))
    assert isinstance(ask(store, manager, put), DelegationStored)
    again = ask(store, manager, put)
    assert isinstance(again, Refused)
    assert again.code == "not-found"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"limited": True}, "limited"),
        ({"hours": 13}, "longer than 12 h"),
        ({"hours": 14.5 / 60}, "less than 15 min serve no job: make a new proxy"),
        ({"hours": 10 / 3600}, "ends in 0 min"),
    ],
    ids=["limited", "long", "short", "ending"],
)
def test_an_unfit_proxy_is_refused(
    store: Store, manager: ProxyManager, authority: pki.Pki, options: dict[str, float], why: str
) -> None:
    refused = delegate(store, manager, authority.user, **options)
    assert isinstance(refused, Refused)
    assert why in refused.reason
    assert events(store) == ["delegation.refused"]
    with store.reading() as tx:
        assert proxies.until(tx, REAL.identity, REAL.group) is None
        assert proxies.pending(tx, REAL.identity, 0.0) == 0


def test_a_proxy_of_a_quarter_of_an_hour_will_do(store: Store, manager: ProxyManager, authority: pki.Pki) -> None:
    assert isinstance(delegate(store, manager, authority.user, hours=15.5 / 60), DelegationStored)


def test_an_unfit_proxy_leaves_the_stored_one_as_it_was(
    store: Store, manager: ProxyManager, authority: pki.Pki
) -> None:
    stored = delegate(store, manager, authority.user)
    assert isinstance(delegate(store, manager, authority.user, hours=0.1), Refused)
    with store.reading() as tx:
        (kept,) = proxies.get(tx, [(REAL.identity, REAL.group)]).values()
    assert isinstance(stored, DelegationStored)
    assert kept.not_after == stored.not_after


def test_a_chain_for_another_key_is_refused(store: Store, manager: ProxyManager, authority: pki.Pki) -> None:
    asked = begin(store, manager)
    other = signed(make_csr(new_key()), authority.user)
    refused = ask(store, manager, PutDelegation(delegation=asked.delegation, chain=other))
    assert isinstance(refused, Refused)
    assert "not for the key" in refused.reason


def test_somebody_elses_proxy_is_refused(store: Store, manager: ProxyManager, authority: pki.Pki) -> None:
    asked = begin(store, manager)
    other = authority.authority.issue("/DC=org/DC=example/CN=Other", now=pki.NOW)
    refused = ask(store, manager, PutDelegation(delegation=asked.delegation, chain=signed(asked.csr, other)))
    assert isinstance(refused, Refused)
    assert "not yours" in refused.reason


@pytest.mark.parametrize("chain", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_chain_is_refused(store: Store, manager: ProxyManager, chain: str) -> None:
    asked = begin(store, manager)
    refused = ask(store, manager, PutDelegation(delegation=asked.delegation, chain=chain))
    assert isinstance(refused, Refused)
    assert refused.code == "invalid"


def test_requests_under_way_are_bounded(store: Store, manager: ProxyManager) -> None:
    for _ in range(MAX_PENDING):
        begin(store, manager)
    refused = ask(store, manager, RequestDelegation())
    assert isinstance(refused, Refused)
    assert refused.code == "limit"
    chores(store, manager, time.time() + 4000)
    begin(store, manager)


def test_who_delegates_in_vain_for_ever_fills_no_audit(store: Store, manager: ProxyManager) -> None:
    bogus = PutDelegation(delegation="none", chain="none")
    for now in (6000.0, 6060.0):
        tell(store, manager, [admitted(bogus, REAL, now=now) for _ in range(REFUSED_PER_MINUTE + 40)], now)
    with store.reading() as tx:
        lines = [json.loads(row.detail) for row in audit.query(tx, event="delegation.refused", limit=1000)]
    assert len(lines) == 2 * REFUSED_PER_MINUTE
    assert [line["unrecorded"] for line in lines if "unrecorded" in line] == [40]


def test_delegations_in_a_minute_are_bounded(store: Store, manager: ProxyManager, monkeypatch) -> None:
    monkeypatch.setattr(delegating, "MAX_PENDING", 10_000)
    asked = [admitted(RequestDelegation(), REAL, now=6000.0) for _ in range(PER_MINUTE + 3)]
    heard = tell(store, manager, asked, 6000.0)
    assert [type(answer) for answer in heard.said[-4:]] == [DelegationCsr, Refused, Refused, Refused]


# -- pilots -------------------------------------------------------------------------------------------------------


def matched(store: Store, **fields: object) -> None:
    values: dict[str, object] = {"attempt": 1, "pilot": PILOT.cli, "lease_until": time.time() + 20, **fields}
    put_job(store, 1, REAL, **{"status": S.MATCHED, **values})  # type: ignore[arg-type]  # any column
    log_in(store)


def log_in(store: Store) -> None:
    with store.transaction() as tx:
        sessions.put(tx, PILOT.cli, PILOT.identity, PILOT.group, "t", "pilot", time.time())


def wanted(csr: bytes, **changes: object) -> ProxyWanted:
    values: dict[str, object] = {
        "client": PILOT.cli, "reply_to": PILOT.cli, "job": 1, "attempt": 1, "owner": REAL.identity,
        "group": REAL.group, "csr": csr, **changes,
    }  # fmt: skip
    return ProxyWanted(**values)  # type: ignore[arg-type]  # any field


def order(store: Store, manager: ProxyManager, message: ProxyWanted) -> ProxyIssued:
    heard = tell(store, manager, [admitted(message, service("matcher"))])
    assert [letter.audience for letter in heard.letters] == [message.client]
    (answer,) = heard.said
    assert isinstance(answer, ProxyIssued)
    assert answer.csr_sha256 == hashlib.sha256(message.csr).hexdigest()
    return answer


def test_a_pilot_gets_a_limited_proxy_for_the_job_it_holds(
    store: Store, manager: ProxyManager, directory: Directory, authority: pki.Pki
) -> None:
    delegate(store, manager, authority.user)
    matched(store)
    key = new_key()
    issued = order(store, manager, wanted(make_csr(key)))
    chain = directory.verify(split_chain(issued.chain))
    assert chain.identity == REAL.identity
    assert chain.limited
    assert chain.depth == 2
    assert issued.not_after == chain.not_after.timestamp() <= time.time() + 12 * 3600
    assert parse_certificate(chain.leaf).x509.public_key() == key.public_key()
    assert events(store)[-1] == "proxy.issued"
    with store.reading() as tx:
        assert proxies.issued_until(tx, PILOT.cli) == {(REAL.identity, REAL.group): issued.not_after}


@pytest.mark.parametrize(
    ("job", "request_", "why"),
    [
        ({"pilot": "another"}, {}, "does not hold"),
        ({"attempt": 2}, {}, "does not hold"),
        ({"status": S.RESCHEDULED}, {}, "does not hold"),
        ({}, {"job": 99}, "does not hold"),
        ({}, {"owner": "/O=Example/CN=bob"}, "another owner's"),
        ({"grp": "vo_pilot"}, {"group": "vo_pilot"}, "no payload runs"),
        ({"grp": "gone"}, {"group": "gone"}, "no payload runs"),
        ({"grp": "vo_prod"}, {"group": "vo_prod"}, "not in that group"),
        ({}, {"csr": b"junk"}, "malformed"),
    ],
)
def test_no_proxy_without_right(
    store: Store,
    manager: ProxyManager,
    authority: pki.Pki,
    job: dict[str, object],
    request_: dict[str, object],
    why: str,
) -> None:
    delegate(store, manager, authority.user)
    matched(store, **job)
    refused = order(store, manager, wanted(**{"csr": make_csr(new_key()), **request_}))  # type: ignore[arg-type]
    assert why in refused.reason
    assert not refused.chain
    assert events(store)[-1] == "proxy.refused"


def test_no_proxy_for_the_suspended(store: Store, manager: ProxyManager, authority: pki.Pki) -> None:
    delegate(store, manager, authority.user)
    matched(store)
    with store.transaction() as tx:
        registry.set_suspended(tx, PILOT.identity, suspended=True)
    fresh = ProxyManager(directory=Directory(store, authority.trust), vault=Vault([KEY]))
    assert "the pilot is suspended" in order(store, fresh, wanted(make_csr(new_key()))).reason
    with store.transaction() as tx:
        registry.set_suspended(tx, PILOT.identity, suspended=False)
        registry.set_suspended(tx, REAL.identity, suspended=True)
    fresh = ProxyManager(directory=Directory(store, authority.trust), vault=Vault([KEY]))
    assert "owner is suspended" in order(store, fresh, wanted(make_csr(new_key()))).reason


def test_no_proxy_for_a_pilot_whose_login_is_forgotten(store: Store, manager: ProxyManager, authority: pki.Pki) -> None:
    """Who it is cannot be told any more, so neither whether it is suspended."""
    delegate(store, manager, authority.user)
    matched(store)
    with store.transaction() as tx:
        assert sessions.purge(tx, time.time() + 1) == 1
    refused = order(store, manager, wanted(make_csr(new_key())))
    assert "log in anew" in refused.reason
    assert not refused.chain
    assert events(store)[-1] == "proxy.refused"
    log_in(store)
    assert order(store, manager, wanted(make_csr(new_key()))).chain


def test_no_proxy_for_a_pilot_whose_identity_is_not_registered(
    store: Store, manager: ProxyManager, authority: pki.Pki
) -> None:
    delegate(store, manager, authority.user)
    matched(store)
    with store.transaction() as tx:
        sessions.put(tx, PILOT.cli, "/O=Example/CN=nobody", PILOT.group, "t", "pilot", time.time())
    assert "not known any more" in order(store, manager, wanted(make_csr(new_key()))).reason


def test_no_proxy_without_a_delegation(store: Store, manager: ProxyManager) -> None:
    matched(store)
    assert "missing or has expired" in order(store, manager, wanted(make_csr(new_key()))).reason


def test_a_lost_master_key_is_said_plainly(
    store: Store, manager: ProxyManager, directory: Directory, authority: pki.Pki
) -> None:
    delegate(store, manager, authority.user)
    matched(store)
    other = ProxyManager(directory=directory, vault=Vault([Fernet.generate_key()]))
    assert "cannot read" in order(store, other, wanted(make_csr(new_key()))).reason
    rotated = ProxyManager(directory=directory, vault=Vault([Fernet.generate_key(), KEY]))
    assert order(store, rotated, wanted(make_csr(new_key()))).chain
