"""Reading TOML text so that whatever is wrong with it is one error of ours, in one line."""

from __future__ import annotations

import math
import tomllib

from .errors import ConfigurationError, brief

MAX_TOML_BYTES = 16 * 1024 * 1024
"""The registry of a collaboration with 20 000 members has about 4 MB; settings have a few kB."""


def parse_toml(data: bytes, source: object, *, limit: int = MAX_TOML_BYTES) -> dict[str, object]:
    """Parse a file's content.

    Args:
        data: the content.
        source: the file's name, for the message.
        limit: bytes that are looked at at all.

    Raises:
        ConfigurationError: too large, no text, or not TOML.
    """
    if len(data) > limit:
        raise ConfigurationError(f"{source} is larger than {limit >> 10} KiB")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigurationError(f"{source}: not TOML: {brief(error)}") from None


def is_finite_number(value: object) -> bool:
    """Whether a value is a number that a float can hold: not a boolean, not infinite, no integer of 400 digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
