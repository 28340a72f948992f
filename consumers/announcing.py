"""The facts that follow from a change of the registry: what changed, and who lost his rights."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.messages.registrar import Blocked, Difference, EntryKind, IdentityBlocked, RegistryChanged
from schemas.registry import Message

from .domain.registry_losses import losses
from .settings import RegistrySettings

MAX_NAMES = 500
"""Names in one event: a DN has 300 characters at most in practice, and an event stays below 200 kB."""


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
