"""Settings of the users' tools: one TOML file and the environment, read once, checked, frozen.

Which file: ``$PILOTAGE_CONFIG``; else ``$XDG_CONFIG_HOME/pilotage/config.toml``; else, written by ``pilotage up``,
``$XDG_DATA_HOME/pilotage/local/client.toml``; else none, which is enough for all that stays on this machine. Form::

    [broker]
    host = "broker.example.org"       # needed
    port = 5671                       # needed
    ca_file = "broker-ca.pem"         # needed; relative paths start at the file's folder
    name = "production"               # needed; the deployment's name
    gatekeeper = "/O=…/CN=gatekeeper" # needed; canonical DN
    server_name = "broker"            # the name in the broker's certificate, if it is not the host
    virtual_host = "/"

    [trust]
    ca_dir = "/etc/grid-security/certificates"
    voms_dir = "/etc/grid-security/vomsdir"

    [user]
    cert = "usercert.pem"
    key = "userkey.pem"
    proxy = "/tmp/x509up_u1000"
    group = "lhcb_user"

    [myproxy]                         # for pilotage proxy init --renewable
    host = "myproxy.example.org"
    port = 7512
    renewer = "/O=…/CN=wms"           # DN of the service that renews, as the MyProxy server writes it
    server = "/O=…/CN=myproxy"        # DN of the server, if its certificate does not bear the host's name

An unknown section or key is an error: a slip of the pen must not silently change whom one believes.
``PILOTAGE_GROUP`` goes before ``group``; the grid's ``X509_*`` variables go before the paths (producers.credentials),
but for logging in ``ca_dir`` goes before ``X509_CERT_DIR``: a deployment knows whom it trusts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from producers.settings import BrokerSettings, MyProxySettings, UserSettings

MAX_FILE_BYTES = 256 * 1024
"""A configuration of ours has one kB; more is another file."""

_SECTIONS: Mapping[str, Mapping[str, type]] = {
    "broker": {
        "host": str, "port": int, "ca_file": str, "name": str, "gatekeeper": str, "server_name": str,
        "virtual_host": str,
    },
    "trust": {"ca_dir": str, "voms_dir": str},
    "user": {"cert": str, "key": str, "proxy": str, "group": str},
    "myproxy": {"host": str, "port": int, "server": str, "renewer": str},
}  # fmt: skip
_NEEDED = ("host", "port", "ca_file", "name", "gatekeeper")
_NAMES = {str: "text", int: "an integer"}

Values = Mapping[str, Mapping[str, object]]


def config_home(environment: Mapping[str, str]) -> Path:
    """Our folder below XDG's configuration home."""
    return _xdg(environment, "XDG_CONFIG_HOME", ".config")


def data_home(environment: Mapping[str, str]) -> Path:
    """Our folder below XDG's data home."""
    return _xdg(environment, "XDG_DATA_HOME", ".local/share")


def _xdg(environment: Mapping[str, str], variable: str, usual: str) -> Path:
    # XDG Base Directory Specification: a relative path is to be ignored.
    given = environment.get(variable, "")
    home = Path(environment.get("HOME") or Path.home())
    return (Path(given) if given.startswith("/") else home / usual) / "pilotage"


def find_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The configuration file that counts; None if there is none.

    Raises:
        ConfigurationError: ``PILOTAGE_CONFIG`` names a file that is not there.
    """
    named = environment.get("PILOTAGE_CONFIG")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise ConfigurationError(f"PILOTAGE_CONFIG names {path}, which is no file")
        return path
    candidates = (config_home(environment) / "config.toml", data_home(environment) / "local" / "client.toml")
    return next((path for path in candidates if path.is_file()), None)


def load_user_settings(environment: Mapping[str, str] = os.environ) -> UserSettings:
    """The settings of users' tools.

    Raises:
        ConfigurationError: names the file and the key.
    """
    path = find_file(environment)
    values: Values = {} if path is None else read_values(path)
    return make_user_settings(values, path, environment)


def make_user_settings(values: Values, path: Path | None, environment: Mapping[str, str]) -> UserSettings:
    """Settings from checked values; relative paths start at the file's folder."""
    from producers.settings import UserSettings

    trust, user = values.get("trust", {}), values.get("user", {})
    return UserSettings(
        ca_dir=_path(trust, "ca_dir", path),
        vomsdir=_path(trust, "voms_dir", path),
        user_cert=_path(user, "cert", path),
        user_key=_path(user, "key", path),
        proxy_path=_path(user, "proxy", path),
        group=environment.get("PILOTAGE_GROUP") or str(user.get("group", "")),
        broker=_broker(values["broker"], path) if "broker" in values else None,
        myproxy=_myproxy(values["myproxy"], path) if "myproxy" in values else None,
        origin=path,
    )


