"""Private servers of the grid, live: VOMS (over MariaDB) and MyProxy, below a throwaway authority.

Their fixtures are in tests/conftest.py: `grid_ca`, `voms_server` (VO `testvo`), `old_voms_server` (the same VO, answers
in the old holder form), `other_voms_server` (another VO) and `myproxy_server`. All listen on a free port of the
loopback only, keep their files in a fresh folder, and are gone when the test process ends, however it ends.

    user = grid_ca.user("Ada Example")                  # certificate, key and HOME of a person
    voms_server.add_member(user.dn, "/testvo", "/testvo/analysis", "/testvo/Role=user")
    run_tool("voms-proxy-init", "--rfc", "--voms", "testvo", environment=user.environment())
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker.identity import Authority, Credential, TrustStore, VomsDir, new_key, pem_chain, save_credential
from broker.identity.credential import key_pem
from compose.local.ports import LOOPBACK, free_port
from compose.local.processes import ManagedProcess, tail

from . import mysql
from .grid_tools import find_grid_tools, tool_path
from .servers import server_folder
from .wait import wait_until

NAMESPACE = "/DC=org/DC=gridtest"
CA_DN = f"{NAMESPACE}/CN=Grid Test CA"
HOST_DN = f"{NAMESPACE}/OU=Hosts/CN=localhost"
RENEWER_DN = f"{NAMESPACE}/OU=Hosts/CN=wms.example.org"
START_TIMEOUT = 60.0  # seconds; they take one or two
RELAY = Path(__file__).with_name("loopback_only.py")
GRID_RSA_BITS = 2048  # Globus tools write and expect RSA


@dataclass(frozen=True)
class GridUser:
    """A person with a certificate, and the folder that is his home."""

    dn: str
    credential: Credential = field(repr=False)
    home: Path
    trust_dir: Path
    vomsdir: Path

    @property
    def certificate(self) -> Path:
        """The certificate's file."""
        return self.home / "usercert.pem"

    @property
    def key(self) -> Path:
        """The private key's file."""
        return self.home / "userkey.pem"

    @property
    def proxy(self) -> Path:
        """Where his tools keep his proxy."""
        return self.home / "proxy.pem"

    @property
    def vomses(self) -> Path:
        """His list of VOMS servers; all of the test run are in it."""
        return self.vomsdir.parent / "vomses"

    def environment(self, **more: str | Path) -> dict[str, str]:
        """What his tools find in their environment."""
        values = {
            "HOME": self.home,
            "X509_CERT_DIR": self.trust_dir,
            "X509_VOMS_DIR": self.vomsdir,
            "X509_USER_CERT": self.certificate,
            "X509_USER_KEY": self.key,
            "X509_USER_PROXY": self.proxy,
            "VOMS_USERCONF": self.vomses,
            **more,
        }
        return {name: str(value) for name, value in values.items()}


@dataclass(frozen=True)
class GridCa:
    """The authority of all private servers and their users, with the trust directory, vomsdir and vomses."""

    folder: Path
    authority: Authority = field(repr=False)

    @property
    def trust_dir(self) -> Path:
        """CA certificate, CRL and signing policy."""
        return self.folder / "certificates"

    @property
    def vomsdir(self) -> Path:
        """LSC files of the VOMS servers that run."""
        return self.folder / "vomsdir"

    @property
    def vomses(self) -> Path:
        """One line for each VOMS server that was started."""
        return self.folder / "vomses"

    def trust(self) -> TrustStore:
        """The trust directory, as we read it."""
        return TrustStore.load(self.trust_dir)

    def voms_trust(self) -> VomsDir:
        """The vomsdir, as we read it."""
        return VomsDir.load(self.vomsdir)

    def user(self, name: str, *, rsa: bool = True) -> GridUser:
        """Issue a certificate to a new person; the files are in the form that every grid tool reads."""
        dn = f"{NAMESPACE}/OU=People/CN={name}"
        credential = self.authority.issue(dn, key=new_key(rsa_bits=GRID_RSA_BITS if rsa else None))
        home = Path(tempfile.mkdtemp(prefix="user-", dir=self.folder))
        user = GridUser(dn, credential, home, self.trust_dir, self.vomsdir)
        user.certificate.write_bytes(pem_chain(credential.ders))
        user.key.touch(mode=0o600)
        user.key.write_bytes(key_pem(credential.key))
        return user

    def host(self, dn: str = HOST_DN) -> Credential:
        """Issue a host's certificate with an RSA key; grid style: the name is in the CN."""
        names = ["localhost", LOOPBACK] if dn == HOST_DN else [dn.rpartition("CN=")[2]]
        return self.authority.issue(dn, "server", names, key=new_key(rsa_bits=GRID_RSA_BITS))


