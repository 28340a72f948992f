"""Reading a trust directory in grid layout: ``HASH.N`` authorities, ``HASH.rN`` CRLs, ``HASH.signing_policy``.

Promises: a file that cannot be read or understood is left out and named in ``problems``, so that it can only take
trust away, never give it. File names only say what a file is; what counts is its content. It decides nothing
about end entities: that is ``x509``.
"""

from __future__ import annotations

import datetime as dt
import functools
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from schemas.errors import ConfigurationError

from .certificate import OID_KEY_USAGE, Certificate, parse_certificate, split_chain
from .errors import IdentityError
from .signing_policy import MAX_POLICY_BYTES, parse_signing_policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# An authority's file holds one certificate of a few kilobytes; a few may come together.
MAX_CA_BYTES = 64 * 1024
# The largest CRLs of the grid's authorities have about 2 MiB.
MAX_CRL_BYTES = 32 * 1024 * 1024
# The whole IGTF distribution has about 100 authorities, five files each.
MAX_FILES = 10_000

_CA_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]{1,3}")
_CRL_NAME = re.compile(r"[0-9a-f]{8}\.r[0-9]{1,3}")
_POLICY_NAME = re.compile(r"[0-9a-f]{8}\.signing_policy")
_CRL_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)

Fingerprint = tuple[tuple[str, int, int, int], ...]
Policies = dict[str, tuple[re.Pattern[str], ...]]


@dataclass(frozen=True, eq=False)
class Crl:
    """One revocation list, and its set of serial numbers made at first use."""

    x509: x509.CertificateRevocationList
    issuer_der: bytes
    last_update: dt.datetime
    next_update: dt.datetime | None
    has_unknown_critical: bool
    is_partial: bool

    @functools.cached_property
    def revoked(self) -> frozenset[int]:
        """The revoked serial numbers (the library searches its list anew at every question)."""
        return frozenset(entry.serial_number for entry in self.x509)

    @functools.cached_property
    def has_unknown_entry(self) -> bool:
        """Whether an entry has a critical extension: it may be another issuer's (RFC 5280 §5.3: MUST NOT be used)."""
        try:
            return any(item.critical for entry in self.x509 for item in entry.extensions)
        except (ValueError, TypeError, x509.DuplicateExtension, UnsupportedAlgorithm):
            return True

    def is_signed_by(self, authority: Certificate) -> bool:
        """Tell whether the authority's key made this list, with SHA-2, and was allowed to (cRLSign)."""
        try:
            if OID_KEY_USAGE in authority.extensions:
                usage = authority.x509.extensions.get_extension_for_class(x509.KeyUsage).value
                if not usage.crl_sign:
                    return False
            if not isinstance(self.x509.signature_hash_algorithm, _CRL_HASHES):
                return False
            # The stub asks for the union of key kinds that the method itself checks.
            return self.x509.is_signature_valid(authority.x509.public_key())  # type: ignore[arg-type]
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """What one reading of the directory found."""

    fingerprint: Fingerprint
    authorities: tuple[Certificate, ...]
    crls: tuple[Crl, ...]
    policies: Policies
    problems: tuple[str, ...]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the directory.

        Raises:
            ConfigurationError: no such directory, unreadable, or far too many files.
        """
        mark = fingerprint(directory)
        authorities: dict[bytes, Certificate] = {}
        crls: dict[bytes, Crl] = {}
        policies: Policies = {}
        problems: list[str] = []
        for name, *_ in mark:
            try:
                if _CA_NAME.fullmatch(name):
                    authorities |= {item.der: item for item in _read_authorities(directory / name)}
                elif _CRL_NAME.fullmatch(name):
                    data = _read_bounded(directory / name, MAX_CRL_BYTES)
                    crls[data] = crls.get(data) or _parse_crl(data)
                else:
                    data = _read_bounded(directory / name, MAX_POLICY_BYTES)
                    _merge(policies, parse_signing_policy(data.decode("utf-8")))
            except (OSError, ValueError, IdentityError) as error:
                problems.append(f"{name}: {error}")
        return cls(mark, tuple(authorities.values()), tuple(crls.values()), policies, tuple(problems))


def fingerprint(directory: Path) -> Fingerprint:
    """Return name, mtime, size and inode of every file that matters; changes when any of them changes."""
    try:
        entries = [(path.name, path.stat()) for path in _interesting(directory)]
    except OSError as error:
        raise ConfigurationError(f"cannot read the trust directory {directory}: {error.strerror}") from None
    return tuple(sorted((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in entries))


def _interesting(directory: Path) -> Iterator[Path]:
    count = 0
    for path in directory.iterdir():
        if not any(pattern.fullmatch(path.name) for pattern in (_CA_NAME, _CRL_NAME, _POLICY_NAME)):
            continue
        count += 1
        if count > MAX_FILES:
            raise ConfigurationError(f"more than {MAX_FILES} files in the trust directory {directory}")
        if path.exists():  # a dangling link is no file
            yield path


def _merge(policies: Policies, more: Policies) -> None:
    """Add policies; the same authority's file under two hash names counts once, a differing one adds."""
    for dn, patterns in more.items():
        policies[dn] = tuple(dict.fromkeys(policies.get(dn, ()) + patterns))


def _read_bounded(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        # Asked for no more than is there: reading sets aside what it is asked for, and a CRL's limit is large.
        data = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
    if len(data) > limit:
        raise IdentityError(f"larger than {limit} bytes")
    return data


def _read_authorities(path: Path) -> list[Certificate]:
    data = _read_bounded(path, MAX_CA_BYTES)
    ders = [data] if data[:1] == b"\x30" else split_chain(data)
    found = [parse_certificate(item) for item in ders]
    if not all(item.is_ca for item in found):
        raise IdentityError("not the certificate of an authority (CA:TRUE)")
    return found


# Extensions of a whole CRL that need no processing of ours (AKI, number); a delta or partial list is not usable.
_HARMLESS_CRL_EXTENSIONS = {"2.5.29.35", "2.5.29.20"}


def _is_partial(crl: x509.CertificateRevocationList) -> bool:
    """Tell whether a list speaks of some certificates only, also where it does not say so critically as it must.

    A list of changes, of one kind of certificates or of one distribution point says nothing about who is not on it
    (RFC 5280 §5.2.4, §5.2.5).
    """
    return any(
        isinstance(item.value, x509.DeltaCRLIndicator | x509.IssuingDistributionPoint) for item in crl.extensions
    )


def _parse_crl(data: bytes) -> Crl:
    try:
        parsed = x509.load_pem_x509_crl(data) if data.lstrip()[:1] == b"-" else x509.load_der_x509_crl(data)
        critical = {item.oid.dotted_string for item in parsed.extensions if item.critical}
        return Crl(
            parsed,
            parsed.issuer.public_bytes(),
            parsed.last_update_utc,
            parsed.next_update_utc,
            not critical <= _HARMLESS_CRL_EXTENSIONS,
            _is_partial(parsed),
        )
    except (ValueError, TypeError, x509.DuplicateExtension, x509.InvalidVersion, UnsupportedAlgorithm):
        raise IdentityError("malformed CRL") from None
