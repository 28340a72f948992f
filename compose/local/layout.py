"""Where everything of a private stack lies: one data directory, told by name. Paths only; nothing is opened here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The data directory of a private stack.

    Attributes:
        root: absolute.
    """

    root: Path

    @property
    def state(self) -> Path:
        """What was chosen: number of pilots, slots, store. Its presence says that this is a data directory of ours."""
        return self.root / "stack.json"

    # -- identities

    @property
    def authority(self) -> Path:
        """Key and certificate of the throwaway authority."""
        return self.root / "ca" / "authority.pem"

    @property
    def pilot_authority(self) -> Path:
        """Key and certificate of the authority that certifies enrolled pilots."""
        return self.services / "pilot-authority-ca.pem"

    @property
    def trust(self) -> Path:
        """Trust directory in grid layout."""
        return self.root / "ca" / "certificates"

    @property
    def tls(self) -> Path:
        """TLS files: ``ca.pem``; ``server.pem`` and ``.key`` of the broker; ``gatekeeper.pem`` and ``.key``."""
        return self.root / "tls"

    @property
    def services(self) -> Path:
        """``<service>.pem`` and ``<service>.secret`` of each service, and the master key."""
        return self.root / "services"

    @property
    def master_key(self) -> Path:
        """Fernet key for what is encrypted at rest."""
        return self.services / "master.key"

    @property
    def user(self) -> Path:
        """The user's certificate and key, as the grid names them."""
        return self.root / "user"

    @property
    def user_certificate(self) -> Path:
        """The user's certificate."""
        return self.user / "usercert.pem"

    @property
    def user_key(self) -> Path:
        """The private key to it."""
        return self.user / "userkey.pem"

    # -- configuration

    @property
    def registry(self) -> Path:
        """Seed of the registry."""
        return self.root / "registry.toml"

    @property
    def server_config(self) -> Path:
        """Configuration of the services."""
        return self.root / "server.toml"

    @property
    def client_config(self) -> Path:
        """Configuration of the users' tools; ``compose.settings`` looks for it here."""
        return self.root / "client.toml"

    def pilot_config(self, number: int) -> Path:
        """Configuration of a pilot."""
        return self.pilots / f"pilot-{number}.toml"

    def pilot_identity(self, number: int) -> Path:
        """The DN to which a pilot was enrolled last."""
        return self.pilots / f"pilot-{number}.dn"

    # -- data

    @property
    def broker(self) -> Path:
        """RabbitMQ's own directory."""
        return self.root / "broker"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's own directory, if it is the store."""
        return self.root / "pg"  # short: a Unix socket lies in it

    @property
    def sqlite(self) -> Path:
        """The SQLite store."""
        return self.root / "store" / "pilotage.sqlite"

    @property
    def pilots(self) -> Path:
        """Configuration and work areas of the pilots."""
        return self.root / "pilots"

    def pilot_work(self, number: int) -> Path:
        """Work area of a pilot."""
        return self.pilots / f"pilot-{number}"

    @property
    def storage(self) -> Path:
        """Folder of the local storage element."""
        return self.root / "storage"

    # -- running

    @property
    def run(self) -> Path:
        """Pid files."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Logs of services and pilots."""
        return self.root / "log"

    @property
    def ready(self) -> Path:
        """Written by the services once they serve; holds their pid."""
        return self.run / "services.ready"

    @property
    def ports(self) -> Path:
        """The gatekeeper's port, kept over restarts."""
        return self.root / "ports.json"
