"""The table of attributes: one row says what an attribute is called, means, defaults to and may be.

The parser of descriptions, the canonical text and the reference page all read this table. Checks by kind lie in
``checks``; the typed result in ``description``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

DEFAULT_CPU_TIME: Final = 86_400
"""HS06 seconds, DIRAC's default: about two hours on a slow core, a day on HS06 = 1."""
MIN_CPU_TIME: Final = 100
MAX_CPU_TIME: Final = 500_000
"""DIRAC's bounds; there larger values are cut silently, here they are refused."""

MAX_WALL_TIME: Final = 25 * 86_400 // 2
"""Seconds: the longest class of task queues, 12.5 days. No slot lasts longer."""

DEFAULT_PRIORITY: Final = 1
MAX_PRIORITY: Final = 10

MAX_PROCESSORS: Final = 1024
"""DIRAC's bound; no node of today has more."""

MAX_RAM_MB: Final = 16 * 1024 * 1024
"""16 TiB in MB: a value above is bytes or KiB by mistake."""

MAX_DISK_MB: Final = 128 * 1024 * 1024
"""128 TiB in MB: likewise."""

MAX_GPUS: Final = 64
"""More than any node has."""
MAX_GPU_MEMORY_MB: Final = 1024 * 1024
"""1 TiB in MB: a value above is bytes or KiB by mistake."""

DEFAULT_LEASE_SECONDS: Final = 7200
MIN_LEASE_SECONDS: Final = 1
"""Short leases serve tests and very short jobs; heartbeats adapt to them."""
MAX_LEASE_SECONDS: Final = 2 * 86_400
"""A lost pilot is noticed within two days at the latest."""

MAX_INPUT_DATA: Final = 500
"""DIRAC's bound: a job with more is better split."""
MAX_SANDBOX_FILES: Final = 500
MAX_NAMES: Final = 200
"""Sites, tags and so on: more than any grid has in one list."""
MAX_ENVIRONMENT: Final = 200
MAX_PATH: Final = 4096
"""PATH_MAX of Linux."""
MAX_NAME: Final = 255
"""NAME_MAX of Linux, and the width of the columns that hold names."""
MAX_ARGUMENTS: Final = 32_768
"""A quarter of what Linux passes as one argument: room for the interpreter's own."""

LOG_LEVELS: Final = ("ALWAYS", "NOTICE", "INFO", "VERBOSE", "DEBUG", "WARN", "ERROR", "FATAL")

MAX_EXTRA_ATTRIBUTES: Final = 100
"""Attributes that are not ours, kept for the VO's own use."""


class Kind(Enum):
    """What the value of an attribute is; the value says it to a reader."""

    TEXT = "text"
    WORD = "one word"
    FILE = "file name"
    PATH = "path"
    CHOICE = "one of"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    NAMES = "list of names"
    MODELS = "list of names, blanks allowed"
    ARCHITECTURE = "architecture"
    TAG_EXPRESSION = "tag expression"
    LOCAL_FILES = "list of local files, `LFN:/…` or `SB:…`"
    RESULT_FILES = "list of file names or patterns"
    LFNS = "list of LFNs"
    OUTPUT_FILES = "list of file names, patterns or `LFN:/…`"
    ENVIRONMENT = "record, or list of `NAME=value`"


