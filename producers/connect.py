"""From settings and a proxy file to an open session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .credentials import ca_directory, proxy_path, voms_directory
from .errors import BadProxyError, NoProxyError, NotConfiguredError, ProxyExpiredError, explained

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from broker.identity import Credential
    from broker.session import Session

    from .settings import UserSettings

CONNECTION_NAME = "pilotage client"

LOGIN_SECONDS = 10.0
"""Longest time for a login: a broker that starts anew is back by then, and nobody stares at a prompt for longer."""


def load_proxy(settings: UserSettings, now: dt.datetime) -> Credential:
    """The user's proxy.

    Raises:
        NoProxyError: no file there.
        ProxyExpiredError: it is over, or its own certificate is.
        BadProxyError: it cannot be read, or is no proxy.
    """
    from broker.identity import CredentialError, load_credential

    path = proxy_path(settings)
    if not path.exists():
        raise NoProxyError(f"there is no proxy at {path}: run 'pilotage proxy init'")
    try:
        credential = load_credential(path)
    except CredentialError as error:
        known = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise BadProxyError(f"{known}; or make a new one: 'pilotage proxy init'") from None
    ends = end_of(credential)
    if ends <= now:
        raise ProxyExpiredError(f"the proxy expired at {ends:%Y-%m-%d %H:%M} UTC: run 'pilotage proxy init'")
    return credential


def end_of(credential: Credential) -> dt.datetime:
    """When the first certificate of its chain ends (UTC)."""
    from broker.identity import parse_certificate

    return min(parse_certificate(der).x509.not_valid_after_utc for der in credential.ders)


def trust_of(settings: UserSettings) -> Path:
    """The trust directory for a deployment's services."""
    # A deployment that names its own authorities goes before X509_CERT_DIR: the variable is about the grid at large.
    return settings.ca_dir or ca_directory(settings)


def open_session(settings: UserSettings, credential: Credential, timeout: float) -> Session:
    """Log in, within ``timeout`` and :data:`LOGIN_SECONDS`.

    Raises:
        NotConfiguredError: no deployment in the settings.
        NotAllowedError: the login is refused.
        AwayError: no broker there.
        TimedOutError: no gatekeeper there.
    """
    broker = settings.broker
    if broker is None:
        raise NotConfiguredError
    from broker.session import Session, SessionSettings
    from broker.transport import Endpoint

    endpoint = Endpoint(broker.host, broker.port, broker.ca_file, broker.server_name or None, broker.virtual_host)
    trust = trust_of(settings)
    vomsdir = settings.vomsdir if settings.ca_dir else voms_directory(settings)
    where = SessionSettings(endpoint, broker.name, trust, broker.gatekeeper, vomsdir)
    with explained():
        session = Session(where, credential, group=settings.group, name=CONNECTION_NAME)
        try:
            session.open(min(timeout, LOGIN_SECONDS))
        except BaseException:
            session.close(0)
            raise
    return session
