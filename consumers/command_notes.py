"""Users' commands on jobs in the audit: who commanded what, and whose jobs those were.

Promises: a command that touches others' jobs, or tries to, is always written down. Of commands on one's own jobs at
most :data:`OWN_PER_MINUTE` a minute are, so that no script fills the audit, which is kept for ever; the next line tells
how many were left out, and each job's history has its own in any case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from broker.subscriber import Admitted
from schemas.audit_events import ranges
from schemas.messages.service import CommandOutcome

from .batch import Batch
from .store import audit

OWN_PER_MINUTE = 60
"""Of one identity: more than a person types, and one command may name ten thousand jobs."""

NOT_YOURS = "the job is not yours"

MAX_OWNERS = 20
"""Owners of others' jobs that are named of one command."""


class CommandNotes:
    """The notes of one process."""

    def __init__(self) -> None:
        self._minute = 0
        self._written: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def note(
        self,
        batch: Batch,
        message: Admitted,
        ids: list[int],
        outcomes: Sequence[CommandOutcome],
        owner_of: Callable[[int], str | None],
    ) -> None:
        """Write a command down.

        Args:
            batch: its batch.
            message: the command.
            ids: jobs that it names.
            outcomes: what became of each.
            owner_of: whose a job is; None if there is none.
        """
        who = message.principal
        owners = Counter(owner for job in ids if (owner := owner_of(job)) is not None and owner != who.identity)
        refused = sum((not one.ok and one.status is None) or one.reason == NOT_YOURS for one in outcomes)
        if not owners and not refused and not self._may_write(who.identity, batch.now):
            return
        detail: dict[str, object] = {
            "group": who.group, "command": message.verified.header.typ, "jobs": ranges(ids), "count": len(ids),
        }  # fmt: skip
        if owners:
            detail |= {"foreign": owners.total(), "owners": [owner for owner, _ in owners.most_common(MAX_OWNERS)]}
        if refused:
            detail["refused"] = refused
        left_out = self._left_out.pop(who.identity, 0)
        if left_out:
            detail["unrecorded"] = left_out
        audit.append(batch.tx, batch.now, "job.commanded", identity=who.identity, client=message.client, detail=detail)

    def _may_write(self, identity: str, now: float) -> bool:
        if int(now // 60) != self._minute:
            self._minute = int(now // 60)
            self._written.clear()
        self._written[identity] += 1
        if self._written[identity] <= OWN_PER_MINUTE:
            return True
        self._left_out[identity] += 1
        return False
