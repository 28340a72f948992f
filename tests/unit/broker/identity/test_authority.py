from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from broker.identity import Authority, CredentialError, TrustStore, pem_chain, subject_hash, verify_chain
from schemas.errors import InvalidInputError
from tests.support.pki import NOW

GRID = Path(__file__).parents[3] / "fixtures" / "grid"


@pytest.mark.parametrize(
    "dn",
    [
        "/O=Pilotage/CN=Local CA",
        "/DC=org/DC=Example/C=CH/O=A  B \u00c9t\u00e9/emailAddress=Ca@X.org/CN=CA 1",
        "/O=x/OU=a+CN=b",
    ],
)
def test_hash_is_openssl_s(tmp_path: Path, dn: str) -> None:
    authority = Authority.create(dn, now=NOW)
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.certificate_pem)
    command = ["openssl", "x509", "-in", path, "-noout", "-subject_hash"]
    assert subject_hash(authority.certificate) == subprocess.check_output(command, text=True).strip()


def test_hash_of_a_real_authority() -> None:
    pem = (GRID / "certificates" / "0ef260be.0").read_bytes()
    hashes = {path.stem for path in (GRID / "certificates").glob("*.0")}
    certificate = x509.load_pem_x509_certificate(pem)
    from cryptography.hazmat.primitives.serialization import Encoding

    assert subject_hash(certificate.public_bytes(Encoding.DER)) in hashes


def test_save_and_load(tmp_path: Path) -> None:
    authority = Authority.create("/O=Pilotage/CN=CA", now=NOW)
    authority.save(tmp_path / "ca")
    again = Authority.load(tmp_path / "ca")
    assert (again.dn, again.namespace, again.certificate) == ("/O=Pilotage/CN=CA", "/O=Pilotage", authority.certificate)
    (tmp_path / "ca").chmod(0o644)
    with pytest.raises(CredentialError):
        Authority.load(tmp_path / "ca")


def test_names(tmp_path: Path) -> None:
    authority = Authority.create("/O=Pilotage/CN=CA", now=NOW)
    for dn in ("/O=Other/CN=x", "/O=Pilotage", "/O=PilotageX/CN=x", "nonsense"):
        with pytest.raises(InvalidInputError):
            authority.issue(dn)
    with pytest.raises(InvalidInputError):
        Authority.create("/CN=alone")


def test_server_certificate(tmp_path: Path) -> None:
    authority = Authority.create("/O=Pilotage/CN=CA", now=NOW)
    authority.write_trust_dir(tmp_path / "trust", now=NOW)
    server = authority.issue("/O=Pilotage/CN=localhost", "server", ["localhost", "127.0.0.1", "::1"], now=NOW)
    (tmp_path / "server.pem").write_bytes(pem_chain(server.ders))
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-crl_check_all",
        "-CApath",
        tmp_path / "trust",
        "-verify_ip",
        "127.0.0.1",
    ]
    subprocess.run([*command, "-purpose", "sslserver", tmp_path / "server.pem"], check=True, capture_output=True)
    subprocess.run([*command, "-purpose", "sslclient", tmp_path / "server.pem"], check=True, capture_output=True)
    chain = verify_chain(server.ders, TrustStore.load(tmp_path / "trust"), None, NOW)
    assert (chain.identity, chain.depth) == ("/O=Pilotage/CN=localhost", 0)


def test_nothing_outlives_the_authority() -> None:
    authority = Authority.create("/O=Pilotage/CN=CA", now=NOW, lifetime=dt.timedelta(days=2))
    leaf = x509.load_der_x509_certificate(authority.issue("/O=Pilotage/CN=x", now=NOW).leaf)
    assert leaf.not_valid_after_utc == NOW + dt.timedelta(days=2)
