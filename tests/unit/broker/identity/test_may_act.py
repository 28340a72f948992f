"""Sound chains by which nobody may act: whose name nobody gave, or whose key may not sign."""

from __future__ import annotations

import pytest

from broker.identity import Credential, IdentityError, verify_chain
from broker.identity.proxy_info import INDEPENDENT, ProxyCertInfo
from broker.signing import facts_of
from tests.support.pki import NOW, USER_DN, Pki, craft, pci, proxy, usage

SIGN = usage(digital_signature=True)
OWN_WAY = [pci(ProxyCertInfo(INDEPENDENT).encode()), SIGN]


def barred(pki: Pki, credential: Credential) -> str:
    chain = verify_chain(credential.ders, pki.trust, None, NOW)
    if chain.barred:
        with pytest.raises(IdentityError):
            facts_of(chain)
    else:
        assert facts_of(chain).identity == chain.identity
    return chain.barred


def test_users_and_their_proxies_may(pki: Pki) -> None:
    for chain in (pki.user, proxy(pki.user), proxy(proxy(pki.user), "2")):
        assert barred(pki, chain) == ""


@pytest.mark.parametrize("below", [0, 1])
def test_nobody_takes_the_name_of_somebody_below_his_own(pki: Pki, below: int) -> None:
    """The owner of a name can issue an independent proxy of any name below it, also one that is another's."""
    names = USER_DN.rsplit("/CN=", 1 + below)
    chain = pki.authority.issue(names[0], now=NOW)
    for number, name in enumerate(names[1:]):
        chain = proxy(chain, name, extensions=OWN_WAY if number == 0 else [pci(), SIGN])
    assert verify_chain(chain.ders, pki.trust, None, NOW).identity == USER_DN
    assert "independent" in barred(pki, chain)
    assert "independent" in barred(pki, proxy(chain))


@pytest.mark.parametrize("bit", ["key_encipherment", "key_agreement", "content_commitment"])
def test_a_key_that_may_not_sign(pki: Pki, bit: str) -> None:
    """RFC 5280 §4.2.1.3."""
    assert "digitalSignature" in barred(pki, proxy(pki.user, extensions=[pci(), usage(**{bit: True})]))
    user = craft(pki.authority.credential, "Mute", extensions=[usage(**{bit: True})])
    assert "digitalSignature" in barred(pki, Credential(user.key, user.ders[:1]))


def test_without_key_usage_all_is_allowed(pki: Pki) -> None:
    assert barred(pki, proxy(pki.user, extensions=[pci()])) == ""