def _myproxy(section: Mapping[str, object], path: Path | None) -> MyProxySettings:
    from producers.settings import MyProxySettings

    port = section.get("port", 0)
    if not isinstance(port, int) or not 0 <= port <= 65_535:
        raise ConfigurationError(f"{path}: [myproxy] port must be 1 to 65535")
    if not section.get("host"):
        raise ConfigurationError(f"{path}: [myproxy] host is missing")
    server = str(section.get("server", ""))
    return MyProxySettings(
        str(section["host"]),
        port,
        _dn(server, path, "[myproxy] server") if server else "",
        str(section.get("renewer", "")),
    )


def _broker(section: Mapping[str, object], path: Path | None) -> BrokerSettings:
    from producers.settings import BrokerSettings

    for key in _NEEDED:
        if section.get(key) in (None, ""):
            raise ConfigurationError(f"{path}: [broker] {key} is missing")
    port, ca_file = section["port"], _path(section, "ca_file", path)
    if not isinstance(port, int) or not 1 <= port <= 65_535:
        raise ConfigurationError(f"{path}: [broker] port must be 1 to 65535")
    if ca_file is None or not _is_file(ca_file):
        raise ConfigurationError(f"{path}: [broker] ca_file: there is no file {ca_file}")
    return BrokerSettings(
        host=str(section["host"]),
        port=port,
        ca_file=ca_file,
        name=str(section["name"]),
        gatekeeper=_dn(str(section["gatekeeper"]), path),
        server_name=str(section.get("server_name", "")),
        virtual_host=str(section.get("virtual_host", "/")),
    )


def _dn(text: str, path: Path | None, place: str = "[broker] gatekeeper") -> str:
    from schemas.errors import InvalidInputError
    from schemas.identity import canonical_dn

    try:
        return canonical_dn(text)
    except InvalidInputError as error:
        raise ConfigurationError(f"{path}: {place}: {error}") from None


def _path(section: Mapping[str, object], key: str, origin: Path | None) -> Path | None:
    value = section.get(key)
    if not value:
        return None
    try:
        path = Path(str(value)).expanduser()
    except RuntimeError:  # ~somebody who is not there
        raise ConfigurationError(f"{origin}: {key}: there is no home folder for {value}") from None
    return path if origin is None else origin.parent.absolute() / path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for any file
        return False


def read_values(path: Path) -> Values:
    """Read and check a file's form.

    Raises:
        ConfigurationError: names the file and the key.
    """
    from schemas.toml import parse_toml

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    document = parse_toml(data, path, limit=MAX_FILE_BYTES)
    return {name: _section(path, name, value) for name, value in document.items()}


def _section(path: Path, name: str, value: object) -> Mapping[str, object]:
    known = _SECTIONS.get(name)
    if known is None:
        raise ConfigurationError(f"{path}: there is no section [{name}]; known are {_bracketed(_SECTIONS)}")
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: {name} must be a section: [{name}]")
    for key, item in value.items():
        kind = known.get(key)
        if kind is None:
            raise ConfigurationError(f"{path}: [{name}] has no key {key!r}; known are {', '.join(known)}")
        if not isinstance(item, kind) or isinstance(item, bool):
            raise ConfigurationError(f"{path}: [{name}] {key} must be {_NAMES[kind]}")
    return value


def _bracketed(names: Mapping[str, object]) -> str:
    return ", ".join(f"[{name}]" for name in names)
