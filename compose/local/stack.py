"""A private stack on this machine: broker, services, pilots, in one data directory; started, looked at and stopped.

Promises: `up()` returns when everything serves, or stops what there is and says what failed; it may be called at any
time and starts only what is missing, also after a crash or a reboot; `down()` ends everything in the order in which
nothing is lost, and leaves no process; jobs, keys and ports survive both. One command at a time changes a directory.
Lies elsewhere: identities, configuration files, the single processes.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.authorization import SERVICES
from broker.topology import InternalUser, definitions
from schemas.errors import ConfigurationError, InvalidInputError
from schemas.identity import client_id_prefix

from .choices import Choices, load_choices, save_choices
from .configs import (
    MAX_PILOTS,
    Addresses,
    default_slots,
    write_client_config,
    write_pilot_config,
    write_registry,
    write_server_config,
)
from .database import Database
from .files import private_folder, write_private
from .identities import ensure_identities, read_secret
from .layout import Layout
from .own_user import can_log_in, enrol_pilots
from .ports import is_free, kept_ports
from .processes import INHERITED, PRIVATE, ManagedProcess, ProcessFailedError, directory_lock, stop_in_order
from .rabbitmq import RabbitNode
from .rabbitmq_config import TlsFiles

SERVICES_TIMEOUT = 60.0
"""Seconds for all services to serve; two on a quiet machine."""

PILOT_TIMEOUT = 30.0
"""Seconds for a pilot to log in; one on a quiet machine."""

PILOT_GRACE = 30.0
"""Seconds for a pilot to end its payloads and say goodbye; it takes 20 at most."""

SERVICES_GRACE = 30.0
"""Seconds for the services to finish what is at work; longer than they allow themselves."""

Say = Callable[[str], None]

_KEPT = ("HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
         "PYTHONPATH", "VIRTUAL_ENV", "PYTHONWARNINGS", "COVERAGE_PROCESS_START")  # fmt: skip
"""All that our processes get of the caller's environment; his credentials' variables are none of theirs."""


class Stack:
    """The private stack of one data directory.

    Args:
        root: the data directory.
        dies_with_parent: everything is killed by the kernel when the thread that started it ends; for stacks that
            must not outlive a command.
    """

    def __init__(self, root: Path, *, dies_with_parent: bool = False) -> None:
        self.layout = Layout(root.absolute())
        self._dies = dies_with_parent
        self._services = ManagedProcess("services", self.layout.root)

    # -- up and down --------------------------------------------------------------------------------------------

    def up(
        self, say: Say, *, pilots: int | None = None, slots: int | None = None, store: str | None = None
    ) -> list[str]:
        """Start what does not run, and wait until everything serves.

        Args:
            say: told of each step that is done.
            pilots: how many; by default as many as the last time, two at first.
            slots: processors that each pilot offers; by default they share the machine's.
            store: ``sqlite``, ``postgres`` (a private cluster) or a URL; chosen once, at the first start.

        Returns:
            The names of what was started; empty if everything ran already.

        Raises:
            PilotageError: what failed, with the end of its log; nothing runs then.
        """
        if pilots is not None and not 0 <= pilots <= MAX_PILOTS:
            raise InvalidInputError(f"a private stack has 0 to {MAX_PILOTS} pilots")
        layout = self.layout
        self._refuse_foreign()
        with directory_lock(layout.root):
            choices = load_choices(layout.state).changed(pilots=pilots, slots=slots, store=store)
            private_folder(layout.root, self._database(choices).root_mode)
            save_choices(layout.state, choices)
            try:
                return self._up(say, choices)
            except BaseException:
                self._stop_everything()
                raise

    def down(self, say: Say) -> bool:
        """Stop everything; says whether anything ran."""
        if not self.made:
            return False
        with directory_lock(self.layout.root):
            ran = any(process.running for process in self.processes())
            self._stop_everything(say)
        return ran

    def purge(self, say: Say) -> None:
        """Stop everything and delete the data directory.

        Raises:
            ConfigurationError: it is none of ours.
        """
        root = self.layout.root
        if not root.exists():
            return
        if not self.layout.state.is_file():
            raise ConfigurationError(f"{root} does not look like the data of a private stack; nothing was removed")
        with directory_lock(root):
            self._stop_everything(say)
            shutil.rmtree(root)

    # -- what there is ------------------------------------------------------------------------------------------

    @property
    def choices(self) -> Choices:
        """What was chosen at the last start."""
        return load_choices(self.layout.state)

    @property
    def made(self) -> bool:
        """Whether this stack was ever started."""
        return self.layout.state.is_file()

    def processes(self) -> list[ManagedProcess]:
        """All processes that belong to this stack now, running or not: in the order of starting."""
        database = self._database(self.choices).process
        first = [database] if database is not None else []
        return [*first, *reversed(self._node().processes), self._services, *self._pilots()]

    def missing(self) -> list[str]:
        """Names of what should run and does not."""
        return [process.name for process in self.processes() if not process.running]

    def pilot_names(self) -> dict[str, str]:
        """What the pilots are called here, by the first part of their client ids (each login has another second)."""
        numbers = [_number(process) for process in self._pilots()]
        files = {number: self.layout.pilot_identity(number) for number in numbers}
        return {
            client_id_prefix(file.read_text("utf-8").strip()): f"pilot-{number}"
            for number, file in files.items()
            if file.exists()
        }

    def broker_port(self) -> int:
        """The broker's TLS port, while it runs."""
        return self._node().port

    def _refuse_foreign(self) -> None:
        """A folder with other things in it is no data directory: its rights would change, and a purge would hurt."""
        root = self.layout.root
        if root.exists() and not self.made and (not root.is_dir() or any(f.name != "lock" for f in root.iterdir())):
            raise ConfigurationError(f"{root} holds something else; a data directory must be new or empty")

    # -- starting -----------------------------------------------------------------------------------------------

    def _up(self, say: Say, choices: Choices) -> list[str]:
        layout, now = self.layout, dt.datetime.now(dt.UTC)
        ensure_identities(layout, now)
        write_registry(layout)
        started: list[str] = []
        database = self._database(choices)
        if database.process is not None and not database.process.running:
            with _told(say, "database"):
                database.start()
            started.append("database")
        gatekeeper = self._gatekeeper_port()
        node = self._node(gatekeeper)
        if not node.running:
            with _told(say, "broker"):
                node.start()
            started.append("broker")
        addresses = Addresses(node.port, gatekeeper, database.url, node.management)
        write_server_config(layout, addresses)
        write_client_config(layout, addresses)
        if not self._services.running:
            with _told(say, "services"):
                self._start_services()
            started.append("services")
        if started:
            # Also where only the broker was started: running services need a moment to find it again.
            self._services.wait_ready(lambda: can_log_in(layout), SERVICES_TIMEOUT)
        return started + self._start_pilots(say, choices, addresses)

    def _start_services(self) -> None:
        layout = self.layout
        private_folder(layout.run)
        layout.ready.unlink(missing_ok=True)
        arguments = ["all", "--config", str(layout.server_config), "--ready-file", str(layout.ready)]
        pid = self._spawn(self._services, "compose.serve", arguments, PRIVATE)
        self._services.wait_ready(lambda: _reads(layout.ready, str(pid)), SERVICES_TIMEOUT)

    def _start_pilots(self, say: Say, choices: Choices, addresses: Addresses) -> list[str]:
        surplus = [process for process in self._pilots() if _number(process) > choices.pilots and process.running]
        if surplus:
            with _told(say, "fewer pilots"):
                stop_in_order([surplus], PILOT_GRACE)
        waiting = [n for n in range(1, choices.pilots + 1) if not self._pilot(n).running]
        slots = choices.slots or default_slots(choices.pilots)
        for file in self.layout.pilots.glob("pilot-*.pem"):
            file.unlink()  # a certificate of an earlier release's pilot: they enrol now
        if waiting:
            with _told(say, f"{len(waiting)} pilot{'s' if len(waiting) > 1 else ''}"):
                secrets = enrol_pilots(self.layout, len(waiting))
                started = []
                for number, new in zip(waiting, secrets, strict=True):
                    write_pilot_config(self.layout, addresses, number, slots)
                    write_private(self.layout.pilot_identity(number), new.info.identity + "\n")
                    started.append(self._start_pilot(number, new.secret.text()))
                for process, ready in started:
                    process.wait_ready(ready, PILOT_TIMEOUT)
        return [f"pilot-{number}" for number in waiting]

    def _start_pilot(self, number: int, secret: str) -> tuple[ManagedProcess, Callable[[], bool]]:
        layout, process = self.layout, self._pilot(number)
        ready = layout.run / f"pilot-{number}.ready"
        ready.unlink(missing_ok=True)
        arguments = ["--config", str(layout.pilot_config(number)), "--ready-file", str(ready)]
        # Payloads write as their owner is used to. The secret goes by a pipe: no file and no argument ever holds it.
        self._spawn(process, "compose.pilot", arguments, INHERITED, secret.encode("ascii"))
        return process, ready.exists

    def _spawn(self, process: ManagedProcess, module: str, arguments: list[str], umask: int, stdin: bytes = b"") -> int:
        # -P: our packages have plain names, and a folder of such a name where the user stands must not be taken.
        command = [sys.executable, "-P", "-m", module, *arguments]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        root = self.layout.root
        return process.spawn(command, environment, cwd=root, dies_with_parent=self._dies, umask=umask, stdin=stdin)

    # -- stopping -----------------------------------------------------------------------------------------------

    def _stop_everything(self, say: Say = lambda _line: None) -> None:
        pilots = [process for process in self._pilots() if process.running]
        if pilots:
            with _told(say, f"{len(pilots)} pilot{'s' if len(pilots) > 1 else ''}"):
                stop_in_order([pilots], PILOT_GRACE)
        if self._services.running:
            with _told(say, "services"):
                self._services.stop(SERVICES_GRACE)
        node = self._node()
        if any(process.running for process in node.processes):
            with _told(say, "broker"):
                node.stop()
        database = self._database(self.choices)
        if database.process is not None and database.process.running:
            with _told(say, "database"):
                database.stop()

    # -- parts --------------------------------------------------------------------------------------------------

    def _node(self, gatekeeper: int | None = None) -> RabbitNode:
        tls = self.layout.tls
        url = None if gatekeeper is None else f"https://localhost:{gatekeeper}/auth"
        files = TlsFiles(tls / "ca.pem", tls / "server.pem", tls / "server.key")
        return RabbitNode(
            self.layout.broker, files, self._definitions, gatekeeper=url, dies_with_parent=self._dies
        )  # fmt: skip

    def _definitions(self) -> dict[str, object]:
        folder = self.layout.services
        return definitions([InternalUser(name, read_secret(folder / f"{name}.secret")) for name in sorted(SERVICES)])

    def _gatekeeper_port(self) -> int:
        """The gatekeeper's port: the one that the broker was told, unless somebody else has taken it meanwhile."""
        file, names = self.layout.ports, ("gatekeeper",)
        if self._services.running:
            return self._written_port()
        node = self._node()
        if node.running and not is_free(self._written_port()):
            node.stop()
        return kept_ports(file, names)["gatekeeper"]

    def _written_port(self) -> int:
        from json import loads

        try:
            return int(loads(self.layout.ports.read_text(encoding="ascii"))["gatekeeper"])
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigurationError(
                f"{self.layout.ports} is damaged; run `pilotage down`, then `pilotage up`"
            ) from None

    def _database(self, choices: Choices) -> Database:
        return Database(self.layout, choices.store, dies_with_parent=self._dies)

    def _pilot(self, number: int) -> ManagedProcess:
        return ManagedProcess(f"pilot-{number}", self.layout.root)

    def _pilots(self) -> list[ManagedProcess]:
        """The pilots that should run, and others that do."""
        numbers = set(range(1, self.choices.pilots + 1)) if self.made else set()
        numbers |= {int(file.stem[6:]) for file in self.layout.run.glob("pilot-*.json") if file.stem[6:].isdigit()}
        return [self._pilot(number) for number in sorted(numbers)]


def _number(process: ManagedProcess) -> int:
    return int(process.name.removeprefix("pilot-"))


def _reads(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="ascii").strip() == text
    except OSError:
        return False


@contextmanager
def _told(say: Say, what: str) -> Iterator[None]:
    """Say what was done and how long it took; a failure names it."""
    begin = time.monotonic()
    try:
        yield
    except ProcessFailedError as error:
        raise ProcessFailedError(f"{what}: {error}") from None
    say(f"  {what:<12} {time.monotonic() - begin:5.1f} s")
