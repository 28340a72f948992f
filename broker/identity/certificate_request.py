"""Certificate requests (RFC 2986), the one thing that travels to whoever signs a proxy for us: made, and read strictly.

Promises: a request that is read proves that its sender holds the private key; nothing else of it is believed, its names
and extensions are ignored. Sizes are checked before anything is parsed.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID

from . import der
from .certificate import check_named_curve, read_name
from .errors import IdentityError
from .keys import PrivateKey, PublicKey, check_public_key, check_signed

# A request with an RSA-8192 key has about 2 KiB.
MAX_CSR_BYTES = 16 * 1024
# RFC 2986 knows version 0 only; OpenSSL's interface invites to write others, and they mean nothing.
_CSR_VERSIONS = {0, 1, 2}
_NULL = der.encode(der.NULL)


def make_csr(key: PrivateKey) -> bytes:
    """Make a certificate request (DER) that proves that we hold the key; the name in it means nothing."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxy")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.DER)


def read_csr(csr: bytes) -> PublicKey:
    """Return the key of a certificate request (RFC 2986) after checking that its owner signed it.

    Read by ourselves: some delegation services (ARC's) write a version that the library refuses.

    Raises:
        IdentityError: too large, malformed, not signed by its own key, or a weak key.
    """
    if len(csr) > MAX_CSR_BYTES:
        raise IdentityError(f"a certificate request may have at most {MAX_CSR_BYTES} bytes")
    try:
        info, algorithm, signature = der.read_exactly(csr, der.SEQUENCE).children()
        version, _name, spki, *attributes = info.expect(der.SEQUENCE).children()
        if der.integer(version) not in _CSR_VERSIONS or [item.tag for item in attributes] not in ([], [0xA0]):
            raise der.DerError
        read_name(_name)
        check_named_curve(spki)
        name, *parameters = algorithm.expect(der.SEQUENCE).children()
        if [item.encoded for item in parameters] not in ([], [_NULL]):
            raise der.DerError
        kind, bits = der.oid(name), der.bit_string(signature)
        loaded = load_der_public_key(spki.expect(der.SEQUENCE).encoded)
    except (der.DerError, ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError("malformed certificate request") from None
    key = check_public_key(loaded)
    try:
        check_signed(key, kind, bits, info.encoded)
    except IdentityError:
        raise IdentityError("the certificate request is not signed by its own key") from None
    return key
