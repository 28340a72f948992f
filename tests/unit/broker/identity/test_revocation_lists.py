"""Revocation lists that say less than they seem to: partial ones, and entries about another issuer's certificates."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import IssuingDistributionPoint, ReasonFlags

from broker.identity import IdentityError, TrustStore, subject_hash, verify_chain
from broker.identity.authority import x509_name
from tests.support.pki import HOUR, NOW, Extra, Pki, make_pki, proxy

POINT = [x509.UniformResourceIdentifier("http://ca.example.org/crl")]
SUPERSEDED = x509.CRLReason(ReasonFlags.superseded)


@pytest.fixture
def own(tmp_path: Path) -> Pki:
    return make_pki(tmp_path / "trust")


def scope(
    *,
    users: bool = False,
    authorities: bool = False,
    attributes: bool = False,
    indirect: bool = False,
    reasons: frozenset[ReasonFlags] | None = None,
    point: bool = False,
) -> IssuingDistributionPoint:
    return IssuingDistributionPoint(POINT if point else None, None, users, authorities, reasons, indirect, attributes)


def judge(pki: Pki, *extensions: Extra, entry: Extra | None = None, serial: int = 4711, number: int = 0) -> str:
    """Give the authority another list and verify a proxy of its user; empty: all is well."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(x509_name(pki.authority.dn))
    builder = builder.last_update(NOW - HOUR / 2).next_update(NOW + HOUR)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    if entry is not None:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - HOUR)
        builder = builder.add_revoked_certificate(revoked.add_extension(*entry).build())
    text = builder.sign(pki.authority.credential.key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (pki.directory / subject_hash(pki.authority.certificate)).with_suffix(f".r{number}").write_bytes(text)
    try:
        verify_chain(proxy(pki.user).ders, TrustStore.load(pki.directory), None, NOW)
    except IdentityError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize(
    "extension",
    [
        x509.DeltaCRLIndicator(1),
        scope(users=True),
        scope(authorities=True),
        scope(attributes=True),
        scope(indirect=True),
        scope(reasons=frozenset([ReasonFlags.key_compromise])),
        scope(point=True),
    ],
    ids=["changes only", "users", "authorities", "attributes", "indirect", "some reasons", "one point"],
)
def test_a_part_is_no_list(own: Pki, extension: x509.ExtensionType, critical: bool) -> None:
    """Whoever is not on it may be revoked all the same, and an authority that forgot `critical` makes it no whole."""
    assert "no complete list" in judge(own, (extension, critical))


def test_harmless_additions(own: Pki) -> None:
    elsewhere = x509.FreshestCRL([x509.DistributionPoint(POINT, None, None, None)])
    assert judge(own, (elsewhere, False), (x509.IssuerAlternativeName(POINT), False), entry=(SUPERSEDED, False)) == ""


@pytest.mark.parametrize(
    "extension",
    [
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
        x509.CertificateIssuer([x509.DirectoryName(x509_name("/CN=Other CA"))]),
    ],
)
def test_an_entry_that_is_not_understood_spoils_the_list(own: Pki, extension: x509.ExtensionType) -> None:
    """RFC 5280 §5.3: what follows may be about another issuer's certificates."""
    assert "not understood" in judge(own, entry=(extension, True))


@pytest.mark.parametrize("reason", [ReasonFlags.certificate_hold, ReasonFlags.remove_from_crl])
def test_every_reason_revokes(own: Pki, reason: ReasonFlags) -> None:
    serial = x509.load_der_x509_certificate(own.user.leaf).serial_number
    assert "revoked" in judge(own, entry=(x509.CRLReason(reason), False), serial=serial)


def test_a_proxy_is_not_on_its_owners_authoritys_list(own: Pki) -> None:
    """Proxies' serial numbers are of another series: the crafted proxy's is 77."""
    assert judge(own, entry=(SUPERSEDED, False), serial=77) == ""
