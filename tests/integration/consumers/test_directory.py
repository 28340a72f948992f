"""Who is who, in each process: changes of registry and trust directory act within seconds, at once when told."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.identity import IdentityError, parse_certificate, verify_chain
from broker.identity.proxy_info import INDEPENDENT, ProxyCertInfo
from consumers import directory as module
from consumers.directory import REFRESH_SECONDS, Directory
from consumers.store import Store, chains, registry
from schemas.access import AccessRule, Effect
from tests.support import pki
from tests.support.messages import user
from tests.support.rules import set_rules
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

ADA = user("ada")
SOON = REFRESH_SECONDS + 2.0


@pytest.fixture
def own(tmp_path: Path) -> pki.Pki:
    """An authority of the test's own: its CRLs are written here."""
    return pki.make_pki(tmp_path / "own-trust")


@pytest.fixture
def known(store: Store, own: pki.Pki) -> str:
    """The thumbprint of a chain that logged in."""
    chain = verify_chain(own.user.ders, own.trust, None, pki.NOW)
    with store.transaction() as tx:
        chains.put(tx, chain.thumbprint_b64url, chain.ders, chain.identity, chain.not_after.timestamp(), 0.0)
    return chain.thumbprint_b64url


def test_a_new_crl_acts_on_chains_that_were_good_a_moment_ago(store: Store, own: pki.Pki, known: str) -> None:
    directory = Directory(store, own.trust)
    before = directory.generation()
    assert directory(known) is not None
    serial = parse_certificate(own.user.leaf).x509.serial_number
    own.authority.write_trust_dir(own.directory, revoked=[serial], now=pki.NOW)
    wait_until(lambda: directory(known) is None, SOON, "the chain is refused")
    assert directory.generation() != before
    with pytest.raises(IdentityError, match="revoked"):
        directory.verify(list(own.user.ders))
    own.authority.write_trust_dir(own.directory, now=pki.NOW)
    wait_until(lambda: directory(known) is not None, SOON, "the chain is good again")


def test_who_was_told_looks_at_once(store: Store, own: pki.Pki, known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 3600.0)
    directory = Directory(store, own.trust)
    assert directory(known) is not None
    assert directory.principal(ADA.identity, "vo_user", ADA.cli) is not None
    own.authority.write_trust_dir(
        own.directory, revoked=[parse_certificate(own.user.leaf).x509.serial_number], now=pki.NOW
    )
    with store.transaction() as tx:
        registry.set_suspended(tx, ADA.identity, suspended=True)
    assert directory(known) is not None
    assert directory.principal(ADA.identity, "vo_user", ADA.cli) is not None
    directory.forget()
    assert directory(known) is None
    assert directory.principal(ADA.identity, "vo_user", ADA.cli) is None


def test_nobody_logs_in_or_signs_by_a_name_that_he_gave_himself(store: Store, own: pki.Pki) -> None:
    """An independent proxy of ``/CN=Ada`` can bear the very name of ``/CN=Ada/CN=12345``, who is somebody else."""
    above, _, name = pki.USER_DN.rpartition("/CN=")
    issuer = own.authority.issue(above, now=pki.NOW)
    info = pki.pci(ProxyCertInfo(INDEPENDENT).encode())
    chain = pki.proxy(issuer, name, extensions=[info, pki.usage(digital_signature=True)])
    proven = verify_chain(chain.ders, own.trust, None, pki.NOW)
    assert proven.identity == pki.USER_DN
    directory = Directory(store, own.trust)
    with pytest.raises(IdentityError, match="independent"):
        directory.verify(list(chain.ders))
    with store.transaction() as tx:  # one that was let in by an older version
        chains.put(tx, proven.thumbprint_b64url, proven.ders, proven.identity, proven.not_after.timestamp(), 0.0)
    assert directory(proven.thumbprint_b64url) is None


def test_rules_come_with_whom_they_concern_and_go_with_the_registry(store: Store, own: pki.Pki) -> None:
    directory = Directory(store, own.trust)
    rule = AccessRule(name="quiet", effect=Effect.DENY, who=f"dn:{ADA.identity}", what="job.submit.v1")
    set_rules(store, rule, AccessRule(name="others", effect=Effect.DENY, who="group:vo_prod", what="*"))
    directory.forget()

    def rules(group: str) -> set[str]:
        found = directory.principal(ADA.identity, group, ADA.cli)
        assert found is not None
        return {one.name for one in found.rules}

    assert rules("vo_user") == {"quiet"}
    assert rules("vo_prod") == {"quiet", "others"}
    set_rules(store)
    wait_until(lambda: rules("vo_user") == set(), SOON, "the rules are gone")
