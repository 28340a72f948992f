"""VOMS attribute certificates in proxies: reading and verification (RFC 5755, OGF GFD.182).

Promises: an AC counts only if its holder is the chain's end entity (issuer + serial, or VOMS's old subject +
serial), its issuer stands in an LSC file of its VO with the same chain of names, its issuer's certificates verify
against the trust store, its signature and validity are right, it has no critical extension that we do not
process (any restriction to targets included), it says that nobody revokes it and which key signed it, as VOMS's own
verifier asks, and each FQAN lies in its VO. Others are reported as invalid with
the reason; they never make the chain invalid. The certificates of a VOMS server must come in the AC itself
(as every server of the last 15 years sends them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from schemas.errors import InvalidInputError
from schemas.identity import Fqan

from . import der
from .attribute_certificate import AttributeCertificate, GenericAttribute, read_acs
from .certificate import OID_SUBJECT_KEY, Certificate, parse_certificate
from .errors import IdentityError
from .keys import certificate_key, check_signed
from .vomsdir import VomsDir

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Sequence

    from .x509 import TrustStore

OID_VOMS_ACS = "1.3.6.1.4.1.8005.100.100.5"
# A proxy carries one AC per VO, and few people are in more than three.
MAX_ACS = 16


@dataclass(frozen=True, slots=True)
class VomsAc:
    """One attribute certificate after verification; rights come only from a valid one."""

    valid: bool
    vo: str
    fqans: tuple[str, ...] = ()
    """As written in the AC and in its order (the first is the primary one); empty if invalid."""
    reason: str = ""
    issuer: str = ""
    not_before: dt.datetime | None = None
    not_after: dt.datetime | None = None
    generic: tuple[GenericAttribute, ...] = ()


def verify_acs(
    proxies: Sequence[Certificate],
    end_entity: Certificate,
    trust: TrustStore,
    vomsdir: VomsDir | None,
    now: dt.datetime,
) -> tuple[VomsAc, ...]:
    """Verify every attribute certificate of a chain, the leaf's first.

    Args:
        proxies: the chain's proxies, from the end entity's first one down to the leaf.
        end_entity: whom the ACs must be about.
        trust: the authorities, for the VOMS servers' certificates.
        vomsdir: which servers may speak for which VO; None: none.
        now: the time to check for.
    """
    return tuple(_verify(item, end_entity, trust, vomsdir, now) for item in _bounded(_read(reversed(proxies))))


def _read(proxies: Iterator[Certificate]) -> Iterator[AttributeCertificate | IdentityError]:
    for proxy in proxies:
        extension = proxy.extensions.get(OID_VOMS_ACS)
        if extension is None:
            continue
        try:
            yield from read_acs(extension.value, MAX_ACS)
        except IdentityError as error:
            yield error


def _bounded(
    items: Iterator[AttributeCertificate | IdentityError],
) -> Iterator[AttributeCertificate | IdentityError]:
    for count, item in enumerate(items):
        if count >= MAX_ACS:
            yield IdentityError(f"more than {MAX_ACS} attribute certificates in a chain")
            return
        yield item


def _verify(
    ac: AttributeCertificate | IdentityError,
    end_entity: Certificate,
    trust: TrustStore,
    vomsdir: VomsDir | None,
    now: dt.datetime,
) -> VomsAc:
    if isinstance(ac, IdentityError):
        return VomsAc(valid=False, vo="", reason=ac.reason)
    try:
        _check_time(ac, now)
        check_holder(ac, end_entity)
        if ac.unknown_critical:
            raise IdentityError(f"critical extension that is not understood: {ac.unknown_critical}")
        check_fqans(ac)
        if not ac.never_revoked:
            # RFC 5755 §6: else its revocation would have to be looked up, and no VOMS server tells where.
            raise IdentityError("without noRevAvail")
        issuer = _issuer(ac, trust, vomsdir, now)
        _check_authority_key(ac, issuer)
        check_signed(certificate_key(issuer.x509), ac.algorithm, ac.signature, ac.signed)
    except IdentityError as error:
        reason = f"AC {error.reason}" if not error.reason.startswith("AC ") else error.reason
        return VomsAc(False, ac.vo, (), reason, ac.issuer_dn, ac.not_before, ac.not_after)
    return VomsAc(True, ac.vo, ac.fqans, "", ac.issuer_dn, ac.not_before, ac.not_after, ac.generic)


def _check_time(ac: AttributeCertificate, now: dt.datetime) -> None:
    if now < ac.not_before:
        raise IdentityError("not yet valid")
    if now > ac.not_after:
        raise IdentityError("expired")


def check_holder(ac: AttributeCertificate, end_entity: Certificate) -> None:
    """Check that an AC is about an end entity.

    RFC 5755 §4.2.2 names the holder's issuer; old VOMS clients and servers wrote the holder itself there.

    Raises:
        IdentityError: it is about somebody else.
    """
    if ac.holder_serial != end_entity.serial or ac.holder_name not in (end_entity.issuer, end_entity.subject):
        raise IdentityError("holder is not the end entity of the chain")
    if ac.holder_entity_name is not None and ac.holder_entity_name != end_entity.subject:
        raise IdentityError("holder is not the end entity of the chain")


def check_fqans(ac: AttributeCertificate) -> None:
    """Check that each FQAN is one, and of the AC's own VO.

    Raises:
        IdentityError: it is not.
    """
    for text in ac.fqans:
        try:
            fqan = Fqan.parse(text)
        except InvalidInputError:
            raise IdentityError("with a malformed FQAN") from None
        if not fqan.belongs_to(ac.vo):
            raise IdentityError(f"FQAN outside VO {ac.vo}: {text}")


def _issuer(ac: AttributeCertificate, trust: TrustStore, vomsdir: VomsDir | None, now: dt.datetime) -> Certificate:
    """Find the issuer's certificate in the AC and prove it by LSC file and trust store."""
    chains = vomsdir.chains_of(ac.vo) if vomsdir is not None else ()
    if not any(chain[0] == ac.issuer_dn for chain in chains):
        raise IdentityError(f"issuer not in LSC of {ac.vo}")
    found = [parse_certificate(item) for item in dict.fromkeys(ac.certificates)]
    issuers = [item for item in found if item.subject == ac.issuer and not item.is_ca and not item.is_proxy]
    if len(issuers) != 1:
        raise IdentityError("issuer's certificate is not in the AC")
    authorities = [item for item in found if item.is_ca]
    trusted = trust.verify_end_entity(issuers[0], authorities, now)
    names = tuple(item.dn for item in trusted)
    # An LSC file lists the chain from the server upwards; it may stop below the root.
    if not any(names[: len(chain)] == chain for chain in chains):
        raise IdentityError(f"issuer's chain is not in LSC of {ac.vo}")
    if not issuers[0].may_sign:
        raise IdentityError("issuer's keyUsage lacks digitalSignature")
    return issuers[0]


def _check_authority_key(ac: AttributeCertificate, issuer: Certificate) -> None:
    """Check that the AC names its issuer's key (OGF GFD.182), if by an identifier, then by the right one."""
    if ac.authority_key is None:
        raise IdentityError("without authorityKeyIdentifier")
    known = {x509.SubjectKeyIdentifier.from_public_key(certificate_key(issuer.x509)).digest}
    own = issuer.extensions.get(OID_SUBJECT_KEY)
    if own is not None:
        known.add(der.read_exactly(own.value, der.OCTET_STRING).content)
    if ac.authority_key and ac.authority_key not in known:
        raise IdentityError("names another key than its issuer's")
