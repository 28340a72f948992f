from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker.identity import (
    Credential,
    CredentialError,
    PasswordNeededError,
    load_credential,
    new_key,
    pem_chain,
    save_credential,
)
from tests.support.pki import Pki, proxy


def same(one: Credential, two: Credential) -> bool:
    return one.to_pem() == two.to_pem()


@pytest.mark.parametrize("bits", [None, 2048])
def test_round_trip(pki: Pki, tmp_path: Path, bits: int | None) -> None:
    credential = proxy(pki.user, key=new_key(rsa_bits=bits))
    path = tmp_path / "x509up"
    save_credential(credential, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert same(load_credential(path), credential)
    assert [item.name for item in tmp_path.iterdir()] == ["x509up"]


def test_order_in_the_file_and_traditional_rsa(pki: Pki) -> None:
    text = proxy(pki.user, key=new_key(rsa_bits=2048)).to_pem().decode()
    heads = [line for line in text.splitlines() if line.startswith("-----BEGIN")]
    assert heads == [
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----",
    ]


def test_order_of_certificates_does_not_matter(pki: Pki) -> None:
    credential = proxy(proxy(pki.user))
    text = credential.key_pem + pem_chain([*reversed(credential.ders), pki.authority.certificate, credential.leaf])
    assert load_credential(text).ders == credential.ders


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o610])
def test_key_that_others_may_read(pki: Pki, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x509up"
    save_credential(pki.user, path)
    path.chmod(mode)
    with pytest.raises(CredentialError, match="chmod 600"):
        load_credential(path)
    path.chmod(0o400)
    assert same(load_credential(path), pki.user)


def test_certificate_and_key_apart(pki: Pki, tmp_path: Path) -> None:
    cert, key = tmp_path / "usercert.pem", tmp_path / "userkey.pem"
    cert.write_bytes(pki.user.chain_pem)
    key.write_bytes(pki.user.key_pem)
    cert.chmod(0o644)
    key.chmod(0o400)
    assert same(load_credential(cert, key=key), pki.user)
    key.chmod(0o444)
    with pytest.raises(CredentialError, match="chmod 600"):
        load_credential(cert, key=key)


@pytest.mark.parametrize("style", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_password(pki: Pki, style: PrivateFormat) -> None:
    protected = pki.user.key.private_bytes(Encoding.PEM, style, BestAvailableEncryption(b"sesame"))
    for password in (None, "wrong", ""):
        with pytest.raises(PasswordNeededError):
            load_credential(pki.user.chain_pem, key=protected, password=password)
    assert same(load_credential(pki.user.chain_pem, key=protected, password="sesame"), pki.user)
    # A password that is not needed does no harm.
    assert same(load_credential(pki.user.to_pem(), password="sesame"), pki.user)


def test_unusable(pki: Pki, tmp_path: Path) -> None:
    def pem(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    chain = pki.user.chain_pem
    cases = {
        "no private key": chain,
        "more than one": chain + pki.user.key_pem * 2,
        "does not fit": chain + proxy(pki.user).key_pem,
        "no certificate": pki.user.key_pem,
        "malformed private key": chain + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "unsupported": chain + pem(ed25519.Ed25519PrivateKey.generate()),
        "weak key": chain + pem(rsa.generate_private_key(65537, 1024)),
    }
    for reason, text in cases.items():
        with pytest.raises(CredentialError, match=reason):
            load_credential(text)
    with pytest.raises(CredentialError, match="cannot read"):
        load_credential(tmp_path / "missing")
    with pytest.raises(CredentialError, match="directory"):
        load_credential(tmp_path)
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    (tmp_path / "large").chmod(0o600)
    with pytest.raises(CredentialError, match="larger than"):
        load_credential(tmp_path / "large")


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(CredentialError, match="no regular file"):
        load_credential(tmp_path / "pipe")


def test_saving_replaces_a_link_and_not_its_target(pki: Pki, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link = tmp_path / "x509up"
    link.symlink_to(victim)
    save_credential(pki.user, link)
    assert victim.read_text() == "precious"
    assert not link.is_symlink()


def test_cannot_save(pki: Pki, tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="cannot write"):
        save_credential(pki.user, tmp_path / "missing" / "x509up")
    (tmp_path / "directory").mkdir()
    with pytest.raises(CredentialError, match="cannot write"):
        save_credential(pki.user, tmp_path / "directory")
    assert [item.name for item in tmp_path.iterdir()] == ["directory"]


def test_keys_do_not_show(pki: Pki) -> None:
    assert "PRIVATE" not in repr(pki.user)
    assert "key=" not in repr(pki.user)


def test_openssl_reads_what_we_save(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "x509up"
    save_credential(proxy(pki.user, key=new_key(rsa_bits=2048)), path)
    subprocess.run(["openssl", "rsa", "-in", path, "-check", "-noout"], check=True, capture_output=True)
