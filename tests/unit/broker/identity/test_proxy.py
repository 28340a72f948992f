"""Every rule of RFC 3820 that a chain can break, broken once."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.identity import Credential, IdentityError, TrustStore, der, new_key, pem_chain, verify_chain
from broker.identity.certificate import OID_PROXY_CERT_INFO
from broker.identity.proxy_info import INDEPENDENT, INHERIT_ALL, LIMITED, ProxyCertInfo
from tests.support.pki import HOUR, NOW, USER_DN, Pki, craft, edit, pci, proxy, rdn, unknown, usage

SIGN = usage(digital_signature=True)


def refusal(pki: Pki, credential: Credential, now: dt.datetime = NOW) -> str:
    with pytest.raises(IdentityError) as caught:
        verify_chain(credential.ders, pki.trust, None, now)
    return caught.value.reason


def info(language: str = INHERIT_ALL, length: int | None = None) -> tuple[x509.ExtensionType, bool]:
    return pci(ProxyCertInfo(language, length).encode())


def test_sound_chains(pki: Pki) -> None:
    plain = verify_chain(pki.user.ders, pki.trust, None, NOW)
    assert (plain.identity, plain.depth, plain.limited) == (USER_DN, 0, False)
    chain = verify_chain(proxy(proxy(pki.user)).ders, pki.trust, None, NOW)
    assert (chain.identity, chain.depth, chain.limited) == (USER_DN, 2, False)
    assert (chain.not_before, chain.not_after) == (NOW - dt.timedelta(minutes=5), NOW + HOUR)


def test_numeric_common_name_of_a_user_is_no_proxy(pki: Pki) -> None:
    assert verify_chain(proxy(pki.user, "999").ders, pki.trust, None, NOW).identity.endswith("/CN=12345")


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_any_order(pki: Pki, order: tuple[int, ...]) -> None:
    ders = proxy(proxy(pki.user, "1"), "2").ders
    chain = verify_chain([ders[i] for i in order], pki.trust, None, NOW)
    assert chain.ders == ders
    assert chain.leaf == ders[0]


def test_pem_with_key_duplicates_and_root_is_accepted(pki: Pki) -> None:
    credential = proxy(pki.user)
    text = credential.to_pem() + pem_chain([credential.leaf, pki.authority.certificate])
    assert verify_chain(text, pki.trust, None, NOW).ders == credential.ders


def test_leftover_certificates_are_refused(pki: Pki) -> None:
    ders = proxy(pki.user).ders
    stranger = pki.authority.issue("/DC=org/DC=example/CN=Bob", now=NOW)
    for extra in (stranger.leaf, proxy(stranger).leaf, proxy(pki.user, "2").leaf):
        with pytest.raises(IdentityError, match="cannot build chain"):
            verify_chain([*ders, extra], pki.trust, None, NOW)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "malformed"),
        (b"\x05\x00", "malformed"),
        (ProxyCertInfo(INHERIT_ALL).encode() + b"\0", "malformed"),
        (der.encode(der.SEQUENCE, der.encode(der.INTEGER, b"\xff"), ProxyCertInfo(LIMITED).encode()[2:]), "negative"),
        (
            der.encode(der.SEQUENCE, der.encode(der.INTEGER, b"\0\x01"), ProxyCertInfo(LIMITED).encode()[2:]),
            "malformed",
        ),
        (ProxyCertInfo("1.2.3.4").encode(), "not understood: 1.2.3.4"),
        (
            der.encode(
                der.SEQUENCE,
                der.encode(der.SEQUENCE, der.encode_oid(INHERIT_ALL), der.encode(der.OCTET_STRING, b"x")),
            ),
            "policy field",
        ),
        (
            der.encode(
                der.SEQUENCE, der.encode(der.SEQUENCE, der.encode_oid(INDEPENDENT), der.encode(der.OCTET_STRING))
            ),
            "policy field",
        ),
        (
            der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, der.encode_oid(LIMITED), der.encode(der.NULL))),
            "malformed",
        ),
        (
            der.encode(der.SEQUENCE, ProxyCertInfo(LIMITED).encode()[2:], ProxyCertInfo(LIMITED).encode()[2:]),
            "malformed",
        ),
        (der.encode(der.SEQUENCE, ProxyCertInfo(LIMITED).encode()[2:], der.encode_integer(1)), "malformed"),
    ],
)
def test_bad_proxy_cert_info(pki: Pki, value: bytes, reason: str) -> None:
    assert reason in refusal(pki, proxy(pki.user, extensions=[pci(value), SIGN]))


def test_non_critical_proxy_cert_info(pki: Pki) -> None:
    assert "not critical" in refusal(pki, proxy(pki.user, extensions=[pci(critical=False), SIGN]))


def test_duplicate_proxy_cert_info(pki: Pki) -> None:
    def double(fields: list[bytes]) -> None:
        extensions = der.read_one(fields[7])[0].children()[0].children()
        first = next(item.encoded for item in extensions if der.encode_oid(OID_PROXY_CERT_INFO) in item.encoded)
        body = b"".join(item.encoded for item in extensions)
        fields[7] = der.encode(0xA3, der.encode(der.SEQUENCE, body, first))

    assert "twice" in refusal(pki, edit(proxy(pki.user), pki.user.key, double))


def test_subject_must_be_issuer_and_one_cn(pki: Pki) -> None:
    user = x509.load_der_x509_certificate(pki.user.leaf).subject
    cn = rdn((NameOID.COMMON_NAME, "1"))
    names = [
        x509.Name([*user.rdns, cn, cn]),
        x509.Name([*user.rdns]),
        x509.Name([*user.rdns[:-1], cn]),
        x509.Name([cn, *user.rdns]),
        x509.Name([*user.rdns, rdn((NameOID.ORGANIZATIONAL_UNIT_NAME, "1"))]),
        x509.Name([*user.rdns, rdn((NameOID.COMMON_NAME, "1"), (NameOID.ORGANIZATIONAL_UNIT_NAME, "2"))]),
        x509.Name([cn]),
    ]
    for name in names:
        assert "subject" in refusal(pki, craft(pki.user, name, extensions=[pci(), SIGN]))


@pytest.mark.parametrize(
    ("extension", "reason"),
    [
        ((x509.BasicConstraints(ca=True, path_length=None), True), "CA:TRUE"),
        ((x509.BasicConstraints(ca=True, path_length=None), False), "CA:TRUE"),
        ((x509.SubjectAlternativeName([x509.DNSName("x.org")]), False), "alternative name"),
        ((x509.IssuerAlternativeName([x509.DNSName("x.org")]), False), "alternative name"),
        (unknown("1.2.3.4.5"), "unknown critical"),
        ((x509.NameConstraints([x509.DNSName("x.org")], None), True), "unknown critical"),
        ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False), "extendedKeyUsage"),
        (unknown("2.5.29.19", b"\x30\x03\x01\x01\x01"), "malformed"),
    ],
)
def test_forbidden_extension(pki: Pki, extension: tuple[x509.ExtensionType, bool], reason: str) -> None:
    assert reason in refusal(pki, proxy(pki.user, extensions=[pci(), SIGN, extension]))


def test_unknown_extension_that_is_not_critical_does_no_harm(pki: Pki) -> None:
    extra = unknown("1.2.3.4.5", critical=False)
    assert verify_chain(proxy(pki.user, extensions=[pci(), extra]).ders, pki.trust, None, NOW).depth == 1


def test_issuer_needs_digital_signature(pki: Pki) -> None:
    mute = proxy(pki.user, extensions=[pci(), usage(key_encipherment=True)])
    assert verify_chain(mute.ders, pki.trust, None, NOW).depth == 1
    assert "digitalSignature" in refusal(pki, proxy(mute, "2"))
    no_usage = proxy(pki.user, extensions=[pci()])
    assert verify_chain(proxy(no_usage, "2").ders, pki.trust, None, NOW).depth == 2


def test_path_length(pki: Pki) -> None:
    def below(parent: Credential, length: int | None) -> Credential:
        return proxy(parent, "7", extensions=[info(length=length), SIGN])

    zero = below(pki.user, 0)
    assert verify_chain(zero.ders, pki.trust, None, NOW).depth == 1
    assert refusal(pki, below(zero, None)) == "path length exceeded"
    two = below(pki.user, 2)
    # A child cannot widen what its issuer allowed.
    assert verify_chain(below(below(two, 9), 9).ders, pki.trust, None, NOW).depth == 3
    assert refusal(pki, below(below(below(two, 9), 9), 9)) == "path length exceeded"


def test_limited_is_inherited(pki: Pki) -> None:
    limited = proxy(pki.user, extensions=[info(LIMITED), SIGN])
    assert verify_chain(limited.ders, pki.trust, None, NOW).limited
    assert verify_chain(proxy(proxy(limited)).ders, pki.trust, None, NOW).limited
    independent = proxy(limited, extensions=[info(INDEPENDENT), SIGN])
    assert verify_chain(independent.ders, pki.trust, None, NOW).limited


def test_independent_is_not_the_user(pki: Pki) -> None:
    independent = proxy(pki.user, "5", extensions=[info(INDEPENDENT), SIGN])
    assert verify_chain(independent.ders, pki.trust, None, NOW).identity == USER_DN + "/CN=5"
    assert verify_chain(proxy(independent, "6").ders, pki.trust, None, NOW).identity == USER_DN + "/CN=5/CN=6"


def test_signature_of_another_key(pki: Pki) -> None:
    assert "bad signature" in refusal(pki, proxy(pki.user, signer=new_key()))


def test_loop(pki: Pki) -> None:
    """Two proxies that name each other as issuer hang in the air."""
    a, b = proxy(pki.user, "a"), proxy(pki.user, "b")
    name_a, name_b = (x509.load_der_x509_certificate(item.leaf).subject for item in (a, b))
    first = craft(pki.user, name_a, issuer_name=name_b, extensions=[pci()]).leaf
    second = craft(pki.user, name_b, issuer_name=name_a, extensions=[pci()]).leaf
    with pytest.raises(IdentityError, match="cannot build chain"):
        verify_chain([first, second, *pki.user.ders], pki.trust, None, NOW)
    with pytest.raises(IdentityError, match="cannot build chain"):
        verify_chain(
            [craft(pki.user, name_a, issuer_name=name_a, extensions=[pci()]).leaf, *pki.user.ders], pki.trust, None, NOW
        )


def test_weak_keys(pki: Pki) -> None:
    for key in (
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP192R1()),
        ec.generate_private_key(ec.SECP256K1()),
        dsa.generate_private_key(2048),
    ):
        assert "weak" in refusal(pki, proxy(pki.user, key=key))


def test_validity(pki: Pki) -> None:
    assert refusal(pki, proxy(pki.user, end=NOW - dt.timedelta(seconds=1))).startswith("expired")
    assert refusal(pki, proxy(pki.user, begin=NOW + dt.timedelta(seconds=1))).startswith("not yet valid")
    outer = proxy(pki.user, end=NOW + dt.timedelta(minutes=1))
    inner = proxy(outer, end=NOW + dt.timedelta(days=1))
    assert verify_chain(inner.ders, pki.trust, None, NOW).not_after == NOW + dt.timedelta(minutes=1)
    assert refusal(pki, inner, NOW + dt.timedelta(minutes=2)).startswith("expired")


def test_user_without_client_use(pki: Pki) -> None:
    parent = x509.load_der_x509_certificate(pki.authority.certificate).subject
    name = x509.Name([*parent.rdns[:-1], rdn((NameOID.COMMON_NAME, "server"))])
    serving = craft(
        pki.authority.credential, name, extensions=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]
    )
    assert "extendedKeyUsage" in refusal(pki, serving)


@pytest.mark.parametrize("serial", [b"\xff", b"\x80" + b"\0" * 19, b"\x01" + b"\0" * 20, b"\0\x01"])
def test_strange_serial(pki: Pki, serial: bytes) -> None:
    def change(fields: list[bytes]) -> None:
        fields[1] = der.encode(der.INTEGER, serial)

    assert "malformed" in refusal(pki, edit(proxy(pki.user), pki.user.key, change))


def test_garbage_behind_a_certificate(pki: Pki) -> None:
    first, *rest = proxy(pki.user).ders
    for bad in (first + b"\0", first[:-1], b"", b"\x30\x80" + first[4:] + b"\0\0", b"\x30\x84\xff\xff\xff\xff"):
        with pytest.raises(IdentityError):
            verify_chain([bad, *rest], pki.trust, None, NOW)


def test_too_many_and_too_much(pki: Pki) -> None:
    with pytest.raises(IdentityError, match="at most 16 certificates"):
        verify_chain(list(pki.user.ders) * 1000, pki.trust, None, NOW)
    many = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n" * 1000
    with pytest.raises(IdentityError, match="at most"):
        verify_chain(many, pki.trust, None, NOW)
    with pytest.raises(IdentityError, match="bytes"):
        verify_chain(b"A" * 10_000_000, pki.trust, None, NOW)
    with pytest.raises(IdentityError, match="bytes"):
        verify_chain([b"\x30" * 70_000], pki.trust, None, NOW)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hello",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nQUJ\n-----END CERTIFICATE-----",
        "Grüße",
        "\ud800",
    ],
)
def test_no_certificate(pki: Pki, text: bytes | str) -> None:
    with pytest.raises(IdentityError):
        verify_chain(text, pki.trust, None, NOW)


def test_deep_nesting_is_read_level_by_level(pki: Pki) -> None:
    nested = b""
    for _ in range(2000):
        nested = der.encode(der.SEQUENCE, nested)
    with pytest.raises(IdentityError):
        verify_chain([nested, *pki.user.ders], pki.trust, None, NOW)
    assert "malformed" in refusal(pki, proxy(pki.user, extensions=[pci(nested), SIGN]))


def test_authority_as_leaf(pki: Pki) -> None:
    with pytest.raises(IdentityError, match="no end entity"):
        verify_chain([pki.authority.certificate], pki.trust, None, NOW)


def test_proxy_of_an_authority(pki: Pki) -> None:
    with pytest.raises(IdentityError, match="no end entity"):
        verify_chain(proxy(pki.authority.credential).ders, pki.trust, None, NOW)


def test_identity_of_a_refused_proxy_is_told(pki: Pki) -> None:
    with pytest.raises(IdentityError) as caught:
        verify_chain(proxy(pki.user, end=NOW - HOUR / 2).ders, pki.trust, None, NOW)
    assert caught.value.identity == USER_DN


def test_end_entity_without_a_name(pki: Pki) -> None:
    nobody = craft(pki.authority.credential, x509.Name([]))
    assert "no subject name" in refusal(pki, nobody)
    assert "no subject name" in refusal(pki, proxy(nobody))


def test_endless_name(pki: Pki) -> None:
    user = x509.load_der_x509_certificate(pki.user.leaf).subject
    long = x509.Name([*user.rdns, *[rdn((NameOID.COMMON_NAME, "x" * 60))] * 100])
    assert "name of more than" in refusal(pki, craft(pki.user, long, extensions=[pci()]))


def test_two_proxies_of_different_keys_cannot_share_a_name(pki: Pki) -> None:
    """A child is checked with the key of the issuer in the chain, whatever else bears that name."""
    first, twin = proxy(pki.user, "1"), proxy(pki.user, "1")
    child = proxy(first, "2")
    with pytest.raises(IdentityError, match="bad signature"):
        verify_chain([child.leaf, twin.leaf, *pki.user.ders], pki.trust, None, NOW)


def test_sha1_signature(pki: Pki) -> None:
    def weaken(fields: list[bytes]) -> None:
        fields[2] = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.1"))

    tbs_only = edit(proxy(pki.user), pki.user.key, weaken)
    assert "malformed" in refusal(pki, tbs_only) or "signature" in refusal(pki, tbs_only)
    encoded = der.read_exactly(tbs_only.leaf, der.SEQUENCE).children()
    both = der.encode(
        der.SEQUENCE,
        encoded[0].encoded,
        der.encode(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.1")),
        der.encode(
            der.BIT_STRING,
            b"\0" + pki.user.key.sign(encoded[0].encoded, ec.ECDSA(hashes.SHA1())),  # type: ignore[call-arg,arg-type,union-attr]  # EC here
        ),
    )
    assert "weak or unsupported signature" in refusal(pki, Credential(tbs_only.key, (both, *tbs_only.rest)))


def test_empty_trust_directory(pki: Pki, tmp_path) -> None:  # type: ignore[no-untyped-def]  # pytest's fixture
    empty = replace(pki, trust=TrustStore.load(tmp_path))
    assert "no trusted authority" in refusal(empty, pki.user)
