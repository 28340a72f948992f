"""A private PostgreSQL cluster: one directory, a Unix socket only, started and stopped at will.

Promises: nothing of the system's PostgreSQL is read or changed; fsync stays on; `start()` returns when the server
accepts queries; only the account that runs it, and root, can reach the socket. The server refuses to run as root:
started by root it runs as the account `postgres`, or `nobody` where there is none, and its directory is given to that
account, which must be able to walk to it. The superuser inside is always `pilotage`. With `dies_with_parent` nothing
outlives a killed parent. Issues no SQL: PostgreSQL's own tools make and drop databases.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psutil

from schemas.errors import ConfigurationError, InvalidInputError

from .installed import Programs, find_postgres
from .processes import ManagedProcess, ProcessFailedError

__all__ = ["PostgresCluster"]

START_TIMEOUT = 60.0  # seconds; a start takes 0.2, recovery after a kill some more
TOOL_TIMEOUT = 120.0  # seconds; initdb takes 1–3
SUPERUSER = "pilotage"
SOCKET_PATH_LIMIT = 107  # bytes of a Unix socket's address, without the closing zero (unix(7))
SOCKET_NAME = ".s.PGSQL.5432"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")  # an identifier that PostgreSQL keeps as it is


class PostgresCluster:
    """A private cluster.

    Args:
        directory: everything of the cluster lies here; made if missing; its path must be short (a socket lies in it).
        dies_with_parent: killed by the kernel when the thread that started it ends; for tests.
        settings: further settings of postgresql.conf, by name.
        programs: the installation to use; by default the newest one found on this machine.
    """

    def __init__(
        self,
        directory: Path,
        *,
        dies_with_parent: bool = False,
        settings: Mapping[str, str] | None = None,
        programs: Programs | None = None,
    ) -> None:
        self.directory = directory.absolute()
        if len(os.fsencode(self.directory / SOCKET_NAME)) > SOCKET_PATH_LIMIT:
            raise ConfigurationError(
                f"the path {self.directory} is too long for a PostgreSQL socket; use a shorter one"
            )
        self._dies_with_parent = dies_with_parent
        self._settings = dict(settings or {})
        self._programs = programs
        self._account = _account_for_root() if os.geteuid() == 0 else None
        self._server = ManagedProcess("postgres", self.directory)

    @property
    def pid(self) -> int | None:
        """The pid of the server's first process while it lives."""
        return self._server.pid

    @property
    def running(self) -> bool:
        """Whether the server lives."""
        return self._server.running

    @property
    def process(self) -> ManagedProcess:
        """The server's process, for a supervisor."""
        return self._server

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database `postgres`, which every cluster has."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """SQLAlchemy's URL of a database of this cluster; it holds no secret."""
        return f"postgresql+psycopg://{SUPERUSER}@/{name}?host={quote(str(self.directory), safe='')}"

    def start(self) -> None:
        """Make the cluster if need be, start it and wait until it answers. Nothing happens when it runs already.

        Raises:
            ServerMissingError: PostgreSQL is not installed.
            ProcessFailedError: it did not come up; the message holds the end of its log.
        """
        if self.running:
            return
        data = self.directory / "data"
        if not (data / "PG_VERSION").exists():
            self._make(data)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "unix_socket_permissions": "0700",
            "jit": "off",  # compiling costs more than our short queries gain
            **self._settings,
        }
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        command = self._as_account([self._tool("postgres"), "-D", str(data), *flags])
        self._server.spawn(command, self._environment(), dies_with_parent=self._dies_with_parent)
        try:
            self._server.wait_ready(self._answers, START_TIMEOUT)
        except ProcessFailedError:
            self.kill()
            raise

    def stop(self) -> None:
        """Shut down in good order without waiting for clients ("fast"); harmless when it is not running."""
        if self._server.send(signal.SIGINT):
            self._server.wait(START_TIMEOUT)
        self._server.kill()

    def kill(self) -> None:
        """SIGKILL the server, as a power cut would, and wait until its children have noticed and ended."""
        pid = self.pid
        children = psutil.Process(pid).children(recursive=True) if pid else []
        self._server.kill()
        psutil.wait_procs(children, timeout=START_TIMEOUT)  # the next start is refused while one of them lives

    def restart(self) -> None:
        """Stop and start; the contents stay."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop, and delete the whole directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def create_database(self, name: str) -> str:
        """Make an empty database (50 ms) and return its URL.

        Raises:
            InvalidInputError: the name is not a plain lower-case identifier.
            ProcessFailedError: PostgreSQL refused; the message says why.
        """
        # FILE_COPY of the small template is much cheaper than logging every page of it, where this version has it.
        strategy = ["--strategy=file_copy"] if self._installation().version >= (15,) else []
        self._run(self._tool("createdb"), *self._address(), "--template=template0", *strategy, _checked(name))
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Delete a database and disconnect who uses it; harmless when there is none."""
        self._run(self._tool("dropdb"), *self._address(), "--if-exists", "--force", _checked(name))

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
            self._programs = find_postgres()
        return self._programs

    def _tool(self, name: str) -> str:
        return str(self._installation().folder / name)

    def _environment(self) -> dict[str, str]:
        return self._installation().environment() | {"LANG": "C.UTF-8", "HOME": "/"}

    def _address(self) -> list[str]:
        return ["--host", str(self.directory), "--username", SUPERUSER]

    def _as_account(self, command: list[str]) -> list[str]:
        if self._account is None:
            return command
        ids = [f"--reuid={self._account.pw_uid}", f"--regid={self._account.pw_gid}", "--clear-groups", "--no-new-privs"]
        # Changing the account clears the parent-death signal that spawn() has set: set it once more.
        death = ["--pdeathsig", "KILL"] if self._dies_with_parent else []
        return ["setpriv", *ids, *death, *command]

    def _make(self, data: Path) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.mkdir(mode=0o700, exist_ok=True)
        if self._account is not None:
            for folder in (self.directory, data):
                os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        options = ["--username", SUPERUSER, "--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C"]
        self._run(*self._as_account([self._tool("initdb"), "-D", str(data), *options]))

    def _answers(self) -> bool:
        command = [self._tool("pg_isready"), "--quiet", *self._address()]
        return subprocess.run(command, env=self._environment(), cwd="/", check=False).returncode == 0

    def _run(self, *command: str) -> None:
        result = subprocess.run(
            command, env=self._environment(), cwd="/", capture_output=True, text=True, timeout=TOOL_TIMEOUT, check=False
        )
        if result.returncode != 0:
            raise ProcessFailedError(f"PostgreSQL: {result.stderr.strip() or result.stdout.strip()}")


def _account_for_root() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ConfigurationError("PostgreSQL does not run as root, and there is no account `postgres` or `nobody`")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInputError(f"{name!r} is no database name: lower-case letters, digits and _ only")
    return name
