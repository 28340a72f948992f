"""Damaged certificates, proxies, attribute certificates, requests and revocation lists: refused, and nothing else."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.identity import (
    IdentityError,
    TrustStore,
    VerifiedChain,
    VomsDir,
    der,
    make_csr,
    new_key,
    parse_certificate,
    pem_chain,
    read_csr,
    split_chain,
    subject_hash,
    verify_chain,
)
from broker.identity.attribute_certificate import read_acs
from broker.identity.certificate import OID_PROXY_CERT_INFO
from broker.identity.name_constraints import OID_NAME_CONSTRAINTS, check_name_constraints
from broker.identity.proxy_info import ProxyCertInfo
from broker.identity.voms import MAX_ACS, OID_VOMS_ACS
from tests.support.attribute_certificates import Voms, make_ac, make_voms, with_acs
from tests.support.effort import effort
from tests.support.hostile import calmly
from tests.support.mutations import damaged_der, mutate_der
from tests.support.pki import CA_DN, NOW, Pki, craft, make_pki, pci, proxy, unknown, usage

GRID = Path(__file__).parents[1] / "fixtures" / "grid"
THEN = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
"""When the fixtures were young."""


@functools.cache
def chains() -> list[list[bytes]]:
    """Every chain that real tools made."""
    return [split_chain(path.read_bytes()) for path in sorted((GRID / "proxies").glob("*.pem"))]


def certificates() -> list[bytes]:
    return sorted({item for chain in chains() for item in chain})


def values(oid: str) -> list[bytes]:
    found = {parse_certificate(item).extensions[oid].value for item in certificates() if oid in _extensions(item)}
    return sorted(found)


def _extensions(encoded: bytes) -> dict[str, object]:
    try:
        return dict(parse_certificate(encoded).extensions)
    except IdentityError:
        return {}


@pytest.fixture(scope="module")
def trust() -> TrustStore:
    return TrustStore.load(GRID / "certificates")


@pytest.fixture(scope="module")
def vomsdir() -> VomsDir:
    return VomsDir.load(GRID / "vomsdir")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def voms(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Voms:
    return make_voms(pki, tmp_path_factory.mktemp("vomsdir"))


@given(damaged_der(certificates()))
@effort(250)
def test_certificates(data: bytes) -> None:
    found = calmly(lambda: parse_certificate(data), len(data), IdentityError)
    if not isinstance(found, IdentityError):
        assert found.der == data
        assert found.dn.isprintable()


READERS: list[Callable[[bytes], object]] = [
    parse_certificate,
    read_csr,
    subject_hash,
    ProxyCertInfo.decode,
    lambda item: read_acs(item, MAX_ACS),
    der.read_all,
]


@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    for read in READERS:
        calmly(functools.partial(read, data), len(data), IdentityError)


@given(st.sampled_from(range(len(chains()))), st.data())
@effort(200)
def test_chains(trust: TrustStore, vomsdir: VomsDir, which: int, data: st.DataObject) -> None:
    """One damaged certificate in a real chain; where the whole stands nonetheless, it is the same person's."""
    chain = chains()[which]
    place = data.draw(st.integers(0, len(chain) - 1))
    damaged = [*chain[:place], data.draw(damaged_der([chain[place]])), *chain[place + 1 :]]
    found = calmly(lambda: verify_chain(damaged, trust, vomsdir, THEN), sum(map(len, damaged)), IdentityError)
    if isinstance(found, VerifiedChain):
        assert found.ders == tuple(item for item in found.ders if item in chain)


@given(st.data())
@effort(100)
def test_attribute_certificates(pki: Pki, voms: Voms, data: st.DataObject) -> None:
    """The extension as a whole, inside a proxy that is otherwise sound: the attributes are lost, not the identity."""
    sound = with_acs(make_ac(voms))[0].public_bytes()
    value = data.draw(damaged_der([sound, *_small(values(OID_VOMS_ACS))]))
    carrier = proxy(pki.user, extensions=[pci(), usage(digital_signature=True), unknown(OID_VOMS_ACS, value, False)])
    found = calmly(
        lambda: verify_chain(carrier.ders, pki.trust, voms.vomsdir, NOW), len(value) + 2000, IdentityError
    )  # fmt: skip
    assert isinstance(found, VerifiedChain) == (len(value) + sum(map(len, pki.user.ders)) < 60_000)
    if isinstance(found, VerifiedChain) and any(ac.valid for ac in found.acs):
        assert der.read_exactly(sound, der.SEQUENCE).children()[0].children()[0].encoded in value


