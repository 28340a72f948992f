"""Attribute certificates made by hand, each rule of RFC 5755 and of VOMS broken once."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from broker.identity import Credential, VomsAc, VomsDir, der, verify_chain
from broker.identity.attribute_certificate import OID_GENERIC_ATTRIBUTES
from broker.identity.voms import OID_VOMS_ACS
from broker.identity.vomsdir import parse_lsc
from schemas.errors import ConfigurationError, InvalidInputError
from tests.support.attribute_certificates import (
    FQANS,
    RSA_SHA256,
    VOMS_DN,
    Voms,
    extension,
    general_name,
    key_identifier,
    make_ac,
    make_voms,
    with_acs,
)
from tests.support.pki import CA_DN, HOUR, NOW, Pki, pci, proxy, unknown, usage


@pytest.fixture(scope="session")
def voms(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Voms:
    return make_voms(pki, tmp_path_factory.mktemp("vomsdir"))


def judge(voms: Voms, *acs: bytes, vomsdir: VomsDir | None = None) -> tuple[VomsAc, ...]:
    """Put ACs into a proxy, the AC's proxy above another one, and verify."""
    value = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, *acs))
    return judge_raw(voms, value, vomsdir or voms.vomsdir)


def judge_raw(voms: Voms, value: bytes, vomsdir: VomsDir) -> tuple[VomsAc, ...]:
    extensions = [pci(), usage(digital_signature=True), unknown(OID_VOMS_ACS, value, critical=False)]
    leaf = proxy(proxy(voms.pki.user, extensions=extensions), "2")
    return verify_chain(leaf.ders, voms.pki.trust, vomsdir, NOW).acs


def reason(voms: Voms, ac: bytes) -> str:
    (result,) = judge(voms, ac)
    assert not result.valid
    assert result.fqans == ()
    return result.reason


def test_sound(voms: Voms) -> None:
    (ac,) = judge(voms, make_ac(voms))
    assert (ac.valid, ac.vo, ac.fqans, ac.issuer) == (True, "lhcb", FQANS, VOMS_DN)


def test_old_holder_form(voms: Voms) -> None:
    assert judge(voms, make_ac(voms, old_holder=True))[0].valid


def test_server_with_rsa_key(voms: Voms) -> None:
    key = rsa.generate_private_key(65537, 2048)
    server = voms.pki.authority.issue(VOMS_DN, "server", now=NOW, key=key)
    assert judge(voms, make_ac(voms, server=server))[0].valid


def test_several(voms: Voms) -> None:
    acs = judge(voms, make_ac(voms), make_ac(voms, vo="atlas"), make_ac(voms, fqans=["/lhcb/prod"]))
    assert [ac.valid for ac in acs] == [True, False, True]


def test_time(voms: Voms) -> None:
    assert reason(voms, make_ac(voms, end=NOW - HOUR / 2)) == "AC expired"
    assert reason(voms, make_ac(voms, begin=NOW + HOUR / 2)) == "AC not yet valid"


def test_holder_of_another(voms: Voms) -> None:
    user = x509.load_der_x509_certificate(voms.pki.user.leaf)
    stranger = x509.load_der_x509_certificate(voms.server.leaf)

    def holder(name: x509.Name, serial: int, *more: bytes) -> bytes:
        base = der.encode(0xA0, general_name(name), der.encode_integer(serial))
        return der.encode(der.SEQUENCE, base, *more)

    for other in (
        holder(user.issuer, user.serial_number + 1),
        holder(user.subject, user.serial_number + 1),
        holder(stranger.subject, user.serial_number),
        holder(user.issuer, user.serial_number, der.encode(0xA1, der.encode(0xA4, stranger.subject.public_bytes()))),
    ):
        assert "holder" in reason(voms, make_ac(voms, holder=other))
    good = holder(user.issuer, user.serial_number, der.encode(0xA1, der.encode(0xA4, user.subject.public_bytes())))
    assert judge(voms, make_ac(voms, holder=good))[0].valid
    digest = holder(user.issuer, user.serial_number, der.encode(0xA2, b""))
    by_name = der.encode(der.SEQUENCE, der.encode(0xA1, der.encode(0xA4, user.subject.public_bytes())))
    for unsupported in (digest, by_name, der.encode(der.SEQUENCE)):
        assert "malformed" in reason(voms, make_ac(voms, holder=unsupported))


@pytest.mark.parametrize(
    "fqan", ["/atlas/Role=user", "/lhcbx", "/lhcb-evil/Role=user", "lhcb", "/lhcb/Role=", "/lhcb//x", "/lhcb\n", ""]
)
def test_fqan_outside_vo(voms: Voms, fqan: str) -> None:
    assert "FQAN" in reason(voms, make_ac(voms, fqans=["/lhcb", fqan]))


