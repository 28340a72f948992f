"""An auditor with a real identity, its chain in a store, and a check of it as a client does it."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field

from broker.identity import thumbprint
from broker.signing import Signer
from consumers.audit_answers import links_of
from consumers.auditor import Auditor
from consumers.store import Store
from producers.auditing import SealReader, check
from schemas.audit_check import ChainCheck, Problem
from schemas.messages.audit import AuditLinks, WalkAudit
from schemas.registry import Message
from tests.support.messages import chores
from tests.support.pki import Pki

AUDITOR_DN = "/DC=org/DC=example/OU=Services/CN=auditor"


def signer_of(pki: Pki, dn: str = AUDITOR_DN, name: str = "auditor") -> Signer:
    """A service's identity."""
    credential = pki.authority.issue(dn)
    x5c = tuple(base64.b64encode(der).decode() for der in credential.ders)
    return Signer(credential.key, thumbprint(credential.leaf), dn, name, x5c=x5c)


@dataclass
class Audits:
    """A store, its auditor and who checks him."""

    store: Store
    pki: Pki
    signer: Signer
    start: float = field(default_factory=time.time)

    @classmethod
    def of(cls, store: Store, pki: Pki) -> Audits:
        return cls(store, pki, signer_of(pki))

    def auditor(self, holder: str = "one", signer: Signer | None = None) -> Auditor:
        """A process of the service."""
        made = Auditor(holder)
        made.signs_with(signer or self.signer)
        return made

    def seal(self, auditor: Auditor, later: float = 0.0) -> list[Message]:
        """What it does when its time has come; what it says."""
        return chores(self.store, auditor, self.start + later).said

    def links(self, after: int = 0, limit: int = 500, later: float = 0.0) -> AuditLinks:
        """What it answers."""
        with self.store.reading() as tx:
            return links_of(tx, WalkAudit(after=after, limit=limit), self.start + later)

    def check(self, *, page: int = 3, later: float = 0.0, heads: dict[str, int] | None = None) -> ChainCheck:
        """Walk along the chain as a client does, in small pages."""
        reader = SealReader(self.pki.trust, AUDITOR_DN)
        return check(lambda asked: self.links(asked.after, page, later), reader, heads=heads)

    def problems(self, **options: object) -> list[Problem]:
        """What is wrong."""
        return self.check(**options).problems  # type: ignore[arg-type]  # passed through


__all__ = ["AUDITOR_DN", "Audits", "signer_of"]
