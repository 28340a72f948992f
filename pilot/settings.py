"""The pilot's settings: frozen values from one TOML file.

::

    [broker]            # as in a user's client.toml
    host = "…"; port = 5671; ca_file = "…"; name = "…"; gatekeeper = "/O=…/CN=gatekeeper"
    [trust]
    ca_dir = "…"
    [pilot]
    enrolment = "pilot-1.enrol"    # one-time secret, removed once used; "-": standard input; "env": the environment
    # credential = "pilot-1.pem"   # or, where a site has its own: certificate and key, mode 0600
    site = "Site.Example.org"
    work_dir = "/scratch/pilot"
    slots = 2                      # processors to offer; left out: what the node has
    idle_seconds = 600             # ends after so long without work; 0: never
    wall_seconds = 86400           # what is left of the batch slot; left out: no end
    # group = "vo_private"         # with a credential: the group to act for; left out: its first one
    # pool = "…"; job_types = ["…"]; groups = ["…"]; owners = ["…"]      # takes only such jobs
    # gpus = [{device = "0", model = "NVIDIA A100", memory_mb = 40000}]  # left out: what the node has; []: none
    [stores]                       # folders of storage elements on this node
    "SE.Example" = "/data/se"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.session import SessionSettings
from broker.transport import Endpoint
from schemas.errors import ConfigurationError
from schemas.job import HEARTBEAT_SECONDS
from schemas.toml import is_finite_number, parse_toml

from .hardware import GpuDevice

DEFAULT_IDLE_SECONDS = 600.0
"""A pilot that found nothing for ten minutes gives the slot back (DIRAC: ten failed matches)."""

DEFAULT_CPU_POWER = 10.0
"""Normalised power of one processor (HS06) where none was measured: what the grid assumes of a node."""


_DEVICE = re.compile(r"[A-Za-z0-9:./-]{1,64}")

STDIN, ENVIRONMENT = "-", "env"
"""Where an enrolment secret may come from besides a file."""


@dataclass(frozen=True)
class PilotSettings:
    """Everything that a pilot is told; what it finds out itself is in :mod:`pilot.node`.

    Attributes:
        session: the deployment.
        credential: file with its certificate and key; None if it enrols.
        enrolment: where its one-time secret comes from: a file, ``-`` for standard input, ``env`` for the environment.
        site: where it runs.
        work_dir: work area.
        slots: processors to offer, None for what the node has.
        memory_mb: memory to offer, None for what the node has.
        wall_seconds: what is left of its slot, None for no end.
        cpu_power: normalised power of one processor.
        idle_seconds: ends after so long without work; 0 for never.
        stores: folders of storage elements on this node.
        group: to act for; empty for the first one of its identity.
        pool: takes only jobs that name it; empty: only jobs that name none.
        job_types: takes only jobs of these types; empty: of all.
        groups: takes only jobs of these groups; empty: of all.
        owners: takes only jobs of these owners; empty: of all.
        gpus: to offer, None for what the node has.
    """

    session: SessionSettings
    credential: Path | None
    site: str
    work_dir: Path
    enrolment: str = ""
    ce: str = ""
    slots: int | None = None
    memory_mb: float | None = None
    wall_seconds: float | None = None
    cpu_power: float = DEFAULT_CPU_POWER
    idle_seconds: float = DEFAULT_IDLE_SECONDS
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    platforms: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    required_tags: tuple[str, ...] = ()
    stores: Mapping[str, Path] = field(default_factory=dict)
    group: str = ""
    pool: str = ""
    job_types: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    gpus: tuple[GpuDevice, ...] | None = None


def load(path: Path) -> PilotSettings:
    """Read the file; relative paths in it are relative to its folder.

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

    def settings(self) -> PilotSettings:
        voms_dir = self._get("trust", "voms_dir", str, "")
        endpoint = Endpoint(
            host=self._need("broker", "host", str),
            port=self._need("broker", "port", int),
            ca_file=self._file(self._need("broker", "ca_file", str)),
            server_name=self._get("broker", "server_name", str, "") or None,
            virtual_host=self._get("broker", "virtual_host", str, "/"),
        )
        session = SessionSettings(
            endpoint=endpoint,
            broker=self._need("broker", "name", str),
            trust_dir=self._file(self._need("trust", "ca_dir", str)),
            gatekeeper=self._need("broker", "gatekeeper", str),
            voms_dir=self._file(voms_dir) if voms_dir else None,
        )
        enrolment = self._enrolment()
        return PilotSettings(
            session=session,
            credential=None if enrolment else self._file(self._need("pilot", "credential", str)),
            enrolment=enrolment,
            site=self._need("pilot", "site", str),
            work_dir=self._file(self._need("pilot", "work_dir", str)),
            ce=self._get("pilot", "ce", str, ""),
            slots=self._slots(),
            memory_mb=self._seconds("memory_mb", 0.0) or None,
            wall_seconds=self._seconds("wall_seconds", 0.0) or None,
            cpu_power=self._seconds("cpu_power", DEFAULT_CPU_POWER, above=0.0),
            idle_seconds=self._seconds("idle_seconds", DEFAULT_IDLE_SECONDS),
            heartbeat_seconds=self._seconds("heartbeat_seconds", HEARTBEAT_SECONDS, above=0.0),
            platforms=self._names("platforms"),
            tags=self._names("tags"),
            required_tags=self._names("required_tags"),
            group=self._get("pilot", "group", str, ""),
            pool=self._get("pilot", "pool", str, ""),
            job_types=self._names("job_types"),
            groups=self._names("groups"),
            owners=self._names("owners"),
            gpus=self._gpus(),
            stores={name: self._file(self._need("stores", name, str)) for name in self._section("stores")},
        )

    def _enrolment(self) -> str:
        source: str = self._get("pilot", "enrolment", str, "")
        if source and self._get("pilot", "credential", str, ""):
            raise ConfigurationError(f"{self._path}: [pilot] takes enrolment or credential, not both")
        if not source and not self._get("pilot", "credential", str, ""):
            raise ConfigurationError(f"{self._path}: [pilot] enrolment is missing (or credential, for a certificate)")
        return source if source in {"", STDIN, ENVIRONMENT} else str(self._file(source))

    def _file(self, text: str) -> Path:
        return (self._path.parent / text).absolute()

    def _names(self, key: str) -> tuple[str, ...]:
        value = self._get("pilot", key, list, [])
        if not all(isinstance(item, str) for item in value):
            raise ConfigurationError(f"{self._path}: [pilot] {key} must be a list of texts")
        return tuple(value)

    def _gpus(self) -> tuple[GpuDevice, ...] | None:
        listed = self._get("pilot", "gpus", list, None)
        return None if listed is None else tuple(self._gpu(place, one) for place, one in enumerate(listed))

    def _gpu(self, place: int, one: object) -> GpuDevice:
        where = f"{self._path}: [pilot] gpus, number {place + 1}"
        if not isinstance(one, dict) or set(one) - {"device", "model", "memory_mb"}:
            raise ConfigurationError(f"{where}: must be a table with device, model and memory_mb")
        device, model, memory = one.get("device", str(place)), one.get("model", ""), one.get("memory_mb", 0)
        if not isinstance(device, str) or not _DEVICE.fullmatch(device) or not isinstance(model, str):
            raise ConfigurationError(f"{where}: device is a number or an id as a text, model a text")
        if not is_finite_number(memory) or memory <= 0:
            raise ConfigurationError(f"{where}: memory_mb must be a number, more than 0")
        return GpuDevice(device, model[:256], float(memory), device)

    def _slots(self) -> int | None:
        slots: int = self._get("pilot", "slots", int, 0)
        if slots < 0:
            raise ConfigurationError(f"{self._path}: [pilot] slots must be a number, 0 or more")
        return slots or None

    def _seconds(self, key: str, default: float, *, above: float | None = None) -> float:
        value = self._section("pilot").get(key, default)
        if not is_finite_number(value) or value < 0 or (above is not None and value <= above):
            wanted = "0 or more" if above is None else f"more than {above:g}"
            raise ConfigurationError(f"{self._path}: [pilot] {key} must be a number, {wanted}")
        return float(value)

    def _section(self, name: str) -> Mapping[str, Any]:
        section = self._values.get(name, {})
        if not isinstance(section, dict):
            raise ConfigurationError(f"{self._path}: [{name}] must be a table")
        return section

    def _need(self, section: str, key: str, kind: type[Any]) -> Any:
        value = self._get(section, key, kind, None)
        if value is None:
            raise ConfigurationError(f"{self._path}: [{section}] {key} is missing")
        return value

    def _get(self, section: str, key: str, kind: type[Any], default: Any) -> Any:
        value = self._section(section).get(key, default)
        if value is not default and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ConfigurationError(f"{self._path}: [{section}] {key} must be of type {kind.__name__}")
        return value
