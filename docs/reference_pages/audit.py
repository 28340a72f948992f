"""The audit's events, its chain and its lines."""

# ruff: noqa: E501 - the page's text has lines of its own length
from __future__ import annotations

from schemas.audit import Line
from schemas.audit_check import UNSEALED_SECONDS, Kind
from schemas.audit_events import EVENTS

from . import docstrings
from .markdown import generated, prose, table

_HEAD = """\
# The audit

{generated}

What it proves and what not is explained in [the audit's chain](../explanation/audit.md); what to do with it in
[use the audit](../how-to/audit.md).

## Events

An event that is not in this table cannot be written, nor can a fact that is not named with it. Long texts and lists are cut.
"""

_CHAIN = """
## The chain

Each entry gets a place (1, 2, 3, …) and a hash, SHA-256 over these fields in this order, each as a netstring
(`<length in bytes>:<bytes>,`):

| Field | As |
| --- | --- |
| form | the text `pilotage.audit.v1` |
| place | decimal |
| hash before | 64 hexadecimal digits; zeros before place 1 |
| number | decimal |
| time | 16 hexadecimal digits of the IEEE 754 double, big-endian |
| event, identity, client | UTF-8 |
| detail | UTF-8, the JSON text exactly as it is kept |

In Python, all of it:

```python
import hashlib, struct


def digest(place, before, number, time, event, identity, client, detail):
    when = struct.pack(">d", time).hex()
    fields = ["pilotage.audit.v1", str(place), before, str(number), when, event, identity, client, detail]
    texts = [field.encode() for field in fields]
    return hashlib.sha256(b"".join(b"%d:%s," % (len(text), text) for text in texts)).hexdigest()
```

A seal is the message [`audit.sealed.v1`](messages.md) with its detached JWS ([wire format](../wire-format.md)), signed by the
service `auditor`: `head` is the hash at place `last`, `previous` the one before place `first`. The chains of the certificates
are kept with the seals. The same message goes out as an event.

## Lines

`pilotage audit list --output lines` writes one entry a line: a JSON object ([JSON Lines](https://jsonlines.org)) with exactly
these keys in this order. A line that was not reformatted has all that its hash is made of.
"""

_COPY = """
`pilotage audit export` writes the same lines by place, and between them two other kinds:
`{"v":1,"signer":THUMBPRINT,"chain":PEM}`, a certificate chain of the auditor before its first seal, and
`{"v":1,"seal":PLACE,"payload":TEXT,"jws":TEXT}`, a seal behind the last entry that it seals.
"""

_FINDINGS = """
## What a check finds

`pilotage audit verify` tells each place that is wrong, and how:
"""


def render() -> str:
    """The page."""
    rows = (
        (f"`{name}`", event.meaning, event.who, "; ".join(f"`{field}` {text}" for field, text in event.fields.items()))
        for name, event in EVENTS.items()
    )
    attributes = docstrings.fields(Line)
    kinds = docstrings.fields(Kind)
    return "\n".join(
        [
            _HEAD.format(generated=generated("schemas/audit_events.py, schemas/audit.py, schemas/audit_check.py")),
            table(("Event", "Means", "Identity", "Facts"), rows),
            _CHAIN,
            table(
                ("Key", "Holds"), ((f"`{field}`", prose(attributes.get(field, ""))) for field in Line.__struct_fields__)
            ),
            _COPY,
            _FINDINGS,
            table(("Kind", "Means"), ((f"{kind.value}", prose(kinds.get(kind.name, ""))) for kind in Kind)),
            f"\nEntries that wait for their place for more than {UNSEALED_SECONDS:.0f} s are a finding, too.\n",
        ]
    )
