"""Which keys and signature algorithms we accept, in one place: RSA of 2048 bits and more, and the NIST curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .errors import IdentityError

if TYPE_CHECKING:
    from cryptography import x509

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

# NIST SP 800-57: below 2048 bits an RSA key is too weak for any use since 2014.
MIN_RSA_BITS = 2048
# One check with a key of 8192 bits costs about a millisecond; a larger one only burns our time.
MAX_RSA_BITS = 8192
# All authorities use 65537 (some old ones 3); a check with an exponent of 3072 bits costs a hundred times as much.
MAX_RSA_EXPONENT_BITS = 64
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)

# Signature algorithms of what we read ourselves (RFC 8017 appendix A.2.4, RFC 5758 §3.2): SHA-2 only.
_RSA_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.2.840.113549.1.1.11": hashes.SHA256(),
    "1.2.840.113549.1.1.12": hashes.SHA384(),
    "1.2.840.113549.1.1.13": hashes.SHA512(),
}
_ECDSA_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.2.840.10045.4.3.2": hashes.SHA256(),
    "1.2.840.10045.4.3.3": hashes.SHA384(),
    "1.2.840.10045.4.3.4": hashes.SHA512(),
}


def check_public_key(key: object) -> PublicKey:
    """Return the key if it is strong enough and of a kind that we use.

    Raises:
        IdentityError: weak, or of another kind.
    """
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise IdentityError(f"weak key: RSA of {key.key_size} bits, at least {MIN_RSA_BITS} needed")
        if key.key_size > MAX_RSA_BITS:
            raise IdentityError(f"RSA key of {key.key_size} bits, at most {MAX_RSA_BITS} accepted")
        if key.public_numbers().e.bit_length() > MAX_RSA_EXPONENT_BITS:
            raise IdentityError("RSA key with a public exponent that only costs time")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise IdentityError("weak or unsupported key: RSA or a NIST curve (P-256, P-384, P-521) needed")


def certificate_key(certificate: x509.Certificate) -> PublicKey:
    """Return a certificate's public key, checked."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise IdentityError("weak or unsupported key") from None
    return check_public_key(key)


def is_private_key(key: object) -> bool:
    """Tell whether an object is a private key of a kind that we use."""
    return isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)


def public_bytes(key: PublicKey) -> bytes:
    """Return the DER SubjectPublicKeyInfo, the form in which keys are compared."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Check that the issuer's key signed the certificate, with SHA-2.

    Raises:
        IdentityError: it did not, or by an algorithm that we do not accept.
    """
    try:
        algorithm = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        algorithm = None
    if not isinstance(algorithm, _HASHES):
        raise IdentityError("weak or unsupported signature algorithm")
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise IdentityError("bad signature: not signed by the issuer's key") from None


def check_signed(key: PublicKey, algorithm: str, signature: bytes, data: bytes) -> None:
    """Check a signature on bytes that no library reads for us (attribute certificates, certificate requests).

    Args:
        key: who should have signed.
        algorithm: OID of the signature algorithm.
        signature: the signature.
        data: what should be signed.

    Raises:
        IdentityError: another key's signature, or by an algorithm that we do not accept.
    """
    try:
        if isinstance(key, rsa.RSAPublicKey) and (rsa_hash := _RSA_HASHES.get(algorithm)):
            key.verify(signature, data, padding.PKCS1v15(), rsa_hash)
        elif isinstance(key, ec.EllipticCurvePublicKey) and (ec_hash := _ECDSA_HASHES.get(algorithm)):
            key.verify(signature, data, ec.ECDSA(ec_hash))
        else:
            raise IdentityError("weak or unsupported signature algorithm")
    except (InvalidSignature, UnsupportedAlgorithm):
        raise IdentityError("bad signature") from None