LISTS: Final = frozenset(
    {
        Kind.NAMES,
        Kind.MODELS,
        Kind.LOCAL_FILES,
        Kind.RESULT_FILES,
        Kind.LFNS,
        Kind.OUTPUT_FILES,
        Kind.ENVIRONMENT,
    }
)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row of the table.

    Attributes:
        name: Canonical spelling; any case is understood.
        field: The field of :class:`~schemas.jdl.description.JobDescription`.
        kind: What the value is.
        meaning: One sentence for the reference.
        default: What holds when it is not given.
        minimum, maximum: Bounds of an integer, both included.
        max_length: Bound of a text or of each item of a list, in characters.
        max_items: Bound of a list.
        choices: The words allowed for ``Kind.CHOICE``.
    """

    name: str
    field: str
    kind: Kind
    meaning: str
    default: str | int | bool | tuple[str, ...] | None = None
    minimum: int = 0
    maximum: int = 0
    max_length: int = MAX_NAME
    max_items: int = MAX_NAMES
    choices: tuple[str, ...] = ()


def _integer(name: str, field: str, bounds: tuple[int, int], default: int | None, meaning: str) -> Attribute:
    return Attribute(name, field, Kind.INTEGER, meaning, default, minimum=bounds[0], maximum=bounds[1])


def _files(name: str, field: str, kind: Kind, max_items: int, meaning: str) -> Attribute:
    return Attribute(name, field, kind, meaning, (), max_length=MAX_PATH, max_items=max_items)


def _names(name: str, field: str, meaning: str) -> Attribute:
    return Attribute(name, field, Kind.NAMES, meaning, ())


_PROCESSORS = (1, MAX_PROCESSORS)

ATTRIBUTES: Final = (
    Attribute("Executable", "executable", Kind.TEXT, "The program to run: a file of the input sandbox, or a command or "
              "absolute path on the node. Required.", max_length=MAX_PATH),
    Attribute("Arguments", "arguments", Kind.TEXT, "Its arguments, split by the rules of the POSIX shell (quotes, "
              "backslash) but without a shell: nothing is expanded.", "", max_length=MAX_ARGUMENTS),
    Attribute("JobName", "job_name", Kind.TEXT, "A name for people.", "Unknown"),
    Attribute("JobGroup", "job_group", Kind.TEXT, "A label by which jobs are selected together.", ""),
    Attribute("JobType", "job_type", Kind.WORD, "The kind of job. `Test` may also run at sites that are being tested.",
              "User", max_length=64),
    Attribute("StdOutput", "std_output", Kind.FILE, "File in the work directory for standard output.", "std.out"),
    Attribute("StdError", "std_error", Kind.FILE, "File in the work directory for standard error.", "std.err"),
    _files("InputSandbox", "input_sandbox", Kind.LOCAL_FILES, MAX_SANDBOX_FILES,
           "Small files that travel with the job into its work directory."),
    _files("OutputSandbox", "output_sandbox", Kind.RESULT_FILES, MAX_SANDBOX_FILES,
           "Small files of the work directory that travel back, 10 MiB in total. `*`, `?` and `[…]` are patterns; "
           "they skip hidden files: write `.*` or the name to get those."),
    _files("InputData", "input_data", Kind.LFNS, MAX_INPUT_DATA,
           "Logical files to read, `/<vo>/…`, with or without `LFN:`. The job goes where replicas are."),
    _files("OutputData", "output_data", Kind.OUTPUT_FILES, MAX_INPUT_DATA,
           "Files to upload to storage and to register."),
    _names("OutputSE", "output_se", "Storage elements for OutputData, in order of preference."),
    Attribute("OutputPath", "output_path", Kind.PATH, "Folder below the user's own for OutputData.", "",
              max_length=MAX_PATH),
    _integer("CPUTime", "cpu_time", (MIN_CPU_TIME, MAX_CPU_TIME), DEFAULT_CPU_TIME,
             "CPU work needed, in HS06 seconds."),
    _integer("WallTime", "wall_time", (1, MAX_WALL_TIME), None,
             "Seconds that the slot must still last, whatever its speed."),
    _integer("Priority", "priority", (0, MAX_PRIORITY), DEFAULT_PRIORITY,
             "Order among the owner's own jobs; higher goes first."),
    _names("Site", "sites", "Sites where the job may run; `ANY` is the same as leaving it out."),
    _names("BannedSites", "banned_sites", "Sites where the job may not run."),
    _names("GridCE", "grid_ces", "Computing elements where the job may run."),
    _names("Platform", "platforms", "Platforms on which the job can run; `ANY` is the same as leaving it out."),
    Attribute("Architecture", "architecture", Kind.ARCHITECTURE, "Family and lowest level of the processors, such as "
              "`x86_64-v3` or `aarch64`; `ANY` is the same as leaving it out.", "", max_length=64),
    _names("Tags", "tags", "Properties that the node must offer, all of them."),
    Attribute("TagExpression", "tag_expression", Kind.TAG_EXPRESSION, "What must be true of the node's tags besides: "
              "names with `&&`, `||`, `!` and parentheses.", "", max_length=2048),
    _names("Pool", "pools", "Pools of pilots that may take the job. Without it only pilots take it that belong to no "
           "pool."),
    _integer("NumberOfProcessors", "number_of_processors", _PROCESSORS, None,
             "Exactly so many processors. Without any of the three: 1."),
    _integer("MinNumberOfProcessors", "min_number_of_processors", _PROCESSORS, None, "At least so many processors."),
    _integer("MaxNumberOfProcessors", "max_number_of_processors", _PROCESSORS, None, "At most so many processors."),
    Attribute("WholeNode", "whole_node", Kind.BOOLEAN, "The job wants the node for itself.", False),
    _integer("MaxRAM", "max_ram", (1, MAX_RAM_MB), None, "The memory that the job uses at most, in MB; the node must "
             "have it."),
    _integer("MinRAM", "min_ram", (1, MAX_RAM_MB), None, "The memory that the node must have, in MB, if MaxRAM is not "
             "given; of both the larger is asked for."),
    _integer("MaxRAMPerProcessor", "max_ram_per_processor", (1, MAX_RAM_MB), None, "Memory besides for each processor "
             "that the job gets, in MB."),
    _integer("DiskSpace", "disk_space", (1, MAX_DISK_MB), None, "Disk needed in the work directory, in MB."),
    _integer("NumberOfGPUs", "number_of_gpus", (0, MAX_GPUS), None, "GPUs needed. Without it 1 if GPUMemory or "
             "GPUModel is given, otherwise none."),
    _integer("GPUMemory", "gpu_memory", (1, MAX_GPU_MEMORY_MB), None, "The memory that each of these GPUs must have, "
             "in MB."),
    Attribute("GPUModel", "gpu_models", Kind.MODELS, "Models that will do: words of the name that the driver gives, "
              "such as `A100`.", ()),
    Attribute("Environment", "environment", Kind.ENVIRONMENT, "Environment variables of the job.", (),
              max_length=MAX_ARGUMENTS, max_items=MAX_ENVIRONMENT),
    _integer("LeaseDuration", "lease_duration", (MIN_LEASE_SECONDS, MAX_LEASE_SECONDS), DEFAULT_LEASE_SECONDS,
             "Seconds without a heartbeat after which the job is given to another pilot."),
    Attribute("LogLevel", "log_level", Kind.CHOICE, "How much the pilot writes about the job.", "INFO",
              choices=LOG_LEVELS),
    Attribute("StopSigRegex", "stop_sig_regex", Kind.TEXT, "Command lines that get the stop signal (regular "
              "expression).", None, max_length=MAX_PATH),
    _integer("StopSigNumber", "stop_sig_number", (1, 64), None, "The stop signal."),
    _integer("StopSigStartSeconds", "stop_sig_start_seconds", (0, MAX_LEASE_SECONDS), None,
             "Seconds after the start before which no stop signal is sent."),
    _integer("StopSigFinishSeconds", "stop_sig_finish_seconds", (0, MAX_LEASE_SECONDS), None,
             "Seconds before the end of the time left at which the stop signal is sent."),
)  # fmt: skip
"""Every attribute that has a meaning here, in the order of the canonical text."""

BY_NAME: Final = {attribute.name.lower(): attribute for attribute in ATTRIBUTES}

ALIASES: Final = {
    "executionenvironment": "Environment",
    "sites": "Site",
    "bannedsite": "BannedSites",
    "tag": "Tags",
    "platforms": "Platform",
    "submitpool": "Pool",
    "submitpools": "Pool",
    "pools": "Pool",
    "gpumodels": "GPUModel",
}
"""Other spellings in use for the same attribute."""

PARAMETRIC: Final = {
    "parameters": "Parameters",
    "parameterstart": "ParameterStart",
    "parameterstep": "ParameterStep",
    "parameterfactor": "ParameterFactor",
}
"""The attributes that make several jobs of one description; each may have a vector's name behind a dot."""

