"""What a payload is: its specification, its environment, its command line, its outcome. Pure, except for file checks.

Promises: the environment is built from nothing (the pilot's own never leaks into a payload) and no user
variable overrides a protected one; the executable is found by one rule or refused with a reason a user understands.
Lies elsewhere: starting and ending processes (:mod:`pilot.runner`).
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import PermanentError

from .outputs import DEFAULT_OUTPUT_BYTES
from .sandbox import check_name

# What a plain login shell of a node offers; sites extend it in the pilot's configuration.
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_PROTECTED_PREFIXES = ("PILOTAGE_", "DIRAC_JOB", "DIRAC_PROCESSORS", "LD_AUDIT")
_PROTECTED = frozenset(
    {
        "HOME",
        "TMPDIR",
        "USER",
        "LOGNAME",
        "X509_USER_PROXY",
        "JOBID",
        "DIRACSITE",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
    }
)


class PayloadStartError(PermanentError):
    """The payload could not be started."""


@dataclass(frozen=True, slots=True)
class ResourceFloor:
    """Limits that the kernel itself keeps for each process of a payload; None means none.

    They are a floor under the watchdog: a single process that runs wild is stopped at once, between samples.
    """

    cpu_seconds: int | None = None
    file_mb: int | None = None
    address_space_mb: int | None = None
    open_files: int | None = None
    user_processes: int | None = None


@dataclass(frozen=True, slots=True)
class PayloadSpec:
    """Everything the runner must know to start one payload; `prefix` is put before the command (isolation).

    `output_bytes` bounds StdOutput and StdError each: what is longer keeps its beginning and its end.
    """

    job_id: str
    attempt: int
    directory: Path
    executable: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stdout: str = "std.out"
    stderr: str = "std.err"
    proxy: Path | None = None
    site: str = ""
    processors: int = 1
    memory_mb: int | None = None
    path: str = DEFAULT_PATH
    floor: ResourceFloor = ResourceFloor()
    prefix: tuple[str, ...] = ()
    output_bytes: int = DEFAULT_OUTPUT_BYTES
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a payload has used up to now; memory is that of all its processes together."""

    cpu_seconds: float
    wall_seconds: float
    memory_mb: float
    memory_peak_mb: float
    disk_mb: float
    processes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a payload ended.

    `reason` is set when the pilot stopped it (and says why), None when it ended by itself.
    `leftovers` counts processes that it left behind; they were killed.
    """

    exit_code: int | None
    signal_number: int | None
    reason: str | None
    usage: Usage
    leftovers: int = 0

    @property
    def succeeded(self) -> bool:
        """Whether the payload ended by itself with exit code 0."""
        return self.exit_code == 0 and self.reason is None

    def describe(self) -> str:
        """One sentence for the job's history."""
        if self.reason is not None:
            return self.reason
        if self.signal_number is not None:
            return f"payload ended by signal {self.signal_number} ({describe_signal(self.signal_number)})"
        return f"payload ended with exit code {self.exit_code}"


def describe_signal(number: int) -> str:
    """The signal's name and, for the kernel's own limits, what it means."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    meaning = {
        "SIGXCPU": "a process used more CPU time than its limit",
        "SIGXFSZ": "a file grew beyond its limit",
        "SIGKILL": "killed, perhaps for lack of memory on the node",
    }.get(name)
    return f"{name}: {meaning}" if meaning else name


def is_protected(name: str) -> bool:
    """Whether users may not set this variable."""
    return name in _PROTECTED or name.startswith(_PROTECTED_PREFIXES)


def build_environment(spec: PayloadSpec, user: str) -> dict[str, str]:
    """The payload's environment, from nothing.

    Our marks come first (they identify the payload's processes); the names of DIRAC stand beside ours so that
    existing job scripts run unchanged.

    Raises:
        PayloadStartError: if a variable of the user cannot be passed.
    """
    home = str(spec.directory)
    environment = {
        "PILOTAGE_JOB_ID": spec.job_id,
        "PILOTAGE_ATTEMPT": str(spec.attempt),
        "PILOTAGE_SITE": spec.site,
        "PILOTAGE_PROCESSORS": str(spec.processors),
        "JOBID": spec.job_id,
        "DIRACSITE": spec.site,
        "DIRAC_JOB_PROCESSORS": str(spec.processors),
        "DIRAC_PROCESSORS": str(spec.processors),
        "HOME": home,
        "TMPDIR": home,
        "USER": user,
        "LOGNAME": user,
        "PILOTAGE_GPUS": str(len(spec.gpus)),
        # Also without a GPU: a payload that is told nothing sees all, and takes what others were given.
        "CUDA_VISIBLE_DEVICES": ",".join(spec.gpus),
        "NVIDIA_VISIBLE_DEVICES": ",".join(spec.gpus) or "void",
    }
    if spec.memory_mb is not None:
        environment["PILOTAGE_MEMORY_MB"] = str(spec.memory_mb)
    if spec.proxy is not None:
        environment["X509_USER_PROXY"] = str(spec.proxy)
    defaults = {"PATH": spec.path, "LANG": "C.UTF-8", "SHELL": "/bin/sh", "OMP_NUM_THREADS": str(spec.processors)}
    for name, value in spec.environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise PayloadStartError(f"Environment holds the unusable variable {name!r}")
    asked = {name: value for name, value in spec.environment.items() if not is_protected(name)}
    return environment | defaults | asked


def build_command(spec: PayloadSpec, path: str) -> list[str]:
    """The argument vector: prefix, executable, arguments.

    Raises:
        PayloadStartError: if the executable cannot be found or an argument cannot be passed.
    """
    if any("\0" in text for text in (spec.executable, *spec.arguments)):
        raise PayloadStartError("Executable or Arguments hold a null character")
    return [*spec.prefix, find_executable(spec.executable, spec.directory, path), *spec.arguments]


def find_executable(executable: str, directory: Path, path: str) -> str:
    """Resolve `Executable`: a file of the sandbox (made executable), else the node's absolute path, else PATH.

    Raises:
        PayloadStartError: when there is nothing to run under that name.
    """
    if Path(executable).is_absolute():
        return _from_node(executable)
    name = executable.removeprefix("./")
    try:
        check_name(name)
    except PermanentError as error:
        raise PayloadStartError(f"Executable {executable!r} is not a usable name: {error}") from error
    candidate = directory / name
    if candidate.is_file() and _stays_inside(candidate, directory):
        candidate.chmod(candidate.stat().st_mode | 0o500)
        return str(candidate)
    found = None if "/" in executable else shutil.which(name, path=path)
    if found is None:
        raise PayloadStartError(
            f"Executable {executable!r} is neither in the input sandbox nor on this node "
            f"(looked in the work directory and in PATH={path})"
        )
    return found


def _stays_inside(candidate: Path, directory: Path) -> bool:
    return candidate.resolve().is_relative_to(directory.resolve())


def _from_node(executable: str) -> str:
    if not Path(executable).is_file():
        raise PayloadStartError(f"Executable {executable!r} does not exist on this node")
    if not os.access(executable, os.X_OK):
        raise PayloadStartError(f"Executable {executable!r} is not executable on this node")
    return executable
