"""The audit's hash chain: how an entry and its place become a hash, and what one line of an export looks like.

Each sealed entry has a place in one chain (1, 2, 3, …) and a hash::

    hash = SHA-256(netstrings of
        "pilotage.audit.v1", place, hash before, number, time, event, identity, client, detail)

A netstring is ``<length in bytes, decimal>:<bytes>,``: no two lists of fields have the same bytes. Numbers are decimal,
the hash before is 64 hexadecimal digits (zeros before the first place), the time is the 16 hexadecimal digits of its
IEEE 754 double (big-endian), texts are UTF-8, and ``detail`` is the JSON text exactly as it is kept. So whoever has the
entries checks the chain with any language's standard library. Pure: no clock, no I/O, no secret.

Lies elsewhere: checking a whole chain (:mod:`schemas.audit_check`), the events (:mod:`schemas.audit_events`), seals'
signatures (:mod:`broker.signing`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import struct
from typing import Protocol

import msgspec

from .errors import InvalidInputError

FORMAT = b"pilotage.audit.v1"
"""First field of every hash: another form of entry would have another name."""

GENESIS = "0" * 64
"""The hash before the first place."""

MAX_LINE = 64 * 1024
"""Bytes of one line of an export: an entry is below 20 kB."""


class Entry(Protocol):
    """What an entry says."""

    @property
    def id(self) -> int:
        """Its number in the database."""
        ...

    @property
    def time(self) -> float:
        """When, seconds since the epoch."""
        ...

    @property
    def event(self) -> str:
        """What happened: a name of :data:`schemas.audit_events.EVENTS`."""
        ...

    @property
    def identity(self) -> str:
        """Whose doing: canonical DN; empty if it was not proven."""
        ...

    @property
    def client(self) -> str:
        """Which client of his."""
        ...

    @property
    def detail(self) -> str:
        """Facts, JSON text."""
        ...


def canonical(place: int, before: str, entry: Entry) -> bytes:
    """The bytes that are hashed; unlike for unlike entries, places or predecessors."""
    fields = (
        FORMAT,
        b"%d" % place,
        before.encode("ascii", "replace"),
        b"%d" % entry.id,
        struct.pack(">d", entry.time).hex().encode(),
        entry.event.encode(),
        entry.identity.encode(),
        entry.client.encode(),
        entry.detail.encode(),
    )
    return b"".join(b"%d:%s," % (len(field), field) for field in fields)


def digest(place: int, before: str, entry: Entry) -> str:
    """The hash of an entry at its place."""
    return hashlib.sha256(canonical(place, before, entry)).hexdigest()


# -- lines -----------------------------------------------------------------------------------------------------------


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an export: a JSON object (https://jsonlines.org) with exactly these keys, in this order.

    Attributes:
        v: version of this form.
        place: in the chain; 0 while it is not sealed.
        id: number in the database.
        time: seconds since the epoch; with :attr:`detail` what the hash is made of, so do not round it.
        utc: the same for people (RFC 3339); not part of the hash.
        event: what happened.
        identity: canonical DN of whose doing it was; empty if that was not proven.
        client: his client id.
        detail: the facts as they are kept, byte for byte; a JSON string instead of an object if they are no JSON.
        hash: 64 hexadecimal digits; empty while it is not sealed.
    """

    v: int
    place: int
    id: int
    time: float
    utc: str
    event: str
    identity: str
    client: str
    detail: msgspec.Raw
    hash: str


class Placed(Entry, Protocol):
    """An entry with its place and hash."""

    @property
    def place(self) -> int:
        """Its place; 0 while it is not sealed."""
        ...

    @property
    def hash(self) -> str:
        """Its hash; empty while it is not sealed."""
        ...


class ReadEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that was read from a line."""

    id: int
    time: float
    event: str
    identity: str
    client: str
    detail: str
    place: int
    hash: str


def to_line(entry: Placed) -> str:
    """One line, without its newline."""
    moment = dt.datetime.fromtimestamp(entry.time, dt.UTC)
    line = Line(
        v=1,
        place=entry.place,
        id=entry.id,
        time=float(entry.time),
        utc=moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        event=entry.event,
        identity=entry.identity,
        client=entry.client,
        detail=_raw(entry.detail),
        hash=entry.hash,
    )
    return msgspec.json.encode(line).decode()


def from_line(text: str | bytes) -> ReadEntry:
    """Read a line.

    Raises:
        InvalidInputError: it is none.
    """
    if len(text) > MAX_LINE:
        raise InvalidInputError(f"a line of an audit has at most {MAX_LINE} bytes")
    try:
        line = msgspec.json.decode(text, type=Line)
        detail = bytes(line.detail).decode()
        if detail.startswith('"'):
            detail = msgspec.json.decode(detail, type=str)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidInputError(f"no line of an audit: {error}") from None
    if line.v != 1:
        raise InvalidInputError(f"a line of version {line.v}; this release knows version 1")
    return ReadEntry(
        id=line.id,
        time=line.time,
        event=line.event,
        identity=line.identity,
        client=line.client,
        detail=detail,
        place=line.place,
        hash=line.hash,
    )


def _raw(detail: str) -> msgspec.Raw:
    """The detail as it stands if it is one JSON object in one line, else as a JSON string."""
    data = detail.encode()
    try:
        plain = isinstance(msgspec.json.decode(data), dict) and detail == detail.strip() and detail.isprintable()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        plain = False
    return msgspec.Raw(data if plain else msgspec.json.encode(detail))
