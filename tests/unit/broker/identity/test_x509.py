"""Trust in end entities: authorities, revocation lists, signing policies, and their changes on disk."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.identity import (
    Authority,
    Credential,
    IdentityError,
    TrustStore,
    new_key,
    pem_chain,
    subject_hash,
    verify_chain,
)
from broker.identity.authority import x509_name
from schemas.errors import ConfigurationError
from tests.support.pki import CA_DN, HOUR, NOW, USER_DN, Extra, Pki, craft, make_pki, proxy, unknown, usage

CA = (x509.BasicConstraints(ca=True, path_length=None), True)
CA_USE = usage(key_cert_sign=True, crl_sign=True)


@pytest.fixture
def own(tmp_path: Path) -> Pki:
    """An authority of this test alone, to be spoiled."""
    return make_pki(tmp_path / "trust")


def file_of(pki: Pki, suffix: str) -> Path:
    return pki.directory / f"{subject_hash(pki.authority.certificate)}.{suffix}"


def refusal(pki: Pki, credential: Credential, now: dt.datetime = NOW) -> str:
    with pytest.raises(IdentityError) as caught:
        verify_chain(credential.ders, TrustStore.load(pki.directory), None, now)
    return caught.value.reason


def write_crl(pki: Pki, builder: x509.CertificateRevocationListBuilder, signer: Credential | None = None) -> None:
    signed = builder.sign((signer or pki.authority.credential).key, hashes.SHA256())
    file_of(pki, "r0").write_bytes(signed.public_bytes(Encoding.PEM))


def crl_builder(issuer: str = CA_DN, begin: dt.datetime = NOW - HOUR) -> x509.CertificateRevocationListBuilder:
    builder = x509.CertificateRevocationListBuilder().issuer_name(x509_name(issuer))
    return builder.last_update(begin).next_update(begin + 2 * HOUR)


def below(pki: Pki, dn: str, **options: object) -> Credential:
    return craft(pki.authority.credential, x509_name(dn), **options)  # type: ignore[arg-type]  # handed through


def test_revoked(own: Pki) -> None:
    serial = x509.load_der_x509_certificate(own.user.leaf).serial_number
    own.authority.write_trust_dir(own.directory, revoked=[serial], now=NOW)
    assert refusal(own, proxy(own.user)) == f"revoked: {USER_DN}"


def test_missing_crl(own: Pki) -> None:
    file_of(own, "r0").unlink()
    assert refusal(own, own.user).startswith("no CRL")


def test_expired_and_future_crl(own: Pki) -> None:
    write_crl(own, crl_builder(begin=NOW - 3 * HOUR))
    assert refusal(own, own.user).endswith("has expired")
    write_crl(own, crl_builder(begin=NOW + HOUR))
    assert refusal(own, own.user).endswith("not yet valid")


def test_crl_of_another_key(own: Pki) -> None:
    write_crl(own, crl_builder(), Authority.create(CA_DN).credential)
    assert refusal(own, own.user).startswith("CRL with a bad signature")


def test_changed_crl(own: Pki) -> None:
    data = bytearray(x509.load_pem_x509_crl(file_of(own, "r0").read_bytes()).public_bytes(Encoding.DER))
    data[-1] ^= 1
    file_of(own, "r0").write_bytes(data)
    assert refusal(own, own.user).startswith("CRL with a bad signature")


def test_crl_with_unknown_critical_extension(own: Pki) -> None:
    write_crl(own, crl_builder().add_extension(*unknown("1.2.3.4")))
    assert "critical extension" in refusal(own, own.user)
    write_crl(own, crl_builder().add_extension(x509.DeltaCRLIndicator(1), critical=True))
    assert "no complete list" in refusal(own, own.user)


def test_newest_good_crl_counts(own: Pki) -> None:
    serial = x509.load_der_x509_certificate(own.user.leaf).serial_number
    old = own.authority.crl(now=NOW - 2 * HOUR, lifetime=HOUR)
    new = own.authority.crl([serial], now=NOW)
    file_of(own, "r0").write_bytes(new)
    file_of(own, "r1").write_bytes(old)
    file_of(own, "r2").write_bytes(b"garbage")
    assert refusal(own, own.user).startswith("revoked")


def test_signing_policy(own: Pki) -> None:
    # The authority's key signs outside its own namespace.
    outside = below(own, "/DC=com/CN=Mallory")
    assert "does not cover" in refusal(own, outside)
    policy = file_of(own, "signing_policy")
    text = policy.read_text()
    policy.write_text(text.replace("/DC=org/DC=example/*", "/DC=org/DC=example/OU=Hosts/*"))
    assert "does not cover" in refusal(own, own.user)
    policy.write_text(text.replace("CA:sign", "CA:nothing"))
    assert "no signing policy" in refusal(own, own.user)
    policy.write_text(text.replace(CA_DN, "/CN=Other"))
    assert "no signing policy" in refusal(own, own.user)
    policy.unlink()
    assert "no signing policy" in refusal(own, own.user)


def test_unknown_authority(own: Pki, tmp_path: Path) -> None:
    other = make_pki(tmp_path / "other")
    assert refusal(own, other.user).startswith("not issued by a trusted authority")
    # Bringing the authority along does not make it trusted.
    with pytest.raises(IdentityError, match="not issued by a trusted authority"):
        verify_chain([*other.user.ders, other.authority.certificate], own.trust, None, NOW)


def test_self_signed_user(own: Pki) -> None:
    key = new_key()
    name = x509_name("/DC=org/DC=example/CN=Self")
    selfish = craft(own.authority.credential, name, key=key, signer=key, issuer_name=name)
    assert refusal(own, selfish).startswith("not issued")


def test_end_entity_cannot_issue_end_entities(own: Pki) -> None:
    child = craft(own.user, "Child")
    assert "end entity" in refusal(own, child)
    pretender = below(own, "/DC=org/DC=example/CN=Pretender", extensions=[CA, CA_USE])
    grandchild = craft(pretender, "Child")
    # The authority's own path length is 0: nothing may stand between it and end entities.
    assert refusal(own, grandchild).startswith("not issued")


def test_unknown_critical_extension_in_end_entity(own: Pki) -> None:
    assert refusal(own, below(own, "/DC=org/DC=example/CN=X", extensions=[unknown("1.2.3.4")])).startswith("not issued")


def test_weak_end_entity(own: Pki) -> None:
    weak = below(own, "/DC=org/DC=example/CN=X", key=rsa.generate_private_key(65537, 1024))
    assert "weak key" in refusal(own, weak)


def test_expired_end_entity(own: Pki) -> None:
    old = below(own, "/DC=org/DC=example/CN=X", end=NOW - dt.timedelta(minutes=1))
    assert refusal(own, proxy(old)).startswith("expired")


def test_proxy_below_numeric_user_of_same_name(own: Pki) -> None:
    """A certificate without proxyCertInfo that looks like a proxy by name is none."""
    assert "legacy" in refusal(own, craft(own.user, "98765"))


class Hierarchy:
    """A root, an authority below it, and a user below that."""

    def __init__(self, directory: Path, sub_extensions: Sequence[Extra] = (CA, CA_USE)) -> None:
        key = new_key()
        self.directory = directory
        seed = Authority.create("/DC=org/DC=example/CN=Seed").credential
        root_name, sub_name = x509_name("/DC=org/DC=example/CN=Root"), x509_name("/DC=org/DC=example/CN=Sub")
        far = NOW + 100 * HOUR
        root = craft(seed, root_name, issuer_name=root_name, key=key, signer=key, extensions=[CA, CA_USE], end=far)
        self.root = Credential(key, root.ders[:1])
        sub = craft(self.root, sub_name, extensions=sub_extensions, serial=5, end=far)
        self.sub = Credential(sub.key, sub.ders[:1])
        user = craft(self.sub, x509_name("/DC=org/DC=example/OU=People/CN=Ada"), serial=6)
        self.user = Credential(user.key, user.ders[:1])
        directory.mkdir()
        for item, name in ((self.root, "Root"), (self.sub, "Sub")):
            self.write(item, name)

    def write(self, item: Credential, name: str, revoked: int | None = None) -> None:
        stem = self.directory / subject_hash(item.leaf)
        builder = crl_builder(f"/DC=org/DC=example/CN={name}")
        if revoked is not None:
            entry = x509.RevokedCertificateBuilder().serial_number(revoked).revocation_date(NOW).build()
            builder = builder.add_revoked_certificate(entry)
        stem.with_suffix(".0").write_bytes(pem_chain([item.leaf]))
        stem.with_suffix(".r0").write_bytes(builder.sign(item.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        stem.with_suffix(".signing_policy").write_text(
            f"access_id_CA X509 '/DC=org/DC=example/CN={name}'\npos_rights globus CA:sign\n"
            "cond_subjects globus '\"/DC=org/DC=example/*\"'\n"
        )

    def verify(self, *extra: bytes) -> tuple[bytes, ...]:
        return verify_chain([*self.user.ders, *extra], TrustStore.load(self.directory), None, NOW).ders


def test_intermediate_authority_of_the_directory(tmp_path: Path) -> None:
    tree = Hierarchy(tmp_path / "tree")
    # The authority comes along in what we keep, so that the chain can be proven again elsewhere.
    assert tree.verify() == (tree.user.leaf, tree.sub.leaf)
    assert tree.verify(tree.sub.leaf, tree.root.leaf) == (tree.user.leaf, tree.sub.leaf)


def test_revoked_intermediate(tmp_path: Path) -> None:
    tree = Hierarchy(tmp_path / "tree")
    tree.write(tree.root, "Root", revoked=5)
    with pytest.raises(IdentityError, match="revoked: /DC=org/DC=example/CN=Sub"):
        tree.verify()


def test_intermediate_without_its_root_is_no_anchor(tmp_path: Path) -> None:
    tree = Hierarchy(tmp_path / "tree")
    (tree.directory / f"{subject_hash(tree.root.leaf)}.0").unlink()
    with pytest.raises(IdentityError, match="no trusted authority"):
        tree.verify()


def test_intermediate_that_only_came_along_needs_policy_and_crl(tmp_path: Path) -> None:
    tree = Hierarchy(tmp_path / "tree")
    stem = subject_hash(tree.sub.leaf)
    for suffix in (".0", ".r0", ".signing_policy"):
        (tree.directory / f"{stem}{suffix}").unlink()
    with pytest.raises(IdentityError, match="not issued"):
        tree.verify()
    with pytest.raises(IdentityError, match="no signing policy for /DC=org/DC=example/CN=Sub"):
        tree.verify(tree.sub.leaf)


@pytest.mark.parametrize(
    "extensions",
    [
        [(x509.BasicConstraints(ca=False, path_length=None), True), CA_USE],
        [CA_USE],
        [CA, usage(crl_sign=True)],
        [CA, CA_USE, unknown("1.2.3.4")],
    ],
)
def test_unfit_intermediate(tmp_path: Path, extensions: list[Extra]) -> None:
    tree = Hierarchy(tmp_path / "tree", sub_extensions=extensions)
    with pytest.raises(IdentityError):
        tree.verify(tree.sub.leaf)


def test_crl_signer_needs_crl_sign(tmp_path: Path) -> None:
    tree = Hierarchy(tmp_path / "tree", sub_extensions=[CA, usage(key_cert_sign=True)])
    with pytest.raises(IdentityError, match="CRL with a bad signature"):
        tree.verify()


def test_name_constraints_on_directory_names(tmp_path: Path) -> None:
    def constrained(permitted: str | None, excluded: str | None, critical: bool = False) -> list[Extra]:
        trees = [[x509.DirectoryName(x509_name(item))] if item else None for item in (permitted, excluded)]
        return [CA, CA_USE, (x509.NameConstraints(*trees), critical)]

    good = Hierarchy(tmp_path / "good", sub_extensions=constrained("/DC=org/DC=example/OU=PEOPLE", None))
    assert good.verify()
    narrow = Hierarchy(tmp_path / "narrow", sub_extensions=constrained("/DC=org/DC=example/OU=Hosts", None))
    with pytest.raises(IdentityError, match="do not permit"):
        narrow.verify()
    shut = Hierarchy(tmp_path / "shut", sub_extensions=constrained(None, "/DC=org/DC=example/OU=People"))
    with pytest.raises(IdentityError, match="exclude"):
        shut.verify()
    # The library's newer versions cannot process a critical one and refuse; older ones leave it to us.
    strict = Hierarchy(
        tmp_path / "strict", sub_extensions=constrained("/DC=org/DC=example/OU=Hosts", None, critical=True)
    )
    with pytest.raises(IdentityError):
        strict.verify()


def test_reload(own: Pki) -> None:
    store = TrustStore.load(own.directory)
    assert not store.reload_if_changed()
    assert verify_chain(own.user.ders, store, None, NOW)
    serial = x509.load_der_x509_certificate(own.user.leaf).serial_number
    own.authority.write_trust_dir(own.directory, revoked=[serial], now=NOW)
    assert store.reload_if_changed()
    with pytest.raises(IdentityError, match="revoked"):
        verify_chain(own.user.ders, store, None, NOW)


def test_directory_that_vanishes_keeps_the_last_reading(own: Pki) -> None:
    store = TrustStore.load(own.directory)
    own.directory.rename(own.directory.with_name("elsewhere"))
    assert not store.reload_if_changed()
    assert verify_chain(own.user.ders, store, None, NOW)


def test_bad_files_are_named_and_harmless(own: Pki) -> None:
    (own.directory / "00000000.0").write_text("garbage")
    (own.directory / "00000001.0").write_bytes(pem_chain(own.user.ders))
    (own.directory / "00000002.r0").write_text("garbage")
    (own.directory / "00000003.signing_policy").write_bytes(b"\xff\xfe")
    (own.directory / "00000004.0").symlink_to("nowhere")
    (own.directory / "00000005.0").mkdir()
    (own.directory / "README").write_text("not looked at")
    store = TrustStore.load(own.directory)
    assert {problem.partition(":")[0] for problem in store.problems} == {
        "00000000.0",
        "00000001.0",
        "00000002.r0",
        "00000003.signing_policy",
        "00000005.0",
    }
    assert verify_chain(own.user.ders, store, None, NOW)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="trust directory"):
        TrustStore.load(tmp_path / "missing")


def test_rollover_of_an_authority_with_one_name(own: Pki) -> None:
    """Old and new key under the same name: each certificate is checked with the list of its own issuer's key."""
    new = Authority.create(CA_DN, now=NOW)
    new.write_trust_dir(own.directory, number=1, now=NOW)
    fresh = new.issue("/DC=org/DC=example/CN=Fresh", now=NOW)
    store = TrustStore.load(own.directory)
    assert verify_chain(own.user.ders, store, None, NOW)
    assert verify_chain(fresh.ders, store, None, NOW)


