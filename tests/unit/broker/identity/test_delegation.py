from __future__ import annotations

import datetime as dt
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from broker.identity import (
    Credential,
    IdentityError,
    create_proxy,
    der,
    make_csr,
    new_key,
    sign_csr,
    split_chain,
    verify_chain,
)
from broker.identity.keys import PrivateKey
from broker.identity.proxy_info import LIMITED
from tests.support.attribute_certificates import FQANS, Voms, make_ac, make_voms
from tests.support.pki import HOUR, NOW, USER_DN, Pki, craft, proxy, sign, usage

DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def voms(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Voms:
    return make_voms(pki, tmp_path_factory.mktemp("vomsdir"))


def make(issuer: Credential, **options: object) -> Credential:
    chosen = {"lifetime": HOUR, "limited": False, "now": NOW} | options
    return create_proxy(issuer.ders, issuer.key, **chosen)  # type: ignore[arg-type]  # handed through


def delegate(issuer: Credential, csr: bytes, **options: object) -> bytes:
    chosen = {"lifetime": HOUR, "limited": True, "now": NOW} | options
    return sign_csr(csr, issuer.ders, issuer.key, **chosen)  # type: ignore[arg-type]  # handed through


def test_full_proxy(pki: Pki) -> None:
    chain = verify_chain(make(pki.user).ders, pki.trust, None, NOW)
    assert (chain.identity, chain.limited, chain.depth, chain.not_after) == (USER_DN, False, 1, NOW + HOUR)
    # Back-dated five minutes, but the user's own certificate is not older than that.
    assert chain.not_before == NOW - dt.timedelta(minutes=5)


def test_delegation(pki: Pki) -> None:
    key = new_key()
    issuer = make(pki.user)
    pem = delegate(issuer, make_csr(key))
    chain = verify_chain(pem, pki.trust, None, NOW)
    assert (chain.identity, chain.limited, chain.depth) == (USER_DN, True, 2)
    assert chain.public_key == key.public_key()
    assert split_chain(pem)[1:] == list(issuer.ders)


@pytest.mark.parametrize("bits", [2048, 3072])
def test_rsa(pki: Pki, bits: int) -> None:
    chain = verify_chain(make(pki.user, key=new_key(rsa_bits=bits)).ders, pki.trust, None, NOW)
    assert chain.public_key.key_size == bits
    usage_of = x509.load_der_x509_certificate(chain.leaf).extensions.get_extension_for_class(x509.KeyUsage)
    assert usage_of.critical
    assert usage_of.value.key_encipherment
    with pytest.raises(IdentityError, match="weak"):
        new_key(rsa_bits=1024)


def test_limited_stays_limited(pki: Pki) -> None:
    limited = make(pki.user, limited=True)
    child = make(limited, limited=False)
    assert verify_chain(child.ders, pki.trust, None, NOW).limited
    # Its own certificate says so too: others may look at the leaf only.
    assert der.encode_oid(LIMITED) in child.leaf
    assert verify_chain(delegate(limited, make_csr(new_key()), limited=False), pki.trust, None, NOW).limited


def test_never_outlives_the_chain(pki: Pki) -> None:
    short = make(pki.user, lifetime=HOUR)
    assert verify_chain(make(short, lifetime=DAY).ders, pki.trust, None, NOW).not_after == NOW + HOUR
    leaf = x509.load_der_x509_certificate(make(short, lifetime=DAY).leaf)
    assert leaf.not_valid_after_utc == NOW + HOUR
    with pytest.raises(IdentityError, match="expired"):
        make(short, now=NOW + 2 * HOUR)
    with pytest.raises(IdentityError, match="not yet valid"):
        make(short, now=NOW - DAY)
    with pytest.raises(IdentityError, match="lifetime"):
        make(pki.user, lifetime=dt.timedelta(0))


def test_path_length(pki: Pki) -> None:
    last = make(pki.user, path_length=0)
    with pytest.raises(IdentityError, match="path length exceeded"):
        make(last)
    with pytest.raises(IdentityError, match="path length exceeded"):
        make(make(make(pki.user, path_length=1), path_length=9))
    with pytest.raises(IdentityError, match="not negative"):
        make(pki.user, path_length=-1)


def test_depth_is_bounded_by_what_can_be_verified(pki: Pki) -> None:
    credential = pki.user
    for depth in range(1, 16):
        credential = make(credential)
        assert verify_chain(credential.ders, pki.trust, None, NOW).depth == depth
    with pytest.raises(IdentityError, match="path length exceeded"):
        make(credential)


def test_issuer_that_may_not(pki: Pki) -> None:
    with pytest.raises(IdentityError, match="does not fit"):
        create_proxy(pki.user.ders, new_key(), lifetime=HOUR, limited=False, now=NOW)
    mute = craft(pki.authority.credential, "x", extensions=[usage(key_agreement=True)])
    with pytest.raises(IdentityError, match="digitalSignature"):
        make(Credential(mute.key, mute.ders[:1]))
    with pytest.raises(IdentityError, match="cannot build chain"):
        create_proxy(pki.user.ders[1:] or [proxy(pki.user).leaf], pki.user.key, lifetime=HOUR, limited=False, now=NOW)
    with pytest.raises(IdentityError, match="key of its own"):
        make(pki.user, key=pki.user.key)


def test_bad_requests(pki: Pki) -> None:
    key = new_key()
    good = make_csr(key)
    info, algorithm, signature = der.read_exactly(good, der.SEQUENCE).children()
    other = der.read_exactly(make_csr(new_key()), der.SEQUENCE).children()
    foreign = der.encode(der.SEQUENCE, info.encoded, algorithm.encoded, other[2].encoded)
    flipped = bytearray(good)
    flipped[-1] ^= 1
    for csr, reason in (
        (foreign, "not signed by its own key"),
        (bytes(flipped), "not signed|malformed"),
        (b"", "malformed"),
        (good + b"\0", "malformed"),
        (good * 100, "at most"),
        (b"\x30\x80\0\0", "malformed"),
        (request(rsa.generate_private_key(65537, 1024)), "weak"),
        (request(ec.generate_private_key(ec.SECP256K1())), "weak"),
        (request(ed25519.Ed25519PrivateKey.generate(), None), "weak"),
    ):
        with pytest.raises(IdentityError, match=reason):
            delegate(pki.user, csr)
    assert signature.tag == der.BIT_STRING


def rewritten(key: PrivateKey, *, version: int = 0, parts: Callable[[list[bytes]], list[bytes]] = list) -> bytes:
    """A request whose fields were changed before its own key signed it."""
    info, algorithm, _signature = der.read_exactly(make_csr(key), der.SEQUENCE).children()
    _version, *rest = (item.encoded for item in info.children())
    changed = der.encode(der.SEQUENCE, *parts([der.encode_integer(version), *rest]))
    signature = der.encode(der.BIT_STRING, b"\0" + sign(key, changed))
    return der.encode(der.SEQUENCE, changed, algorithm.encoded, signature)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_versions_that_delegation_services_send(pki: Pki, version: int) -> None:
    key = new_key()
    pem = delegate(pki.user, rewritten(key, version=version))
    assert verify_chain(pem, pki.trust, None, NOW).public_key == key.public_key()


@pytest.mark.parametrize(
    "csr",
    [
        rewritten(new_key(), version=3),
        rewritten(new_key(), parts=lambda parts: parts[1:]),
        rewritten(new_key(), parts=lambda parts: [*parts, b"\xa1\x00"]),
        rewritten(new_key(), parts=lambda parts: [*parts[:2], parts[2] + parts[2]]),
        rewritten(new_key(), parts=lambda parts: [parts[0], b"\x05\x00", *parts[2:]]),
        rewritten(new_key(), parts=lambda parts: [*parts[:2], b"\x30\x00"]),
    ],
    ids=["version", "no version", "more fields", "two keys", "no name", "no key"],
)
def test_requests_of_another_form(pki: Pki, csr: bytes) -> None:
    with pytest.raises(IdentityError, match="malformed"):
        delegate(pki.user, csr)


def request(key: object, algorithm: hashes.SHA256 | None = hashes.SHA256()) -> bytes:  # noqa: B008
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]  # also kinds that we refuse


