"""``server.toml`` → :class:`consumers.settings.ServerSettings`. The only reader of the services' configuration."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from broker.transport import Endpoint
from consumers.domain.shares import Policy
from consumers.settings import LeaseSettings, MyProxySettings, ProxySettings, RegistrySettings, ServerSettings
from schemas.errors import ConfigurationError, InvalidInputError
from schemas.identity import canonical_dn
from schemas.toml import is_finite_number, parse_toml

from .registry_settings import KEYS, read_registry

DEFAULT_PATH = Path("/etc/pilotage/server.toml")


def load(path: Path) -> ServerSettings:
    """Read a file; relative paths in it are relative to its folder.

    Raises:
        ConfigurationError: which key of which file is missing or wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    return _Reader(path, parse_toml(data, path)).settings()


class _Reader:
    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self._path = path
        self._values = values

    def settings(self) -> ServerSettings:
        return ServerSettings(
            deployment=self._text("deployment", "name"),
            endpoint=Endpoint(
                host=self._text("broker", "host"),
                port=self._number("broker", "port"),
                ca_file=self._file("broker", "ca_file"),
                server_name=self._text("broker", "server_name", default="") or None,
                virtual_host=self._text("broker", "virtual_host", default="/"),
            ),
            store_url=self._text("store", "url"),
            store_password_file=self._optional_file("store", "password_file"),
            trust_dir=self._file("trust", "ca_dir"),
            voms_dir=self._optional_file("trust", "voms_dir"),
            registry_file=self._file("registry", "file"),
            registry=self._registry(),
            credentials=self._file("services", "credentials"),
            master_keys=self._files("services", "master_keys"),
            gatekeeper_host=self._loopback("gatekeeper", "host"),
            gatekeeper_port=self._number("gatekeeper", "port"),
            gatekeeper_certificate=self._file("gatekeeper", "cert_file"),
            gatekeeper_key=self._file("gatekeeper", "key_file"),
            management_port=self._number("gatekeeper", "management_port"),
            pilot_authority=self._optional_file("pilots", "authority"),
            leases=self._leases(),
            shares=self._shares(),
            proxies=self._proxies(),
            myproxy=self._myproxy(),
            vomses=self._optional_file("voms", "vomses"),
            origin=self._path,
        )

    def _loopback(self, section: str, key: str) -> str:
        """Only RabbitMQ on the same machine may ask: what it asks with are login assertions."""
        host = self._text(section, key, default="127.0.0.1")
        try:
            is_loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            is_loopback = False
        if not is_loopback:
            raise ConfigurationError(f"{self._path}: [{section}] {key} must be a loopback address, such as 127.0.0.1")
        return host

    def _registry(self) -> RegistrySettings:
        section = self._values.get("registry", {})
        unknown = set(section) - {"file", *KEYS} if isinstance(section, Mapping) else ()
        if unknown:
            raise ConfigurationError(f"{self._path}: [registry] has no {', '.join(sorted(unknown))}")
        return read_registry(self._path, {key: self._get("registry", key) for key in KEYS})

    def _leases(self) -> LeaseSettings:
        return LeaseSettings(**self._times("leases", LeaseSettings.__dataclass_fields__))

    def _shares(self) -> Policy:
        return Policy(**self._times("shares", Policy.__dataclass_fields__))

    def _proxies(self) -> ProxySettings:
        return ProxySettings(**self._times("proxies", ProxySettings.__dataclass_fields__))

    def _times(self, name: str, known: Iterable[str]) -> dict[str, float]:
        """A section of seconds, all optional."""
        section = self._values.get(name, {})
        if not isinstance(section, dict):
            raise ConfigurationError(f"{self._path}: [{name}] must be a table")
        unknown = set(section) - set(known)
        if unknown:
            raise ConfigurationError(f"{self._path}: [{name}] has no {', '.join(sorted(unknown))}")
        return {key: self._real(name, key) for key in section}

    def _myproxy(self) -> MyProxySettings | None:
        if "myproxy" not in self._values:
            return None
        server = self._text("myproxy", "server", default="")
        try:
            server = canonical_dn(server) if server else ""
        except InvalidInputError as error:
            raise ConfigurationError(f"{self._path}: [myproxy] server: {error}") from None
        return MyProxySettings(
            host=self._text("myproxy", "host"),
            credential=self._file("myproxy", "credential"),
            server=server,
            **({"port": self._number("myproxy", "port")} if self._get("myproxy", "port") is not None else {}),
        )

    def _get(self, section: str, key: str) -> Any:
        value = self._values.get(section, {})
        return value.get(key) if isinstance(value, Mapping) else None

    def _text(self, section: str, key: str, default: str | None = None) -> str:
        value = self._get(section, key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self._wrong(section, key, "a text")
        return value

    def _number(self, section: str, key: str) -> int:
        value = self._get(section, key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(section, key, "a whole number")
        return value

    def _real(self, section: str, key: str) -> float:
        value = self._get(section, key)
        if not is_finite_number(value) or value <= 0:
            raise self._wrong(section, key, "a positive number of seconds")
        return float(value)

    def _file(self, section: str, key: str) -> Path:
        return self._path.parent / self._text(section, key)

    def _optional_file(self, section: str, key: str) -> Path | None:
        value = self._text(section, key, default="")
        return self._path.parent / value if value else None

    def _files(self, section: str, key: str) -> tuple[Path, ...]:
        value = self._get(section, key)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise self._wrong(section, key, "a list of files")
        return tuple(self._path.parent / item for item in value)

    def _wrong(self, section: str, key: str, wanted: str) -> ConfigurationError:
        state = "missing" if self._get(section, key) is None else "not " + wanted
        return ConfigurationError(f"{self._path}: [{section}] {key} is {state}; it must be {wanted}")
