"""Puts services together: identity, broker connection, engine and thread for each. No logic of its own."""

from __future__ import annotations

import base64
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from broker.authorization import SERVICES, Door
from broker.connection import Connection
from broker.identity import Authority, TrustStore, VomsDir, load_credential
from broker.signing import Signer, facts_of
from broker.subscriber import Gate
from broker.topology import (
    CUTS_ARGUMENTS,
    CUTS_PREFIX,
    FOLLOWERS_ARGUMENTS,
    FOLLOWERS_PREFIX,
    Queue,
    QueueType,
    queues_of,
)
from broker.transport import Login, Pace, State
from consumers import announcing
from consumers.auditor import Auditor
from consumers.batch import Consumer
from consumers.broker_connections import BrokerConnections, ManagementEndpoint
from consumers.cut_off import CutOff
from consumers.cutting import Cutter
from consumers.dead_letters import DeadLetters
from consumers.directory import Directory
from consumers.engine import Engine
from consumers.gatekeeper import Gatekeeper
from consumers.gatekeeper_http import GatekeeperServer, ServerIdentity
from consumers.job_manager import JobManager
from consumers.job_monitor import JobMonitor
from consumers.job_state import JobState
from consumers.matcher import Matcher
from consumers.optimizer import Optimizer
from consumers.passes import ClosingPasses
from consumers.pilot_authority import PilotAuthority
from consumers.proxy_manager import ProxyManager
from consumers.registry import RegistryKeeper
from consumers.relay import Relay
from consumers.replica_catalog import ReplicaCatalog
from consumers.sandbox_store import SandboxStore
from consumers.settings import RenewalSettings, ServerSettings
from consumers.store import Store, chains
from consumers.vault import Vault, load_keys
from schemas.errors import ConfigurationError, PilotageError
from schemas.messages.event import EVENTS
from schemas.toml import parse_toml

from .guarded import check_files
from .server_settings import load as load_settings

NAMES = tuple(sorted(SERVICES))
"""Services that there are."""

CUTS = ((Door.EVENTS.value, "identity.blocked.v1"),)
"""What a gatekeeper's own queue is bound to."""

CONNECT_SECONDS = 30.0
"""How long a start waits for the broker."""

STOP_SECONDS = 10.0
"""How long a stop waits for what is at work."""

PACE = Pace(longest=3.0)
"""Services are few, and everybody waits for them: they look for a broker that was away more often than clients do. The
gatekeeper must be back soon, or the broker refuses logins."""

MAX_SECRET_BYTES = 4096

log = structlog.get_logger(__name__)

Maker = Callable[[ServerSettings, Directory, Connection], Consumer]


def _holder() -> str:
    return f"{os.uname().nodename}.{os.getpid()}.{os.urandom(4).hex()}"


def _master_keys(settings: ServerSettings) -> list[bytes]:
    """The master keys that the configuration names now: a new one may have been put first since the start."""
    named = load_settings(settings.origin).master_keys if settings.origin is not None else settings.master_keys
    return load_keys(named)


MAKERS: dict[str, Maker] = {
    "auditor": lambda _settings, _directory, _connection: Auditor(_holder()),
    "dead-letters": lambda _settings, _directory, _connection: DeadLetters(),
    "job-manager": lambda _settings, directory, _connection: JobManager(directory),
    "job-monitor": lambda settings, directory, _connection: JobMonitor(directory=directory, fading=settings.shares),
    "job-state": lambda settings, directory, connection: JobState(
        settings.leases,
        lambda: connection.state is State.CONNECTED,
        _holder(),
        lambda: bool(directory.registry().match_limits),
    ),
    "matcher": lambda settings, directory, _connection: Matcher(settings.leases, directory, _holder(), settings.shares),
    "optimizer": lambda _settings, directory, _connection: Optimizer(directory=directory),
    "pilot-authority": lambda settings, directory, _connection: PilotAuthority(
        directory, Authority.load(settings.pilot_authority) if settings.pilot_authority else None, settings.deployment
    ),
    "proxy-manager": lambda settings, directory, _connection: ProxyManager(
        directory,
        Vault(load_keys(settings.master_keys), lambda: _master_keys(settings)),
        settings.proxies,
        RenewalSettings(settings.trust_dir, settings.myproxy, settings.vomses),
    ),
    "registry": lambda settings, _directory, _connection: RegistryKeeper(settings.registry, holder=_holder()),
    "relay": lambda _settings, _directory, _connection: Relay(),
    "replica-catalog": lambda _settings, directory, _connection: ReplicaCatalog(directory=directory),
    "sandbox-store": lambda _settings, directory, _connection: SandboxStore(directory),
}
"""How each consumer is made; the gatekeeper is none, it answers RabbitMQ."""


