"""The register of message types: every message on the wire has one row here.

A message is a frozen msgspec struct; its registered name and version (``job.submit.v1``) travel in the signed
header ``typ``. A new version is a new type: old ones stay readable. Nothing on the wire names a Python module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeVar

import msgspec

from .errors import InvalidInputError, brief

SECOND = 1
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

DEFAULT_MAX_BYTES = 1 << 20
"""Largest payload of an ordinary message: leaves room for 64 KiB of sandbox in base64 and 512 KiB of JDL, and is far
below RabbitMQ 4's 16 MiB cap."""


class Kind(StrEnum):
    """What a message is to its receiver."""

    COMMAND = "command"
    """Do this: one receiver."""
    QUERY = "query"
    """Tell me: one receiver, answered from the read side."""
    REPLY = "reply"
    """The answer to one client, through its reply queue."""
    EVENT = "event"
    """This happened: any number of readers."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every message body (JSON on the wire, one struct each)."""


class MessageType(msgspec.Struct, frozen=True):
    """One row of the register.

    Attributes:
        name: registered name with version, also the routing key towards services.
        struct: the payload's type.
        kind: command, query, reply or event.
        audience: the logical receiver that the signed ``aud`` must name; ``client`` for replies (then ``aud`` is
            the client id) and ``events`` for facts.
        lifetime: seconds from ``iat`` to ``exp``, that is how long the message may wait for admission.
        max_bytes: payloads above this are refused before they are parsed.
    """

    name: str
    struct: type[Message]
    kind: Kind
    audience: str
    lifetime: int
    max_bytes: int

    def decode(self, payload: bytes) -> Message:
        """Parse a payload whose signature was verified before.

        Raises:
            InvalidInputError: the payload is too large, not JSON, or not of this shape; the text says where.
        """
        if len(payload) > self.max_bytes:
            raise InvalidInputError(f"{self.name}: {len(payload)} bytes, at most {self.max_bytes} are allowed")
        try:
            return msgspec.json.decode(payload, type=self.struct)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInputError(f"{self.name}: {brief(error)}") from None


_BY_NAME: dict[str, MessageType] = {}
_BY_STRUCT: dict[type[Message], MessageType] = {}

M = TypeVar("M", bound=Message)


def register(
    name: str, kind: Kind, audience: str, *, lifetime: int, max_bytes: int = DEFAULT_MAX_BYTES
) -> Callable[[type[M]], type[M]]:
    """Enter a struct into the register under a name and version."""

    def enter(struct: type[M]) -> type[M]:
        if name in _BY_NAME or struct in _BY_STRUCT:
            raise ValueError(f"{name} is registered already")
        row = MessageType(name, struct, kind, audience, lifetime, max_bytes)
        _BY_NAME[name] = _BY_STRUCT[struct] = row
        return struct

    return enter


def by_name(name: str) -> MessageType:
    """The row of a registered name.

    Raises:
        InvalidInputError: no such message type.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise InvalidInputError(f"unknown message type {name[:80]!r}") from None


def type_of(message: Message | type[Message]) -> MessageType:
    """The row of a message or of its struct."""
    return _BY_STRUCT[message if isinstance(message, type) else type(message)]


def encode(message: Message) -> bytes:
    """The exact payload bytes of a message (JSON, deterministic field order)."""
    return msgspec.json.encode(message)


def registered() -> Mapping[str, MessageType]:
    """All rows by name."""
    return dict(_BY_NAME)
