"""Frozen settings of the services, made once in the composition root."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from broker.transport import Endpoint
from schemas.messages.registrar import Policy

from .domain.shares import Policy as Fading


@dataclass(frozen=True)
class LeaseSettings:
    """Times around leases, in seconds. The defaults are production's; tests make them short.

    Attributes:
        accept: acceptance lease of a match.
        sweep: how often leases are looked at.
        silent: without a sign of life for so long a job is shown as Stalled.
    """

    accept: float = 20.0
    sweep: float = 2.0
    silent: float = 90.0


class SourceKind(StrEnum):
    """How a VO's source is spoken to."""

    VOMS_DATABASE = "voms-database"
    IAM_SCIM = "iam-scim"


@dataclass(frozen=True)
class SourceSettings:
    """A source of the registry.

    Attributes:
        name: by which it is known.
        kind: how it is spoken to.
        url: where it is, without a secret in it.
        secret_file: password of the database's account, or IAM's bearer token.
        ca_file: whose certificates its server may have; the system's by default.
        groups: groups of ours that it feeds; empty for all whose FQAN it knows and that give no power.
        max_loss: share of its users that it may take away at once.
    """

    name: str
    kind: SourceKind
    url: str
    secret_file: Path | None = None
    ca_file: Path | None = None
    groups: tuple[str, ...] = ()
    max_loss: float = 0.2


@dataclass(frozen=True)
class RegistrySettings:
    """What the registry does by itself.

    Attributes:
        sources: of the VO.
        cycle: seconds between two looks at them: VOs change by the day, and whoever was suspended there shall be out
            within minutes; an answer costs the source a second or two.
        on_removed: what becomes of the jobs of somebody who is removed, or taken out of a group.
        on_suspended: and of somebody who is suspended.
    """

    sources: tuple[SourceSettings, ...] = ()
    cycle: float = 300.0
    on_removed: Policy = Policy.KILL
    on_suspended: Policy = Policy.HOLD


@dataclass(frozen=True)
class ProxySettings:
    """Times of the proxy repository, in seconds. The defaults are production's; tests make some short.

    Attributes:
        longest: of a stored proxy; also what is asked for when one is renewed.
        longest_own: of a submission's own proxy.
        issue_floor: a pilot's proxy is not made shorter for a short job.
        issue_ceiling: and not longer for a long one; who runs on asks again.
        idle: an account's proxy is forgotten when no job of it was active for so long.
        look: how often stored proxies are looked after.
    """

    longest: float = 12 * 3600.0
    longest_own: float = 7 * 86_400.0
    issue_floor: float = 3600.0
    issue_ceiling: float = 12 * 3600.0
    idle: float = 1800.0
    look: float = 30.0


@dataclass(frozen=True)
class MyProxySettings:
    """The MyProxy server from which stored proxies are renewed.

    Attributes:
        host: name or address.
        credential: the service's host certificate, chain and key: the authorized renewer.
        port: TCP port.
        server: canonical DN of the server; empty: its certificate must bear the host's name.
    """

    host: str
    credential: Path
    port: int = 7512
    server: str = ""


@dataclass(frozen=True)
class RenewalSettings:
    """Where stored proxies are renewed and get attributes.

    Attributes:
        trust_dir: CA directory in grid layout.
        myproxy: the MyProxy server; None: proxies are not renewed.
        vomses: file or folder that names the VOMS servers; None: proxies get no attributes.
    """

    trust_dir: Path = Path()
    myproxy: MyProxySettings | None = None
    vomses: Path | None = None


@dataclass(frozen=True)
class ServerSettings:
    """Everything that a serving process must know.

    Attributes:
        deployment: name of the deployment, audience of logins.
        endpoint: the broker.
        store_url: SQLAlchemy URL, without a secret in it.
        trust_dir: CA directory in grid layout.
        voms_dir: LSC files, if any.
        registry_file: TOML seed of the registry.
        credentials: folder with ``<service>.pem`` (chain and key) and ``<service>.secret`` (broker password).
        master_keys: files with Fernet keys, newest first, for what is encrypted at rest.
        pilot_authority: key and certificate of the authority that certifies enrolled pilots, if there is one.
        gatekeeper_host: loopback address where RabbitMQ asks.
        gatekeeper_port: and the port.
        gatekeeper_certificate: by which RabbitMQ knows the gatekeeper.
        gatekeeper_key: and its key.
        management_port: RabbitMQ's management interface on the same address, by HTTPS.
        vomses: file or folder that names the VOMS servers, if proxies are to get attributes.
        myproxy: where stored proxies are renewed, if anywhere.
        origin: the file that this was read from.
    """

    deployment: str
    endpoint: Endpoint
    store_url: str
    trust_dir: Path
    registry_file: Path
    credentials: Path
    master_keys: tuple[Path, ...]
    gatekeeper_port: int
    gatekeeper_certificate: Path
    gatekeeper_key: Path
    management_port: int
    gatekeeper_host: str = "127.0.0.1"
    voms_dir: Path | None = None
    store_password_file: Path | None = None
    pilot_authority: Path | None = None
    leases: LeaseSettings = field(default_factory=LeaseSettings)
    shares: Fading = field(default_factory=Fading)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    proxies: ProxySettings = field(default_factory=ProxySettings)
    myproxy: MyProxySettings | None = None
    vomses: Path | None = None
    origin: Path | None = None
