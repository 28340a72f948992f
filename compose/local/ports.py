"""Free TCP ports on the loopback, remembered in a file so that a restarted server keeps its address.

They are chosen below the kernel's range of ephemeral ports: there no outgoing connection can take a port while its
server is down for a moment.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import TemporaryError

LOOPBACK = "127.0.0.1"
FIRST, LAST = 10_240, 32_000  # Linux hands out 32768–60999 to outgoing connections; below 10240 lie well-known services
TRIES = 200


class NoFreePortError(TemporaryError):
    """No free port was found on the loopback."""


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nobody listens on now."""
    for _ in range(TRIES):
        port = random.randint(FIRST, LAST)  # noqa: S311 spreads neighbours apart, no secret
        if is_free(port):
            return port
    raise NoFreePortError


def kept_ports(file: Path, names: Sequence[str]) -> dict[str, int]:
    """The ports of these names: those in `file` when all of them are free, else new ones, which are written there."""
    try:
        ports = {name: int(port) for name, port in json.loads(file.read_text(encoding="ascii")).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        ports = {}
    if set(ports) == set(names) and all(0 < port < 65536 and is_free(port) for port in ports.values()):
        return ports
    chosen: set[int] = set()
    while len(chosen) < len(names):
        chosen.add(free_port())
    ports = dict(zip(names, sorted(chosen), strict=True))
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_text(json.dumps(ports), encoding="ascii")
    return ports


def listening(port: int) -> bool:
    """Whether something accepts connections on this port of the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0
