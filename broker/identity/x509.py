"""Trust in end entities: authorities, revocation lists and signing policies of one trust directory.

Promises: an end entity that comes out of ``verify_end_entity`` has a chain to a self-signed authority of the
directory, checked by the library (RFC 5280: signatures, validity, basic constraints, path lengths, name
constraints, unknown critical extensions); every certificate of the chain stands outside its issuer's current CRL
and inside its issuer's signing policy. A missing, expired or badly signed CRL and a missing policy refuse.
The directory is read again when it changes. Proxies are not handled here: that is ``proxy``.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import BasicConstraints, KeyUsage, NameConstraints
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from schemas.errors import ConfigurationError

from .errors import IdentityError
from .keys import certificate_key
from .name_constraints import check_name_constraints
from .signing_policy import permits
from .trustdir import Crl, TrustFiles, fingerprint

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from cryptography import x509

    from schemas.identity import Rdn

    from .certificate import Certificate

# A new CRL or authority counts within this time; looking costs one stat per file.
RELOAD_SECONDS = 5.0
# Grid hierarchies have at most three levels of authorities.
MAX_AUTHORITIES_IN_CHAIN = 8


def _require_ca(_policy: Policy, _certificate: x509.Certificate, constraints: BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("an issuer that is no authority")


def _require_cert_sign(_policy: Policy, _certificate: x509.Certificate, usage: KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an authority whose keyUsage lacks keyCertSign")


def _refuse_ca(_policy: Policy, _certificate: x509.Certificate, constraints: BasicConstraints | None) -> None:
    if constraints is not None and constraints.ca:
        raise ValueError("an authority used as end entity")


# The library's own defaults are those of web servers (names in subjectAltName, no CN); the grid's rules are
# RFC 5280's, and old authorities leave basicConstraints and keyUsage non-critical. Anything critical that is
# not named here or known to the library is refused by it.
_CA_POLICY = (
    ExtensionPolicy.permit_all()
    .require_present(BasicConstraints, Criticality.AGNOSTIC, _require_ca)
    .may_be_present(KeyUsage, Criticality.AGNOSTIC, _require_cert_sign)
    .may_be_present(NameConstraints, Criticality.AGNOSTIC, None)
)
_EE_POLICY = ExtensionPolicy.permit_all().may_be_present(BasicConstraints, Criticality.AGNOSTIC, _refuse_ca)


class _Snapshot:
    """One consistent reading of the directory, in the form that checks need."""

    def __init__(self, files: TrustFiles) -> None:
        self.files = files
        self.by_der = {item.der: item for item in files.authorities}
        self.names = {item.subject for item in files.authorities}
        anchors = [item for item in files.authorities if item.is_self_issued and _is_strong(item)]
        # Authorities below a root are only material for chains: the chain must reach the root, through its CRL.
        self.intermediates = [item.x509 for item in files.authorities if not item.is_self_issued]
        self.store = Store([item.x509 for item in anchors]) if anchors else None
        self._crls: dict[bytes, list[Crl]] = defaultdict(list)
        for crl in files.crls:
            self._crls[crl.issuer_der].append(crl)
        self._signed_crl: dict[bytes, Crl | None] = {}

    def crl_of(self, authority: Certificate) -> Crl:
        """Return the newest list that this authority signed; signatures are checked once per reading."""
        name = authority.subject_der
        if authority.der not in self._signed_crl:
            signed = [crl for crl in self._crls[name] if crl.is_signed_by(authority)]
            self._signed_crl[authority.der] = max(signed, key=lambda crl: crl.last_update, default=None)
        crl = self._signed_crl[authority.der]
        if crl is None:
            what = "CRL with a bad signature" if self._crls[name] else "no CRL"
            raise IdentityError(f"{what} for {authority.dn}")
        return crl


def _is_strong(authority: Certificate) -> bool:
    try:
        certificate_key(authority.x509)
    except IdentityError:
        return False
    return True


class TrustStore:
    """The authorities that we trust, from a directory in grid layout. Safe for use by several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._snapshot = _Snapshot(TrustFiles.read(directory))
        self._looked = time.monotonic()
        self._readings = 1

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a trust directory.

        Raises:
            ConfigurationError: the directory cannot be read.
        """
        return cls(path)

    @property
    def directory(self) -> Path:
        """Where the authorities lie."""
        return self._directory

    @property
    def problems(self) -> tuple[str, ...]:
        """Files that were left out, with the reason: for ``doctor`` and the log of a service."""
        return self._snapshot.files.problems

    @property
    def generation(self) -> int:
        """Changes with each reading: what was verified under an older one is to be verified anew."""
        return self._readings

    def reload_if_changed(self) -> bool:
        """Read the directory again if a file changed; return whether it was read.

        A directory that has become unreadable leaves the last reading in force: its CRLs expire by themselves.
        """
        with self._lock:
            self._looked = time.monotonic()
            try:
                if fingerprint(self._directory) == self._snapshot.files.fingerprint:
                    return False
                self._snapshot = _Snapshot(TrustFiles.read(self._directory))
                self._readings += 1
            except ConfigurationError:
                return False
            return True

    def _current(self) -> _Snapshot:
        # While one thread looks at the directory, the others go on with what is known.
        if time.monotonic() - self._looked > RELOAD_SECONDS and not self._lock.locked():
            self.reload_if_changed()
        return self._snapshot

    def verify_end_entity(
        self, certificate: Certificate, intermediates: Iterable[Certificate], now: dt.datetime
    ) -> tuple[Certificate, ...]:
        """Check an end entity's certificate.

        Args:
            certificate: the end entity's.
            intermediates: authorities that came along; those of the directory are known anyway.
            now: the time to check for.

        Returns:
            The chain: end entity, intermediate authorities, root.

        Raises:
            IdentityError: with the reason.
        """
        snapshot = self._current()
        check_validity(certificate, now)
        certificate_key(certificate.x509)
        given = _one_of_each(intermediates, snapshot.names, now)
        chain = self._build(snapshot, certificate, given, now)
        known = {item.der: item for item in (certificate, *given)} | snapshot.by_der
        read = tuple(known[encoded] for encoded in chain)
        for child, issuer in itertools.pairwise(read):
            _check_signing_policy(snapshot, child, issuer)
            _check_revocation(snapshot, child, issuer, now)
        check_name_constraints(read)
        return read

    @staticmethod
    def _build(
        snapshot: _Snapshot, certificate: Certificate, given: Sequence[Certificate], now: dt.datetime
    ) -> list[bytes]:
        if snapshot.store is None:
            raise IdentityError("no trusted authority is configured")
        verifier = (
            PolicyBuilder()
            .store(snapshot.store)
            .time(now)
            .max_chain_depth(MAX_AUTHORITIES_IN_CHAIN)
            .extension_policies(ca_policy=_CA_POLICY, ee_policy=_EE_POLICY)
            .build_client_verifier()
        )
        try:
            verified = verifier.verify(certificate.x509, [*(item.x509 for item in given), *snapshot.intermediates])
        except VerificationError as error:
            raise IdentityError(f"not issued by a trusted authority: {certificate.dn} ({_summary(error)})") from None
        return [item.public_bytes(Encoding.DER) for item in verified.chain]


def _one_of_each(
    authorities: Iterable[Certificate], known: Collection[Sequence[Rdn]], now: dt.datetime
) -> list[Certificate]:
    """Keep one certificate of each authority (name and key) whose key we accept: the one that lives longest.

    Of an authority that several have certified, a valid one by an authority of the directory goes first.
    A certificate has one true issuer then. Fifteen that an attacker made of one name and one key could each stand
    above each other: the library would try all 15**8 paths (older versions of it without any bound).
    """
    ranked = sorted(
        authorities, key=lambda item: (item.x509.not_valid_after_utc >= now, item.issuer in known, _end(item))
    )
    kept = {(item.subject_der, item.spki): item for item in ranked}
    return [item for item in kept.values() if _is_strong(item)]


def _end(certificate: Certificate) -> tuple[dt.datetime, bytes]:
    return certificate.x509.not_valid_after_utc, certificate.der


def check_validity(certificate: Certificate, now: dt.datetime) -> None:
    """Check a certificate's own validity time (RFC 5280 §4.1.2.5, both ends included)."""
    if now < certificate.x509.not_valid_before_utc:
        raise IdentityError(f"not yet valid: {certificate.dn}")
    if now > certificate.x509.not_valid_after_utc:
        raise IdentityError(f"expired: {certificate.dn}")