def _small(items: list[bytes]) -> list[bytes]:
    return [item for item in items if len(item) < 8000]


@given(damaged_der(_small(values(OID_VOMS_ACS))))
@effort(300)
def test_the_reader_of_attribute_certificates(data: bytes) -> None:
    calmly(lambda: read_acs(data, MAX_ACS), len(data), IdentityError)


@given(damaged_der(values(OID_PROXY_CERT_INFO)))
@example(bytes.fromhex("300f 0204 7fffffff 3007 0605 2b06010505".replace(" ", "")))
@effort(300)
def test_proxy_cert_info(data: bytes) -> None:
    found = calmly(lambda: ProxyCertInfo.decode(data), len(data), IdentityError)
    if isinstance(found, ProxyCertInfo):
        assert ProxyCertInfo.decode(found.encode()) == found


@functools.cache
def requests() -> list[bytes]:
    return [make_csr(new_key()), make_csr(new_key(rsa_bits=2048))]


@given(damaged_der(requests()))
@effort(300)
def test_requests(data: bytes) -> None:
    calmly(lambda: read_csr(data), len(data), IdentityError)


def constraints(value: bytes) -> list[object]:
    """A chain whose authority has these name constraints."""
    authority = make_constrained(value)
    return [parse_certificate(item) for item in authority]


@functools.cache
def user() -> bytes:
    return split_chain((GRID / "proxies" / "rfc_full.pem").read_bytes())[-1]


def make_constrained(value: bytes) -> list[bytes]:
    from broker.identity import Authority

    parent = _authority()
    assert isinstance(parent, Authority)
    below = craft(
        parent.credential, "Sub", extensions=[unknown(OID_NAME_CONSTRAINTS, value)], key=parent.credential.key
    )
    return [user(), below.leaf]


@functools.cache
def _authority() -> object:
    from broker.identity import Authority

    return Authority.create(CA_DN, now=NOW)


BASE = der.encode(
    der.SEQUENCE,
    *(
        der.encode(tag, der.encode(der.SEQUENCE, der.encode(0xA4, parse_certificate(user()).subject_der)))
        for tag in (0xA0, 0xA1)
    ),
)


@given(damaged_der([BASE]))
@effort(100)
def test_name_constraints(value: bytes) -> None:
    try:
        chain = [parse_certificate(item) for item in make_constrained(value)]
    except IdentityError:
        return
    calmly(lambda: check_name_constraints(chain), len(value) + 1000, IdentityError)


@functools.cache
def lists() -> list[bytes]:
    pems = [path.read_bytes() for path in sorted((GRID / "certificates").glob("*.r0"))]
    return [base64.b64decode(b"".join(pem.splitlines()[1:-1])) for pem in pems]


@given(damaged_der(lists()))
@example(mutate_der(lists()[0], random.Random(189629)))  # a name of bits, over which the library stumbles
@effort(100)
def test_revocation_lists(folder: Path, data: bytes) -> None:
    """A damaged list in the directory is left out, or it is not its authority's: nobody is let in by it."""
    (folder / "c09eff3a.r0").write_bytes(data)
    (folder / "0ef260be.r0").write_bytes(data)
    trust = TrustStore.load(folder)
    chain = split_chain((GRID / "proxies" / "rfc_full.pem").read_bytes())
    found = calmly(lambda: verify_chain(chain, trust, None, THEN), len(data) + 8000, IdentityError)
    if isinstance(found, VerifiedChain):
        assert data in lists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    for path in (GRID / "certificates").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@given(st.lists(damaged_der(certificates()), min_size=1, max_size=3))
@effort(100)
def test_a_round_by_way_of_pem_changes_nothing(ders: list[bytes]) -> None:
    def both() -> tuple[object, object]:
        return split_chain(ders), split_chain(pem_chain(ders))

    found = calmly(both, 3 * sum(map(len, ders)), IdentityError)
    if isinstance(found, tuple):
        assert found[0] == found[1]
