"""The audit at the reader's side: pages of it, and the check of its chain, for which the server need not be believed.

Promises: every hash is computed here; every seal's signature is checked here, with a certificate that this side's trust
directory accepts and whose DN is the auditor's as the gatekeeper names it; no chain is called right that is not.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from schemas.audit_archive import lines_of, parts_of
from schemas.audit_check import ChainCheck, SealError
from schemas.errors import InvalidInputError
from schemas.messages.audit import (
    PAGE_ENTRIES,
    AuditEntry,
    AuditLinks,
    AuditPage,
    AuditSeal,
    AuditSealed,
    AuditSigner,
    AuditTrail,
    QueryAudit,
    TraceAudit,
    WalkAudit,
)
from schemas.messages.event import EVENTS
from schemas.registry import Message

if TYPE_CHECKING:
    from broker.identity import TrustStore
    from broker.signing import KnownChain

    from .watching import Event

AUDITOR = "auditor"


def _untold(_done: int, _of: int) -> None:
    """Nobody looks."""


M = TypeVar("M", bound=Message)
Told = Callable[[int, int], None]
"""Told of progress: how many of how many."""

STREAM_SPANS = ("5m", "65m")
"""How far back heads are looked for in the stream: on a busy day a new one comes every few seconds, and on a quiet one
the auditor tells the newest again every hour."""


class Asks(Protocol):
    """Sends a question and returns its answer."""

    def __call__(self, message: Message, answer: type[M], /) -> M:
        """The answer, which must be of that type."""
        ...


class Audit:
    """The audit of a deployment. Reached as :attr:`producers.Client.audit`.

    Args:
        ask: sends a question and returns its answer.
        reader: makes what checks seals.
        watch: every event since a time.
    """

    def __init__(self, ask: Asks, reader: Callable[[], SealReader], watch: Callable[[str], Iterator[Event]]) -> None:
        self._ask = ask
        self._reader = reader
        self._watch = watch

    def entries(self, query: QueryAudit, limit: int = 100, told: Told = _untold) -> Iterator[AuditEntry]:
        """Entries, newest first.

        Args:
            query: what for; its ``limit`` does not count.
            limit: at most so many.
            told: of how many numbers were looked through.
        """
        left, top = limit, 0
        while left > 0:
            page = self._ask(msgspec.structs.replace(query, limit=min(PAGE_ENTRIES, left)), AuditPage)
            yield from page.entries
            left -= len(page.entries)
            if not page.next:
                return
            if query.before and page.next >= query.before:
                raise InvalidInputError("the auditor's pages do not go on")
            top = top or page.next
            told(top - page.next, top)
            query = msgspec.structs.replace(query, before=page.next)

    def verify(self, *, start: int = 1, heads: Mapping[str, int] | None = None, told: Told = _untold) -> ChainCheck:
        """Walk along the whole chain and check it here; what is wrong stands in ``problems``.

        Args:
            start: first place.
            heads: hashes noted elsewhere, with their places (0: unknown).
            told: of the places that were looked at.
        """
        return check(lambda asked: self._ask(asked, AuditLinks), self._reader(), start=start, heads=heads, told=told)

    def archive(self, write: Callable[[str], object], *, start: int = 1, told: Told = _untold) -> ChainCheck:
        """Copy the chain as lines, and check it on the way; the entry before ``start`` goes with it, to join copies."""
        known: set[str] = set()

        def walk(asked: WalkAudit) -> AuditLinks:
            links = self._ask(asked, AuditLinks)
            for line in lines_of(links, known):
                write(line + "\n")
            return links

        return check(walk, self._reader(), start=start, told=told)

    def verify_archive(self, lines: Iterable[str | bytes]) -> ChainCheck:
        """Check a copy of the chain, or several in a row; what is wrong stands in ``problems``."""
        return check_copy(lines, self._reader())

    def trail(self, question: TraceAudit) -> AuditTrail:
        """What other tables than the audit know of somebody."""
        return self._ask(question, AuditTrail)

    def told_heads(self) -> dict[str, int]:
        """The heads that the monitoring stream tells of: witnesses outside of the database."""
        for span in STREAM_SPANS:
            told = (event.message for event in self._watch(span))
            found = {one.head: one.last for one in told if isinstance(one, AuditSealed)}
            if found:
                return found
        return {}


def check(
    walk: Callable[[WalkAudit], AuditLinks],
    open_seal: SealReader,
    *,
    start: int = 1,
    heads: Mapping[str, int] | None = None,
    told: Told = _untold,
) -> ChainCheck:
    """Walk along a chain and check it.

    Args:
        walk: asks for a part.
        open_seal: checks seals.
        start: first place.
        heads: hashes noted elsewhere, with their places (0: unknown).
        told: of the places that were looked at.
    """
    state = ChainCheck(open_seal, start=start, heads=dict(heads or {}))
    while True:
        asked = WalkAudit(after=state.after)
        links = walk(asked)
        if links.until <= asked.after and links.last > asked.after:
            raise InvalidInputError("the auditor's answers do not go on")
        open_seal.learn(links.signers)
        state.page(links)
        told(min(links.until, links.last), links.last)
        if links.until >= links.last:
            state.finish(links)
            return state


def check_copy(lines: Iterable[str | bytes], open_seal: SealReader) -> ChainCheck:
    """Check a copy of a chain.

    Raises:
        InvalidInputError: it is none.
    """
    state: ChainCheck | None = None
    last: AuditLinks | None = None
    for last in parts_of(lines):
        open_seal.learn(last.signers)
        if state is None:
            first = last.entries[0].place if last.entries else last.until + 1
            state = ChainCheck(open_seal, start=1 if first == 1 else first + 1)
        state.page(last)
    if state is None or last is None:
        raise InvalidInputError("there is nothing in it")
    state.finish(last)
    return state


class SealReader:
    """Checks seals' signatures.

    Args:
        trust: this side's trust anchors.
        auditor: canonical DN of the auditor.
    """

    def __init__(self, trust: TrustStore, auditor: str) -> None:
        self._trust = trust
        self._auditor = auditor
        self._chains: dict[str, KnownChain | str] = {}

    def learn(self, signers: Iterable[AuditSigner]) -> None:
        """Chains that the server hands out; each is believed only if this side's authorities stand behind it."""
        for signer in signers:
            if signer.thumbprint not in self._chains:
                self._chains[signer.thumbprint] = self._known(signer)

    def _known(self, signer: AuditSigner) -> KnownChain | str:
        from broker.identity import IdentityError, parse_certificate, split_chain, verify_chain
        from broker.signing import facts_of

        try:
            ders = split_chain(signer.chain)
            # A seal stays good when the certificate has ended: verified at its last moment, like an old message.
            ends = parse_certificate(ders[0]).x509.not_valid_after_utc - dt.timedelta(seconds=1)
            chain = verify_chain(ders, self._trust, None, min(dt.datetime.now(dt.UTC), ends))
            facts = facts_of(chain)
        except IdentityError as error:
            return f"its certificate is not accepted: {error}"
        if chain.thumbprint_b64url != signer.thumbprint:
            return "its certificate is another one"
        if chain.identity != self._auditor:
            return f"it is signed by {chain.identity}, and the auditor is {self._auditor}"
        return facts

    def __call__(self, seal: AuditSeal) -> AuditSealed:
        """What a seal says.

        Raises:
            SealError: it is not the auditor's.
        """
        from broker.refusal import RefusalError
        from broker.signing import open_envelope, peek

        try:
            header = peek(seal.jws)[0]
            known = self._chains.get(header.thumbprint, "its certificate is not there")
            if isinstance(known, str):
                raise SealError(known)
            verified = open_envelope(
                seal.jws,
                seal.payload,
                resolve=lambda _thumbprint: known,
                audiences=(EVENTS,),
                now=header.iat,
                user_id=AUDITOR,
                admitted_before=True,
            )
        except RefusalError as error:
            raise SealError(str(error)) from None
        said = verified.message
        if not isinstance(said, AuditSealed):
            raise SealError(f"it is a {header.typ}")
        if not known.not_before <= header.iat <= known.not_after:
            raise SealError("it was signed outside the validity of its certificate")
        return said
