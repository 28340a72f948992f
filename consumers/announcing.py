"""The facts that follow from a change of the registry: what changed, and who lost his rights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker.publisher import event
from schemas.messages.registrar import Blocked, Difference, EntryKind, IdentityBlocked, RegistryChanged
from schemas.registry import Message

from .domain.registry import SEED
from .domain.registry_losses import losses
from .paperwork import row_of
from .settings import RegistrySettings
from .store import Transaction, outbox, registry
from .store.seed import SeedChanges

MAX_NAMES = 500
"""Names in one event: a DN has 300 characters at most in practice, and an event stays below 200 kB."""


def seed(tx: Transaction, parsed: Mapping[str, object], settings: RegistrySettings, now: float) -> SeedChanges:
    """Seed the registry (:func:`.store.registry.seed`), and leave it to the relay to say what follows.

    Raises:
        ConfigurationError: the file is wrong; the message says where.
    """
    changes = registry.seed(tx, parsed, now)
    facts = announcements(
        changes.differences, version=changes.version, now=now, actor=SEED, reason="", settings=settings
    )
    outbox.add(tx, [row_of(event(fact), now, now) for fact in facts])
    return changes


def announcements(
    differences: Sequence[Difference],
    *,
    version: int,
    now: float,
    actor: str,
    reason: str,
    settings: RegistrySettings,
) -> list[Message]:
    """Events for these differences, those that block somebody first.

    Args:
        differences: what changed.
        version: of the registry since then.
        now: time of the change.
        actor: DN of the operator, or the source.
        reason: why.
        settings: what becomes of the jobs of who is blocked.
    """
    events: list[Message] = []
    for loss in losses(differences):
        suspended = loss.how is Blocked.SUSPENDED
        events.append(
            IdentityBlocked(
                identity=loss.identity,
                group=loss.group,
                how=loss.how,
                reason=loss.reason or reason,
                by=actor,
                time=now,
                jobs=settings.on_suspended if suspended else settings.on_removed,
            )
        )
    names: dict[str, dict[str, None]] = {}
    for one in differences:
        entry = one.after or one.before
        if entry is not None:
            kind, name, _ = entry.key
            names.setdefault(kind, {})[name] = None
    for kind, some in names.items():
        events.append(
            RegistryChanged(
                kind=EntryKind(kind),
                names=tuple(some)[:MAX_NAMES],
                version=version,
                time=now,
                actor=actor,
                reason=reason,
            )
        )
    return events
