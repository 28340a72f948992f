"""Tags in which DIRAC writes numbers: ``8Processors``, ``MultiProcessor``, ``WholeNode``, ``4GB``, ``4000MB``.

There a number becomes a tag, and the pilot carries a tag for each smaller number. Here numbers are compared as numbers,
and no node carries such tags. So that descriptions keep their meaning, :func:`read_number_tags` turns them into the
attributes that say the same, with a warning that names them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from .attributes import MAX_PROCESSORS, MAX_RAM_MB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .checks import FieldValue

_NUMBER_TAG = re.compile(r"(?P<count>[0-9]{1,9})(?P<unit>Processors?|GB|MB)|MultiProcessor|WholeNode", re.IGNORECASE)
"""In any case of letters: DIRAC's database compares them so."""

MB_PER_GB: Final = 1000
"""As DIRAC reckons."""


def is_number_tag(tag: str) -> bool:
    """Whether a tag is a number in DIRAC's writing."""
    return _NUMBER_TAG.fullmatch(tag) is not None


def replacement(tag: str) -> str:
    """What says the same as such a tag."""
    found = _NUMBER_TAG.fullmatch(tag)
    if found is None or found["unit"] is None:
        return "MinNumberOfProcessors = 2" if tag.lower() == "multiprocessor" else "WholeNode = true"
    count = int(found["count"])
    if found["unit"].lower().startswith("processor"):
        return f"MinNumberOfProcessors = {count}"
    return f"MinRAM = {_megabytes(count, found['unit'])}"


def read_number_tags(
    fields: Mapping[str, FieldValue],
    warn: Callable[[str, str], None] | None = None,
    refuse: Callable[[str, str], None] | None = None,
) -> dict[str, FieldValue]:
    """The fields of a description with numbers in place of such tags; without any, as they were.

    Args:
        fields: checked fields that were given.
        warn: takes a field's name and what was read for what.
        refuse: likewise, for a tag that contradicts another attribute.
    """
    given = dict(fields)
    tags = given.get("tags") or ()
    numbers = [tag for tag in tags if is_number_tag(tag)] if isinstance(tags, tuple) else []
    if not numbers or not isinstance(tags, tuple):
        return given
    given["tags"] = tuple(tag for tag in tags if tag not in numbers)
    for tag in sorted(numbers, key=lambda tag: tag.lower() == "multiprocessor"):
        fault = _apply(tag, given)
        if fault is not None and refuse is not None:
            refuse("tags", f"{tag} in Tags contradicts {fault}")
        elif warn is not None:
            warn("tags", f"{tag} in Tags is read as {replacement(tag)}; write that instead")
    return given


def _apply(tag: str, given: dict[str, FieldValue]) -> str | None:
    found = _NUMBER_TAG.fullmatch(tag)
    if found is None or found["unit"] is None:
        if tag.lower() == "wholenode":
            given["whole_node"] = True
            return None
        return None if given.get("whole_node") else _at_least(2, given)
    count = int(found["count"])
    if found["unit"].lower().startswith("processor"):
        return _at_least(count, given)
    memory, least, most = _megabytes(count, found["unit"]), given.get("min_ram"), given.get("max_ram")
    if memory > MAX_RAM_MB or (isinstance(most, int) and most < memory):
        return f"MaxRAM, which is {most}" if most else f"the highest MinRAM, {MAX_RAM_MB}"
    if memory and not (isinstance(least, int) and least >= memory):
        given["min_ram"] = memory
    return None


def _at_least(count: int, given: dict[str, FieldValue]) -> str | None:
    exact, least, most = (given.get(f"{which}number_of_processors") for which in ("", "min_", "max_"))
    if count > MAX_PROCESSORS:
        return f"the highest MinNumberOfProcessors, {MAX_PROCESSORS}"
    if isinstance(exact, int):
        return f"NumberOfProcessors, which is {exact}" if exact < count else None
    if isinstance(most, int) and most < count:
        return f"MaxNumberOfProcessors, which is {most}"
    if count > 1 and not (isinstance(least, int) and least >= count):
        given["min_number_of_processors"] = count
    return None


def _megabytes(count: int, unit: str) -> int:
    return count * MB_PER_GB if unit.lower() == "gb" else count
