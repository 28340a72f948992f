"""The ClassAd functions that make sense in a constant expression.

Each takes evaluated arguments and returns a value; TypeError, ValueError or OverflowError mean that it does not take
them. Left out on purpose: what depends on time, chance or the node.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from .source import MAX_JDL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .evaluate import Value


def as_text(value: Value) -> str:
    """Return how ClassAd writes a scalar into text.

    Raises:
        TypeError: It is no scalar.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise TypeError


def _strcat(*parts: Value) -> Value:
    return _joined("", parts)


def _join(separator: Value, *parts: Value) -> Value:
    return _joined(_text(separator), parts[0] if len(parts) == 1 and isinstance(parts[0], list) else parts)


def _joined(separator: str, parts: Sequence[Value]) -> str:
    texts = [as_text(part) for part in parts]
    if len(separator) * len(texts) + sum(map(len, texts)) > MAX_JDL_BYTES:
        raise OverflowError
    return separator.join(texts)


def _substr(text: Value, start: Value, length: Value = None) -> Value:
    whole, first = _text(text), int(_number(start))
    rest = whole[first if first >= 0 else max(0, len(whole) + first) :]
    return rest if length is None else rest[: int(_number(length))]


def _size(value: Value) -> Value:
    if isinstance(value, (str, list, dict)):
        return len(value)
    raise TypeError


def _member(item: Value, items: Value) -> Value:
    if not isinstance(items, list):
        raise TypeError
    wanted = item.lower() if isinstance(item, str) else item
    return any(wanted == (other.lower() if isinstance(other, str) else other) for other in items)


def _int(value: Value) -> Value:
    return int(value) if isinstance(value, (bool, int, float)) else int(float(_text(value)))


def _real(value: Value) -> Value:
    return float(value) if isinstance(value, (bool, int, float)) else float(_text(value))


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    raise TypeError


def _number(value: Value) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise TypeError


def _round(value: Value) -> Value:
    """Round half away from zero, as ClassAd does."""
    number = _number(value)
    return int(math.copysign(math.floor(abs(number) + 0.5), number))


def _numbers(values: tuple[Value, ...]) -> list[int | float]:
    items = values[0] if len(values) == 1 and isinstance(values[0], list) else list(values)
    return [_number(item) for item in items]


FUNCTIONS: Final[dict[str, Callable[..., Value]]] = {
    "strcat": _strcat,
    "join": _join,
    "substr": _substr,
    "size": _size,
    "strlen": lambda value: len(_text(value)),
    "toupper": lambda value: _text(value).upper(),
    "tolower": lambda value: _text(value).lower(),
    "string": as_text,
    "int": _int,
    "real": _real,
    "floor": lambda value: math.floor(_number(value)),
    "ceiling": lambda value: math.ceil(_number(value)),
    "round": _round,
    "min": lambda *values: min(_numbers(values)),
    "max": lambda *values: max(_numbers(values)),
    "sum": lambda *values: sum(_numbers(values)),
    "member": _member,
    "isundefined": lambda value: value is None,
}
"""Function by lower-case name; ``ifThenElse`` is in ``evaluate`` because it evaluates one branch only."""
