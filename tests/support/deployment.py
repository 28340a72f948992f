"""A private deployment inside the test process: real broker over TLS, gatekeeper, any services; identities of its own.

with deployment(tmp_path, services=["gatekeeper", "job-manager"]) as d:
    with d.session(d.pilot(1)) as session: ...
"""

from __future__ import annotations

import contextlib
import datetime as dt
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.connection import Endpoint
from broker.identity import Credential, create_proxy, load_credential
from broker.session import Session, SessionSettings
from broker.topology import InternalUser, definitions
from compose.local.configs import (
    DEPLOYMENT,
    Addresses,
    write_client_config,
    write_registry,
    write_server_config,
)
from compose.local.identities import ensure_identities, read_secret, service_dn
from compose.local.layout import Layout
from compose.local.ports import free_port
from compose.local.rabbitmq import RabbitNode
from compose.local.rabbitmq_config import TlsFiles
from compose.server_settings import load
from compose.services import NAMES, ServiceGroup
from compose.settings import load_user_settings
from consumers.settings import ServerSettings
from producers import Client
from tests.support.certified_pilots import make_pilots, pilot_credential, write_pilot_config

PILOTS = 3
SLOT_MEMORY_MB = 2000


@dataclass
class Deployment:
    """What a test gets.

    Attributes:
        layout: files of the deployment.
        node: the broker.
        settings: of the services.
        services: those that run in this process.
    """

    layout: Layout
    node: RabbitNode
    settings: ServerSettings
    services: ServiceGroup | None

    @property
    def session_settings(self) -> SessionSettings:
        """How clients reach it."""
        return SessionSettings(
            endpoint=Endpoint("127.0.0.1", self.node.port, self.layout.tls / "ca.pem"),
            broker=DEPLOYMENT,
            trust_dir=self.layout.trust,
            gatekeeper=service_dn("gatekeeper"),
        )

    def user(self, *, limited: bool = False, hours: float = 12.0) -> Credential:
        """A fresh proxy of the user."""
        end_entity = load_credential(self.layout.user_certificate, key=self.layout.user_key)
        return create_proxy(
            end_entity.ders,
            end_entity.key,
            lifetime=dt.timedelta(hours=hours),
            limited=limited,
            now=dt.datetime.now(dt.UTC),
        )

    def pilot(self, number: int) -> Credential:
        """A pilot's certificate."""
        return load_credential(pilot_credential(self.layout, number))

    def client(self, credential: Credential | None = None) -> Client:
        """A user's client."""
        environment = {"PILOTAGE_CONFIG": str(self.layout.client_config), "HOME": str(self.layout.root)}
        return Client(load_user_settings(environment), credential or self.user())

    @contextlib.contextmanager
    def running_pilot(self, number: int) -> Iterator[subprocess.Popen[bytes]]:
        """A pilot as a real process; ended in order."""
        command = [sys.executable, "-P", "-m", "compose.pilot", "--config", str(self.layout.pilot_config(number))]
        process = subprocess.Popen(command, cwd=self.layout.root)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(40)

    @contextlib.contextmanager
    def session(self, credential: Credential, group: str = "") -> Iterator[Session]:
        """An open session."""
        session = Session(self.session_settings, credential, group=group, name="test")
        try:
            session.open()
            yield session
        finally:
            session.close()


def make_layout(folder: Path) -> Layout:
    """Identities and registry, without any server."""
    layout = Layout(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = dt.datetime.now(dt.UTC)
    ensure_identities(layout, now)
    write_registry(layout)
    make_pilots(layout, PILOTS, now)
    return layout


def make_node(layout: Layout, gatekeeper_port: int) -> RabbitNode:
    """The deployment's broker, not started."""
    tls = TlsFiles(layout.tls / "ca.pem", layout.tls / "server.pem", layout.tls / "server.key")
    users = [InternalUser(name, read_secret(layout.services / f"{name}.secret")) for name in NAMES]
    return RabbitNode(
        layout.broker,
        tls,
        definitions(users),
        gatekeeper=f"https://localhost:{gatekeeper_port}/auth",
        dies_with_parent=True,
    )


@contextlib.contextmanager
def deployment(
    folder: Path,
    *,
    services: Sequence[str] = NAMES,
    store_url: str | None = None,
    pilots: int = PILOTS,
    change: Callable[[str], str] = lambda text: text,
) -> Iterator[Deployment]:
    """A running deployment; ``services`` run in this process (none: only the broker and the files).

    ``change`` changes the text of the services' configuration.
    """
    layout = make_layout(folder)
    gatekeeper_port = free_port()
    node = make_node(layout, gatekeeper_port)
    with contextlib.ExitStack() as stack:
        node.start()
        stack.callback(node.stop)
        url = store_url or f"sqlite:///{layout.sqlite}"
        addresses = Addresses(node.port, gatekeeper_port, url, node.management)
        write_server_config(layout, addresses)
        write_client_config(layout, addresses)
        for number in range(1, pilots + 1):
            write_pilot_config(layout, addresses, number, 2)
            # A payload that eats memory is to be stopped long before the machine suffers.
            config = layout.pilot_config(number)
            config.write_text(config.read_text().replace("[pilot]", f"[pilot]\nmemory_mb = {SLOT_MEMORY_MB}"))
        layout.server_config.write_text(change(layout.server_config.read_text()))
        settings = load(layout.server_config)
        group = stack.enter_context(ServiceGroup(settings, services)) if services else None
        yield Deployment(layout, node, settings, group)
