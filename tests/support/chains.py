"""Chains of audit entries in memory, sealed by a key made here; and what an intruder may do to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from schemas.audit import GENESIS, digest
from schemas.audit_check import ChainCheck, Problem, SealError
from schemas.messages.audit import AuditEntry, AuditLinks, AuditSeal, AuditSealed
from schemas.registry import encode

GOOD = "signed"


def entry(number: int, **fields: object) -> AuditEntry:
    """An entry that nobody sealed yet."""
    values = {"time": 1_800_000_000.0 + number, "event": "login", "identity": f"/CN={number}", "detail": "{}"}
    return AuditEntry(id=number, **(values | fields))  # type: ignore[arg-type]  # whatever the test wants


@dataclass
class Kept:
    """What a database holds: entries by place, and seals. Tests change it as they like."""

    entries: list[AuditEntry] = field(default_factory=list)
    seals: list[AuditSeal] = field(default_factory=list)

    def seal(self, new: Sequence[AuditEntry]) -> None:
        """What the auditor does."""
        place, head = (self.entries[-1].place, self.entries[-1].hash) if self.entries else (0, GENESIS)
        first, previous = place + 1, head
        for one in new:
            place, head = place + 1, digest(place + 1, head, one)
            self.entries.append(msgspec.structs.replace(one, place=place, hash=head))
        said = AuditSealed(first=first, last=place, previous=previous, head=head, time=1.0, epoch=1)
        self.seals.append(AuditSeal(last=place, payload=encode(said), jws=GOOD))

    def page(self, after: int, limit: int) -> AuditLinks:
        """What the auditor answers."""
        last = max((seal.last for seal in self.seals), default=0)
        beyond = max((one.place for one in self.entries), default=0)
        until = max(after, min(after + limit, last))
        return AuditLinks(
            entries=tuple(
                sorted((one for one in self.entries if after < one.place <= until), key=lambda one: one.place)
            ),
            seals=tuple(seal for seal in self.seals if after < seal.last <= until),
            until=until,
            last=last,
            beyond=beyond if beyond > last else 0,
            time=2.0,
        )


def open_seal(seal: AuditSeal) -> AuditSealed:
    """Stands for the signature: what was changed is not what was signed."""
    if seal.jws != GOOD or seal.payload not in SIGNED:
        raise SealError("the signature does not fit")
    return msgspec.json.decode(seal.payload, type=AuditSealed)


SIGNED: set[bytes] = set()


def made(count: int, batch: int = 7) -> Kept:
    """A good chain."""
    kept = Kept()
    for start in range(1, count + 1, batch):
        kept.seal([entry(number) for number in range(start, min(start + batch, count + 1))])
    SIGNED.update(seal.payload for seal in kept.seals)
    return kept


def check(kept: Kept, *, page: int = 5, start: int = 1, heads: dict[str, int] | None = None) -> ChainCheck:
    """Walk along the chain."""
    walk = ChainCheck(open_seal, start=start, heads=heads or {})
    while True:
        links = kept.page(walk.after, page)
        walk.page(links)
        if links.until >= links.last:
            walk.finish(links)
            return walk


def problems(kept: Kept, **options: object) -> list[Problem]:
    """What is wrong."""
    return check(kept, **options).problems  # type: ignore[arg-type]  # passed through
