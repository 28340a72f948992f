"""Certificates of every kind, the wrong ones included: a throwaway authority and a free hand below it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from broker.identity import Authority, Credential, TrustStore, der, new_key
from broker.identity.certificate import OID_PROXY_CERT_INFO
from broker.identity.keys import PrivateKey
from broker.identity.proxy_info import INHERIT_ALL, ProxyCertInfo

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
HOUR = dt.timedelta(hours=1)
CA_DN = "/DC=org/DC=example/CN=Test CA"
USER_DN = "/DC=org/DC=example/OU=People/CN=Ada Example/CN=12345"
FULL = ProxyCertInfo(INHERIT_ALL).encode()

Extra = tuple[x509.ExtensionType, bool]


@dataclass(frozen=True)
class Pki:
    """An authority, its trust directory and one user."""

    authority: Authority
    directory: Path
    trust: TrustStore
    user: Credential


def make_pki(directory: Path, *, rsa_keys: bool = False) -> Pki:
    """Make an authority with a user below it and write its trust directory; RSA as on the grid, or P-256."""
    bits = 2048 if rsa_keys else None
    authority = Authority.create(CA_DN, now=NOW, key=new_key(rsa_bits=bits))
    authority.write_trust_dir(directory, now=NOW)
    user = authority.issue(USER_DN, now=NOW, key=new_key(rsa_bits=bits))
    return Pki(authority, directory, TrustStore.load(directory), user)


def usage(**bits: bool) -> Extra:
    """A critical keyUsage with only the named bits."""
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    more = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: bits.get(name, False) for name in (*names, *more)}), True


def unknown(oid: str, value: bytes = b"\x05\x00", critical: bool = True) -> Extra:
    """An extension by OID and raw value."""
    return x509.UnrecognizedExtension(ObjectIdentifier(oid), value), critical


def pci(value: bytes = FULL, *, critical: bool = True) -> Extra:
    """A proxyCertInfo extension from raw bytes."""
    return unknown(OID_PROXY_CERT_INFO, value, critical)


def craft(
    issuer: Credential,
    subject: x509.Name | str | None = None,
    *,
    extensions: Sequence[Extra] = (),
    key: PrivateKey | None = None,
    signer: PrivateKey | None = None,
    begin: dt.datetime = NOW - HOUR,
    end: dt.datetime = NOW + HOUR,
    serial: int = 77,
    issuer_name: x509.Name | None = None,
    algorithm: hashes.SHA256 | hashes.SHA1 | None = None,
) -> Credential:
    """Sign whatever is asked for; a subject given as text is appended to the issuer's as one CN."""
    parent = x509.load_der_x509_certificate(issuer.leaf)
    key = key or new_key()
    if not isinstance(subject, x509.Name):
        subject = x509.Name([*parent.subject.rdns, rdn((NameOID.COMMON_NAME, subject or "1"))])
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer_name or parent.subject)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signed = builder.sign(signer or issuer.key, algorithm or hashes.SHA256())
    return Credential(key, (signed.public_bytes(Encoding.DER), *issuer.ders))


def rdn(*pairs: tuple[ObjectIdentifier, str]) -> x509.RelativeDistinguishedName:
    """One part of a name."""
    return x509.RelativeDistinguishedName([x509.NameAttribute(oid, value) for oid, value in pairs])


def proxy(issuer: Credential, cn: str = "1", **options: object) -> Credential:
    """A sound full proxy, with any option of `craft` changed."""
    options.setdefault("extensions", [pci(), usage(digital_signature=True)])
    return craft(issuer, cn, **options)  # type: ignore[arg-type]  # handed through


def edit(credential: Credential, issuer_key: PrivateKey, change: Callable[[list[bytes]], None]) -> Credential:
    """Change the fields of a leaf's TBSCertificate (their encodings, in order) and sign it again."""
    tbs, algorithm, _old = der.read_exactly(credential.leaf, der.SEQUENCE).children()
    fields = [item.encoded for item in tbs.children()]
    change(fields)
    signed = der.encode(der.SEQUENCE, *fields)
    signature = der.encode(der.BIT_STRING, b"\0" + sign(issuer_key, signed))
    return Credential(
        credential.key, (der.encode(der.SEQUENCE, signed, algorithm.encoded, signature), *credential.rest)
    )


def sign(key: PrivateKey, data: bytes) -> bytes:
    """Sign with SHA-256."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data, ec.ECDSA(hashes.SHA256()))
