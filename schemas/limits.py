r"""Limits of the matcher: how many jobs may run at once, and how long after each other they may start. Pure data.

A limit has a *scope*: one or two of site, computing element, job type, owner and group, each with a value, or with
``*`` for each value separately. Its one text form is also its key in the registry: ``site=LCG.CERN.ch,job-type=MCSim``
(attributes in the order of :class:`Attribute`, ``\`` before a comma or a backslash inside a value). Who counts:
:mod:`consumers.domain.running_limits`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

from .errors import InvalidInputError

EACH = "*"
"""As a value: each value separately."""

MOST_ATTRIBUTES = 2
"""Of one scope: any one, any pair. Three would be counted for as many instances as there are kinds of jobs."""


class Attribute(StrEnum):
    """What a limit can be about, in the order of its text form."""

    SITE = "site"
    CE = "ce"
    JOB_TYPE = "job-type"
    OWNER = "owner"
    GROUP = "group"


Scope: TypeAlias = tuple[tuple[Attribute, str], ...]
"""Attribute and value, in the order of :class:`Attribute`."""

EXAMPLE = "site=NAME,job-type=TYPE"

_ORDER: dict[str, int] = {attribute: place for place, attribute in enumerate(Attribute)}
_SPECIAL = re.compile(r"[\\,]")
_PART = re.compile(r"(?:[^\\,]|\\.)+")


class MatchLimit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One limit.

    Attributes:
        scope: which jobs it concerns (text form).
        running: most of them with a live lease at once; absent: not limited.
        delay_seconds: least seconds between two matches of them; absent or 0: none.
        reason: why, for who asks.
    """

    scope: str
    running: int | None = None
    delay_seconds: float | None = None
    reason: str = ""


def parse_scope(text: str) -> Scope:
    """Read a scope's text form, whatever the order of its attributes.

    Raises:
        InvalidInputError: it is none; the message says why.
    """
    parts = _PART.findall(text)
    if ",".join(parts) != text or not parts:
        raise InvalidInputError(f"{text[:100]!r} is no scope: write it as {EXAMPLE}")
    return make_scope([re.sub(r"\\(.)", r"\1", part) for part in parts])


def make_scope(words: Sequence[str]) -> Scope:
    """A scope from words such as ``site=NAME``, with values as they are.

    Raises:
        InvalidInputError: they make none; the message says why.
    """
    found: dict[Attribute, str] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if name not in _ORDER:
            raise InvalidInputError(f"{name[:100]!r} cannot be limited: say one or two of {', '.join(Attribute)}")
        if not equals or not value or not value.isprintable():
            raise InvalidInputError(f"{name} needs a value: {name}=NAME, or {name}={EACH} for each separately")
        if found.setdefault(Attribute(name), value) != value:
            raise InvalidInputError(f"{name} is there twice: make a limit for each")
    if not 1 <= len(found) <= MOST_ATTRIBUTES:
        raise InvalidInputError(f"a limit is about one or two of {', '.join(Attribute)}, not about {len(found)}")
    return tuple(sorted(found.items(), key=lambda one: _ORDER[one[0]]))


def scope_text(scope: Scope) -> str:
    """The one text form of a scope."""
    return ",".join(f"{attribute}={_SPECIAL.sub(_escaped, value)}" for attribute, value in scope)


def _escaped(found: re.Match[str]) -> str:
    return "\\" + found[0]