@contextlib.contextmanager
def grid_ca() -> Iterator[GridCa]:
    """A fresh authority; its folder is deleted afterwards."""
    with server_folder("pilotage-grid-") as folder:
        # RSA: grid-proxy-init cannot make a proxy of a certificate that was signed with an elliptic curve.
        ca = GridCa(folder, Authority.create(CA_DN, key=new_key(rsa_bits=GRID_RSA_BITS)))
        ca.authority.write_trust_dir(ca.trust_dir)
        ca.vomsdir.mkdir()
        ca.vomses.touch()
        yield ca


@contextlib.contextmanager
def confined(name: str, folder: Path, inner_port: int, command: Sequence[str | Path]) -> Iterator[int]:
    """Run a server that listens on `inner_port`, reachable on one port of the loopback only; yields that port.

    In namespaces of its own (network, processes) as root, or as anybody where the kernel lets users make them. Where
    neither is possible, in a container without rights, it runs as it is: there it is in a network of its own already.
    """
    log_file = folder / f"{name}.log"
    relay = [sys.executable, "-I", str(RELAY)]
    with socket.create_server((LOOPBACK, 0)) as listener, log_file.open("wb") as log:
        port: int = listener.getsockname()[1]
        process = subprocess.Popen(
            [*_namespaces(), *relay, str(listener.fileno()), str(inner_port), *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**find_grid_tools().environment(), "HOME": str(folder)},
            pass_fds=[listener.fileno()],
            cwd=folder,
        )
    try:
        wait_until(
            lambda: b"ready\n" in log_file.read_bytes() or process.poll() is not None, START_TIMEOUT, f"{name} to start"
        )
        if process.poll() is not None:
            raise AssertionError(f"{name} did not start:\n{tail(log_file)}")
        yield port
    finally:
        process.stdin.close()  # type: ignore[union-attr]  # a pipe was asked for above
        process.wait(START_TIMEOUT)


def _namespaces() -> list[str]:
    """The command that makes namespaces for a server, as far as this machine lets us."""
    common = ["unshare", "--net", "--pid", "--fork", "--kill-child"]
    for command in (common, [*common, "--user", "--map-root-user"]):
        if subprocess.run([*command, "true"], capture_output=True, timeout=30).returncode == 0:
            return command
    return []


@dataclass(frozen=True)
class Database:
    """A private MariaDB on a Unix socket, without passwords: its folder is its owner's alone."""

    folder: Path
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    @property
    def socket(self) -> Path:
        """Its socket."""
        return self.folder / "s"

    def add_vo(self, vo: str) -> str:
        """Make the empty database of a VO, with the tables of voms-server's package; returns its name."""
        database = f"voms_{next(self._numbers)}"
        mysql.execute(self.socket, "", f"CREATE DATABASE {database}")
        tables = (find_grid_tools().prefix / "usr/share/voms/voms-mysql.data").read_text("utf-8")
        without_comments = re.sub(r"^(--|#).*$|/\*!.*?\*/;?", "", tables, flags=re.MULTILINE)
        created = [text.strip() for text in without_comments.split(";") if text.strip()]
        # The reserved rows that every VO begins with, as voms_install_db makes them.
        base = [
            f"INSERT INTO ca VALUES (1, '{CA_DN}', '')",
            f"INSERT INTO `groups` VALUES (1, '/{vo}', 1, 1)",
            "INSERT INTO seqnumber VALUES ('00')",
            "INSERT INTO version VALUES (2)",
            "INSERT INTO attributes VALUES (1, 'nickname', '', 0)",
        ]
        off, on = "SET FOREIGN_KEY_CHECKS=0", "SET FOREIGN_KEY_CHECKS=1"
        mysql.execute(self.socket, database, off, *created, on, *base)
        return database


