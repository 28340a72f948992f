"""A private RabbitMQ node: one directory, TLS on the loopback only, started and stopped at will.

Promises: `start()` returns when the TLS port answers, with all definitions loaded; nothing of the system's RabbitMQ is
read or changed; the ports stay the same across restarts; a node that another run of the program started can be stopped
through the same directory; with `dies_with_parent` nothing outlives a killed parent. The Erlang port mapper is the
node's own, in the foreground, on the loopback. The node runs as whoever starts it, root included (its files are then
root's). What is in the definitions is the caller's business, and so are the certificates.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.errors import ConfigurationError

from .installed import Programs, find_rabbitmq
from .ports import LOOPBACK, kept_ports, listening
from .processes import ManagedProcess, ProcessFailedError
from .rabbitmq_config import GATEKEEPER_PLUGINS, NodeSettings, TlsFiles, plugin_closure, render_advanced, render_config

__all__ = ["RabbitNode", "TlsFiles"]

BOOT_TIMEOUT = 90.0  # seconds; a boot takes 3–6, on a loaded small machine some times that
EPMD_TIMEOUT = 10.0
CTL_TIMEOUT = 60.0
STOP_GRACE = 60.0  # a second when idle; long queues are written to disk first
AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
PORTS = ("amqps", "management", "distribution", "epmd", "ctl")

DefinitionsObject = Mapping[str, object]
Definitions = DefinitionsObject | Callable[[], DefinitionsObject]


@dataclass(frozen=True)
class _Paths:
    """The layout of a node's directory."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def config(self) -> Path:
        return self.root / "rabbitmq.conf"

    @property
    def advanced(self) -> Path:
        return self.root / "advanced.config"

    @property
    def definitions(self) -> Path:
        return self.root / "definitions.json"

    @property
    def enabled(self) -> Path:
        return self.root / "enabled_plugins"

    @property
    def plugins(self) -> Path:
        return self.root / "plugins"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"


