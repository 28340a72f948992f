"""Attribute certificates as a VOMS server makes them, and any wrong way of making them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from broker.identity import Credential, VomsDir, der
from broker.identity.attribute_certificate import OID_AC_CERTIFICATES, OID_FQANS
from broker.identity.voms import OID_VOMS_ACS
from tests.support.pki import CA_DN, HOUR, NOW, Extra, Pki, sign, unknown

VOMS_DN = "/DC=org/DC=example/OU=Hosts/CN=voms.example.org"
FQANS = ("/lhcb/Role=user/Capability=NULL", "/lhcb")
ECDSA_SHA256 = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.3.2"))
RSA_SHA256 = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113549.1.1.11"), der.encode(der.NULL))


@dataclass(frozen=True)
class Voms:
    """A VOMS server below the test authority, and the vomsdir that believes it."""

    pki: Pki
    server: Credential
    vomsdir: VomsDir


def make_voms(pki: Pki, directory: Path) -> Voms:
    """Make a VOMS server below the authority, believed for the VO lhcb by the vomsdir written to a directory."""
    (directory / "lhcb").mkdir(parents=True)
    (directory / "lhcb" / "voms.example.org.lsc").write_text(f"{VOMS_DN}\n{CA_DN}\n")
    return Voms(pki, pki.authority.issue(VOMS_DN, "server", now=NOW), VomsDir.load(directory))


def with_acs(*acs: bytes) -> Extra:
    """The extension of a proxy that carries attribute certificates."""
    return unknown(OID_VOMS_ACS, der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, *acs)), critical=False)


def general_name(name: x509.Name) -> bytes:
    """GeneralNames with one directory name."""
    return der.encode(der.SEQUENCE, der.encode(0xA4, name.public_bytes()))


def time(moment: dt.datetime) -> bytes:
    """A GeneralizedTime."""
    return der.encode(der.GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    """One extension."""
    flag = der.encode(der.BOOLEAN, b"\xff") if critical else b""
    return der.encode(der.SEQUENCE, der.encode_oid(oid), flag, der.encode(der.OCTET_STRING, value))


def key_identifier(issuer: x509.Certificate) -> bytes:
    """An authorityKeyIdentifier that names a certificate's key."""
    digest = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest  # type: ignore[arg-type]  # ours
    return der.encode(der.SEQUENCE, der.encode(0x80, digest))


def make_ac(
    voms: Voms,
    *,
    server: Credential | None = None,
    fqans: Sequence[str] = FQANS,
    vo: str = "lhcb",
    begin: dt.datetime = NOW - HOUR,
    end: dt.datetime = NOW + HOUR,
    holder: bytes | None = None,
    old_holder: bool = False,
    extensions: Sequence[bytes] = (),
    usual: Sequence[bytes] | None = None,
    certificates: Sequence[bytes] | None = None,
    algorithm: bytes | None = None,
    outer_algorithm: bytes | None = None,
    spoil: bool = False,
    version: int = 1,
) -> bytes:
    """An attribute certificate about the user; every option breaks one rule."""
    server = server or voms.server
    user = x509.load_der_x509_certificate(voms.pki.user.leaf)
    issuer = x509.load_der_x509_certificate(server.leaf)
    algorithm = algorithm or (RSA_SHA256 if isinstance(server.key, rsa.RSAPrivateKey) else ECDSA_SHA256)
    base = der.encode(
        0xA0, general_name(user.subject if old_holder else user.issuer), der.encode_integer(user.serial_number)
    )
    certificates = server.ders if certificates is None else certificates
    chain = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, *certificates))
    if usual is None:
        usual = [extension("2.5.29.56", b"\x05\x00"), extension("2.5.29.35", key_identifier(issuer))]
    authority = der.encode(0xA0, der.encode(0x86, f"{vo}://voms.example.org:15000".encode()))
    values = der.encode(der.SEQUENCE, *(der.encode(der.OCTET_STRING, item.encode()) for item in fqans))
    info = der.encode(
        der.SEQUENCE,
        der.encode_integer(version),
        holder or der.encode(der.SEQUENCE, base),
        der.encode(0xA0, general_name(issuer.subject)),
        algorithm,
        der.encode_integer(1),
        der.encode(der.SEQUENCE, time(begin), time(end)),
        der.encode(
            der.SEQUENCE,
            der.encode(
                der.SEQUENCE,
                der.encode_oid(OID_FQANS),
                der.encode(der.SET, der.encode(der.SEQUENCE, authority, values)),
            ),
        ),
        der.encode(der.SEQUENCE, extension(OID_AC_CERTIFICATES, chain), *usual, *extensions),
    )
    signature = sign(server.key, info + (b"x" if spoil else b""))
    return der.encode(der.SEQUENCE, info, outer_algorithm or algorithm, der.encode(der.BIT_STRING, b"\0" + signature))