class ServiceGroup:
    """The services of one process.

    Args:
        settings: of the deployment.
        names: which services.
    """

    def __init__(self, settings: ServerSettings, names: Iterable[str]) -> None:
        self._settings = settings
        self._names = list(names)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._engines: list[Engine] = []
        self._connections: list[Connection] = []
        self._http: GatekeeperServer | None = None
        self._passes = ClosingPasses()
        self._store: Store | None = None
        self.failed = False

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait(self, stop: threading.Event) -> None:
        """Serve until told to stop, or until a service's thread ends by itself."""
        while not stop.wait(0.5):
            if any(not thread.is_alive() for thread in self._threads):
                self.failed = True
                log.error("services.thread_ended")
                return

    def close(self) -> None:
        """Finish what is at work and stop; harmless when done twice."""
        self._stop.set()
        for engine in self._engines:
            engine.wake()
        for thread in self._threads:
            thread.join(STOP_SECONDS)
        if self._http is not None:
            self._http.stop()
            self._http = None
        for connection in self._connections:
            connection.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    # -- starting -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        settings = self._settings
        check_files(settings)
        password = _secret(settings.store_password_file) if settings.store_password_file else None
        store = self._store = Store.open(settings.store_url, password=password)
        trust = TrustStore.load(settings.trust_dir)
        voms = VomsDir.load(settings.voms_dir) if settings.voms_dir else None
        self._seed(store)
        directory = Directory(store, trust, voms)
        signers = {name: self._signer(name, store, directory) for name in self._names}
        if "gatekeeper" in self._names:
            self._start_gatekeeper(store, directory, signers["gatekeeper"])
        for name in self._names:
            if name != "gatekeeper":
                self._start_consumer(name, store, directory, signers[name])
        for engine in self._engines:
            while not engine.ready.wait(0.1):
                if any(not thread.is_alive() for thread in self._threads):
                    raise PilotageError("a service could not start; its log says why")
        log.info("services.ready", names=self._names)

    def _seed(self, store: Store) -> None:
        try:
            data = self._settings.registry_file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{self._settings.registry_file}: {error.strerror}") from None
        parsed = parse_toml(data, self._settings.registry_file)
        with store.transaction() as tx:
            changes = announcing.seed(tx, parsed, self._settings.registry, time.time())
        if changes:
            counts = {"added": len(changes.added), "changed": len(changes.changed), "removed": len(changes.removed)}
            log.info("registry.seeded", **counts)

    def _signer(self, name: str, store: Store, directory: Directory) -> Signer:
        """Load a service's identity and make its chain known."""
        credential = load_credential(self._settings.credentials / f"{name}.pem")
        chain = directory.verify(list(credential.ders))
        if directory.registry().service_of(chain.identity) != name:
            raise ConfigurationError(f"{chain.identity} is not registered as service {name}")
        with store.transaction() as tx:
            now = directory.now()
            chains.put(tx, chain.thumbprint_b64url, chain.ders, chain.identity, chain.not_after.timestamp(), now)
        directory.remember(chain.thumbprint_b64url, facts_of(chain))
        x5c = tuple(base64.b64encode(der).decode() for der in chain.ders)
        return Signer(credential.key, chain.thumbprint_b64url, chain.identity, name, x5c=x5c)

    def _connect(self, name: str) -> Connection:
        secret = _secret(self._settings.credentials / f"{name}.secret")
        connection = Connection(self._settings.endpoint, lambda: Login(name, secret), name=name, pace=PACE)
        self._connections.append(connection)
        connection.start(CONNECT_SECONDS)
        return connection

    def _start_gatekeeper(self, store: Store, directory: Directory, signer: Signer) -> None:
        gatekeeper = Gatekeeper(
            store=store,
            directory=directory,
            connection=self._connect("gatekeeper"),
            signer=signer,
            broker=self._settings.deployment,
        )
        settings = self._settings
        self._http = GatekeeperServer(
            gatekeeper,
            ServerIdentity(settings.gatekeeper_certificate, settings.gatekeeper_key),
            passes=self._passes,
            host=settings.gatekeeper_host,
            port=settings.gatekeeper_port,
        )
        self._http.start()
        connection = self._connect("gatekeeper")
        endpoint = settings.endpoint
        where = ManagementEndpoint(
            settings.gatekeeper_host, settings.management_port, endpoint.ca_file, endpoint.server_name or endpoint.host
        )
        cutter = Cutter(
            store=store,
            directory=directory,
            gatekeeper=gatekeeper,
            connection=connection,
            broker=BrokerConnections(where, self._passes),
            clock=directory.now,
        )
        cuts = Queue(CUTS_PREFIX + os.urandom(8).hex(), "gatekeeper", CUTS, "who lost his rights", QueueType.CLASSIC)
        keep = functools.partial(_declare_cuts, connection, cuts)
        keep()
        consumer = CutOff(directory, cutter, keep)
        self._start_engine(consumer, store, directory, connection, signer, [*queues_of("gatekeeper"), cuts])

    def _start_consumer(self, name: str, store: Store, directory: Directory, signer: Signer) -> None:
        connection = self._connect(name)
        consumer = MAKERS[name](self._settings, directory, connection)
        queues = list(queues_of(name))
        if name == "job-monitor":
            queues.append(_followers(connection))
        self._start_engine(consumer, store, directory, connection, signer, queues)

    def _start_engine(
        self,
        consumer: Consumer,
        store: Store,
        directory: Directory,
        connection: Connection,
        signer: Signer,
        queues: list[Queue],
    ) -> None:
        name = consumer.name
        engine = Engine(
            consumer,
            store=store,
            connection=connection,
            signer=signer,
            gate=Gate({name, EVENTS}, directory, directory),
            queues=queues,
        )
        self._engines.append(engine)
        thread = threading.Thread(target=self._run, args=(name, engine), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, name: str, engine: Engine) -> None:
        try:
            engine.run(self._stop)
        except Exception:
            log.exception("service.died", name=name)


def _declare_cuts(connection: Connection, queue: Queue) -> None:
    """Make the queue by which this gatekeeper hears of everybody who lost his rights; harmless if it is there."""
    connection.declare_queue(queue.name, durable=True, arguments=CUTS_ARGUMENTS)
    for exchange, key in queue.bindings:
        connection.bind_queue(queue.name, exchange, key)


def _followers(connection: Connection) -> Queue:
    """The queue by which this process hears of every change of a job."""
    name = FOLLOWERS_PREFIX + os.urandom(8).hex()
    bindings = ((Door.EVENTS.value, "job.changed.v1"),)
    queue = Queue(name, "job-monitor", bindings, "changes for followers", type=QueueType.CLASSIC)
    connection.declare_queue(name, durable=True, arguments=FOLLOWERS_ARGUMENTS)
    for exchange, key in bindings:
        connection.bind_queue(name, exchange, key)
    return queue


def _secret(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")[:MAX_SECRET_BYTES].strip()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
