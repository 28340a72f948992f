"""Who somebody is: certificates, proxies, VOMS attributes, credentials and delegation.

Promises: this package is the only place that judges certificate chains. The order of reading is ``x509`` (trust in
end entities), ``proxy`` (chains down to a leaf), ``voms`` (attributes), ``delegation`` and ``credential`` (making
and keeping proxies), ``authority`` (a throwaway CA for the private stack).
"""

from __future__ import annotations

from .attribute_certificate import GenericAttribute
from .authority import Authority
from .certificate import (
    MAX_CERTIFICATES,
    MAX_CHAIN_BYTES,
    Certificate,
    parse_certificate,
    pem_chain,
    split_chain,
)
from .certificate import split_chain as der_chain
from .certificate_request import make_csr, read_csr
from .claims import claimed_fqans
from .credential import (
    Credential,
    PasswordNeededError,
    key_pem,
    load_credential,
    load_private_key,
    save_credential,
)
from .delegation import create_proxy, inspect_ac, new_key, sign_csr
from .errors import CredentialError, IdentityError
from .keys import PrivateKey, PublicKey
from .proxy import VerifiedChain, thumbprint, verify_chain
from .subject_hash import subject_hash
from .voms import VomsAc
from .vomsdir import VomsDir
from .x509 import TrustStore

__all__ = [
    "MAX_CERTIFICATES",
    "MAX_CHAIN_BYTES",
    "Authority",
    "Certificate",
    "Credential",
    "CredentialError",
    "GenericAttribute",
    "IdentityError",
    "PasswordNeededError",
    "PrivateKey",
    "PublicKey",
    "TrustStore",
    "VerifiedChain",
    "VomsAc",
    "VomsDir",
    "claimed_fqans",
    "create_proxy",
    "der_chain",
    "inspect_ac",
    "key_pem",
    "load_credential",
    "load_private_key",
    "make_csr",
    "new_key",
    "parse_certificate",
    "pem_chain",
    "read_csr",
    "save_credential",
    "sign_csr",
    "split_chain",
    "subject_hash",
    "thumbprint",
    "verify_chain",
]