class RabbitNode:
    """A private node.

    Args:
        directory: everything of the node lies here; made if missing, mode 0700.
        tls: its certificate must name `localhost` and 127.0.0.1.
        definitions: RabbitMQ's definitions (users, permissions, exchanges, queues, bindings, policies), or a maker
            of them; written and loaded anew at every start.
        gatekeeper: base URL of the HTTPS authorization service asked after the internal users; None for none, and
            for no management interface either.
        dies_with_parent: killed by the kernel when the thread that started it ends; for tests.
        memory_limit: bytes at which publishers are blocked.
        programs: the installation to use; by default the one found on this machine.
    """

    def __init__(
        self,
        directory: Path,
        tls: TlsFiles,
        definitions: Definitions,
        *,
        gatekeeper: str | None = None,
        dies_with_parent: bool = False,
        memory_limit: int = 1 << 30,
        programs: Programs | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.tls = TlsFiles(tls.ca.absolute(), tls.certificate.absolute(), tls.key.absolute())
        self.gatekeeper = gatekeeper
        self._definitions = definitions
        self._dies_with_parent = dies_with_parent
        self._memory_limit = memory_limit
        self._programs = programs
        self._paths = _Paths(self.directory)
        self._ports: dict[str, int] = {}
        self._server = ManagedProcess("rabbitmq", self.directory)
        self._mapper = ManagedProcess("epmd", self.directory)

    @property
    def port(self) -> int:
        """The TLS port on 127.0.0.1; known before the first start, the same after a restart."""
        return self._known_ports()["amqps"]

    @property
    def management(self) -> int:
        """The HTTPS port of the management interface on 127.0.0.1."""
        return self._known_ports()["management"]

    @property
    def pid(self) -> int | None:
        """The pid of the broker's process while it lives."""
        return self._server.pid

    @property
    def running(self) -> bool:
        """Whether the broker's process lives."""
        return self._server.running

    @property
    def processes(self) -> tuple[ManagedProcess, ManagedProcess]:
        """The broker, then its port mapper: the order in which to stop them."""
        return self._server, self._mapper

    def start(self) -> None:
        """Start the node and wait until its TLS port answers. Nothing happens when it runs already.

        Raises:
            ServerMissingError: RabbitMQ is not installed.
            ConfigurationError: the TLS files are missing or do not belong together.
            ProcessFailedError: it did not come up; the message holds the end of its log.
        """
        if self.running:
            return
        self._mapper.stop()  # one left over from a killed node would hold the port
        self._ports = {}
        self._prepare()
        environment = self._environment()
        ports = self._known_ports()
        self._mapper.spawn(
            ["epmd", "-address", LOOPBACK, "-port", str(ports["epmd"])],
            environment,
            dies_with_parent=self._dies_with_parent,
        )
        try:
            self._mapper.wait_ready(lambda: listening(ports["epmd"]), EPMD_TIMEOUT)
            self._boot(environment)
            self._server.wait_ready(self._answers, EPMD_TIMEOUT)
        except ProcessFailedError as error:
            details = self._log_tail()
            self.kill()
            self._mapper.stop()
            raise ProcessFailedError(f"{error}\n{details}".rstrip()) from None

    def stop(self) -> None:
        """Shut down in good order (about a second); harmless when it is not running."""
        self._server.stop(STOP_GRACE)
        self._mapper.stop()

    def kill(self) -> None:
        """SIGKILL the broker, as a power cut would; its port mapper is left to the next start or stop."""
        self._server.kill()

    def restart(self) -> None:
        """Stop and start; ports and durable contents stay."""
        self.stop()
        self.start()

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` answers to these arguments (about a second each).

        Raises:
            ProcessFailedError: it failed; the message is its output.
        """
        self._known_ports()
        programs = self._installation()
        try:
            result = subprocess.run(
                [programs.folder / "rabbitmqctl", "--quiet", *arguments],
                env=self._environment(),
                capture_output=True,
                text=True,
                timeout=CTL_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProcessFailedError(f"rabbitmqctl {arguments[0]} gave no answer in {CTL_TIMEOUT:g} s") from None
        if result.returncode != 0:
            raise ProcessFailedError(f"rabbitmqctl {arguments[0]} failed:\n{result.stdout}{result.stderr}".rstrip())
        return result.stdout

    def load_definitions(self, definitions: DefinitionsObject) -> None:
        """Add definitions to the running node (half a second)."""
        with tempfile.NamedTemporaryFile("w", dir=self.directory, suffix=".json", encoding="utf-8") as file:
            json.dump(definitions, file)
            file.flush()
            self.ctl("import_definitions", file.name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---- below: how it is done

    def _installation(self) -> Programs:
        if self._programs is None:
            self._programs = find_rabbitmq()
        return self._programs

    def _known_ports(self) -> dict[str, int]:
        if not self._ports:
            if self.running:  # started by another run: its ports are busy because they are its own
                self._ports = {
                    name: int(port) for name, port in json.loads(self._paths.ports.read_text("ascii")).items()
                }
            else:
                self._ports = kept_ports(self._paths.ports, PORTS)
        return self._ports

    def _prepare(self) -> None:
        programs, paths = self._installation(), self._paths
        _check_tls(self.tls)
        for folder in (self.directory, paths.home, paths.plugins):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        cookie = paths.home / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(20), encoding="ascii")
            cookie.chmod(0o400)
        settings = NodeSettings(
            self.port,
            self.tls,
            paths.definitions,
            gatekeeper=self.gatekeeper,
            management=self.management,
            memory_limit=self._memory_limit,
        )
        paths.advanced.write_text(render_advanced(settings), encoding="utf-8")
        paths.config.write_text(render_config(settings), encoding="utf-8")
        definitions = self._definitions() if callable(self._definitions) else self._definitions
        _write_private(paths.definitions, json.dumps(definitions))
        wanted = GATEKEEPER_PLUGINS if self.gatekeeper is not None else ()
        paths.enabled.write_text(f"[{','.join(wanted)}].\n", encoding="ascii")
        self._link_plugins(programs, wanted)

    def _link_plugins(self, programs: Programs, wanted: Iterable[str]) -> None:
        home = (programs.folder / "rabbitmq-server").resolve().parent.parent
        for old in self._paths.plugins.iterdir():
            old.unlink()
        for plugin in plugin_closure(("rabbit", *wanted), home / "plugins").values():
            (self._paths.plugins / plugin.name).symlink_to(plugin)

    def _environment(self) -> dict[str, str]:
        ports, paths = self._known_ports(), self._paths
        loopback_only = "-kernel inet_dist_use_interface {127,0,0,1}"
        nowhere = str(self.directory / "none")  # else files of /etc/rabbitmq would be read too
        return self._installation().environment() | {
            "HOME": str(paths.home),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(ports["epmd"]),
            "ERL_CRASH_DUMP": str(self.directory / "log" / "erl_crash.dump"),
            "RABBITMQ_NODENAME": "pilotage@localhost",
            "RABBITMQ_CONFIG_FILE": str(paths.config),
            "RABBITMQ_CONFIG_FILES": nowhere,
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(paths.advanced),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(paths.enabled),
            "RABBITMQ_PLUGINS_DIR": str(paths.plugins),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_PID_FILE": str(self.directory / "run" / "broker.pid"),
            "RABBITMQ_DIST_PORT": str(ports["distribution"]),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(ports["ctl"]),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(ports["ctl"] + 10),  # several ctl commands may run at once
            "RABBITMQ_CTL_ERL_ARGS": loopback_only,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback_only,
        }

    def _boot(self, environment: Mapping[str, str]) -> None:
        """Spawn the broker and wait for its READY=1 (sd_notify(3)); with NOTIFY_SOCKET set its script execs the VM."""
        # A short path of its own: the address of a Unix socket has 108 bytes at most.
        with (
            tempfile.TemporaryDirectory(prefix="pilotage-") as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
        ):
            address = f"{folder}/notify"
            ready.bind(address)
            ready.setblocking(False)
            self._server.spawn(
                [str(self._installation().folder / "rabbitmq-server")],
                {**environment, "NOTIFY_SOCKET": address},
                cwd=self.directory,
                dies_with_parent=self._dies_with_parent,
            )
            self._server.wait_ready(lambda: _got_ready(ready), BOOT_TIMEOUT)

    def _answers(self) -> bool:
        """Whether the TLS port speaks AMQP: with broken TLS options the broker says ready, but never listens."""
        context = ssl.create_default_context(cafile=str(self.tls.ca))
        context.check_hostname = False  # the address is the loopback's; the chain is what matters here
        try:
            with (
                socket.create_connection((LOOPBACK, self.port), timeout=5) as raw,
                context.wrap_socket(raw) as stream,
            ):
                stream.sendall(AMQP_HEADER)
                return stream.recv(1) == b"\x01"  # a method frame: connection.start
        except OSError:
            return False

    def _log_tail(self) -> str:
        logs = sorted((self.directory / "log").glob("pilotage@localhost*.log"), key=lambda file: file.stat().st_mtime)
        lines = logs[-1].read_text("utf-8", "replace").splitlines() if logs else []
        return "\n".join([line for line in lines if "[error]" in line][-10:])


def _got_ready(ready: socket.socket) -> bool:
    try:
        return b"READY=1" in ready.recv(4096)
    except BlockingIOError:
        return False


def _check_tls(tls: TlsFiles) -> None:
    """Refuse files that the broker could not use: it would boot all the same, and never listen."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(tls.ca)
        context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError is one too
        files = f"{tls.ca}, {tls.certificate}, {tls.key}"
        raise ConfigurationError(f"the broker's TLS files cannot be used ({error}): {files}") from None


def _write_private(file: Path, text: str) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
