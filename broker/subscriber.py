"""From a delivery to an admitted message: verified, its sender known, authorized.

Promises: nothing reaches a handler that was not verified (:mod:`broker.signing`) and authorized
(:mod:`broker.authorization`). Lies elsewhere: replay (the inbox), the store behind the two protocols.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

from schemas.envelope import JWS_HEADER
from schemas.messages.admin import Readmit
from schemas.messages.pilot import Goodbye, Heartbeat, RequestMatch
from schemas.registry import Message

from .authorization import SERVICES, Principal, authorize
from .refusal import RefusalError
from .signing import ChainResolver, Verified, open_envelope
from .transport import Delivery

READMIT = "readmit"


class Directory(Protocol):
    """What the registry tells of senders."""

    def principal(self, identity: str, group: str, client: str) -> Principal | None:
        """The sender as the registry knows it now; None if unknown, suspended, or not of that group.

        Services have no group: their DN is registered under a service name, and their client id is that name.
        """
        ...


@dataclass(frozen=True, slots=True)
class Admitted:
    """A message that may be handled.

    Attributes:
        verified: the message with its signed header.
        principal: its sender.
        delivery: as it came in (for the acknowledgement and, if need be, the dead letter).
        readmitted: it comes back on an operator's or a consumer's word; the inbox already knows it.
        user_id: AMQP user id under which the message first came.
        jws: its signed header as it came.
        wrapper: (iss, jti) of the readmission that carried it.
    """

    verified: Verified[Message]
    principal: Principal
    delivery: Delivery
    readmitted: bool = False
    user_id: str = ""
    jws: str = ""
    wrapper: tuple[str, str] | None = None

    @property
    def inbox_key(self) -> tuple[str, str]:
        """What may be handled once: the message, or this readmission of it."""
        return self.wrapper or self.key

    @property
    def message(self) -> Message:
        """The payload."""
        return self.verified.message

    @property
    def key(self) -> tuple[str, str]:
        """What makes the message unique: (iss, jti); services count as one issuer.

        The relay says under its own name what another service had committed: it is still the same message.
        """
        header = self.verified.header
        return ("" if self.principal.service else header.iss), header.jti

    @property
    def client(self) -> str:
        """Client id of the sender."""
        return self.verified.header.cli


class Gate:
    """Admits deliveries for one service.

    Args:
        audiences: the names that the service answers to.
        resolve: finds signing chains.
        directory: the registry.
    """

    def __init__(self, audiences: Collection[str], resolve: ChainResolver, directory: Directory) -> None:
        self._audiences = frozenset(audiences) | {READMIT}
        self._resolve = resolve
        self._directory = directory

    def admit(self, delivery: Delivery, now: float) -> Admitted:
        """Let a delivery in.

        Raises:
            RefusalError: why not.
        """
        jws = _text(delivery.headers.get(JWS_HEADER))
        verified = self._open(jws, delivery.body, delivery.user_id or "", now, admitted_before=False)
        principal = self._principal(verified)
        message = verified.message
        if not isinstance(message, Readmit):
            return Admitted(verified, principal, delivery, user_id=delivery.user_id or "", jws=jws)
        if message.queue != delivery.queue:
            raise RefusalError("misaddressed", "a readmission for another queue", header=verified.header, proven=True)
        inner = self._open(message.jws, message.body, message.user, now, admitted_before=True)
        if isinstance(inner.message, Readmit):
            raise RefusalError("invalid", "a readmission inside a readmission", header=inner.header, proven=True)
        outer = verified.header
        return Admitted(inner, self._principal(inner), delivery, True, message.user, message.jws, ("", outer.jti))

    def _open(self, jws: str, body: bytes, user: str, now: float, *, admitted_before: bool) -> Verified[Message]:
        return open_envelope(
            jws,
            body,
            resolve=self._resolve,
            audiences=self._audiences,
            now=now,
            user_id=user,
            admitted_before=admitted_before,
        )

    def _principal(self, verified: Verified[Message]) -> Principal:
        header = verified.header
        found = self._directory.principal(header.iss, header.grp, header.cli)
        if found is None:
            raise RefusalError(
                "denied", f"{header.iss} is not known, or not in group {header.grp!r}", header=header, proven=True
            )
        if found.service and (header.cli != found.service or found.service not in SERVICES):
            raise RefusalError("forged", "a service under another's name", header=header, proven=True)
        principal = replace(found, limited=verified.limited)
        if principal.voms and principal.voms not in verified.fqans:
            reason = f"group {principal.group} asks for a proxy with the VOMS attribute {principal.voms}"
            raise RefusalError("denied", reason, header=header, proven=True)
        try:
            authorize(principal, header.typ)
        except RefusalError as refusal:
            raise RefusalError(refusal.code, str(refusal), header=header, proven=True) from None
        named = site_of(verified.message)
        if principal.site and named and named != principal.site:
            reason = f"this pilot was enrolled for {principal.site}, not for {named[:100]}"
            raise RefusalError("denied", reason, header=header, proven=True)
        return principal


def site_of(message: Message) -> str:
    """The site that a pilot's message names as its own; empty if it names none."""
    match message:
        case RequestMatch():
            return message.offer.site
        case Heartbeat() | Goodbye():
            return message.site
        case _:
            return ""


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""
