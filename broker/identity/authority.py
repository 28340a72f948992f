"""A small certificate authority for the private stack and for tests: P-256 by default, one level, in grid layout.

Promises: what it issues verifies under the trust directory that it writes (certificate, CRL, signing policy, file
names by OpenSSL's subject hash), with OpenSSL as with us. It certifies names below its own parent name only
(``/O=Pilotage/CN=CA`` certifies ``/O=Pilotage/…``), which its signing policy says, and if ``confined`` its certificate,
too. It is no authority for the real grid.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from schemas.errors import InvalidInputError
from schemas.identity import ATTRIBUTE_NAMES, canonical_dn, format_dn, parse_dn

from .certificate import parse_certificate, pem_chain
from .credential import Credential, load_credential, save_credential
from .delegation import BACKDATE, new_key
from .keys import PrivateKey, PublicKey
from .subject_hash import subject_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Kind = Literal["server", "client"]

# Ten years: nobody renews the authority of a local stack; a fresh stack makes a fresh one.
AUTHORITY_LIFETIME = dt.timedelta(days=3650)
# One year for what it issues: longer than anyone keeps a local stack without an update.
CERTIFICATE_LIFETIME = dt.timedelta(days=365)

_OIDS = {name: oid for oid, name in ATTRIBUTE_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Authority:
    """A throwaway certificate authority: its key and its self-signed certificate."""

    credential: Credential = field(repr=False)

    @classmethod
    def create(
        cls,
        dn: str,
        *,
        now: dt.datetime | None = None,
        lifetime: dt.timedelta = AUTHORITY_LIFETIME,
        key: PrivateKey | None = None,
        confined: bool = False,
    ) -> Self:
        """Make a new authority.

        Args:
            dn: its name in slash form, at least two parts.
            now: the time; the machine's by default.
            lifetime: of the authority.
            key: its private key; a new P-256 key by default.
            confined: its certificate itself says below which name it certifies (RFC 5280 §4.2.1.10).
        """
        if len(parse_dn(dn)) < 2:
            raise InvalidInputError("an authority's DN needs at least two parts, such as /O=Pilotage/CN=Local CA")
        key = key or new_key()
        public = key.public_key()
        name, start = x509_name(dn), now or _now()
        builder = (
            _builder(name, name, public, start - BACKDATE, start + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        )
        if confined:
            # Not critical: the library refuses critical constraints on directory names; we check them ourselves.
            below = x509.DirectoryName(x509_name(format_dn(parse_dn(dn)[:-1])))
            builder = builder.add_extension(x509.NameConstraints([below], None), critical=False)
        return cls(Credential(key, (_sign(builder, key),)))

    @property
    def certificate(self) -> bytes:
        """Its certificate, DER."""
        return self.credential.leaf

    @property
    def certificate_pem(self) -> bytes:
        """Its certificate, PEM: what TLS settings call the CA file."""
        return pem_chain([self.certificate])

    @property
    def dn(self) -> str:
        """Its name in canonical form."""
        return parse_certificate(self.certificate).dn

    @property
    def namespace(self) -> str:
        """The name below which it certifies."""
        return format_dn(parse_certificate(self.certificate).subject[:-1])

    def issue(
        self,
        dn: str,
        kind: Kind = "client",
        sans: Sequence[str] = (),
        lifetime: dt.timedelta = CERTIFICATE_LIFETIME,
        *,
        now: dt.datetime | None = None,
        key: PrivateKey | None = None,
    ) -> Credential:
        """Issue an end entity's certificate with a new key.

        Args:
            dn: its name in slash form, below ``namespace``.
            kind: ``server`` may also act as TLS server (it is a client too: services log in).
            sans: DNS names and addresses of a server.
            lifetime: cut to the authority's own end.
            now: the time; the machine's by default.
            key: the private key; a new P-256 key by default.

        Raises:
            InvalidInputError: a name outside the namespace.
        """
        key = key or new_key()
        return Credential(key, (self.certify(key.public_key(), dn, kind, sans, lifetime, now=now),))

    def certify(
        self,
        key: PublicKey,
        dn: str,
        kind: Kind = "client",
        sans: Sequence[str] = (),
        lifetime: dt.timedelta = CERTIFICATE_LIFETIME,
        *,
        now: dt.datetime | None = None,
    ) -> bytes:
        """Issue an end entity's certificate for a key that somebody else holds; the rest as in :meth:`issue`.

        Returns:
            The certificate, DER.

        Raises:
            InvalidInputError: a name outside the namespace.
        """
        if not canonical_dn(dn).startswith(self.namespace + "/"):
            raise InvalidInputError(f"{self.dn} certifies names below {self.namespace} only")
        start = now or _now()
        ca = x509.load_der_x509_certificate(self.certificate)
        end = min(start + lifetime, ca.not_valid_after_utc)
        begin = max(start - BACKDATE, ca.not_valid_before_utc)
        builder = self._leaf_builder(ca, x509_name(dn), key, begin, end, kind)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(map(_general_name, sans)), critical=False)
        return _sign(builder, self.credential.key)

    def _leaf_builder(
        self,
        ca: x509.Certificate,
        name: x509.Name,
        key: PublicKey,
        begin: dt.datetime,
        end: dt.datetime,
        kind: Kind,
    ) -> x509.CertificateBuilder:
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if kind == "server":
            uses.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.credential.key.public_key())
        return (
            _builder(ca.subject, name, key, begin, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True, key_agreement=kind == "server"), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(authority_key, critical=False)
        )

    def crl(
        self,
        revoked: Iterable[int] = (),
        *,
        now: dt.datetime | None = None,
        lifetime: dt.timedelta | None = None,
    ) -> bytes:
        """Make a revocation list (PEM).

        Args:
            revoked: serial numbers.
            now: the time; the machine's by default.
            lifetime: until the next one is due; the authority's own end by default.
        """
        ca = x509.load_der_x509_certificate(self.certificate)
        start = now or _now()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(ca.subject)
            .last_update(start - BACKDATE)
            .next_update(start + lifetime if lifetime is not None else ca.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(start.timestamp())), critical=False)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.credential.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def write_trust_dir(
        self, path: Path, *, revoked: Iterable[int] = (), now: dt.datetime | None = None, number: int = 0
    ) -> None:
        """Write certificate, CRL and signing policy in grid layout; other authorities there are left alone.

        Args:
            path: the directory; made if missing.
            revoked: serial numbers for the CRL.
            now: the time; the machine's by default.
            number: suffix of the file names, for authorities whose names hash alike.
        """
        path.mkdir(parents=True, exist_ok=True)
        stem = subject_hash(self.certificate)
        _replace(path / f"{stem}.{number}", self.certificate_pem)
        _replace(path / f"{stem}.r{number}", self.crl(revoked, now=now))
        policy = (
            f"access_id_CA  X509    '{self.dn}'\n"
            "pos_rights    globus  CA:sign\n"
            f"cond_subjects globus  '\"{self.namespace}/*\"'\n"
        )
        _replace(path / f"{stem}.signing_policy", policy.encode("utf-8"))

    def save(self, path: Path) -> None:
        """Write key and certificate to one file, its owner's alone."""
        save_credential(self.credential, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            CredentialError: the file cannot be used.
        """
        return cls(load_credential(path))


def x509_name(dn: str) -> x509.Name:
    """Make the library's name from a DN in slash form."""
    return x509.Name(
        [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(ObjectIdentifier(_OIDS.get(kind, kind)), value) for kind, value in rdn]
            )
            for rdn in parse_dn(dn)
        ]
    )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def _replace(path: Path, data: bytes) -> None:
    """Write a public file at once: a reader sees the old or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(
    issuer: x509.Name, subject: x509.Name, key: PublicKey, begin: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> bytes:
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _usage(
    *,
    digital_signature: bool = False,
    key_agreement: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