def test_issuer_is_not_in_lsc(voms: Voms) -> None:
    other = voms.pki.authority.issue("/DC=org/DC=example/CN=Mallory", now=NOW)
    assert reason(voms, make_ac(voms, server=other)) == "AC issuer not in LSC of lhcb"
    for vo in ("../lhcb", "", "lh\ncb", "lhcb "):
        assert "malformed" in reason(voms, make_ac(voms, vo=vo))


def test_issuer_under_another_authority_of_the_same_names(voms: Voms) -> None:
    from broker.identity import Authority

    fake = Authority.create(CA_DN, now=NOW).issue(VOMS_DN, "server", now=NOW)
    assert "not issued by a trusted authority" in reason(voms, make_ac(voms, server=fake))


def test_issuer_chain_differs_from_lsc(voms: Voms, tmp_path: Path) -> None:
    (tmp_path / "lhcb").mkdir()
    (tmp_path / "lhcb" / "x.lsc").write_text(f"{VOMS_DN}\n/CN=Other CA\n")
    (ac,) = judge(voms, make_ac(voms), vomsdir=VomsDir.load(tmp_path))
    assert "issuer's chain is not in LSC" in ac.reason


def test_signature(voms: Voms) -> None:
    assert reason(voms, make_ac(voms, spoil=True)) == "AC bad signature"
    mallory = voms.pki.authority.issue("/DC=org/DC=example/CN=Mallory", now=NOW)
    signed_by_other = Credential(mallory.key, voms.server.ders)
    assert reason(voms, make_ac(voms, server=signed_by_other)) == "AC bad signature"
    sha1 = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.1"))
    assert "signature algorithm" in reason(voms, make_ac(voms, algorithm=sha1))
    assert "two different" in reason(voms, make_ac(voms, outer_algorithm=RSA_SHA256))


def test_no_issuer_certificate(voms: Voms) -> None:
    assert "not in the AC" in reason(voms, make_ac(voms, certificates=[]))
    assert "malformed" in reason(voms, make_ac(voms, certificates=[b"\x30\x00"]))


def test_critical_extensions(voms: Voms) -> None:
    target = extension("2.5.29.55", b"\x30\x00", critical=True)
    assert "critical" in reason(voms, make_ac(voms, extensions=[target]))
    # RFC 5755 §4.3.2: whoever is not among the targets rejects it, also where it forgot to be critical.
    assert "2.5.29.55" in reason(voms, make_ac(voms, extensions=[extension("2.5.29.55", b"\x30\x00")]))
    twice = [extension("1.2.3", b""), extension("1.2.3", b"")]
    assert "twice" in reason(voms, make_ac(voms, extensions=twice))


def test_revocation_and_the_issuers_key(voms: Voms) -> None:
    """VOMS's own verifier asks for both."""
    none, issuer = extension("2.5.29.56", b"\x05\x00"), x509.load_der_x509_certificate(voms.server.leaf)
    key = extension("2.5.29.35", key_identifier(issuer))
    by_name = extension("2.5.29.35", der.encode(der.SEQUENCE, der.encode(0x82, b"\x01")))
    other = extension("2.5.29.35", der.encode(der.SEQUENCE, der.encode(0x80, b"x" * 20)))
    assert judge(voms, make_ac(voms, usual=[none, by_name]))[0].valid
    assert reason(voms, make_ac(voms, usual=[key])) == "AC without noRevAvail"
    assert reason(voms, make_ac(voms, usual=[extension("2.5.29.56", b"\x30\x00"), key])).startswith("AC malformed")
    assert reason(voms, make_ac(voms, usual=[none])) == "AC without authorityKeyIdentifier"
    assert reason(voms, make_ac(voms, usual=[none, other])) == "AC names another key than its issuer's"


@pytest.mark.parametrize("parts", [(b"nick", b"ada"), (b"nick", b"ada", b"lhcb", b"more"), ()])
def test_malformed_generic_attributes(voms: Voms, parts: tuple[bytes, ...]) -> None:
    tag = der.encode(der.SEQUENCE, *(der.encode(der.OCTET_STRING, item) for item in parts))
    authority = der.encode(0xA0, der.encode(0x86, b"lhcb://x:1"))
    tag_list = der.encode(der.SEQUENCE, authority, der.encode(der.SEQUENCE, tag))
    value = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, tag_list))
    assert "malformed" in reason(voms, make_ac(voms, extensions=[extension(OID_GENERIC_ATTRIBUTES, value)]))


