"""Keys and proxies: one key per request, one request per owner, nothing kept that is of no use."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest

from broker.identity import Authority, Credential, sign_csr
from pilot.proxies import REMEMBERED_REQUESTS, Proxies
from schemas.messages.service import ProxyIssued

ROOT = "/DC=org/DC=example"
ADA, BOB = f"{ROOT}/CN=ada", f"{ROOT}/CN=bob"


@pytest.fixture(scope="module")
def ada() -> Credential:
    return Authority.create(f"{ROOT}/CN=CA").issue(ADA)


def issued(csr: bytes, issuer: Credential, owner: str = ADA, not_after: float = 1000.0) -> ProxyIssued:
    now = dt.datetime.now(dt.UTC)
    pem = sign_csr(csr, issuer.ders, issuer.key, lifetime=dt.timedelta(hours=1), limited=True, now=now)
    digest = hashlib.sha256(csr).hexdigest()
    return ProxyIssued(owner=owner, group="g", csr_sha256=digest, chain=pem.decode(), not_after=not_after)


def asked(proxies: Proxies, request: str, count: int) -> tuple[bytes, ...]:
    csrs = proxies.new_requests(count)
    proxies.sent(request, csrs)
    return csrs


def test_a_proxy_that_was_asked_for(ada: Credential) -> None:
    proxies = Proxies()
    [csr] = asked(proxies, "r", 1)
    assert proxies.assign("r", 0, ADA, "g")
    proxies.settle("r")
    assert proxies.issued(issued(csr, ada))
    held = proxies.get(ADA, "g", 999.0)
    assert held is not None
    assert held.key.public_key() is not None
    assert proxies.get(ADA, "g", 1000.0) is None
    assert proxies.get(ADA, "other", 0.0) is None
    assert proxies.get(BOB, "g", 0.0) is None


def test_a_proxy_comes_once(ada: Credential) -> None:
    proxies = Proxies()
    [csr] = asked(proxies, "r", 1)
    proxies.assign("r", 0, ADA, "g")
    assert proxies.issued(issued(csr, ada))
    assert not proxies.issued(issued(csr, ada))


def test_a_key_serves_only_the_owner_it_was_assigned_to(ada: Credential) -> None:
    proxies = Proxies()
    [csr] = asked(proxies, "r", 1)
    proxies.assign("r", 0, BOB, "g")
    assert not proxies.issued(issued(csr, ada, ADA))
    assert proxies.get(ADA, "g", 0.0) is None
    assert proxies.get(BOB, "g", 0.0) is None


def test_unassigned_keys_are_of_no_use(ada: Credential) -> None:
    proxies = Proxies()
    one, two = asked(proxies, "r", 2)
    proxies.assign("r", 0, ADA, "g")
    proxies.settle("r")
    assert not proxies.issued(issued(two, ada))
    assert proxies.issued(issued(one, ada))
    assert proxies._keys == {}


@pytest.mark.parametrize("place", [-1, 2, 99])
def test_places_that_were_not_sent(place: int) -> None:
    proxies = Proxies()
    asked(proxies, "r", 2)
    assert not proxies.assign("r", place, ADA, "g")
    assert not proxies.assign("unknown", 0, ADA, "g")


def test_requests_without_an_answer_are_forgotten() -> None:
    proxies = Proxies()
    for number in range(REMEMBERED_REQUESTS + 5):
        asked(proxies, str(number), 1)
    assert len(proxies._keys) == len(proxies._requested) == REMEMBERED_REQUESTS
    assert not proxies.assign("0", 0, ADA, "g")


def test_holds_names_what_still_lives_long_enough(ada: Credential) -> None:
    proxies = Proxies()
    [csr] = asked(proxies, "r", 1)
    proxies.assign("r", 0, ADA, "g")
    proxies.issued(issued(csr, ada, not_after=1000.0))
    assert [(one.owner, one.not_after) for one in proxies.holds(900.0)] == [(ADA, 1000.0)]
    assert proxies.holds(941.0) == ()
    assert proxies.get(ADA, "g", 941.0) is not None
    proxies.holds(1001.0)
    assert proxies._held == {}