SERVER_SET: Final = {
    name.lower(): name
    for name in ("Owner", "OwnerDN", "OwnerGroup", "OwnerName", "VirtualOrganization", "VirtualOrganisation", "VO",
                 "JobID", "DIRACSetup", "Credentials", "Credentials.ProxyIssuer")
}  # fmt: skip
"""Known from the login, never taken from a description."""

WITHOUT_EFFECT: Final = {
    name.lower(): reason
    for name, reason in {
        "Requirements": "state the needs with Site, Platform, Architecture, TagExpression, MaxRAM and so on",
        "Rank": "the matcher decides; Priority orders your own jobs",
        "Type": "every description is a job",
        "RetryCount": "retries are the server's policy",
        "ShallowRetryCount": "retries are the server's policy",
        "InputDataPolicy": "the pilot chooses how to reach input data",
        "InputDataModule": "the pilot chooses how to reach input data",
        "JobConfigArgs": "there is no DIRAC configuration here",
        "SystemConfig": "use Platform",
        "MyProxyServer": "delegation happens at submission",
    }.items()
}
"""Attributes of gLite and DIRAC that are kept but do nothing here, and what to use instead."""

COMMON_SLIPS: Final = {
    "stdout": "StdOutput",
    "output": "StdOutput",
    "stderr": "StdError",
    "error": "StdError",
    "args": "Arguments",
    "name": "JobName",
    "outputfiles": "OutputSandbox",
    "inputfiles": "InputSandbox",
    "ncpus": "NumberOfProcessors",
    "numberofcores": "NumberOfProcessors",
    "gpus": "NumberOfGPUs",
    "ngpus": "NumberOfGPUs",
    "arch": "Architecture",
    "memory": "MaxRAM",
    "ram": "MaxRAM",
    "disk": "DiskSpace",
    "maxwalltime": "WallTime",
    "maxcputime": "CPUTime",
}
"""Names from other systems that edit distance does not catch."""


def closest_name(name: str) -> str | None:
    """Return the known attribute that a name is probably a misspelling of."""
    lowered = name.lower()
    if lowered in COMMON_SLIPS:
        return COMMON_SLIPS[lowered]
    allowed = 1 if len(lowered) < 6 else 2
    best: tuple[int, str] | None = None
    for key, canonical in (*((k, a.name) for k, a in BY_NAME.items()), *PARAMETRIC.items()):
        if abs(len(key) - len(lowered)) <= allowed:
            distance = _distance(lowered, key)
            if distance <= allowed and (best is None or distance < best[0]):
                best = (distance, canonical)
    return None if best is None else best[1]


def _distance(first: str, second: str) -> int:
    """Edits between two words; swapping neighbours is one edit."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, previous, row = row, before, [i]
        for j, b in enumerate(second, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == second[j - 2] and first[i - 2] == b:
                cost = min(cost, previous[j - 2] + 1)
            row.append(cost)
    return row[-1]
