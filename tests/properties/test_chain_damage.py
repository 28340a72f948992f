"""Any damage to any certificate of a valid chain is noticed: every byte of every certificate is changed in turn."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.identity import Credential, IdentityError, der, verify_chain
from tests.support.attribute_certificates import Voms, make_ac, make_voms, with_acs
from tests.support.effort import FACTOR, effort
from tests.support.pki import NOW, USER_DN, Pki, make_pki, pci, proxy, usage

AFTER_SIGNED = 24
"""Bytes behind the signed part whose every value is tried: algorithm and headers, which no signature covers."""


@pytest.fixture(scope="module", params=["P-256", "RSA"])
def pki(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("trust"), rsa_keys=request.param == "RSA")


@pytest.fixture(scope="module")
def voms(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Voms:
    return make_voms(pki, tmp_path_factory.mktemp("vomsdir"))


@pytest.fixture(scope="module")
def chain(pki: Pki, voms: Voms) -> Credential:
    """A user, a proxy with VOMS attributes and one more below it; keys of the authority's kind."""
    key = pki.user.key if pki.user.key.key_size >= 2048 else None
    first = proxy(pki.user, "1", extensions=[pci(), usage(digital_signature=True), with_acs(make_ac(voms))], key=key)
    return proxy(first, "2")


def changes(encoded: bytes, uncovered: int = 255) -> Iterator[tuple[int, int]]:
    """Positions and what to combine (xor) with: a value for every byte, many (all) where no signature looks."""
    signed = der.read_exactly(encoded, der.SEQUENCE).children()[0]
    begin = encoded.index(signed.encoded)
    end = begin + len(signed.encoded)
    some = random.Random(0)
    for position in range(len(encoded)):
        covered = begin + 4 <= position < end or position >= end + AFTER_SIGNED
        values = some.sample(range(1, 256), min(255, FACTOR if covered else uncovered * FACTOR))
        yield from ((position, value) for value in values)


def test_the_chain_itself_is_good(pki: Pki, voms: Voms, chain: Credential) -> None:
    verified = verify_chain(chain.ders, pki.trust, voms.vomsdir, NOW)
    assert (verified.identity, verified.depth) == (USER_DN, 2)
    assert verified.fqans


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_byte_of_every_certificate_counts(pki: Pki, voms: Voms, chain: Credential, which: int) -> None:
    for position, change in changes(chain.ders[which]):
        damaged = bytearray(chain.ders[which])
        damaged[position] ^= change
        ders = [bytes(damaged) if place == which else item for place, item in enumerate(chain.ders)]
        try:
            verify_chain(ders, pki.trust, voms.vomsdir, NOW)
        except IdentityError:
            continue
        pytest.fail(f"byte {position} of certificate {which} changed by {change:#x} was not noticed")


def test_every_byte_of_an_attribute_certificate_counts(pki: Pki, voms: Voms) -> None:
    """Even where the proxy around it is signed anew: nobody who makes proxies makes himself attributes."""
    good = make_ac(voms)
    sound = verify_chain(_with(pki, good).ders, pki.trust, voms.vomsdir, NOW)
    for position, change in changes(good, uncovered=8):
        damaged = bytearray(good)
        damaged[position] ^= change
        try:
            verified = verify_chain(_with(pki, bytes(damaged)).ders, pki.trust, voms.vomsdir, NOW)
        except IdentityError:
            continue
        assert not any(ac.valid for ac in verified.acs), (position, change)
        assert verified.identity == sound.identity


def _with(pki: Pki, ac: bytes) -> Credential:
    # One key for all: making keys would take longer than everything else.
    return proxy(
        pki.user, extensions=[pci(), usage(digital_signature=True), with_acs(ac)], key=pki.authority.credential.key
    )


@given(st.integers(0, 2), st.integers(0, 10_000), st.binary(max_size=3), st.integers(0, 3))
@effort(60)
def test_cut_and_inserted_bytes_are_refused(
    pki: Pki, voms: Voms, chain: Credential, which: int, position: int, insert: bytes, cut: int
) -> None:
    ders = list(chain.ders)
    position %= len(ders[which])
    changed = ders[which][:position] + insert + ders[which][position + cut :]
    assume(changed != ders[which])
    ders[which] = changed
    with pytest.raises(IdentityError):
        verify_chain(ders, pki.trust, voms.vomsdir, NOW)
