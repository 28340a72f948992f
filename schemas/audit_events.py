"""Every event of the audit: its name, what it means, and which facts it may carry.

One table; what is not in it is refused by the audit itself. That an event's facts are named beforehand is also why no
secret gets there by accident: no field is meant for one.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

MAX_TEXT = 1000
"""Characters of a text in a detail; the rest of a longer one is cut off."""

MAX_ITEMS = 200
"""Items of a list in a detail."""


class AuditEvent(msgspec.Struct, frozen=True):
    """One kind of entry.

    Attributes:
        meaning: one sentence.
        who: whose DN stands in ``identity``.
        fields: what the detail may hold, and what each means.
    """

    meaning: str
    who: str
    fields: Mapping[str, str]


_GROUP = {"group": "group acted for"}
_REASON = {"reason": "why"}
_ATTEMPT = {"job": "job", "attempt": "its attempt"}
_ENROLMENT = {"enrolment": "the enrolment's id", "site": "its site"}
_CERTIFIED = {**_ENROLMENT, "not_after": "end of the certificate", "ends": "end of the pilot's life"}
_RENEWED = {
    **_GROUP,
    "not_after": "its end",
    "thumbprint": "of the proxy",
    "previous": "of the one whose place it takes",
}
_LEFT_OUT = {"unrecorded": "how many of his were left out before, beyond the quota"}
_UNRECORDED = {"unrecorded": "how many more there were in the minute before, beyond the quota"}

EVENTS: Mapping[str, AuditEvent] = {
    # logins
    "login": AuditEvent(
        "A client has logged in.",
        "the client's",
        {
            **_GROUP,
            "kind": "`user` or `pilot`",
            "thumbprint": "of the certificate that it signs with",
            "not_after": "end of its chain",
        },
    ),
    "login.denied": AuditEvent(
        "A login was refused; at most 60 a minute are written one by one.",
        "nobody's: nothing was proven",
        {**_REASON, **_UNRECORDED},
    ),
    "enrolment.denied": AuditEvent(
        "A login with an enrolment secret was refused.",
        "nobody's: nothing was proven",
        {**_REASON, **_UNRECORDED},
    ),
    "access.denied": AuditEvent(
        "A client wanted something at the broker that is not open to it: another's queue, a forbidden routing key; at "
        "most 60 a minute are written one by one.",
        "the client's",
        {**_REASON, **_UNRECORDED},
    ),
    # messages
    "message.refused": AuditEvent(
        "A message of a proven sender was refused: denied, expired, misaddressed, invalid.",
        "the sender's",
        {
            "service": "by which service",
            "code": "as in `request.refused.v1`",
            **_REASON,
            "type": "what was sent",
            "thumbprint": "of the certificate that signed it",
        },
    ),
    "message.refused-more": AuditEvent(
        "So many more messages of one sender were refused within a minute, beyond the 20 that are written one by one.",
        "the sender's",
        {"service": "by which service", "since": "beginning of the minute", "count": "how many"},
    ),
    "message.unproven": AuditEvent(
        "So many messages were refused within a minute whose sender was not proven: forged, garbage, unknown chains.",
        "nobody's: nothing was proven",
        {
            "service": "by which service",
            "since": "beginning of the minute",
            "count": "how many",
            "codes": "how many of each code",
            "clients": "broker users that they came from, as the broker says",
        },
    ),
    # jobs
    "job.commanded": AuditEvent(
        "Jobs were killed, deleted or rescheduled, or it was tried.",
        "who commanded it",
        {
            **_GROUP,
            "command": "the message type",
            "jobs": "which, as ranges (`3-5,9`)",
            "count": "how many",
            "foreign": "how many of them belong to others",
            "owners": "whose those are",
            "refused": "how many were not his to touch, or are not there",
            "unrecorded": "how many were left out before, on his own jobs or in vain, beyond 60 a minute",
        },
    ),
    # proxies
    "proxy.stored": AuditEvent(
        "A user has delegated a proxy.",
        "its owner's",
        {
            **_GROUP,
            "not_after": "its end",
            "kept_until": "end of what is kept now",
            "own": "for one submission only",
            "thumbprint": "of the proxy",
            "parent": "thumbprint of the certificate that signed it: the user's proxy, as a rule",
        },
    ),
    "delegation.refused": AuditEvent(
        "A delegated proxy was refused; of each sender at most 60 a minute are written one by one.",
        "the sender's",
        {**_GROUP, **_REASON, **_LEFT_OUT},
    ),
    "proxy.issued": AuditEvent(
        "A pilot was given a limited proxy, for a job that it holds.",
        "the proxy's owner",
        {
            **_GROUP,
            **_ATTEMPT,
            "not_after": "its end",
            "seconds": "its life",
            "serial": "of its certificate, hexadecimal",
            "thumbprint": "of its certificate",
            "parent": "thumbprint of the stored proxy that signed it",
            "own": "from the submission's own proxy",
            "again": "the pilot asked anew, for a job that runs",
        },
    ),
    "proxy.refused": AuditEvent(
        "A pilot was given no proxy; of what each pilot itself asks for at most 60 a minute are written one by one.",
        "the owner's, or the pilot's that asked",
        {**_GROUP, **_ATTEMPT, **_REASON, **_LEFT_OUT},
    ),
    "proxy.unusual-rate": AuditEvent(
        "Very many proxies were given to one pilot, or of one owner, within an hour.",
        "the owner's, if it is about one",
        {"about": "`pilot` or `owner`", "issues": "how many"},
    ),
    "proxy.renewed": AuditEvent("A stored proxy was renewed.", "its owner's", _RENEWED),
    "proxy.attributed": AuditEvent("A stored proxy was given VOMS attributes.", "its owner's", _RENEWED),
    "proxy.proxy-failed": AuditEvent(
        "A stored proxy could not be renewed.", "its owner's", {**_GROUP, "not_after": "its end", **_REASON}
    ),
    "proxy.attribute-failed": AuditEvent(
        "A stored proxy could not be given VOMS attributes.",
        "its owner's",
        {**_GROUP, "not_after": "its end", **_REASON},
    ),
    "proxy.forgotten": AuditEvent(
        "A stored proxy was destroyed because no job needs it any more.",
        "its owner's",
        {**_GROUP, "not_after": "its end", "idle": "seconds without a job", "submission": "whose own proxy it was"},
    ),
    "repository.reencrypted": AuditEvent(
        "Kept keys were encrypted with the newest master key.",
        "the operator's",
        {"done": "how many", "unreadable": "how many no master key opens", "left": "how many wait", "key": "id of the "
         "master key (no secret)"},
    ),
    "repository.deleted": AuditEvent(
        "An operator has destroyed stored proxies.",
        "the operator's",
        {"owner": "whose", **_GROUP, "count": "how many", **_REASON},
    ),
    # pilots
    "enrolment.created": AuditEvent(
        "Enrolments of pilots were made.",
        "the operator's",
        {
            "count": "how many",
            "site": "their site",
            **_GROUP,
            "expires": "until when they may be used",
            "life": "seconds that such a pilot lives",
            "enrolments": "their ids",
        },
    ),
    "enrolment.revoked": AuditEvent(
        "An enrolment was revoked.", "the operator's", {**_ENROLMENT, "pilot": "the pilot's DN", **_REASON}
    ),
    "enrolment.used": AuditEvent(
        "An enrolment secret was used.", "the pilot's", {**_ENROLMENT, "key": "hash of the pilot's public key"}
    ),
    "enrolment.reused": AuditEvent(
        "An enrolment secret was used a second time: somebody may have stolen it.",
        "the pilot's",
        {
            **_ENROLMENT,
            "first_client": "who used it first",
            "first_used": "when",
            "times": "how often it was tried again",
            "key": "hash of the public key now",
            "first_key": "and of the first one",
            "alarm": "what it may mean",
        },
    ),
    "enrolment.refused": AuditEvent(
        "An enrolment was not carried out.", "the pilot's", {**_ENROLMENT, **_REASON}
    ),
    "pilot.enrolled": AuditEvent("A pilot was given its certificate.", "the pilot's", _CERTIFIED),
    "pilot.renewed": AuditEvent("A pilot was given a newer certificate.", "the pilot's", _CERTIFIED),
    # operators
    "registry.change": AuditEvent(
        "An operator has changed the registry; its history has the whole change.",
        "the operator's",
        {**_REASON, "changes": "what", "count": "how many", "forced": "although it locks the operator out"},
    ),
    "registry.sync": AuditEvent(
        "The registry was brought in line with a source; its history has each change.",
        "the operator's who asked for it, or `sync:` and the source",
        {"source": "its name", "changes": "how many", "forced": "although it was very many"},
    ),
    "registry.sync.refused": AuditEvent(
        "What a source told was not believed, or it did not answer; written once while the reason stays the same.",
        "`sync:` and the source",
        {"source": "its name", **_REASON},
    ),
    "session.cut": AuditEvent(
        "Connections of a client were closed.",
        "the client's",
        {**_REASON, "connections": "how many", "by": "DN of the operator, the source, or the gatekeeper itself"},
    ),
    "session.cut-ordered": AuditEvent(
        "An operator ordered to close connections.",
        "the operator's",
        {**_REASON, "who": "DN or client id"},
    ),
    "dead.replayed": AuditEvent("Dead letters were admitted again.", "the operator's", {"letters": "their numbers"}),
    "dead.discarded": AuditEvent(
        "Dead letters were closed.", "the operator's", {"letters": "their numbers", **_REASON}
    ),
    # the audit itself
    "audit.entry-missing": AuditEvent(
        "Entries were taken away before they were sealed.",
        "the auditor's",
        {"entries": "their numbers", "count": "how many"},
    ),
    "audit.tail-changed": AuditEvent(
        "The end of the chain is not what this auditor has sealed.",
        "the auditor's",
        {
            "place": "last place that it sealed",
            "head": "and its hash",
            "found_place": "last place found",
            "found_head": "and its hash",
        },
    ),
    "audit.strays": AuditEvent(
        "Entries were found that waited for no place: an older release wrote them, or somebody past all services.",
        "the auditor's",
        {"count": "how many"},
    ),
}  # fmt: skip


def fitting(event: str, detail: Mapping[str, object]) -> Mapping[str, object]:
    """The detail as it may be written down: long texts and lists are cut.

    Raises:
        ValueError: no such event, or it does not carry such a fact: complete the table.
    """
    known = EVENTS.get(event)
    if known is None:
        raise ValueError(f"the audit knows no event {event!r}")
    foreign = detail.keys() - known.fields.keys()
    if foreign:
        raise ValueError(f"the audit's {event} carries no {', '.join(sorted(foreign))}")
    return {name: _cut(value) for name, value in detail.items()}


def _cut(value: object) -> object:
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, list | tuple | set | frozenset):
        return [_cut(item) for item in list(value)[:MAX_ITEMS]]
    return value


def ranges(numbers: list[int]) -> str:
    """Numbers as text, ``3-5,9``; what is beyond :data:`MAX_TEXT` is left out."""
    parts: list[str] = []
    length = 0
    ordered = sorted(set(numbers))
    start = 0
    for index, number in enumerate(ordered):
        if index + 1 < len(ordered) and ordered[index + 1] == number + 1:
            continue
        part = str(ordered[start]) if start == index else f"{ordered[start]}-{number}"
        start = index + 1
        length += len(part) + 1
        if length > MAX_TEXT:
            break
        parts.append(part)
    return ",".join(parts)
