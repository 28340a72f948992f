"""The typed description of one job, and its canonical text.

Promises: a :class:`JobDescription` that came out of ``check`` holds valid values only, and
``check(unparse(d)).jobs == (d,)``. On the wire its fields carry the names of the language. Meaning and limits of each
field stand in ``attributes``.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

import msgspec

from .attributes import ATTRIBUTES, DEFAULT_CPU_TIME, DEFAULT_LEASE_SECONDS, DEFAULT_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Callable

_JSON_NAMES: Final = {attribute.field: attribute.name for attribute in ATTRIBUTES} | {"extra": "Extra"}
_ALWAYS_SHOWN: Final = frozenset({"arguments", "input_sandbox", "output_sandbox", "input_data"})
_TO_ESCAPE = re.compile(r'["\\\x00-\x1f\x7f]')
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class JobDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_JSON_NAMES):
    """What one job is: the value of every attribute, defaults filled in.

    ``input_data`` holds plain LFNs (``/vo/…``); entries of ``input_sandbox`` and ``output_data`` keep their ``LFN:`` or
    ``SB:``. ``extra`` holds attributes that have no meaning here, evaluated. Unset integers are None.
    """

    executable: str
    arguments: str = ""
    job_name: str = "Unknown"
    job_group: str = ""
    job_type: str = "User"
    std_output: str = "std.out"
    std_error: str = "std.err"
    input_sandbox: tuple[str, ...] = ()
    output_sandbox: tuple[str, ...] = ()
    input_data: tuple[str, ...] = ()
    output_data: tuple[str, ...] = ()
    output_se: tuple[str, ...] = ()
    output_path: str = ""
    cpu_time: int = DEFAULT_CPU_TIME
    wall_time: int | None = None
    priority: int = DEFAULT_PRIORITY
    sites: tuple[str, ...] = ()
    banned_sites: tuple[str, ...] = ()
    grid_ces: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    architecture: str = ""
    tags: tuple[str, ...] = ()
    tag_expression: str = ""
    pools: tuple[str, ...] = ()
    number_of_processors: int | None = None
    min_number_of_processors: int | None = None
    max_number_of_processors: int | None = None
    whole_node: bool = False
    max_ram: int | None = None
    min_ram: int | None = None
    max_ram_per_processor: int | None = None
    disk_space: int | None = None
    number_of_gpus: int | None = None
    gpu_memory: int | None = None
    gpu_models: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    lease_duration: int = DEFAULT_LEASE_SECONDS
    log_level: str = "INFO"
    stop_sig_regex: str | None = None
    stop_sig_number: int | None = None
    stop_sig_start_seconds: int | None = None
    stop_sig_finish_seconds: int | None = None
    extra: dict[str, object] = {}

    @property
    def min_processors(self) -> int:
        """Processors without which the job cannot run."""
        return self.number_of_processors or self.min_number_of_processors or 1

    @property
    def max_processors(self) -> int | None:
        """Processors that the job can use at most; None: as many as there are."""
        if self.number_of_processors is not None:
            return self.number_of_processors
        if self.max_number_of_processors is not None or self.min_number_of_processors is not None:
            return self.max_number_of_processors
        return 1

    @property
    def fixed_memory_mb(self) -> int:
        """Memory that it needs however many processors it gets, MB; 0 if it does not say."""
        return max(self.max_ram or 0, self.min_ram or 0)

    def memory_mb(self, processors: int) -> int:
        """Memory that it needs with so many processors, MB; 0 if it does not say."""
        return self.fixed_memory_mb + (self.max_ram_per_processor or 0) * processors

    @property
    def gpus(self) -> int:
        """GPUs without which the job cannot run."""
        if self.number_of_gpus is not None:
            return self.number_of_gpus
        return 1 if self.gpu_memory or self.gpu_models else 0

    def split_arguments(self) -> list[str]:
        """Return the arguments as the payload gets them.

        Quotes and backslashes work as in a POSIX shell; nothing is expanded. Where they do not add up (a single
        apostrophe, say), the text is split at blanks and quotes are kept.
        """
        try:
            return shlex.split(self.arguments)
        except ValueError:
            return self.arguments.split()

    def attributes(self) -> dict[str, object]:
        """Return name and value of each attribute that was given or has a meaningful default, extras included."""
        found: dict[str, object] = {}
        for attribute in ATTRIBUTES:
            value: object = getattr(self, attribute.field)
            if attribute.field in _ALWAYS_SHOWN or value not in (None, "", (), {}):
                found[attribute.name] = list(value) if isinstance(value, tuple) else value
        return found | self.extra


def fill_job_id(description: JobDescription, job_id: int | str) -> JobDescription:
    """Return the description with the id of its job in place of ``%j``."""
    written = str(job_id)

    def fill(text: str) -> str:
        return text.replace("%j", written)

    changes: dict[str, object] = {}
    for name in description.__struct_fields__:
        value = getattr(description, name)
        if value and not isinstance(value, (int, float)):
            filled = map_texts(value, fill)
            if filled != value:
                changes[name] = filled
    return msgspec.structs.replace(description, **changes) if changes else description


def map_texts(value: object, change: Callable[[str], str]) -> object:
    """Apply a function to each text in a value, however nested; names of a record stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple):
        return tuple(map_texts(item, change) for item in value)
    if isinstance(value, list):
        return [map_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: map_texts(item, change) for key, item in value.items()}
    return value


def unparse(description: JobDescription) -> str:
    """Return the canonical text: one attribute a line in the order of the table, defaults left out."""
    lines = ["["]
    for attribute in ATTRIBUTES:
        value: object = getattr(description, attribute.field)
        if attribute.field == "environment":
            value = [f"{name}={content}" for name, content in description.environment.items()]
        default: object = [] if attribute.field == "environment" else attribute.default
        if value != default:
            lines.append(f"  {attribute.name} = {unparse_value(value)};")
    lines.extend(f"  {name} = {unparse_value(value)};" for name, value in description.extra.items())
    return "\n".join([*lines, "]\n"])


def unparse_value(value: object) -> str:
    """Return the text of one value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + _TO_ESCAPE.sub(_escape, value) + '"'
    if isinstance(value, (tuple, list)):
        return "{" + ", ".join(map(unparse_value, value)) + "}"
    if isinstance(value, dict):
        return "[ " + "".join(f"{name} = {unparse_value(item)}; " for name, item in value.items()) + "]"
    return "undefined"


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return _ESCAPES.get(character) or f"\\{ord(character):03o}"