def test_generic_attributes(voms: Voms) -> None:
    tag = der.encode(der.SEQUENCE, *(der.encode(der.OCTET_STRING, item) for item in (b"nick", b"ada", b"lhcb")))
    authority = der.encode(0xA0, der.encode(0x86, b"lhcb://x:1"))
    tag_list = der.encode(der.SEQUENCE, authority, der.encode(der.SEQUENCE, tag))
    value = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, tag_list))
    (ac,) = judge(voms, make_ac(voms, extensions=[extension(OID_GENERIC_ATTRIBUTES, value)]))
    assert [(item.name, item.value, item.qualifier) for item in ac.generic] == [("nick", "ada", "lhcb")]


@pytest.mark.parametrize(
    "value", [b"", b"\x05\x00", b"\x30\x02\x05\x00", b"\x30\x04\x30\x02\x05\x00", b"\x30\x80\0\0", b"\x30" * 100]
)
def test_malformed_extension(voms: Voms, value: bytes) -> None:
    (ac,) = judge_raw(voms, value, voms.vomsdir)
    assert not ac.valid
    assert ac.reason


def test_malformed_ac(voms: Voms) -> None:
    assert "malformed" in reason(voms, make_ac(voms, version=0))
    assert "malformed" in reason(voms, make_ac(voms, fqans=[]))
    assert "malformed" in reason(voms, make_ac(voms, fqans=["/lhcb/é"]))


def test_too_many(voms: Voms) -> None:
    assert "more than 16" in judge(voms, *[make_ac(voms)] * 17)[0].reason


@pytest.mark.parametrize(
    "value",
    [
        der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, b"\x30\x00" * 30_000)),
        der.encode(der.SEQUENCE, b"\x30\x00" * 30_000),
        b"\x30\x82\xff\xf0" * 15_000,
        b"\x30\x83\xff\xff\xff" + b"\x30\x00" * 20_000,
        b"\x30\x84\x7f\xff\xff\xff\x30\x00",
    ],
    ids=["many empty", "many groups", "nested lengths", "longer than it is", "two gigabytes"],
)
def test_giant_sequences(voms: Voms, value: bytes) -> None:
    assert not any(ac.valid for ac in judge_raw(voms, value, voms.vomsdir))


def test_more_groups_than_anybody_has(voms: Voms) -> None:
    assert judge(voms, make_ac(voms, fqans=["/lhcb"] * 1024))[0].valid
    assert "far too many" in reason(voms, make_ac(voms, fqans=["/lhcb"] * 1025))


def test_an_ac_cut_off_anywhere_counts_for_nothing(voms: Voms) -> None:
    whole = make_ac(voms)
    for size in range(0, len(whole), 7):
        assert not any(ac.valid for ac in judge(voms, whole[:size]))
    assert not any(ac.valid for ac in judge(voms, whole + b"\x30\x00"))


def test_an_independent_proxy_has_no_attributes_of_the_user(voms: Voms) -> None:
    from broker.identity.proxy_info import INDEPENDENT, ProxyCertInfo

    first = proxy(voms.pki.user, extensions=[pci(), with_acs(make_ac(voms))])
    leaf = proxy(first, "2", extensions=[pci(ProxyCertInfo(INDEPENDENT).encode())])
    assert verify_chain(leaf.ders, voms.pki.trust, voms.vomsdir, NOW).fqans == ()


def test_lsc() -> None:
    text = "# comment\n/CN=a\n/CN=CA\n\n------ NEXT CHAIN ------\n/O=x/Email=a@b\n/CN=Sub\n/CN=Root\n"
    assert parse_lsc(text) == (("/CN=a", "/CN=CA"), ("/O=x/emailAddress=a@b", "/CN=Sub", "/CN=Root"))
    for bad in ("", "/CN=alone\n", "no name\n/CN=CA\n", "/CN=a\n/CN=CA\n---- NEXT CHAIN ----\n"):
        with pytest.raises(InvalidInputError):
            parse_lsc(bad)


def test_vomsdir_reload_and_problems(tmp_path: Path) -> None:
    (tmp_path / "lhcb").mkdir()
    vomsdir = VomsDir.load(tmp_path)
    assert vomsdir.chains_of("lhcb") == ()
    (tmp_path / "lhcb" / "a.lsc").write_text("/CN=a\n/CN=CA\n")
    (tmp_path / "lhcb" / "b.lsc").write_text("garbage")
    assert vomsdir.reload_if_changed()
    assert not vomsdir.reload_if_changed()
    assert vomsdir.chains_of("lhcb") == (("/CN=a", "/CN=CA"),)
    assert len(vomsdir.problems) == 1
    with pytest.raises(ConfigurationError):
        VomsDir.load(tmp_path / "missing")
