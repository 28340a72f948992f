"""The user's long proxy: left with a MyProxy server, from which the service renews the short ones of his jobs.

Promises: the private key stays here; nobody may fetch the long proxy (it has no passphrase), and only the service that
the settings name may renew from it, by showing a proxy of the user's that is still valid; what it gets ends within
:data:`LONGEST_RENEWED`.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from schemas.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    from broker.identity import Credential

    from .settings import MyProxySettings

LONGEST_RENEWED = dt.timedelta(hours=12, minutes=10)
"""Of what is made from it: as long as the service's repository keeps a proxy, and its slack for clocks that differ."""


def parse_server(settings: MyProxySettings | None, text: str | None) -> tuple[str, int]:
    """Host and port: from the command line (``HOST[:PORT]``), else from the settings.

    Raises:
        ConfigurationError: neither names a host.
        InvalidInputError: the text is of another form.
    """
    from broker.grid.myproxy import PORT

    if not text:
        if settings is None or not settings.host:
            raise ConfigurationError("no MyProxy server is configured: name one with --myproxy, or in [myproxy] host")
        return settings.host, settings.port or PORT
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, PORT
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise InvalidInputError(f"--myproxy takes HOST or HOST:PORT, not {text!r}")
    return host, int(port)


def leave(
    settings: MyProxySettings | None,
    server: tuple[str, int],
    user: Credential,
    trust_dir: Path,
    *,
    hours: float,
    now: dt.datetime,
) -> dt.datetime:
    """Leave a long proxy with the server; returns its end.

    Raises:
        ConfigurationError: the settings do not say which service renews.
        InvalidInputError: MyProxy cannot make proxies from this certificate.
        PilotageError: as :func:`broker.grid.myproxy.put`.
    """
    from cryptography.hazmat.primitives.asymmetric import rsa

    from broker.grid import myproxy

    if settings is None or not settings.renewer:
        raise ConfigurationError("[myproxy] renewer is missing: the DN of the service that renews your jobs' proxies")
    if not isinstance(user.key, rsa.RSAPrivateKey):
        # Globus' library knows no ECDSA: it would store this proxy and then fail at every renewal.
        raise InvalidInputError("MyProxy renews proxies of RSA certificates only, and yours has another key")
    where = myproxy.Server(server[0], trust_dir, server[1], settings.server)
    return myproxy.put(
        where,
        user,
        owner_of(user),
        lifetime=dt.timedelta(hours=hours),
        longest=LONGEST_RENEWED,
        renewer=settings.renewer,
        name=myproxy.CREDENTIAL_NAME,
        now=now,
    )


def take_back(settings: MyProxySettings | None, server: tuple[str, int], user: Credential, trust_dir: Path) -> None:
    """Have the server forget the long proxy; nothing is renewed any more.

    Raises:
        PilotageError: as :func:`broker.grid.myproxy.destroy`.
    """
    from broker.grid import myproxy

    where = myproxy.Server(server[0], trust_dir, server[1], settings.server if settings is not None else "")
    myproxy.destroy(where, user, owner_of(user), name=myproxy.CREDENTIAL_NAME)


def owner_of(credential: Credential) -> str:
    """Canonical DN of the person, whatever proxies there are below the certificate."""
    from broker.identity import parse_certificate

    certificates = [parse_certificate(item) for item in credential.ders]
    return next(item.dn for item in certificates if not item.is_proxy)
