"""The registry for operators: ask, change, and see who changed what. Reached as :attr:`producers.Client.registry`.

    from schemas.entries import SiteEntry

    with Client(settings) as client:
        client.registry.set(SiteEntry(name="Site.Example.org", usable=False), reason="its disks burn")

Promises: names are resolved to the one entry they mean, or it is an error; a change is made whole or not at all, and
an error tells all that is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from schemas.entries import AnyEntry
from schemas.errors import InvalidInputError
from schemas.identity import canonical_dn
from schemas.messages.registrar import (
    ChangeRegistry,
    EntryChange,
    EntryKind,
    HistoryLine,
    ListedEntry,
    Operation,
    QueryRegistry,
    QueryRegistryHistory,
    RegistryApplied,
    RegistryListing,
    RegistryPast,
    RegistrySynced,
    SyncRegistry,
)
from schemas.registry import Message

from .errors import NotFoundError

PAGE = 1000
"""Entries per page of a listing (the message's bound)."""

NAMED_BY_DN = frozenset({EntryKind.USER, EntryKind.SERVICE})

M = TypeVar("M", bound=Message)
Ask = Callable[[Message, type[Message], float], Message]

SYNC_SECONDS = 660.0
"""How long a synchronization may take: the services give the VO's server ten minutes."""


class Administration:
    """The registry at a deployment.

    Args:
        ask: sends a question and returns its answer, within some seconds.
        timeout: seconds for one request.
    """

    def __init__(self, ask: Ask, timeout: float) -> None:
        self._send = ask
        self._timeout = timeout

    def _ask(self, message: Message, answer: type[M], timeout: float | None = None) -> M:
        found = self._send(message, answer, self._timeout if timeout is None else timeout)
        assert isinstance(found, answer)  # noqa: S101 - for the type checker; the client has looked
        return found

    # -- looking ------------------------------------------------------------------------------------------------

    def entries(
        self, kind: EntryKind, *, names: Sequence[str] = (), contains: str = "", group: str = "", limit: int = 0
    ) -> Iterator[ListedEntry]:
        """Entries of a kind, in order of names.

        Args:
            kind: which.
            names: only these (for users and services a DN or the short name).
            contains: only those with this text anywhere.
            group: only members of this group.
            limit: at most so many; 0 for all.
        """
        left = limit or None
        after = scope = ""
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            query = QueryRegistry(
                kind=kind, names=tuple(names), contains=contains, group=group, after=after, scope=scope, limit=size
            )
            page = self._ask(query, RegistryListing)
            yield from page.entries
            left = None if left is None else left - len(page.entries)
            if not page.more or not page.entries:
                return
            _, after, scope = page.entries[-1].entry.key

    def find(self, kind: EntryKind, name: str) -> ListedEntry:
        """The one entry of this name.

        Raises:
            NotFoundError: there is none.
            InvalidInputError: several have this short name.
        """
        wanted = canonical_dn(name) if kind in NAMED_BY_DN and name.startswith("/") else name
        found = list(self.entries(kind, names=(wanted,), limit=2))
        if not found:
            raise NotFoundError(f"the registry knows no {kind} {name!r}")
        exact = [one for one in found if one.entry.key[1] == wanted]
        if len(found) > 1 and not exact:
            raise InvalidInputError(f"more than one {kind} has the name {name!r}: give the DN")
        return (exact or found)[0]

    def dn_of(self, name: str) -> str:
        """The DN of a user who is named by DN or nickname."""
        return self.find(EntryKind.USER, name).entry.key[1]

    def history(
        self, *, kind: EntryKind | None = None, name: str = "", actor: str = "", before: int = 0, limit: int = 100
    ) -> list[HistoryLine]:
        """Changes, newest first."""
        lines: list[HistoryLine] = []
        while len(lines) < limit:
            size = min(PAGE, limit - len(lines))
            query = QueryRegistryHistory(kind=kind, name=name, actor=actor, before=before, limit=size)
            page = self._ask(query, RegistryPast)
            lines.extend(page.lines)
            if not page.more or not page.lines:
                break
            before = page.lines[-1].id
        return lines

    # -- the VO's sources ---------------------------------------------------------------------------------------

    def sync(
        self,
        source: str = "",
        *,
        reason: str = "",
        dry_run: bool = False,
        force: bool = False,
        timeout: float = SYNC_SECONDS,
    ) -> RegistrySynced:
        """Read a VO's source (all, if none is named) and do what it says.

        Args:
            source: its name in the services' configuration.
            reason: why; kept in the history.
            dry_run: only tell what would change.
            force: even if it takes away much at once, or the last operator.
            timeout: seconds; a large VO takes minutes.
        """
        message = SyncRegistry(source=source, dry_run=dry_run, force=force, reason=reason)
        return self._ask(message, RegistrySynced, timeout)

    # -- changing -----------------------------------------------------------------------------------------------

    def change(
        self, changes: Sequence[EntryChange], reason: str, *, dry_run: bool = False, force: bool = False
    ) -> RegistryApplied:
        """Make these changes: all or none.

        Args:
            changes: in order.
            reason: why; kept in the history.
            dry_run: only tell what would change.
            force: even if no operator is left.
        """
        if not reason.strip():
            raise InvalidInputError("a change needs a reason")
        message = ChangeRegistry(changes=tuple(changes), reason=reason, dry_run=dry_run, force=force)
        return self._ask(message, RegistryApplied)

    def add(self, *entries: AnyEntry, reason: str) -> RegistryApplied:
        """Add entries."""
        return self.change([EntryChange(operation=Operation.ADD, entry=entry) for entry in entries], reason)

    def set(self, *entries: AnyEntry, reason: str) -> RegistryApplied:
        """Change the fields that are named."""
        return self.change([EntryChange(operation=Operation.SET, entry=entry) for entry in entries], reason)

    def remove(self, *entries: AnyEntry, reason: str) -> RegistryApplied:
        """Remove what operators added."""
        return self.change([EntryChange(operation=Operation.REMOVE, entry=entry) for entry in entries], reason)
