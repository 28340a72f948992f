"""Chains that the library cannot make: OpenSSL signs them with old hashes, other keys and odd writings of keys."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest

from broker.identity import IdentityError, TrustStore, read_csr, split_chain, subject_hash, verify_chain

BELOW = "/DC=org/DC=example"
POLICY = f"""access_id_CA X509 '{BELOW}/CN=Root'
pos_rights globus CA:sign
cond_subjects globus '"{BELOW}/*"'
"""
KEYS = {
    "ec": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ec written out": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"],
    "secp256k1": ["EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
    "ed25519": ["ED25519"],
    "ed448": ["ED448"],
    "rsa": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "rsa 1024": ["RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    "rsa 3": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3"],
}
LINKS = ("ca", "user", "proxy")
NAMES = {"ca": f"{BELOW}/CN=Root", "user": f"{BELOW}/CN=Ada", "proxy": f"{BELOW}/CN=Ada/CN=1"}
EXTENSIONS = {
    "ca": "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n",
    "user": "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n",
    "proxy": "proxyCertInfo=critical,language:id-ppl-inheritAll\nkeyUsage=critical,digitalSignature\n",
}


def openssl(folder: Path, *words: str) -> None:
    result = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def judge(folder: Path, keys: dict[str, str] | None = None, hashes: dict[str, str] | None = None) -> str:
    """Make root, user and proxy; empty: we accept the chain. Keys and hashes may differ at any link."""
    for name in LINKS:
        openssl(folder, "genpkey", "-algorithm", *KEYS[(keys or {}).get(name, "ec")], "-out", f"{name}.key")
        openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", NAMES[name], "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text(EXTENSIONS[name])
    for name, above in zip(LINKS, ("", "ca", "user"), strict=True):
        signer = ["-CA", f"{above}.pem", "-CAkey", f"{above}.key"] if above else ["-signkey", "ca.key"]
        digest = f"-{(hashes or {}).get(name, 'sha256')}"
        where = ["-extfile", f"{name}.ext", "-in", f"{name}.csr", "-out", f"{name}.pem"]
        openssl(folder, "x509", "-req", *signer, "-set_serial", "7", "-days", "2", digest, *where)
    (folder / "index").touch()
    (folder / "number").write_text("01\n")
    (folder / "ca.cnf").write_text("[ca]\ndefault_ca=all\n[all]\ndatabase=index\ncrlnumber=number\n")
    signer = ["-keyfile", "ca.key", "-cert", "ca.pem", "-md", (hashes or {}).get("crl", "sha256")]
    openssl(folder, "ca", "-gencrl", "-config", "ca.cnf", *signer, "-crldays", "2", "-out", "crl.pem")
    trust = folder / "trust"
    trust.mkdir()
    (root,) = split_chain((folder / "ca.pem").read_bytes())
    try:
        stem = trust / subject_hash(root)
    except IdentityError:
        stem = trust / "01234567"
    stem.with_suffix(".0").write_bytes((folder / "ca.pem").read_bytes())
    stem.with_suffix(".r0").write_bytes((folder / "crl.pem").read_bytes())
    stem.with_suffix(".signing_policy").write_text(POLICY)
    chain = (folder / "proxy.pem").read_bytes() + (folder / "user.pem").read_bytes()
    try:
        verify_chain(chain, TrustStore.load(trust), None, dt.datetime.now(dt.UTC))
    except IdentityError as error:
        return error.reason
    return ""


def test_sound(tmp_path: Path) -> None:
    """Else no refusal below would prove anything."""
    assert judge(tmp_path) == ""


@pytest.mark.parametrize("link", ["user", "proxy", "crl"])
@pytest.mark.parametrize("digest", ["md5", "sha1", "sha224"])
def test_old_hashes(tmp_path: Path, link: str, digest: str) -> None:
    assert judge(tmp_path, {"ca": "rsa", "user": "rsa"}, {link: digest})


def test_the_roots_own_signature_proves_nothing(tmp_path: Path) -> None:
    """It is trusted for lying in the directory; many old ones signed themselves with SHA-1."""
    assert judge(tmp_path, {"ca": "rsa"}, {"ca": "sha1"}) == ""


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("key", ["ec written out", "secp256k1", "rsa 1024"])
def test_keys_that_nobody_shall_use(tmp_path: Path, link: str, key: str) -> None:
    assert judge(tmp_path, {link: key})


@pytest.mark.parametrize("key", ["ed25519", "ed448"])
def test_keys_of_other_kinds(tmp_path: Path, key: str) -> None:
    assert "unsupported key" in judge(tmp_path, {"proxy": key})


def test_rsa_with_the_old_exponent_beside_ec(tmp_path: Path) -> None:
    assert judge(tmp_path, {"ca": "rsa 3", "proxy": "rsa 3"}) == ""


def test_a_request_with_a_curve_written_out(tmp_path: Path) -> None:
    openssl(tmp_path, "genpkey", "-algorithm", *KEYS["ec written out"], "-out", "key")
    openssl(tmp_path, "req", "-new", "-key", "key", "-subj", "/CN=x", "-outform", "DER", "-out", "csr")
    with pytest.raises(IdentityError, match="malformed"):
        read_csr((tmp_path / "csr").read_bytes())
