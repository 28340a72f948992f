"""Write golden examples of message types that have none yet: `python tests/golden/make.py`. Old ones are never touched.

For each registered name: `messages/<name>.json`, the exact payload with every field filled, and `messages/<name>.jws`,
its signed header. They stay as they are for ever: what was once on the wire must stay readable.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402 - the path above must stand first
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from msgspec import inspect as mi  # noqa: E402

import schemas.messages  # noqa: E402, F401 - fills the register
from broker.authorization import TABLE  # noqa: E402
from broker.signing import Signer, b64url  # noqa: E402
from schemas.identity import make_client_id  # noqa: E402
from schemas.job import JobStatus  # noqa: E402
from schemas.registry import Kind, Message, MessageType, encode, registered  # noqa: E402

FOLDER = Path(__file__).parent / "messages"
KEY = ec.derive_private_key(int.from_bytes(hashlib.sha256(b"pilotage golden examples").digest()), ec.SECP256R1())
"""Everybody can make this key: it protects nothing."""
THUMBPRINT = b64url(hashlib.sha256(b"golden").digest())
DN = "/DC=org/DC=example/OU=People/CN=Ada Example"
CLIENT = make_client_id(DN, "golden1")
SERVICE_DN = "/DC=org/DC=example/OU=Services/CN={}"
NOW = 1_800_000_000.0
SECONDS = 60.0

_BY_NAME: dict[str, Any] = {
    "dn": DN,
    "owner": DN,
    "owners": (DN,),
    "identity": DN,
    "issuer": DN,
    "client": CLIENT,
    "pilot": CLIENT,
    "reply_to": f"reply.{CLIENT}",
    "group": "lhcb_user",
    "lfn": "/lhcb/user/a/ada/data.txt",
    "lfns": ("/lhcb/user/a/ada/data.txt",),
    "se": "SE-USER",
    "pfn": "file:///data/se/data.txt",
    "site": "Site.Example.org",
    "descriptions": ('Executable = "run.sh";',),
    "adler32": "0a1b2c3d",
    "action": "kill",
    "what": "proxy",
    "purpose": "submission",
    "about": "pilot",
    "mode": 0o755,
}


def example(row: MessageType) -> Message:
    """A message with every field filled with something that is not its default."""
    return msgspec.convert(_fill(row.struct), row.struct)


def _fill(cls: type) -> dict[str, Any]:
    info = mi.type_info(cls)
    assert isinstance(info, mi.StructType)
    return {field.encode_name: _BY_NAME.get(field.name, _value(field.type, field.name)) for field in info.fields}


def _value(kind: mi.Type, name: str) -> Any:  # noqa: C901 - one flat list of cases
    match kind:
        case mi.Metadata(type=inner):
            return _value(inner, name)
        case mi.BoolType():
            return True
        case mi.IntType():
            low = kind.ge if kind.ge is not None else 0
            high = kind.le if kind.le is not None else kind.lt - 1 if kind.lt is not None else 7
            return int(max(low, min(7, high)))
        case mi.FloatType():
            return 60.5 if kind.le is not None else 1_800_000_000.5
        case mi.StrType(pattern=pattern) if pattern and "{20}" in pattern:
            return "abcdefghijklmnopqrst"
        case mi.StrType():
            return hashlib.sha256(name.encode()).hexdigest() if kind.pattern else name[: kind.max_length]
        case mi.BytesType():
            return (b"\x00golden\xff" * 16)[: max(8, kind.min_length or 0)]
        case mi.RawType():
            return msgspec.Raw(b'{"Executable":"run.sh"}')
        case mi.VarTupleType():
            return (_value(kind.item_type, name),)
        case mi.DictType():
            return {"name": "value"}
        case mi.UnionType(types=types):
            return next(_value(one, name) for one in types if not isinstance(one, mi.NoneType))
        case mi.EnumType(cls=cls):
            return JobStatus.RUNNING if cls is JobStatus else next(iter(cls))
        case mi.StructType(cls=cls):
            return msgspec.convert(_fill(cls), cls)
    raise TypeError(f"{name}: no example of {kind}")


def signer_of(row: MessageType) -> Signer:
    """Who would send it."""
    services = sorted(TABLE[row.name].services)
    if services:
        return Signer(KEY, THUMBPRINT, SERVICE_DN.format(services[0]), services[0])
    return Signer(KEY, THUMBPRINT, DN, CLIENT, "lhcb_user")


def write(row: MessageType) -> bool:
    """Write the example of one type; False if it is there already."""
    payload_file, jws_file = FOLDER / f"{row.name}.json", FOLDER / f"{row.name}.jws"
    if payload_file.exists() or jws_file.exists():
        return False
    payload = encode(example(row))
    jws = signer_of(row).sign(
        row,
        payload,
        audience=CLIENT if row.kind is Kind.REPLY else row.audience,
        now=NOW,
        message_id="018cc251-f400-7000-8000-676f6c64656e",
        expires=NOW + SECONDS,
        correlation="018cc251-f400-7000-8000-000000000001",
        with_reply=bool(TABLE[row.name].properties),
    )
    FOLDER.mkdir(exist_ok=True)
    payload_file.write_bytes(payload)
    jws_file.write_text(jws, encoding="ascii")
    return True


def main() -> int:
    """Write what is missing."""
    for row in registered().values():
        if write(row):
            sys.stdout.write(f"wrote {row.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
