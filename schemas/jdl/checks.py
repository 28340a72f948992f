"""What each kind of attribute accepts.

Promises: :func:`check` takes plain data (text, numbers, tuples of text), never changes a value to make it fit, reports
every fault, and returns the value for the field. It knows nothing of places in a text: faults name the item of a list.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

from .architecture import ArchitectureError, wanted_architecture
from .attributes import Attribute, Kind
from .number_tags import is_number_tag, replacement
from .tag_expression import TagExpressionError, names_of, settle

if TYPE_CHECKING:
    from collections.abc import Callable

Plain: TypeAlias = str | int | float | bool | tuple[str, ...]
"""The value of an attribute as read, before it is checked."""

FieldValue: TypeAlias = str | int | bool | tuple[str, ...] | dict[str, str] | None
"""The value of a field of a job description."""

Report: TypeAlias = "Callable[[int | None, str], None]"
"""Takes a fault: the index of the item concerned (None: the whole value) and the message."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_BUT_BLANK = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_NAME = re.compile(r"[^\s,;\"'{}\[\]\x00-\x1f\x7f]+")
_MODEL = re.compile(r"(?=.*\w)[^,;\"'{}\[\]\x00-\x1f\x7f]+")
_INTEGER = re.compile(r"\s*[+-]?(?:0|[1-9][0-9]{0,17})\s*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LFN = re.compile(r"/[^/]+(?:/[^/]+)+")
_TRUE: Final = frozenset({"true", "yes", "y", "1"})
_FALSE: Final = frozenset({"false", "no", "n", "0"})


def check(attribute: Attribute, value: Plain, report: Report) -> FieldValue:
    """Check a value against its row of the table and return it in the form of the field.

    Args:
        attribute: The row.
        value: The value as read from the text, placeholders filled in.
        report: Called for each fault; after a fault the returned value means nothing.
    """
    return _CHECKS[attribute.kind](attribute, value, report)


def _text(attribute: Attribute, value: Plain, report: Report) -> str:
    text = _one_text(attribute, value, report)
    control = _CONTROL_BUT_BLANK if attribute.field == "arguments" else _CONTROL
    if control.search(text):
        report(None, f"{attribute.name} holds a control character")
    elif attribute.field == "executable" and not text.strip():
        report(None, "Executable is empty")
    return text


def _one_text(attribute: Attribute, value: Plain, report: Report) -> str:
    if not isinstance(value, str):
        report(None, f"{attribute.name} is one text")
        return ""
    if len(value) > attribute.max_length:
        report(None, f"{attribute.name} is {len(value)} characters long, at most {attribute.max_length} are allowed")
    return value


def _word(attribute: Attribute, value: Plain, report: Report) -> str:
    text = _one_text(attribute, value, report)
    if _NAME.fullmatch(text) is None:
        report(None, f"{attribute.name} is one word without blanks, commas or quotes")
    return text


def _file(attribute: Attribute, value: Plain, report: Report) -> str:
    text = _one_text(attribute, value, report)
    if text in {"", ".", ".."} or "/" in text or _CONTROL.search(text):
        report(None, f"{attribute.name} is the name of a file in the work directory, without folders")
    return text


def _path(attribute: Attribute, value: Plain, report: Report) -> str:
    text = _one_text(attribute, value, report)
    if ".." in text.split("/") or _CONTROL.search(text):
        report(None, f"{attribute.name} is a path without '..'")
    return text


def _choice(attribute: Attribute, value: Plain, report: Report) -> str:
    text = _one_text(attribute, value, report).upper()
    if text not in attribute.choices:
        report(None, f"{attribute.name} is one of {', '.join(attribute.choices)}")
    return text


def _integer(attribute: Attribute, value: Plain, report: Report) -> int:
    number: int | None = None
    if isinstance(value, str):
        number = int(value) if _INTEGER.fullmatch(value) else None
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None:
        shown = value[:40] if isinstance(value, str) else str(value).lower()
        report(None, f"{attribute.name} is an integer without leading zeros, not {shown}")
        return 0
    if not attribute.minimum <= number <= attribute.maximum:
        report(None, f"{attribute.name} is {number}, outside {attribute.minimum} to {attribute.maximum}")
    return number


def _boolean(attribute: Attribute, value: Plain, report: Report) -> bool:
    word = value.strip().lower() if isinstance(value, str) else str(value).lower()
    if word not in _TRUE | _FALSE:
        report(None, f"{attribute.name} is true or false")
    return word in _TRUE


def _items(attribute: Attribute, value: Plain, report: Report) -> tuple[str, ...]:
    items = value if isinstance(value, tuple) else (str(value),)
    if len(items) > attribute.max_items:
        report(None, f"{attribute.name} has {len(items)} items, at most {attribute.max_items} are allowed")
        items = items[: attribute.max_items]
    for index, item in enumerate(items):
        if len(item) > attribute.max_length:
            report(index, f"An item of {attribute.name} is longer than {attribute.max_length} characters")
    return items


def _names(attribute: Attribute, value: Plain, report: Report) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for index, item in enumerate(_items(attribute, value, report)):
        if _NAME.fullmatch(item) is None:
            report(index, f"{_quoted(item)} in {attribute.name} is not a name")
        found[item] = None
    if any(name.upper() == "ANY" for name in found):
        if attribute.name in {"Site", "Platform"}:
            return ()
        if attribute.name == "Pool":
            report(None, "Pool is not ANY: name the pools, or leave it out for pilots of no pool")
    return tuple(found)


def _models(attribute: Attribute, value: Plain, report: Report) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for index, item in enumerate(_items(attribute, value, report)):
        name = " ".join(item.split())
        if _MODEL.fullmatch(name) is None:
            report(index, f"{_quoted(item)} in {attribute.name} is not a model's name")
        found[name] = None
    return () if any(name.upper() == "ANY" for name in found) else tuple(found)


def _architecture(attribute: Attribute, value: Plain, report: Report) -> str:
    text = _one_text(attribute, value, report).strip()
    if not text or text.upper() == "ANY":
        return ""
    try:
        return str(wanted_architecture(text))
    except ArchitectureError as error:
        report(None, f"{attribute.name}: {error}")
        return ""


def _tag_expression(attribute: Attribute, value: Plain, report: Report) -> str:
    text = _one_text(attribute, value, report).strip()
    try:
        settle((), text)
        for tag in filter(is_number_tag, names_of(text) if text else ()):
            report(None, f"{tag} in {attribute.name} is a number, not a tag: write {replacement(tag)}")
    except TagExpressionError as error:
        at = f" (character {error.offset + 1})" if error.offset else ""
        report(None, f"{attribute.name}: {error}{at}")
    return text


def _local_files(attribute: Attribute, value: Plain, report: Report) -> tuple[str, ...]:
    items = tuple(map(_upper_scheme, _items(attribute, value, report)))
    for index, item in enumerate(items):
        if item in {"", "SB:"} or _CONTROL.search(item):
            report(index, f"{_quoted(item)} in {attribute.name} is not a file name")
        elif item.startswith("LFN:"):
            _check_lfn(attribute, item[4:], index, report)
    return tuple(dict.fromkeys(items))


def _result_files(attribute: Attribute, value: Plain, report: Report) -> tuple[str, ...]:
    items = _items(attribute, value, report)
    for index, item in enumerate(items):
        _check_inside(attribute, item, index, report)
    return tuple(dict.fromkeys(items))


def _lfns(attribute: Attribute, value: Plain, report: Report) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for index, item in enumerate(_items(attribute, value, report)):
        lfn = item.strip()
        lfn = lfn[4:] if lfn[:4].upper() == "LFN:" else lfn
        _check_lfn(attribute, lfn, index, report)
        found[lfn] = None
    return tuple(found)


def _output_files(attribute: Attribute, value: Plain, report: Report) -> tuple[str, ...]:
    items = tuple(map(_upper_scheme, _items(attribute, value, report)))
    for index, item in enumerate(items):
        if item.startswith("LFN:"):
            _check_lfn(attribute, item[4:], index, report)
        else:
            _check_inside(attribute, item, index, report)
    return tuple(dict.fromkeys(items))


def _environment(attribute: Attribute, value: Plain, report: Report) -> dict[str, str]:
    found: dict[str, str] = {}
    items = _items(attribute, value, report)
    for index, item in enumerate(items):
        name, sign, content = item.partition("=")
        if not sign or _VARIABLE.fullmatch(name.strip()) is None:
            report(index, f"{_quoted(item)} in {attribute.name} is not of the form NAME=value")
        elif "\x00" in content:
            report(index, f"{name} holds a NUL character")
        found[name.strip()] = content
    if sum(map(len, items)) > attribute.max_length:
        report(None, f"{attribute.name} is larger than {attribute.max_length} characters")
    return found


def _upper_scheme(item: str) -> str:
    scheme, colon, rest = item.strip().partition(":")
    return f"{scheme.upper()}:{rest}" if colon and scheme.upper() in {"LFN", "SB"} else item


def _check_lfn(attribute: Attribute, lfn: str, index: int, report: Report) -> None:
    if _LFN.fullmatch(lfn) is None or _CONTROL.search(lfn) or {".", ".."} & set(lfn.split("/")):
        report(index, f"{_quoted(lfn)} in {attribute.name} is not an LFN: /<vo>/path without // and ..")


def _check_inside(attribute: Attribute, name: str, index: int, report: Report) -> None:
    if not name or name.startswith(("/", "~")) or ".." in name.split("/") or _CONTROL.search(name):
        report(index, f"{_quoted(name)} in {attribute.name} is not a file of the work directory (no /…, no ..)")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


_CHECKS: Final[dict[Kind, Callable[[Attribute, Plain, Report], FieldValue]]] = {
    Kind.TEXT: _text,
    Kind.WORD: _word,
    Kind.FILE: _file,
    Kind.PATH: _path,
    Kind.CHOICE: _choice,
    Kind.INTEGER: _integer,
    Kind.BOOLEAN: _boolean,
    Kind.NAMES: _names,
    Kind.MODELS: _models,
    Kind.ARCHITECTURE: _architecture,
    Kind.TAG_EXPRESSION: _tag_expression,
    Kind.LOCAL_FILES: _local_files,
    Kind.RESULT_FILES: _result_files,
    Kind.LFNS: _lfns,
    Kind.OUTPUT_FILES: _output_files,
    Kind.ENVIRONMENT: _environment,
}
