"""Users' commands on jobs in the audit: who commanded what, and whose jobs those were.

Promises: a command that reaches others' jobs is always written down. Of commands on one's own jobs, and of those that
reach for others' in vain, at most :data:`OWN_PER_MINUTE` a minute are, so that nobody fills the audit, which is kept
for ever; the next line tells how many were left out, and each job's history has what was done to it in any case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from broker.subscriber import Admitted
from schemas.audit_events import ranges
from schemas.messages.service import CommandOutcome

from .batch import Batch
from .per_minute import PerMinute
from .store import audit

OWN_PER_MINUTE = 60
"""Of one identity: more than a person types, and one command may name ten thousand jobs."""

NOT_YOURS = "the job is not yours"

MAX_OWNERS = 20
"""Owners of others' jobs that are named of one command."""


class CommandNotes:
    """The notes of one process."""

    def __init__(self) -> None:
        self._own = PerMinute(OWN_PER_MINUTE)
        self._in_vain = PerMinute(OWN_PER_MINUTE)

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
        foreign = {job: owner for job in ids if (owner := owner_of(job)) is not None and owner != who.identity}
        owners = Counter(foreign.values())
        in_vain = {one.job for one in outcomes if (not one.ok and one.status is None) or one.reason == NOT_YOURS}
        refused = len(in_vain)
        quota = self._in_vain if in_vain else self._own  # so that nobody hides the one behind the other
        if foreign.keys() <= in_vain and not quota.take(who.identity, batch.now):
            return
        detail: dict[str, object] = {
            "group": who.group, "command": message.verified.header.typ, "jobs": ranges(ids), "count": len(ids),
        }  # fmt: skip
        if owners:
            detail |= {"foreign": owners.total(), "owners": [owner for owner, _ in owners.most_common(MAX_OWNERS)]}
        if refused:
            detail["refused"] = refused
        left_out = self._own.owed(who.identity) + self._in_vain.owed(who.identity)
        if left_out:
            detail["unrecorded"] = left_out
        audit.append(batch.tx, batch.now, "job.commanded", identity=who.identity, client=message.client, detail=detail)
