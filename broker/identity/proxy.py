"""Verification of proxy chains: from any certificates in any order to one proven identity (RFC 3820 §4).

Promises: the end entity's own chain is proven by ``x509``; every proxy below it is walked here link by link
(proxyCertInfo critical and well formed, subject = issuer + one CN, no alternative names, never an authority,
issuer's keyUsage, path length, SHA-2 signature, strong keys, nested validity, no unknown critical extension).
*Limited* is inherited. Legacy and pre-RFC proxies are refused. A certificate that is no part of the one path from
leaf to end entity is refused, except authorities' certificates, which are only material for the chain.
A plain end entity's chain (services, pilots) is a chain of depth 0.
Nothing is remembered between two verifications.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import der
from .certificate import (
    OID_BASIC_CONSTRAINTS,
    OID_EXTENDED_KEY_USAGE,
    OID_ISSUER_ALT_NAME,
    OID_KEY_USAGE,
    OID_PROXY_CERT_INFO,
    OID_SUBJECT_ALT_NAME,
    Certificate,
    parse_certificate,
    split_chain,
)
from .errors import IdentityError
from .keys import PublicKey, certificate_key, check_issued
from .proxy_info import INDEPENDENT, LIMITED, ProxyCertInfo
from .voms import VomsAc, verify_acs
from .x509 import TrustStore, check_validity

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from .vomsdir import VomsDir

# Critical extensions of a proxy that are processed below; any other critical one refuses it (RFC 5280 §4.2).
_UNDERSTOOD = {OID_BASIC_CONSTRAINTS, OID_EXTENDED_KEY_USAGE, OID_KEY_USAGE, OID_PROXY_CERT_INFO}
_CLIENT_USES = {"1.3.6.1.5.5.7.3.2", "2.5.29.37.0"}  # clientAuth, anyExtendedKeyUsage


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """A proven identity; only ``verify_chain`` makes one."""

    identity: str
    """Canonical DN of the end entity; of the leaf itself where a proxy of the chain is independent (see ``barred``)."""
    limited: bool
    depth: int
    """Number of proxies; 0 for a plain end entity."""
    not_before: dt.datetime
    not_after: dt.datetime
    """The chain's lifetime: what all its certificates share."""
    public_key: PublicKey = field(repr=False)
    thumbprint_b64url: str
    """``x5t#S256`` (RFC 7515 §4.1.8) of the leaf."""
    leaf: bytes = field(repr=False)
    ders: tuple[bytes, ...] = field(repr=False)
    """Leaf first, down to the last certificate before the root."""
    acs: tuple[VomsAc, ...] = ()
    """VOMS attributes, leaf's first; the invalid ones too, marked."""
    barred: str = ""
    """Why nobody may act by this chain, sound as it is; empty: he may."""

    def check_may_act(self) -> None:
        """Check that messages may be signed and logins made by this chain.

        Raises:
            IdentityError: they may not.
        """
        if self.barred:
            raise IdentityError(self.barred)

    @property
    def fqans(self) -> tuple[str, ...]:
        """FQANs of the valid attribute certificates, in their order, each once, as written there."""
        return tuple(dict.fromkeys(fqan for ac in self.acs if ac.valid for fqan in ac.fqans))


