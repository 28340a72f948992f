"""A copy of the audit's chain in a file: lines of entries, seals and certificates, checked like the chain itself.

One JSON object a line. Entries are the lines of :mod:`schemas.audit`; between them stand the seals, each behind the
last entry that it seals, and the certificates of the auditor, each before its first seal. Pure: opens no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from .audit import MAX_LINE, from_line, to_line
from .errors import InvalidInputError
from .messages.audit import PAGE_ENTRIES, AuditEntry, AuditLinks, AuditSeal, AuditSigner


class SealLine(msgspec.Struct, frozen=True, kw_only=True):
    """A seal's line: payload and signed header of an ``audit.sealed.v1``."""

    v: int
    seal: int
    payload: str
    jws: str


class SignerLine(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate chain's line (PEM)."""

    v: int
    signer: str
    chain: str


def lines_of(links: AuditLinks, known: set[str]) -> Iterator[str]:
    """The lines of a part of the chain.

    Args:
        links: the part.
        known: thumbprints that were written before; completed.

    Raises:
        InvalidInputError: it cannot be written as it is.
    """
    for signer in links.signers:
        if signer.thumbprint not in known:
            known.add(signer.thumbprint)
            yield _line(SignerLine(v=1, signer=signer.thumbprint, chain=signer.chain))
    seals = sorted(links.seals, key=lambda seal: seal.last)
    entries = [entry for entry in links.entries if not entry.gone]
    index = 0
    for seal in seals:
        while index < len(entries) and entries[index].place <= seal.last:
            yield to_line(entries[index])
            index += 1
        try:
            payload = seal.payload.decode()
        except UnicodeError:
            raise InvalidInputError(f"the seal of place {seal.last} is damaged: verify first") from None
        yield _line(SealLine(v=1, seal=seal.last, payload=payload, jws=seal.jws))
    yield from (to_line(entry) for entry in entries[index:])


def parts_of(lines: Iterable[str | bytes]) -> Iterator[AuditLinks]:
    """The parts of the chain that a file holds, in order, for :class:`schemas.audit_check.ChainCheck`.

    Raises:
        InvalidInputError: a line is not of the form; says which.
    """
    entries: list[AuditEntry] = []
    seals: list[AuditSeal] = []
    signers: list[AuditSigner] = []
    for number, line in enumerate(lines, 1):
        try:
            what = _read(line)
        except InvalidInputError as error:
            raise InvalidInputError(f"line {number}: {error}") from None
        if isinstance(what, AuditSigner):
            signers.append(what)
        elif isinstance(what, AuditSeal):
            seals.append(what)
        else:
            if len(entries) >= PAGE_ENTRIES:
                yield _part(entries, seals, signers)
                entries, seals, signers = [], [], []
            entries.append(what)
    if entries or seals:
        yield _part(entries, seals, signers)


def _part(entries: list[AuditEntry], seals: list[AuditSeal], signers: list[AuditSigner]) -> AuditLinks:
    until = max([entry.place for entry in entries] + [seal.last for seal in seals])
    return AuditLinks(
        entries=tuple(entries), seals=tuple(seals), signers=tuple(signers), until=until, last=until, time=0.0
    )


def _read(line: str | bytes) -> AuditEntry | AuditSeal | AuditSigner:
    if len(line) > MAX_LINE:
        raise InvalidInputError(f"longer than {MAX_LINE} bytes")
    data = line.encode() if isinstance(line, str) else line
    try:
        if data.startswith(b'{"v":1,"seal":'):
            seal = msgspec.json.decode(data, type=SealLine)
            return AuditSeal(last=seal.seal, payload=seal.payload.encode(), jws=seal.jws)
        if data.startswith(b'{"v":1,"signer":'):
            signer = msgspec.json.decode(data, type=SignerLine)
            return AuditSigner(thumbprint=signer.signer, chain=signer.chain)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidInputError(str(error)) from None
    return AuditEntry(**msgspec.structs.asdict(from_line(data)))


def _line(what: msgspec.Struct) -> str:
    return msgspec.json.encode(what).decode()
