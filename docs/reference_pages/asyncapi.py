"""The AsyncAPI 3.0 document: for tools, and for those who write a client in another language."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

import schemas.messages  # noqa: F401 - fills the register
from broker.authorization import TABLE, Door
from broker.topology import EXCHANGES, QUEUES
from schemas.envelope import ALGORITHMS, JWS_HEADER, MAX_JWS_BYTES, Header
from schemas.registry import Kind, MessageType, registered

from . import docstrings
from .types import values_in

_HEAD = "# Made by `make docs` from schemas/messages, broker/topology.py and broker/authorization.py; do not edit.\n"
_REF = "#/components/schemas/{name}"

_DOORS = {
    "users": Door.USERS,
    "pilots": Door.PILOTS,
    "admin": Door.ADMIN,
    "events": Door.EVENTS,
    "replies": Door.REPLIES,
}
_DOOR_TEXT = {
    "users": "What users' tools send.",
    "pilots": "What pilots send.",
    "admin": "What operators send.",
    "events": "Facts; only services write.",
    "replies": "Answers to one client: the routing key is its reply queue, reply.<client id>.",
    "direct": "Straight into a queue, through the default exchange; only services write.",
}


def render() -> str:
    """The document as YAML."""
    text: str = yaml.dump(document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return _HEAD + text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def document() -> dict[str, Any]:
    """The document."""
    rows = sorted(registered().values(), key=lambda row: row.name)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Pilotage",
            "version": "1.0.0",
            "description": "Signed messages of a workload management system with pilot agents, over RabbitMQ.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{host}:{port}",
                "protocol": "amqps",
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ. SASL PLAIN: the user name is the client id, the password a login assertion.",
                "variables": {"host": {"default": "localhost"}, "port": {"default": "5671"}},
                "security": [{"$ref": "#/components/securitySchemes/loginAssertion"}],
            }
        },
        "channels": _channels(rows),
        "operations": _operations(rows),
        "components": {
            "securitySchemes": {
                "loginAssertion": {
                    "type": "plain",
                    "description": "A compact JWS, signed by the proxy's key, its chain in x5c; at most 60 s long.",
                }
            },
            "messageTraits": {"signed": _trait()},
            "messages": {row.name: _message(row) for row in rows},
            "schemas": _schemas(rows),
        },
    }


def _channels(rows: list[MessageType]) -> dict[str, Any]:
    channels = {name: _exchange(name, door, rows) for name, door in _DOORS.items()}
    channels["direct"] = {
        "address": "{queue}",
        "description": _DOOR_TEXT["direct"],
        "parameters": {"queue": {"description": "Name of a queue.", "enum": [queue.name for queue in QUEUES]}},
        "messages": _refs(row for row in rows if Door.QUEUE in TABLE[row.name].doors),
        "bindings": {
            "amqp": {"is": "routingKey", "exchange": {"name": "", "type": "default"}, "bindingVersion": "0.3.0"}
        },
    }
    return channels


def _exchange(name: str, door: Door, rows: list[MessageType]) -> dict[str, Any]:
    reply = door is Door.REPLIES
    return {
        "address": "{replyQueue}" if reply else "{message}",
        "title": door.value,
        "description": _DOOR_TEXT[name],
        "parameters": {"replyQueue": {"description": "reply.<client id>"}}
        if reply
        else {"message": {"description": "Registered name of the message."}},
        "messages": _refs(row for row in rows if door in TABLE[row.name].doors),
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": door.value, "type": EXCHANGES[door.value], "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _refs(rows: Any) -> dict[str, Any]:
    return {row.name: {"$ref": f"#/components/messages/{row.name}"} for row in rows}


def _operations(rows: list[MessageType]) -> dict[str, Any]:
    """What our services do: receive requests (and hints), send answers and facts."""
    operations: dict[str, Any] = {}
    for row in rows:
        rule = TABLE[row.name]
        senders = ", ".join(sorted(rule.services)) or "a group with " + " or ".join(sorted(rule.properties))
        for name, door in [*_DOORS.items(), ("direct", Door.QUEUE)]:
            if door not in rule.doors:
                continue
            action = "send" if rule.services else "receive"
            suffix = f".{name}" if len(rule.doors) > 1 else ""
            operation = {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": docstrings.summary(row.struct).partition("\n")[0],
                "description": f"Sent by {senders}." + (" Needs a full proxy." if rule.full_proxy else ""),
                "messages": [{"$ref": f"#/channels/{name}/messages/{row.name}"}],
            }
            if row.kind in {Kind.COMMAND, Kind.QUERY} and not rule.services:
                operation["reply"] = {
                    "address": {"location": "$message.header#/jws", "description": "Field rpl of the signed header."},
                    "channel": {"$ref": "#/channels/replies"},
                }
            operations[f"{action}.{row.name}{suffix}"] = operation
    return operations


def _message(row: MessageType) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.struct.__name__,
        "summary": docstrings.summary(row.struct).partition("\n")[0],
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/signed"}],
        "payload": {"$ref": _REF.format(name=row.struct.__name__)},
        "x-kind": row.kind.value,
        "x-audience": row.audience,
        "x-lifetime-seconds": row.lifetime,
        "x-max-bytes": row.max_bytes,
    }


def _trait() -> dict[str, Any]:
    return {
        "headers": {
            "type": "object",
            "required": [JWS_HEADER],
            "properties": {
                JWS_HEADER: {
                    "type": "string",
                    "pattern": r"^[A-Za-z0-9_-]+\.\.[A-Za-z0-9_-]+$",
                    "maxLength": MAX_JWS_BYTES,
                    "description": "Detached JWS (RFC 7515, RFC 7797 with b64=false) over the exact body: "
                    "BASE64URL(protected header) .. BASE64URL(signature). The protected header is "
                    "#/components/schemas/Header.",
                }
            },
        },
        "bindings": {"amqp": {"contentEncoding": "utf-8", "bindingVersion": "0.3.0"}},
    }


def _schemas(rows: list[MessageType]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([Header, *(row.struct for row in rows)], ref_template=_REF)
    structs = {cls.__name__: cls for row in rows for cls in _structs(row.struct)} | {"Header": Header}
    header = components["Header"]
    header["properties"]["alg"] = {"type": "string", "enum": list(ALGORITHMS)}
    header["properties"]["b64"] = {"type": "boolean", "const": False}
    header["properties"]["crit"] = {"type": "array", "items": {"const": "b64"}, "minItems": 1, "maxItems": 1}
    header["required"] = [*header["required"], "b64", "crit"]
    for name, schema in components.items():
        cls = structs.get(name)
        if cls is None:
            continue
        schema["description"] = docstrings.summary(cls)
        meaning = docstrings.fields(cls)
        for field in msgspec.structs.fields(cls):
            text = meaning.get(field.name)
            if text and "$ref" not in schema["properties"][field.encode_name]:
                schema["properties"][field.encode_name]["description"] = text
    return dict(sorted(components.items()))


def _structs(cls: type) -> list[type]:
    return values_in(msgspec.inspect.type_info(cls))
