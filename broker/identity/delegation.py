"""Making proxies: from one's own certificate (``create_proxy``) and for another's key (``sign_csr``).

Promises: a new proxy never lives longer than its chain, never has more rights (a child of a limited proxy is
marked limited, whatever was asked for), never goes deeper than a path length allows; it starts five minutes back,
but not before its issuer. VOMS attributes that are put into it are about its own end entity. Private keys never
travel: delegation sends a certificate request one way and a chain back. A request gives a key and proof of holding
it, nothing else; its names and extensions are ignored.
"""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from .attribute_certificate import AttributeCertificate, encode_acs, read_ac
from .certificate import (
    MAX_CERTIFICATES,
    MAX_CHAIN_BYTES,
    OID_PROXY_CERT_INFO,
    Certificate,
    parse_certificate,
    pem_chain,
    split_chain,
)
from .certificate_request import read_csr
from .credential import Credential
from .errors import IdentityError
from .keys import MIN_RSA_BITS, PrivateKey, PublicKey, certificate_key, check_public_key, public_bytes
from .proxy import order_chain
from .proxy_info import INHERIT_ALL, LIMITED, ProxyCertInfo
from .voms import MAX_ACS, OID_VOMS_ACS, check_fqans, check_holder

if TYPE_CHECKING:
    from collections.abc import Sequence

# Clocks on the grid differ by minutes; a proxy must count on the other machine at once.
BACKDATE = dt.timedelta(minutes=5)


def new_key(*, rsa_bits: int | None = None) -> PrivateKey:
    """Make a private key: P-256, or RSA where tools of the grid ask for it.

    Raises:
        IdentityError: RSA below 2048 bits.
    """
    if rsa_bits is None:
        return ec.generate_private_key(ec.SECP256R1())
    if rsa_bits < MIN_RSA_BITS:
        raise IdentityError(f"weak key: at least {MIN_RSA_BITS} bits needed for RSA")
    return rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)


def create_proxy(
    issuer_chain: bytes | str | Sequence[bytes],
    issuer_key: PrivateKey,
    *,
    lifetime: dt.timedelta,
    limited: bool,
    now: dt.datetime,
    key: PrivateKey | None = None,
    path_length: int | None = None,
    acs: Sequence[bytes] = (),
) -> Credential:
    """Make a proxy with a key of its own.

    Args:
        issuer_chain: certificate chain of the issuer (PEM or DER, any order).
        issuer_key: the private key of that chain's leaf.
        lifetime: how long it shall live from now; cut to the chain's end.
        limited: make it a limited proxy; of a limited issuer it always is one.
        now: the time.
        key: private key of the proxy; a new P-256 key by default.
        path_length: how many further proxies may follow below it; None: as many as the chain allows.
        acs: VOMS attribute certificates (DER) that it shall carry; they change nothing of its lifetime.

    Raises:
        IdentityError: the issuer cannot issue, or an attribute certificate is malformed or about somebody else.
    """
    key = key or new_key()
    ders = _issue(key.public_key(), issuer_chain, issuer_key, lifetime, limited, now, path_length, acs)
    return Credential(key, ders)


def sign_csr(
    csr: bytes,
    issuer_chain: bytes | str | Sequence[bytes],
    issuer_key: PrivateKey,
    *,
    lifetime: dt.timedelta,
    limited: bool,
    now: dt.datetime,
    path_length: int | None = None,
    acs: Sequence[bytes] = (),
) -> bytes:
    """Make a proxy for the key of a certificate request: delegation.

    Args:
        csr: the request, DER.
        issuer_chain: as in ``create_proxy``.
        issuer_key: as in ``create_proxy``.
        lifetime: as in ``create_proxy``.
        limited: as in ``create_proxy``.
        now: the time.
        path_length: as in ``create_proxy``.
        acs: as in ``create_proxy``.

    Returns:
        The new chain as PEM, leaf first.

    Raises:
        IdentityError: the request is malformed, not signed by its own key, its key weak; or the issuer cannot issue.
    """
    key = read_csr(csr)
    return pem_chain(_issue(key, issuer_chain, issuer_key, lifetime, limited, now, path_length, acs))


def inspect_ac(encoded: bytes, chain: Sequence[bytes]) -> AttributeCertificate:
    """Look at an attribute certificate before it goes into a proxy: form, holder and FQANs.

    Who issued it is not asked here, and its signature is not checked: ``verify_chain`` does that, wherever it counts.

    Args:
        encoded: the attribute certificate, DER.
        chain: certificates of whom it should be about, in any order.

    Raises:
        IdentityError: malformed, about somebody else, or with an FQAN outside its VO.
    """
    certificates = [parse_certificate(item) for item in dict.fromkeys(chain)]
    ac = read_ac(encoded)
    check_holder(ac, order_chain(certificates)[0])
    check_fqans(ac)
    return ac


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What the issuer's chain lets a child be."""

    not_before: dt.datetime
    not_after: dt.datetime
    limited: bool
    path_left: int


