"""Settings of a user's tools: frozen values, made by ``compose.settings`` from one TOML file and the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How to reach one deployment (section ``[broker]``)."""

    host: str
    port: int
    ca_file: Path
    """Authority of the broker's TLS certificate (PEM)."""
    name: str
    """The deployment's name: the audience of logins."""
    gatekeeper: str
    """Canonical DN of the gatekeeper, the one service that is known beforehand."""
    server_name: str = ""
    """Name that the broker's certificate must carry; empty means ``host``."""
    virtual_host: str = "/"


@dataclass(frozen=True, slots=True)
class MyProxySettings:
    """Where long proxies are left for renewal (section ``[myproxy]``)."""

    host: str
    port: int = 0
    """0 for the registered one."""
    server: str = ""
    """Canonical DN of the server; empty: its certificate must bear the host's name."""
    renewer: str = ""
    """DN of the service that may renew, as the server writes it."""


@dataclass(frozen=True, slots=True)
class UserSettings:
    """Where a user's credentials and trust lie; ``None`` means the grid's usual place."""

    ca_dir: Path | None = None
    """Trust directory in grid layout."""
    vomsdir: Path | None = None
    """LSC files of the VOMS servers."""
    user_cert: Path | None = None
    """The user's certificate, for making proxies."""
    user_key: Path | None = None
    """The private key to it."""
    proxy_path: Path | None = None
    """The proxy file that commands use and ``proxy init`` writes."""
    group: str = ""
    """Group to act for; empty lets the gatekeeper choose."""
    broker: BrokerSettings | None = None
    """The deployment; None where none is configured, which is enough for all that stays on this machine."""
    myproxy: MyProxySettings | None = None
    """Where long proxies are left; None where the deployment renews none."""
    origin: Path | None = None
    """The file that this was read from, for messages."""
