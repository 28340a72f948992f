"""Where the programs of RabbitMQ and PostgreSQL lie on this machine.

Looks at the places of Debian's packages first, then at the folder into which `compose/servers.sh` unpacks the same
packages for users without root. Only looks; installs nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError

SYSTEM = Path("/")


class ServerMissingError(ConfigurationError):
    """A server program is not installed on this machine."""


@dataclass(frozen=True)
class Programs:
    """An installed server.

    Attributes:
        folder: where its programs lie.
        prefix: `/`, or the folder into which its packages were unpacked.
        version: its version, as numbers.
    """

    folder: Path
    prefix: Path
    version: tuple[int, ...]

    def environment(self) -> dict[str, str]:
        """PATH, and the library path of an unpacked prefix."""
        system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        if self.prefix == SYSTEM:
            return {"PATH": ":".join([str(self.folder), *system])}
        binaries = [str(self.folder), str(self.prefix / "usr/bin"), str(self.prefix / "bin")]
        libraries = [
            str(path) for pattern in ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*") for path in self.prefix.glob(pattern)
        ]
        return {"PATH": ":".join([*binaries, *system]), "LD_LIBRARY_PATH": ":".join(libraries)}


def servers_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where unpacked servers lie: PILOTAGE_SERVERS, else below the XDG data home."""
    if named := environ.get("PILOTAGE_SERVERS"):
        return Path(named)
    data = environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path("~/.local/share").expanduser()) / "pilotage" / "servers"


def find_rabbitmq(servers: Path | None = None) -> Programs:
    """RabbitMQ's programs.

    Raises:
        ServerMissingError: the message says how to get it.
    """
    for prefix in (SYSTEM, (servers or servers_folder()) / "rabbitmq"):
        script = prefix / "usr/lib/rabbitmq/bin/rabbitmq-server"
        if script.exists():
            match = re.search(r"rabbitmq_server-(\d+)\.(\d+)\.(\d+)", str(script.resolve()))
            if match:
                return Programs(script.parent, prefix, tuple(int(part) for part in match.groups()))
    raise ServerMissingError("RabbitMQ is not installed: run `make setup`, or install the package rabbitmq-server")


def find_postgres(servers: Path | None = None) -> Programs:
    """The newest PostgreSQL's programs.

    Raises:
        ServerMissingError: the message says how to get it.
    """
    for prefix in (SYSTEM, (servers or servers_folder()) / "postgres"):
        found = [
            path.parent for path in prefix.glob("usr/lib/postgresql/*/bin/initdb") if path.parent.parent.name.isdigit()
        ]
        if found:
            newest = max(found, key=lambda folder: int(folder.parent.name))
            return Programs(newest, prefix, (int(newest.parent.name),))
    raise ServerMissingError(
        "PostgreSQL is not installed: run `make setup SERVERS='rabbitmq postgres'`, or install the package postgresql"
    )
