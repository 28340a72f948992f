"""Attributes that must fit each other: what one description may not say at once.

:func:`contradictions` takes fields that are each valid by themselves, numbers in tags already read
(:mod:`.number_tags`), and names every contradiction with the field at which to show it. :func:`impossible` asks a whole
description, of whatever origin, for all that no node can ever fulfil.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from .architecture import ArchitectureError, wanted_architecture
from .attributes import ATTRIBUTES, MAX_RAM_MB, Kind
from .tag_expression import TagExpressionError, settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .checks import FieldValue
    from .description import JobDescription

_AMOUNTS: Final = tuple(row for row in ATTRIBUTES if row.kind is Kind.INTEGER)


def contradictions(fields: Mapping[str, FieldValue]) -> Iterator[tuple[str, str]]:
    """The fields concerned and what is wrong."""
    yield from _processors(fields)
    yield from _memory(fields)
    yield from _gpus(fields)
    sites, banned = fields.get("sites"), fields.get("banned_sites")
    if isinstance(sites, tuple) and isinstance(banned, tuple) and sites and set(sites) <= set(banned):
        yield "sites", "Every Site of the list is among BannedSites"
    tags, expression = fields.get("tags"), fields.get("tag_expression")
    if isinstance(tags, tuple) and tags and isinstance(expression, str) and expression:
        try:
            settle(tuple(sorted(tags)), expression)
        except TagExpressionError as error:
            yield "tag_expression", f"TagExpression: {error}"


def impossible(description: JobDescription) -> tuple[str, ...]:
    """Why no node can ever fulfil a description; nothing if one could."""
    fields = msgspec.structs.asdict(description)
    faults = []
    for row in _AMOUNTS:
        amount = fields[row.field]
        if amount is not None and not row.minimum <= amount <= row.maximum:
            faults.append(f"{row.name} is {amount}, outside {row.minimum} to {row.maximum}")
    try:
        if description.architecture:
            wanted_architecture(description.architecture)
        settle((), description.tag_expression)
    except (ArchitectureError, TagExpressionError) as error:
        faults.append(str(error))
    else:
        faults.extend(message for _, message in contradictions(fields))
    return tuple(faults)


def _processors(fields: Mapping[str, FieldValue]) -> Iterator[tuple[str, str]]:
    exact, least, most = (fields.get(f"{which}number_of_processors") for which in ("", "min_", "max_"))
    if isinstance(least, int) and isinstance(most, int) and least > most:
        yield "max_number_of_processors", f"MinNumberOfProcessors {least} is above MaxNumberOfProcessors {most}"
    if isinstance(exact, int) and ((least or exact) != exact or (most or exact) != exact):
        message = f"NumberOfProcessors {exact} contradicts MinNumberOfProcessors or MaxNumberOfProcessors"
        yield "number_of_processors", message


def _memory(fields: Mapping[str, FieldValue]) -> Iterator[tuple[str, str]]:
    least, most, each = (fields.get(name) for name in ("min_ram", "max_ram", "max_ram_per_processor"))
    if isinstance(least, int) and isinstance(most, int) and least > most:
        yield "min_ram", f"MinRAM {least} is above MaxRAM {most}"
    if isinstance(each, int):
        processors = fields.get("number_of_processors") or fields.get("min_number_of_processors") or 1
        fixed = max(value for value in (least, most, 0) if isinstance(value, int))
        needed = fixed + each * processors if isinstance(processors, int) else 0
        if needed > MAX_RAM_MB:
            yield "max_ram_per_processor", f"The job needs {needed} MB of memory in all, above {MAX_RAM_MB}"


def _gpus(fields: Mapping[str, FieldValue]) -> Iterator[tuple[str, str]]:
    if fields.get("number_of_gpus") == 0 and (fields.get("gpu_memory") or fields.get("gpu_models")):
        yield "number_of_gpus", "NumberOfGPUs is 0, but GPUMemory or GPUModel ask for one"
