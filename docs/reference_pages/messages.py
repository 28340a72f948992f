"""Every message: what it says, who may send it, how large it may be, how long it may wait."""

# ruff: noqa: E501 - the page's text has lines of its own length
from __future__ import annotations

import msgspec

import schemas.messages  # noqa: F401 - fills the register
from broker.authorization import TABLE, Rule
from schemas.registry import Kind, MessageType, registered

from . import docstrings, types
from .markdown import codes, generated, seconds, size, table

_HEAD = """\
# Messages

{generated}

The body of a message is one JSON object, described here; what surrounds it is in [the wire format](../wire-format.md).
Fields that hold their default may be left out, unknown fields are ignored. Times are seconds since 1970-01-01 UTC. Who may
send what is the [authorization table](authorization.md); where it goes is the [topology](topology.md). The same in a form
for machines: [`schemas/asyncapi.yaml`](../../schemas/asyncapi.yaml).

A version never changes its meaning. What must change gets a new name (`job.submit.v2`) and lives beside the old one.
"""

_KINDS = {
    Kind.COMMAND: ("Commands", "*Do this*: one receiver."),
    Kind.QUERY: ("Queries", "*Tell me*: one receiver, answered from the read side."),
    Kind.REPLY: ("Replies", "To one client, through its reply queue; `aud` is the client id."),
    Kind.EVENT: ("Events", "*This happened*: any number of readers; `aud` is `events`."),
}


def render() -> str:
    """The page."""
    rows = registered()
    parts = [_HEAD.format(generated=generated("schemas/messages and broker/authorization.py"))]
    for kind, (title, text) in _KINDS.items():
        some = [row for row in rows.values() if row.kind is kind]
        parts.append(f"## {title}\n\n{text}\n")
        parts.extend(_message(row) for row in sorted(some, key=lambda row: row.name))
    parts.append("## Values\n\nWhat messages are made of.\n")
    parts.extend(_value(cls) for cls in _values())
    return "\n".join(parts)


def _message(row: MessageType) -> str:
    facts = [
        ("Sent by", _senders(TABLE[row.name])),
        ("Enters by", codes(door.value or "default exchange" for door in TABLE[row.name].doors)),
        ("Audience", f"`{row.audience}`"),
        ("May wait", seconds(row.lifetime)),
        ("At most", size(row.max_bytes)),
    ]
    text = "\n".join(f"- {name}: {value}" for name, value in facts)
    return f"### `{row.name}`\n\n{docstrings.summary(row.struct)}\n\n{text}\n\n{_fields(row.struct)}\n"


def _senders(rule: Rule) -> str:
    if rule.services:
        return "services " + codes(sorted(rule.services))
    proxy = "; only with a full proxy" if rule.full_proxy else ""
    return "a group with " + " or ".join(f"`{name}`" for name in sorted(rule.properties)) + proxy


def _fields(cls: type) -> str:
    info = msgspec.inspect.type_info(cls)
    if not isinstance(info, msgspec.inspect.StructType) or not info.fields:
        return "No fields."
    meaning = docstrings.fields(cls)
    return table(
        ("Field", "Type", "Default", "Meaning"),
        (
            (f"`{field.encode_name}`", types.words(field.type), types.default(field), meaning.get(field.name, ""))
            for field in info.fields
        ),
    )


def _values() -> list[type]:
    found: dict[str, type] = {}
    for row in registered().values():
        for cls in types.values_in(msgspec.inspect.type_info(row.struct))[1:]:
            found[cls.__name__] = cls
    return [found[name] for name in sorted(found)]


def _value(cls: type) -> str:
    return f"### {cls.__name__}\n\n{docstrings.summary(cls)}\n\n{_fields(cls)}\n"