def test_names_and_extensions_of_a_request_are_ignored(pki: Pki) -> None:
    key = new_key()
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Mallory")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("x.org")]), critical=False)
    )
    pem = delegate(pki.user, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    assert verify_chain(pem, pki.trust, None, NOW).identity == USER_DN


@pytest.mark.parametrize("bits", [None, 2048])
def test_openssl_accepts_what_we_issue(pki: Pki, tmp_path: Path, bits: int | None) -> None:
    first = make(pki.user, key=new_key(rsa_bits=bits), path_length=3)
    second = delegate(first, make_csr(new_key(rsa_bits=bits)))
    for name, chain in (("first", first.chain_pem), ("second", second)):
        path = tmp_path / f"{name}.pem"
        path.write_bytes(chain)
        command = ["openssl", "verify", "-allow_proxy_certs", "-crl_check_all", "-x509_strict"]
        done = subprocess.run(
            [*command, "-CApath", pki.directory, "-untrusted", path, path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    text = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "second.pem", "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Proxy Certificate Information: critical" in text
    assert "1.3.6.1.4.1.3536.1.1.1.9" in text


def test_attributes_go_into_the_proxy_and_change_nothing_else(pki: Pki, voms: Voms) -> None:
    acs = [make_ac(voms, end=NOW + DAY), make_ac(voms, fqans=["/lhcb/prod"], old_holder=True)]
    short = make(pki.user, lifetime=HOUR, acs=acs, limited=True)
    chain = verify_chain(short.ders, pki.trust, voms.vomsdir, NOW)
    assert (chain.not_after, chain.limited, chain.identity) == (NOW + HOUR, True, USER_DN)
    assert [ac.valid for ac in chain.acs] == [True, True]
    assert chain.fqans == (*FQANS, "/lhcb/prod")
    child = delegate(short, make_csr(new_key()), acs=[make_ac(voms, fqans=["/lhcb/deep"])])
    assert verify_chain(child, pki.trust, voms.vomsdir, NOW).fqans == ("/lhcb/deep", *FQANS, "/lhcb/prod")


def test_attributes_that_nobody_could_use_are_refused_at_once(pki: Pki, voms: Voms) -> None:
    good = make_ac(voms)
    somebody = pki.authority.issue("/DC=org/DC=example/CN=Somebody", now=NOW)
    for issuer, acs, reason in (
        (somebody, [good], "holder is not the end entity"),
        (pki.user, [b""], "truncated"),
        (pki.user, [good + b"\0"], "behind the end"),
        (pki.user, [b"\x30\x00"], "malformed"),
        (pki.user, [make_ac(voms, fqans=["/atlas"])], "FQAN outside VO"),
        (pki.user, [good] * 17, "more than 16"),
        (pki.user, [make_ac(voms, fqans=["/lhcb/x" + "x" * 400] * 120)] * 2, "larger than"),
        (pki.user, [b"\x30" * 70_000], "larger than"),
    ):
        with pytest.raises(IdentityError, match=reason):
            make(issuer, acs=acs)


def test_a_chain_that_nobody_would_read_is_not_made(pki: Pki, voms: Voms) -> None:
    large = make_ac(voms, fqans=["/lhcb/x" + "x" * 400] * 120)
    chain = make(pki.user, acs=[large])
    with pytest.raises(IdentityError, match="65536 bytes"):
        make(chain, acs=[large])
