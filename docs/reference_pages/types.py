"""Types of fields in words, with their limits."""

from __future__ import annotations

import enum

import msgspec
from msgspec import inspect as mi


def words(kind: mi.Type) -> str:  # noqa: C901 - one flat list of cases
    """A type in words."""
    match kind:
        case mi.Metadata(type=inner):
            return words(inner)
        case mi.IntType():
            return "integer" + _range(kind.ge, kind.gt, kind.le, kind.lt)
        case mi.FloatType():
            return "number" + _range(kind.ge, kind.gt, kind.le, kind.lt)
        case mi.StrType():
            pattern = f" like `{kind.pattern}`" if kind.pattern else ""
            return "text" + pattern + _length(kind.min_length, kind.max_length, "characters")
        case mi.BytesType():
            return "bytes (base64)" + _length(kind.min_length, kind.max_length, "bytes")
        case mi.BoolType():
            return "true or false"
        case mi.RawType() | mi.AnyType():
            return "any JSON"
        case mi.NoneType():
            return "null"
        case mi.VarTupleType() | mi.ListType():
            return f"list of {words(kind.item_type)}" + _length(kind.min_length, kind.max_length, "items")
        case mi.DictType():
            return f"object: {words(kind.key_type)} → {words(kind.value_type)}"
        case mi.UnionType(types=types):
            return " or ".join(words(one) for one in types)
        case mi.StructType(cls=cls):
            return f"[{cls.__name__}](#{cls.__name__.lower()})"
        case mi.EnumType(cls=cls):
            return f"one of the values of `{cls.__name__}`"
    raise TypeError(f"no words for {kind}")


def values_in(kind: mi.Type) -> list[type]:
    """Structs that a type mentions, its own first, in order."""
    match kind:
        case mi.Metadata(type=inner):
            return values_in(inner)
        case mi.VarTupleType(item_type=item) | mi.ListType(item_type=item):
            return values_in(item)
        case mi.UnionType(types=types):
            return [cls for one in types for cls in values_in(one)]
        case mi.StructType(cls=cls, fields=fields):
            return [cls, *(inner for field in fields for inner in values_in(field.type))]
    return []


def default(field: mi.Field) -> str:
    """A field's default in words; empty if there is none worth showing."""
    if field.required:
        return "needed"
    value = field.default
    if value is msgspec.NODEFAULT or value is None or value in ("", ()) or isinstance(value, msgspec.Struct):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value.value if isinstance(value, enum.Enum) else value}`"


def _range(ge: float | None, gt: float | None, le: float | None, lt: float | None) -> str:
    low = f"from {ge:g}" if ge is not None else f"above {gt:g}" if gt is not None else ""
    if le is not None and le >= 2**53:
        high = "to 2^53"
    else:
        high = f"to {le:g}" if le is not None else f"below {lt:g}" if lt is not None else ""
    text = " ".join(part for part in (low, high) if part)
    return f", {text}" if text else ""


def _length(low: int | None, high: int | None, unit: str) -> str:
    if not low and high is None:
        return ""
    if high is None:
        return f", at least {low} {unit}"
    return f", at most {high} {unit}" if not low else f", {low} to {high} {unit}"
