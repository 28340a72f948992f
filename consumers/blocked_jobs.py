"""What becomes of the jobs of somebody who lost his rights.

Promises: every job of his is dealt with as the policy says, however many there are, in slices and through restarts;
who is let in again meanwhile keeps the rest. That his waiting jobs are not matched is the matcher's promise, whatever
the policy.
"""

from __future__ import annotations

from schemas.messages.registrar import IdentityBlocked, Policy

from .batch import Batch
from .changes import Changes
from .domain.facts import KillAsked
from .store import blocks, registry
from .store.blocks import JobBlock

SLICE = 500
"""Jobs stopped in one transaction."""

OWNERS = 20
"""Owners looked at in one transaction."""

SETTLE_SECONDS = 30.0
"""For so long an owner's jobs are looked for again: a service that did not know yet (it looks every 2 s) may have
accepted or matched one more."""

MAX_CAUSE = 200
"""Characters of a cause in a job's history."""


def note(batch: Batch, fact: IdentityBlocked) -> None:
    """Somebody was blocked: his jobs are to be dealt with from now on."""
    if fact.jobs is Policy.FINISH:
        return
    left = f"out of {fact.group}" if fact.group else fact.how.value
    cause = f"the registry: owner {left}" + (f", {fact.reason}" if fact.reason else "")
    blocks.add(batch.tx, fact.identity, fact.group, fact.jobs.value, cause[:MAX_CAUSE], batch.now)


def work(batch: Batch, changes: Changes) -> bool:
    """Stop the next slice of jobs; whether there is more to do at once."""
    found = blocks.oldest(batch.tx, OWNERS)
    if not found:
        return False
    known = registry.load(batch.tx)  # as committed, not as remembered: it decides whether payloads are stopped
    left = SLICE
    for block in found:
        if _is_back(known, block):
            blocks.remove(batch.tx, block.id)
            continue
        ids = blocks.targets(batch.tx, block, leased=block.policy == Policy.HOLD, limit=left)
        changes.load(ids)
        for job in ids:
            changes.decide(job, KillAsked(block.cause))
        left -= len(ids)
        if left <= 0:
            blocks.advance(batch.tx, block.id, ids[-1])
            return True
        if batch.now - block.created < SETTLE_SECONDS or blocks.is_expanding(batch.tx, block):
            blocks.advance(batch.tx, block.id, 0)
        else:
            blocks.remove(batch.tx, block.id)
    return False


def _is_back(known: registry.Registry, block: JobBlock) -> bool:
    user = known.users.get(block.identity)
    return user is not None and not user.suspended and (not block.grp or block.grp in user.groups)