def thumbprint(encoded: bytes) -> str:
    """Return the ``x5t#S256`` of a DER certificate: base64url of its SHA-256, without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(encoded).digest()).rstrip(b"=").decode("ascii")


def verify_chain(
    source: bytes | str | Sequence[bytes], trust: TrustStore, vomsdir: VomsDir | None, now: dt.datetime
) -> VerifiedChain:
    """Verify a certificate chain.

    Args:
        source: PEM text (private keys in it are passed over) or DER certificates, in any order.
        trust: the authorities.
        vomsdir: the VOMS servers that we believe; without it no attribute certificate is valid.
        now: the time to check for.

    Raises:
        IdentityError: the chain is refused; carries the identity if that much was proven.
    """
    certificates = [parse_certificate(item) for item in dict.fromkeys(split_chain(source))]
    end_entity, proxies, authorities = order_chain(certificates)
    if not end_entity.subject:
        # RFC 3820 §3.1: an issuer of proxies has a name; an identity without one could be anybody's.
        raise IdentityError("the end entity's certificate has no subject name")
    trusted = trust.verify_end_entity(end_entity, authorities, now)
    try:
        _check_client_use(end_entity)
        infos = _walk(end_entity, proxies, now)
    except IdentityError as error:
        raise IdentityError(error.reason, identity=end_entity.dn) from None
    path = (end_entity, *proxies)
    leaf = path[-1]
    independent = any(info.language == INDEPENDENT for info in infos)
    return VerifiedChain(
        identity=leaf.dn if independent else end_entity.dn,
        limited=any(info.language == LIMITED for info in infos),
        depth=len(proxies),
        not_before=max(item.x509.not_valid_before_utc for item in path),
        not_after=min(item.x509.not_valid_after_utc for item in path),
        public_key=certificate_key(leaf.x509),
        thumbprint_b64url=thumbprint(leaf.der),
        leaf=leaf.der,
        ders=tuple(item.der for item in (*reversed(path), *trusted[1:-1])),
        # An independent proxy inherits nothing (RFC 3820 §3.8.2): what was given to the user is not its own.
        acs=() if independent else verify_acs(proxies, end_entity, trust, vomsdir, now),
        barred=_barred(leaf, independent=independent),
    )


def _barred(leaf: Certificate, *, independent: bool) -> str:
    """Tell why a sound chain may not act.

    An independent proxy's name is its issuer's and a CN of his own choice, and no authority has looked at it: it may
    be the very name that an authority gave to somebody else (``/CN=Ada`` and her robot, ``/CN=Ada/CN=Robot``).
    """
    if independent:
        return "an independent proxy has no rights here: whoever issued it chose its name himself"
    if not leaf.may_sign:
        return f"the keyUsage of {leaf.dn} lacks digitalSignature: it may sign no messages"
    return ""


def order_chain(
    certificates: Sequence[Certificate],
) -> tuple[Certificate, tuple[Certificate, ...], tuple[Certificate, ...]]:
    """Sort certificates by what they are and who issued them; looks at names only, proves nothing.

    Returns:
        The end entity, its proxies from the top down to the leaf, and the authorities.

    Raises:
        IdentityError: there is not exactly one path.
    """
    proxies = [item for item in certificates if item.is_proxy]
    others = [item for item in certificates if not item.is_proxy]
    authorities = tuple(item for item in others if item.is_ca)
    end_entities = [item for item in others if not item.is_ca]
    if not end_entities:
        raise IdentityError("cannot build chain: no end entity's certificate")
    if len(end_entities) > 1:
        raise IdentityError(_explain_several(end_entities))
    by_issuer: dict[bytes, Certificate] = {}
    for proxy in proxies:
        if by_issuer.setdefault(proxy.issuer_der, proxy) is not proxy:
            raise IdentityError("cannot build chain: two proxies of the same issuer")
    path = [end_entities[0]]
    while (child := by_issuer.pop(path[-1].subject_der, None)) is not None:
        path.append(child)
    if by_issuer:
        raise IdentityError("cannot build chain: a proxy whose issuer is missing, or that is no part of the chain")
    return path[0], tuple(path[1:]), authorities


def _explain_several(end_entities: Sequence[Certificate]) -> str:
    names = {item.subject for item in end_entities}
    if any(item.issuer in names for item in end_entities):
        return "a certificate issued by an end entity without proxyCertInfo: legacy proxies are refused"
    return "cannot build chain: certificates of several end entities"


def _walk(end_entity: Certificate, proxies: Sequence[Certificate], now: dt.datetime) -> list[ProxyCertInfo]:
    """Check every link from the end entity down (RFC 3820 §4.1)."""
    infos: list[ProxyCertInfo] = []
    issuer, remaining = end_entity, len(proxies)
    for proxy in proxies:
        if remaining <= 0:
            raise IdentityError("path length exceeded")
        info = _check_proxy(proxy, issuer, now)
        remaining -= 1
        if info.path_length is not None:
            remaining = min(remaining, info.path_length)
        infos.append(info)
        issuer = proxy
    return infos


def _check_proxy(proxy: Certificate, issuer: Certificate, now: dt.datetime) -> ProxyCertInfo:
    """Check one proxy against its issuer."""
    extensions = proxy.extensions
    if not extensions[OID_PROXY_CERT_INFO].critical:
        raise IdentityError("proxyCertInfo is not critical")
    if proxy.is_ca:
        raise IdentityError("CA:TRUE in a proxy")
    if OID_SUBJECT_ALT_NAME in extensions or OID_ISSUER_ALT_NAME in extensions:
        raise IdentityError("alternative name in a proxy")
    unknown = [name for name, item in extensions.items() if item.critical and name not in _UNDERSTOOD]
    if unknown:
        raise IdentityError(f"unknown critical extension in a proxy: {unknown[0]}")
    info = ProxyCertInfo.decode(extensions[OID_PROXY_CERT_INFO].value)
    if not extends_by_one_cn(proxy, issuer):
        raise IdentityError("the subject of a proxy is not its issuer and one CN")
    if not issuer.may_sign:
        raise IdentityError(f"the keyUsage of {issuer.dn} lacks digitalSignature: it may issue no proxies")
    _check_client_use(proxy)
    certificate_key(proxy.x509)
    check_issued(proxy.x509, issuer.x509)
    check_validity(proxy, now)
    return info


def extends_by_one_cn(proxy: Certificate, issuer: Certificate) -> bool:
    """Tell whether a subject is the issuer's plus exactly one single-valued CN (RFC 3820 §3.4)."""
    if len(proxy.subject) != len(issuer.subject) + 1 or proxy.subject[:-1] != issuer.subject:
        return False
    last = proxy.subject[-1]
    return len(last) == 1 and last[0][0] == "CN"


def _check_client_use(certificate: Certificate) -> None:
    """Check that extendedKeyUsage, where present, lets the key prove who acts (RFC 5280 §4.2.1.12)."""
    extension = certificate.extensions.get(OID_EXTENDED_KEY_USAGE)
    if extension is None:
        return
    uses = {der.oid(item) for item in der.read_exactly(extension.value, der.SEQUENCE).children()}
    if not uses & _CLIENT_USES:
        raise IdentityError(f"the extendedKeyUsage of {certificate.dn} does not allow client authentication")