def _bounds(path: Sequence[Certificate]) -> _Bounds:
    """Collect the bounds of a path from the end entity down; what cannot be verified later is refused here."""
    left, limited = MAX_CERTIFICATES - 1, False
    for proxy in path[1:]:
        info = ProxyCertInfo.decode(proxy.extensions[OID_PROXY_CERT_INFO].value)
        limited = limited or info.language == LIMITED
        left = left - 1 if info.path_length is None else min(left - 1, info.path_length)
    return _Bounds(
        not_before=max(item.x509.not_valid_before_utc for item in path),
        not_after=min(item.x509.not_valid_after_utc for item in path),
        limited=limited,
        path_left=left,
    )


def _issue(
    key: PublicKey,
    issuer_chain: bytes | str | Sequence[bytes],
    issuer_key: PrivateKey,
    lifetime: dt.timedelta,
    limited: bool,
    now: dt.datetime,
    path_length: int | None,
    acs: Sequence[bytes],
) -> tuple[bytes, ...]:
    """Sign a proxy for a public key; return the whole chain, leaf first."""
    certificates = [parse_certificate(item) for item in dict.fromkeys(split_chain(issuer_chain))]
    end_entity, proxies, authorities = order_chain(certificates)
    path = (end_entity, *proxies)
    issuer, bounds = path[-1], _bounds(path)
    start = max(now - BACKDATE, bounds.not_before)
    # Whatever is asked for: the sum stays between now and the chain's end.
    end = (now + max(min(lifetime, bounds.not_after - now), dt.timedelta(0))).replace(microsecond=0)
    _check_issuer(issuer, issuer_key, bounds, path_length)
    if bounds.not_after <= now:
        raise IdentityError(f"expired: the chain of {issuer.dn}")
    if start > now:
        raise IdentityError(f"not yet valid: the chain of {issuer.dn}")
    if end <= now:
        raise IdentityError("a proxy needs a lifetime of at least a second")
    if any(item.spki == public_bytes(key) for item in path):
        raise IdentityError("a proxy needs a key of its own, not one of its chain")
    language = LIMITED if limited or bounds.limited else INHERIT_ALL
    for item in acs:
        inspect_ac(item, [end_entity.der])
    # No more than what is left: a larger number would mean the same (RFC 3820 §4.1.4), but OpenSSL refuses it.
    length = None if path_length is None else min(path_length, bounds.path_left - 1)
    proxy = _build(key, issuer, issuer_key, start, end, ProxyCertInfo(language, length), acs)
    below_root = [item for item in authorities if not item.is_self_issued]
    chain = (proxy, *(item.der for item in (*reversed(path), *below_root)))
    if len(chain) > MAX_CERTIFICATES:
        raise IdentityError("path length exceeded: nobody would accept a chain this long")
    if sum(map(len, chain)) > MAX_CHAIN_BYTES:
        raise IdentityError(
            f"a certificate chain may have at most {MAX_CHAIN_BYTES} bytes: nobody would accept this one"
        )
    return chain


def _check_issuer(issuer: Certificate, key: PrivateKey, bounds: _Bounds, path_length: int | None) -> None:
    if public_bytes(check_public_key(key.public_key())) != issuer.spki:
        raise IdentityError("the private key does not fit the issuer's certificate")
    if not issuer.may_sign:
        raise IdentityError(f"the keyUsage of {issuer.dn} lacks digitalSignature: it may issue no proxies")
    if bounds.path_left <= 0:
        raise IdentityError("path length exceeded: this proxy may not be passed on")
    if path_length is not None and path_length < 0:
        raise IdentityError("a path length is not negative")


def _build(
    key: PublicKey,
    issuer: Certificate,
    issuer_key: PrivateKey,
    start: dt.datetime,
    end: dt.datetime,
    info: ProxyCertInfo,
    acs: Sequence[bytes],
) -> bytes:
    # 63 random bits: unique per issuer (RFC 3820 §3.3) and positive; the same number is the CN, as tools expect.
    serial = secrets.randbits(63) | 1
    common_name = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, str(serial))])
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer.x509.subject)
        .subject_name(x509.Name([*issuer.x509.subject.rdns, common_name]))
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(_key_usage(rsa_key=isinstance(key, rsa.RSAPublicKey)), critical=True)
        .add_extension(_issuer_key_id(issuer), critical=False)
        .add_extension(x509.UnrecognizedExtension(ObjectIdentifier(OID_PROXY_CERT_INFO), info.encode()), critical=True)
    )
    if acs:
        attributes = x509.UnrecognizedExtension(ObjectIdentifier(OID_VOMS_ACS), encode_acs(acs, MAX_ACS))
        builder = builder.add_extension(attributes, critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.DER)


def _issuer_key_id(issuer: Certificate) -> x509.AuthorityKeyIdentifier:
    """Name the issuer's key as it names itself; strict verifiers ask for it (RFC 5280 §4.2.1.1)."""
    try:
        own = issuer.x509.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(certificate_key(issuer.x509))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_usage(*, rsa_key: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=rsa_key,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
