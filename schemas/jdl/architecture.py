"""Processor architectures with levels: ``family``, or ``family-vN``, such as ``x86_64-v3`` or ``aarch64``.

Spelled as ``uname -m`` spells the family; any case, ``_`` for ``-``, and usual other names are understood. The levels
of x86_64 are those of its psABI (v1 to v4); a family without a level means its lowest. One architecture serves another
of its family with the same or a lower level; different families never.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

from ..errors import PilotageError

MAX_LENGTH: Final = 64
"""Characters of an architecture."""

X86_LEVELS: Final = 4
"""Highest level of the x86-64 psABI. A node may say a higher one some day; a wish for it is a slip today."""

FAMILIES: Final = ("x86_64", "aarch64", "i686", "armv7l", "ppc64le", "ppc64", "riscv64", "s390x", "loongarch64")
"""Families that a job may want; a node may be of any."""
_OTHER_NAMES: Final = {"amd64": "x86_64", "x64": "x86_64", "intel64": "x86_64", "arm64": "aarch64"} | dict.fromkeys(
    ("i386", "i486", "i586", "x86_32"), "i686"
)
_LOWEST: Final = {"x86_64": (1, 0), "aarch64": (8, 0)}
_FORM = re.compile(
    r"(?P<family>[a-z][a-z0-9]*(?:_[a-z0-9]+)*?)(?:_v(?P<level>[0-9]{1,3})(?:\.(?P<minor>[0-9]{1,3}))?)?"
)
_LEVEL_INSIDE = re.compile(r"_v[0-9]")


class ArchitectureError(PilotageError):
    """A text that names no architecture; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A family and its level."""

    family: str
    level: tuple[int, int]

    def serves(self, wanted: Architecture) -> bool:
        """Whether what was built for another architecture runs on this one."""
        return self.family == wanted.family and self.level >= wanted.level

    def __str__(self) -> str:
        """The canonical text: equal architectures have equal texts."""
        if self.level == _LOWEST.get(self.family, (0, 0)):
            return self.family
        major, minor = self.level
        return f"{self.family}-v{major}.{minor}" if minor else f"{self.family}-v{major}"


@lru_cache(maxsize=1024)
def parse_architecture(text: str) -> Architecture:
    """Read an architecture as a node says it.

    Raises:
        ArchitectureError: it is none.
    """
    if len(text) > MAX_LENGTH:
        raise ArchitectureError(f"an architecture has at most {MAX_LENGTH} characters")
    found = _FORM.fullmatch(text.strip().lower().replace("-", "_"))
    if found is None or _LEVEL_INSIDE.search(found["family"]):
        raise ArchitectureError(f"{text!r} is no architecture; write the family and perhaps a level, such as x86_64-v3")
    family = _OTHER_NAMES.get(found["family"], found["family"])
    level = _LOWEST.get(family, (0, 0)) if found["level"] is None else (int(found["level"]), int(found["minor"] or 0))
    return Architecture(family, level)


def wanted_architecture(text: str) -> Architecture:
    """Read an architecture as a job wants it: a family or level that no node has is refused.

    Raises:
        ArchitectureError: it is none, or probably a slip; the message has the hint.
    """
    wanted = parse_architecture(text)
    if wanted.family == "x86_64" and (not 1 <= wanted.level[0] <= X86_LEVELS or wanted.level[1]):
        raise ArchitectureError(f"{text!r} has no such level; those of x86_64 are v1 to v{X86_LEVELS}")
    if wanted.family not in FAMILIES:
        close = _meant(wanted.family)
        hint = f"did you mean {close}?" if close else f"known families are {', '.join(FAMILIES)}"
        raise ArchitectureError(f"{text!r} is no architecture; {hint}")
    return wanted


def architecture_serves(offered: str, wanted: str) -> bool:
    """Whether a node's architecture is of the wanted family and level; an unreadable one serves nothing."""
    try:
        return parse_architecture(offered).serves(parse_architecture(wanted))
    except ArchitectureError:
        return False


def _meant(family: str) -> str | None:
    level = re.fullmatch(r"(.*[^v])_?v?([0-9])", family)
    if level and (base := _OTHER_NAMES.get(level[1].rstrip("_"), level[1].rstrip("_"))) in FAMILIES:
        return f"{base}-v{level[2]}"
    if family in {"x86", "intel", "amd", "x86_64bit", "x8664"}:
        return "x86_64"
    close = get_close_matches(family, (*FAMILIES, *_OTHER_NAMES), n=1, cutoff=0.8)
    return _OTHER_NAMES.get(close[0], close[0]) if close else None
