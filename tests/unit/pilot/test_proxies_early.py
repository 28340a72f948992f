"""A proxy may overtake its match: different services send them, and a lost match is said again later."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest

from broker.identity import Credential, pem_chain, sign_csr, split_chain
from pilot.proxies import Proxies
from schemas.messages.service import ProxyIssued
from tests.support import pki

OWNER, GROUP, NOW = "/CN=ada", "vo", 1000.0


@pytest.fixture(scope="module")
def credential(tmp_path_factory: pytest.TempPathFactory) -> Credential:
    return pki.make_pki(tmp_path_factory.mktemp("trust")).user


def issue(credential: Credential, csr: bytes, owner: str = OWNER) -> ProxyIssued:
    pem = sign_csr(
        csr, credential.ders, credential.key, lifetime=dt.timedelta(hours=1), limited=True,
        now=dt.datetime.now(dt.UTC),
    )  # fmt: skip
    digest = hashlib.sha256(csr).hexdigest()
    chain = pem_chain(split_chain(pem)).decode()
    return ProxyIssued(owner=owner, group=GROUP, csr_sha256=digest, chain=chain, not_after=NOW + 3600)


def test_a_proxy_that_comes_before_its_match_is_kept(credential: Credential) -> None:
    proxies = Proxies()
    csrs = proxies.new_requests(2)
    proxies.sent("request", csrs)
    assert proxies.issued(issue(credential, csrs[1]))
    assert proxies.get(OWNER, GROUP, NOW) is None
    assert proxies.assign("request", 1, OWNER, GROUP)
    assert proxies.get(OWNER, GROUP, NOW) is not None


def test_but_only_for_the_owner_whom_the_match_names(credential: Credential) -> None:
    proxies = Proxies()
    csrs = proxies.new_requests(1)
    proxies.sent("request", csrs)
    proxies.issued(issue(credential, csrs[0], owner="/CN=eve"))
    proxies.assign("request", 0, OWNER, GROUP)
    assert proxies.get(OWNER, GROUP, NOW) is None
    assert proxies.get("/CN=eve", GROUP, NOW) is None


def test_and_it_is_forgotten_with_its_request(credential: Credential) -> None:
    proxies = Proxies()
    csrs = proxies.new_requests(1)
    proxies.sent("request", csrs)
    proxies.issued(issue(credential, csrs[0]))
    proxies.settle("request")
    assert not proxies.assign("request", 0, OWNER, GROUP)
    assert not proxies.issued(issue(credential, csrs[0]))