def test_name_with_slash_cannot_fake_another_name(own: Pki) -> None:
    parent = x509_name("/DC=org/DC=example/OU=People")
    odd = x509.Name(
        [
            *parent.rdns,
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "Ada Example/CN=12345")]),
        ]
    )
    chain = verify_chain(craft(own.authority.credential, odd).ders, own.trust, None, NOW)
    assert chain.identity == "/DC=org/DC=example/OU=People/CN=Ada Example\\/CN=12345"
    assert chain.identity != USER_DN


def test_authorities_above_each_other_cost_one_path(own: Pki) -> None:
    """One name and one key in many certificates: each could stand above each other, in 14**8 ways."""
    key = new_key()
    evil = Authority.create("/DC=org/DC=example/CN=Evil CA", now=NOW, key=key)
    name = x509_name(evil.dn)
    rings = [craft(evil.credential, name, extensions=[CA, CA_USE], key=key, serial=one).leaf for one in range(1, 15)]
    victim = Credential(key, (evil.issue("/DC=org/DC=example/CN=Mallory", now=NOW).leaf, *rings))
    assert "exceeds max depth" in refusal(own, victim)


def test_a_renewed_authority_beside_the_old_one_is_fine(tmp_path: Path) -> None:
    tree = Hierarchy(tmp_path / "tree")
    name, key = x509_name("/DC=org/DC=example/CN=Sub"), tree.sub.key
    old = craft(tree.root, name, extensions=[CA, CA_USE], key=key, serial=4711, end=NOW - HOUR / 2).leaf
    (tree.directory / subject_hash(tree.sub.leaf)).with_suffix(".0").unlink()
    assert tree.verify(tree.sub.leaf, old) == tree.verify(old, tree.sub.leaf) == (tree.user.leaf, tree.sub.leaf)