def _summary(error: VerificationError) -> str:
    """Return the library's reason without the certificate that it quotes."""
    return str(error).partition(" (encountered processing")[0][:200]


def _check_signing_policy(snapshot: _Snapshot, child: Certificate, issuer: Certificate) -> None:
    patterns = snapshot.files.policies.get(issuer.dn)
    if patterns is None:
        raise IdentityError(f"no signing policy for {issuer.dn}")
    if not permits(patterns, child.dn):
        raise IdentityError(f"the signing policy of {issuer.dn} does not cover {child.dn}")


def _check_revocation(snapshot: _Snapshot, child: Certificate, issuer: Certificate, now: dt.datetime) -> None:
    crl = snapshot.crl_of(issuer)
    if crl.is_partial:
        raise IdentityError(f"the CRL of {issuer.dn} is no complete list")
    if crl.has_unknown_critical or crl.has_unknown_entry:
        raise IdentityError(f"the CRL of {issuer.dn} has a critical extension that is not understood")
    if now < crl.last_update:
        raise IdentityError(f"the CRL of {issuer.dn} is not yet valid")
    if crl.next_update is None or now > crl.next_update:
        raise IdentityError(f"the CRL of {issuer.dn} has expired")
    if child.serial in crl.revoked:
        raise IdentityError(f"revoked: {child.dn}")