@contextlib.contextmanager
def mariadb() -> Iterator[Database]:
    """A started, empty MariaDB of one's own; killed by the kernel if the test process dies."""
    with server_folder("pilotage-db-") as folder:
        database = Database(folder)
        (folder / "data").mkdir()
        server = ManagedProcess("mariadb", folder)
        share = find_grid_tools().prefix / "usr/share/mysql"
        flags = {
            "datadir": folder / "data",
            "socket": database.socket,
            "pid-file": folder / "pid",
            "lc-messages-dir": share,
            "character-sets-dir": share / "charsets",
            "innodb-log-file-size": "4M",
            "innodb-buffer-pool-size": "8M",
            "innodb-flush-log-at-trx-commit": 0,
            "plugin-maturity": "stable",
        }
        command = [tool_path("mariadbd"), "--no-defaults", "--skip-networking", "--skip-grant-tables"]
        if os.geteuid() == 0:
            command.append("--user=root")
        try:
            argv = [*map(str, command), *(f"--{name}={value}" for name, value in flags.items())]
            server.spawn(argv, find_grid_tools().environment(), dies_with_parent=True)
            server.wait_ready(database.socket.exists, START_TIMEOUT)
            yield database
        finally:
            server.kill()


@dataclass(frozen=True)
class VomsServer:
    """A running voms-server and its VO's database."""

    vo: str
    host: str
    port: int
    dn: str
    credential: Credential = field(repr=False)
    _database: Database = field(repr=False)
    _name: str
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def vomses_line(self) -> str:
        """What stands in /etc/vomses for it."""
        return f'"{self.vo}" "{self.host}" "{self.port}" "{self.dn}" "{self.vo}"'

    @property
    def database_socket(self) -> Path:
        """The Unix socket of its MariaDB, user `root` without a password: for reading a VO as its tools do."""
        return self._database.socket

    @property
    def database_name(self) -> str:
        """Its VO's database."""
        return self._name

    def sql(self, *statements: str) -> None:
        """Change the VO's database; a server reads it anew at each question."""
        mysql.execute(self._database.socket, self._name, *statements)

    def add_member(self, dn: str, *fqans: str, ca: str = CA_DN, nickname: str = "") -> None:
        """Make somebody a member, with groups and roles (`/vo`, `/vo/group`, `/vo/group/Role=role`)."""
        with self._lock:
            name = _quote(dn)
            who = f"(SELECT userid FROM usr WHERE dn = {name})"
            statements = [
                f"INSERT IGNORE INTO ca (ca) VALUES ({_quote(ca)})",
                f"INSERT INTO usr (dn, ca) SELECT {name}, cid FROM ca WHERE ca = {_quote(ca)} AND NOT EXISTS {who}",
            ]
            if nickname:
                statements.append(f"REPLACE INTO usr_attrs (a_id, u_id, a_value) VALUES (1, {who}, {_quote(nickname)})")
            for fqan in dict.fromkeys((f"/{self.vo}", *fqans)):
                group, _, role = fqan.partition("/Role=")
                group_id = f"(SELECT gid FROM `groups` WHERE dn = {_quote(group)})"
                statements.append(
                    f"INSERT INTO `groups` (dn, parent, must) SELECT {_quote(group)}, 1, 0 FROM DUAL"
                    f" WHERE NOT EXISTS {group_id}"
                )
                role_id = "NULL"
                if role:
                    role_id = f"(SELECT rid FROM roles WHERE role = {_quote(role)})"
                    statements.append(
                        f"INSERT INTO roles (role) SELECT {_quote(role)} FROM DUAL WHERE NOT EXISTS {role_id}"
                    )
                statements.append(f"INSERT INTO m (userid, gid, rid) VALUES ({who}, {group_id}, {role_id})")
            self.sql(*statements)

    def remove_member(self, dn: str) -> None:
        """Remove somebody from the VO, with groups and roles."""
        self.sql(f"DELETE FROM usr WHERE dn = {_quote(dn)}")

    def remove_role(self, dn: str, fqan: str) -> None:
        """Take one group or role from a member."""
        group, _, role = fqan.partition("/Role=")
        role_id = f"rid = (SELECT rid FROM roles WHERE role = {_quote(role)})" if role else "rid IS NULL"
        self.sql(
            f"DELETE FROM m WHERE userid = (SELECT userid FROM usr WHERE dn = {_quote(dn)})"
            f" AND gid = (SELECT gid FROM `groups` WHERE dn = {_quote(group)}) AND {role_id}"
        )


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@contextlib.contextmanager
def voms_server(
    ca: GridCa, database: Database, vo: str, *, new_format: bool = True, share: VomsServer | None = None
) -> Iterator[VomsServer]:
    """A started voms-server; its line is added to `ca.vomses`, its LSC file to `ca.vomsdir`.

    Args:
        ca: whose users it serves.
        database: where its VO's database is made.
        vo: the VO.
        new_format: whether the holder of its attribute certificates is in the form of RFC 5755; else in VOMS's old one.
        share: another server, whose VO this one serves as well; its vomses line is then left out.
    """
    with server_folder("pilotage-voms-") as folder:
        host, port = ca.host(), free_port()
        name = share.database_name if share else database.add_vo(vo)
        save_credential(host, folder / "host.pem")
        (folder / "passwords").write_text("none\n")
        (folder / "passwords").chmod(0o640)  # it insists on exactly this
        settings = {
            "vo": vo,
            "port": port,
            "dbname": name,
            "username": "root",
            "contactstring": "localhost",
            "mysql-socket": database.socket,
            "sqlloc": find_grid_tools().prefix / "usr/lib/voms/libvomsmysql.so",
            "passfile": folder / "passwords",
            "code": port,
            "logfile": folder / "voms-server.log",
            "x509_cert_dir": ca.trust_dir,
            "x509_user_cert": folder / "host.pem",
            "x509_user_key": folder / "host.pem",
            "uri": f"localhost:{port}",
            "timeout": 86400,  # the longest life of an attribute certificate
            "loglevel": 5,
        }
        lines = [f"--{key}={value}" for key, value in settings.items()] + ["--newformat"] * new_format
        (folder / "voms.conf").write_text("\n".join([*lines, ""]))
        command = [tool_path("voms"), "--conf", folder / "voms.conf", "--foreground"]
        with confined("voms", folder, port, command) as outer:
            server = VomsServer(vo, "localhost", outer, HOST_DN, host, database, name)
            if share is None:
                with ca.vomses.open("a") as file:
                    file.write(server.vomses_line + "\n")
                (ca.vomsdir / vo).mkdir()
                (ca.vomsdir / vo / "localhost.lsc").write_text(f"{HOST_DN}\n{CA_DN}\n")
            yield server


