"""The identities of a private stack: a throwaway authority and everybody whom it certifies.

Promises: made once and then kept; what is missing or ends within a month is made anew under the same name, by the
same authority; every key is its owner's alone. Names: ``/O=Pilotage/OU=<kind>/CN=<name>``. It is no authority for the
real grid. Who may do what with these identities stands in :mod:`compose.local.configs`.
"""

from __future__ import annotations

import datetime as dt
import getpass
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from broker.authorization import SERVICES
from broker.identity import Authority, IdentityError, parse_certificate, split_chain
from schemas.errors import ConfigurationError, PilotageError

from .files import private_folder, write_private

if TYPE_CHECKING:
    from broker.identity import Credential

    from .layout import Layout

AUTHORITY = "/O=Pilotage/CN=Throwaway authority of a private stack"
PILOT_AUTHORITY = "/O=Pilotage/OU=Pilots/CN=Authority of a private stack"
HOST = "/O=Pilotage/OU=Hosts/CN=localhost"
SERVER_NAMES = ("localhost", "127.0.0.1")

RENEW_BEFORE = dt.timedelta(days=30)
"""Certificates live a year; a stack that is started now and then is never caught by their end."""

MAX_FILE_BYTES = 256 * 1024
"""More than any certificate file of ours."""


def service_dn(name: str) -> str:
    """DN of a service."""
    return f"/O=Pilotage/OU=Services/CN={name}"


def login_name() -> str:
    """The account's name, as far as it fits into a DN."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as containers have them
        name = ""
    return re.sub(r"[^A-Za-z0-9._-]", "", name)[:64] or "user"


def user_dn(layout: Layout) -> str:
    """DN of the user: what the certificate says, whoever is logged in now."""
    return parse_certificate(_leaf(layout.user_certificate)).dn


def ensure_identities(layout: Layout, now: dt.datetime) -> None:
    """Make every identity that is missing or about to end. Pilots have none here: they enrol.

    Raises:
        ConfigurationError: a file of an earlier run cannot be used; the message names it.
    """
    for folder in (layout.authority.parent, layout.trust, layout.tls, layout.services, layout.user):
        private_folder(folder)
    authority = _ensure_authority(layout, now)
    _ensure_pilot_authority(layout, now)
    _ensure_tls(layout, authority, now)
    for service in sorted(SERVICES):
        path = layout.services / f"{service}.pem"
        if _due(path, now):
            write_private(path, authority.issue(service_dn(service), now=now).to_pem())
        _ensure_secret(layout.services / f"{service}.secret", secrets.token_urlsafe(32))
    if not layout.master_key.exists():
        from cryptography.fernet import Fernet

        _ensure_secret(layout.master_key, Fernet.generate_key().decode("ascii"))
    _ensure_user(layout, authority, now)


def read_secret(path: Path) -> str:
    """A generated secret.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None


def _ensure_authority(layout: Layout, now: dt.datetime) -> Authority:
    if layout.authority.exists():
        return _load(layout.authority)
    authority = Authority.create(AUTHORITY, now=now)
    authority.write_trust_dir(layout.trust, now=now)
    write_private(layout.tls / "ca.pem", authority.certificate_pem)
    authority.save(layout.authority)  # last: once it is there, all that hangs on it is there
    return authority


def _ensure_pilot_authority(layout: Layout, now: dt.datetime) -> None:
    """Its own authority certifies enrolled pilots: who gets at it can make pilots and nobody else."""
    if not layout.pilot_authority.exists():
        authority = Authority.create(PILOT_AUTHORITY, now=now, confined=True)
        authority.write_trust_dir(layout.trust, now=now)
        authority.save(layout.pilot_authority)  # last, as above


def _load(path: Path) -> Authority:
    try:
        return Authority.load(path)
    except PilotageError as error:
        raise ConfigurationError(f"the private stack's authority cannot be used: {error}") from None


def _ensure_tls(layout: Layout, authority: Authority, now: dt.datetime) -> None:
    for name in ("server", "gatekeeper"):  # of the broker, and of the gatekeeper towards the broker
        certificate, key = layout.tls / f"{name}.pem", layout.tls / f"{name}.key"
        if _due(certificate, now) or not key.exists():
            _write_pair(authority.issue(HOST, "server", SERVER_NAMES, now=now), certificate, key)


def _ensure_user(layout: Layout, authority: Authority, now: dt.datetime) -> None:
    certificate, key = layout.user_certificate, layout.user_key
    if _due(certificate, now) or not key.exists():
        name = user_dn(layout) if certificate.exists() else f"/O=Pilotage/OU=Users/CN={login_name()}"
        _write_pair(authority.issue(name, now=now), certificate, key)


def _write_pair(credential: Credential, certificate: Path, key: Path) -> None:
    # The old certificate goes first: a key without a certificate is made anew by the next start, a wrong pair is not.
    certificate.unlink(missing_ok=True)
    write_private(key, credential.key_pem)
    write_private(certificate, credential.chain_pem)


def _ensure_secret(path: Path, secret: str) -> None:
    if not path.exists():
        write_private(path, secret + "\n")


def _due(path: Path, now: dt.datetime) -> bool:
    if not path.exists():
        return True
    return parse_certificate(_leaf(path)).x509.not_valid_after_utc - now < RENEW_BEFORE


def _leaf(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return split_chain(stream.read(MAX_FILE_BYTES))[0]
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (IdentityError, IndexError) as error:
        raise ConfigurationError(f"{path} holds no certificate ({error}); remove it to have a new one made") from None