@dataclass(frozen=True)
class MyProxyServer:
    """A running myproxy-server."""

    host: str
    port: int
    dn: str
    renewer: Credential = field(repr=False)
    """The certificate of the one host that may renew."""
    folder: Path

    @property
    def renewer_dn(self) -> str:
        """The name of `renewer`."""
        return RENEWER_DN

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / "myproxy.log").read_text("utf-8", "replace")

    def environment(self) -> dict[str, str]:
        """What its clients find in their environment, beside `GridUser.environment`."""
        return {"MYPROXY_SERVER": self.host, "MYPROXY_SERVER_PORT": str(self.port), "MYPROXY_SERVER_DN": self.dn}


_MYPROXY_CONF = """\
accepted_credentials       "{namespace}/*"
authorized_retrievers      "{namespace}/*"
default_retrievers         "*"
authorized_renewers        "{renewer}"
default_renewers           "none"
default_trusted_retrievers "none"
default_key_retrievers     "none"
max_proxy_lifetime 24
max_cred_lifetime 0
cert_dir {trust_dir}
"""


@contextlib.contextmanager
def myproxy_server(ca: GridCa) -> Iterator[MyProxyServer]:
    """A started myproxy-server: anybody of the authority stores and retrieves, only `renewer` renews."""
    with server_folder("pilotage-myproxy-") as folder:
        port = free_port()
        save_credential(ca.host(), folder / "host.pem")
        (folder / "store").mkdir(mode=0o700)
        (folder / "myproxy.conf").write_text(
            _MYPROXY_CONF.format(namespace=NAMESPACE, renewer=RENEWER_DN, trust_dir=ca.trust_dir)
        )
        host = {name: str(folder / "host.pem") for name in ("X509_USER_CERT", "X509_USER_KEY")}
        variables = [f"{name}={value}" for name, value in {**host, "X509_CERT_DIR": ca.trust_dir}.items()]
        server = [tool_path("myproxy-server"), "-v", "-l", LOOPBACK, "-p", str(port)]
        files = ["-c", folder / "myproxy.conf", "-s", folder / "store", "-P", folder / "pid"]
        with confined("myproxy", folder, port, ["env", *variables, *server, *files]) as outer:
            yield MyProxyServer("localhost", outer, HOST_DN, ca.host(RENEWER_DN), folder)
