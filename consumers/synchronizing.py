"""The registry follows the VO's sources: each cycle, and when an operator says so.

Promises: a source that cannot be read or believed changes nothing, and is told of once for each new reason, in an event
and in the audit; what an operator sees in a dry run is what would happen now. One process of a deployment looks by
itself; each answers its own operators.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from broker.subscriber import Admitted
from schemas.errors import TemporaryError
from schemas.messages.registrar import (
    LISTING_BYTES,
    MAX_DIFFERENCES,
    Difference,
    RegistryStale,
    RegistrySynced,
    SourceOutcome,
    SyncRegistry,
)

from .batch import Batch
from .bounded import cut, within
from .domain.registry import SYNC, Book, Draft
from .domain.synchronization import SourceMapping, plan
from .settings import RegistrySettings, SourceKind, SourceSettings
from .sources import Result, Sources
from .store import Transaction, audit, claims, leader, state

ROLE = "registry-sync"

MAX_TICKETS = 20
"""Commands at work; more operators than that do not synchronize at once."""

ANSWER_BYTES = LISTING_BYTES // 2
"""Differences of all sources in one answer; their notes come on top."""

FIRST_LOOK = 5.0
"""Seconds after the start: services that follow are up by then."""

CYCLE = 0
"""Ticket of what nobody asked for."""

log = structlog.get_logger(__name__)

Commit = Callable[[Batch, Draft, str, str, str], tuple[list[Difference], int]]


class _State(msgspec.Struct):
    """What is kept of a source across restarts.

    Attributes:
        since: when it was last carried out.
        reason: why it is not, at present; empty if it is.
    """

    since: float = 0.0
    reason: str = ""


@dataclass(slots=True)
class _Ticket:
    """An operator's command at work."""

    client: str
    identity: str
    correlation: str
    asked: SyncRegistry
    left: int
    outcomes: list[SourceOutcome] = field(default_factory=list)


class Synchronizer:
    """Used by the registry's consumer.

    Args:
        settings: sources and cycle.
        sources: reads them.
        book: the registry as it is.
        commit: writes a draft and says what follows.
        holder: this process's name for leadership.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        sources: Sources,
        book: Callable[[Transaction], Book],
        commit: Commit,
        holder: str,
    ) -> None:
        self._settings = settings
        self._sources = sources
        self._book = book
        self._commit = commit
        self._holder = holder
        self._numbers = itertools.count(CYCLE + 1)
        self._tickets: dict[int, _Ticket] = {}
        self._next_look = 0.0
        self._at_work = False
        self._failed: Result | None = None

    # -- commands -----------------------------------------------------------------------------------------------

    def why_not(self, asked: SyncRegistry) -> str:
        """Why a command cannot be taken; empty if it can."""
        if not self._sources.names:
            return "no source is configured: see [[registry.sources]] in the server's configuration"
        if asked.source and asked.source not in self._sources.names:
            return f"there is no source {asked.source!r}; there are {', '.join(self._sources.names)}"
        return "too many are at work" if len(self._tickets) >= MAX_TICKETS else ""

    def take(self, message: Admitted, asked: SyncRegistry) -> None:
        """Have sources read for an operator; he is answered when they are."""
        names = (asked.source,) if asked.source else self._sources.names
        number = next(self._numbers)
        header = message.verified.header
        self._tickets[number] = _Ticket(message.client, message.principal.identity, header.jti, asked, len(names))
        self._sources.ask(number, names)

    # -- chores -------------------------------------------------------------------------------------------------

    def due_in(self, now: float) -> float | None:
        """At once if something was read; else when the next look is due."""
        if self._sources.ready:
            return 0.0
        return self._next_look - now if self._sources.names else None

    def start(self, batch: Batch) -> None:
        """The first look comes a little later. Say whose word still counts though nobody looks any more."""
        self._next_look = batch.now + FIRST_LOOK
        for name in sorted(self._known(batch.tx) - set(self._sources.names)):
            log.warning("registry.source_orphaned", source=name, hint=f"pilotage admin sync {name} --force forgets it")

    def _known(self, tx: Transaction) -> set[str]:
        """Sources that say something in the registry."""
        sources = {source for claims_of in self._book(tx).claims.values() for source in claims_of}
        return {source.removeprefix(SYNC) for source in sources if source.startswith(SYNC)}

    def is_orphan(self, tx: Transaction, asked: SyncRegistry) -> bool:
        """Whether a command is to forget a source that is not configured any more."""
        return asked.force and asked.source not in self._sources.names and asked.source in self._known(tx)

    def forget(self, batch: Batch, message: Admitted, asked: SyncRegistry) -> None:
        """Take back all that a source said that nobody follows any more."""
        name, header = asked.source, message.verified.header
        ticket = _Ticket(message.client, message.principal.identity, header.jti, asked, 1)
        gone = SourceSettings(name, SourceKind.IAM_SCIM, "")
        outcome = self._outcome(batch, Result(CYCLE, gone, ()), ticket)
        version = self._book(batch.tx).version
        batch.answer(message, RegistrySynced(outcomes=(outcome,), version=version, dry_run=asked.dry_run))

    def work(self, batch: Batch) -> None:
        """Carry out what was read, one source in each transaction; begin the next cycle."""
        result = self._sources.first()
        if result is not None:
            self._carry_out(batch, result)
            return
        if batch.now < self._next_look or not self._sources.names:
            return
        self._next_look = batch.now + self._settings.cycle
        # Whoever leads looks; leadership outlasts a cycle, so that another process takes over in the next one.
        leads = leader.acquire_or_renew(batch.tx, ROLE, self._holder, batch.now, 1.5 * self._settings.cycle)
        if leads is not None and not self._at_work:
            self._at_work = True
            self._sources.ask(CYCLE, self._sources.names)

    def _carry_out(self, batch: Batch, result: Result) -> None:
        ticket = self._tickets.get(result.ticket)
        outcome = self._tried(batch, result, ticket)
        if ticket is not None and ticket.left == 1:
            outcomes, version = (*ticket.outcomes, outcome), self._book(batch.tx).version
            answer = RegistrySynced(outcomes=outcomes, version=version, dry_run=ticket.asked.dry_run)
            batch.tell(ticket.client, answer, ticket.correlation)
        batch.commits.append(lambda: self._done(result, outcome))

    def _tried(self, batch: Batch, result: Result, ticket: _Ticket | None) -> SourceOutcome:
        if result is self._failed:
            reason = "it could not be carried out; the log of the registry service says why"
            return SourceOutcome(source=result.source.name, ok=False, reason=reason)
        try:
            return self._outcome(batch, result, ticket)
        except TemporaryError:
            raise
        except Exception:
            self._failed = result  # undone with the transaction, and not tried for ever
            raise

    def _done(self, result: Result, outcome: SourceOutcome) -> None:
        """Only after the commit: what was rolled back is carried out again."""
        self._sources.done()
        ticket = self._tickets.get(result.ticket)
        if ticket is None:
            self._at_work = self._at_work and result.source.name != self._sources.names[-1]
            return
        ticket.outcomes.append(outcome)
        ticket.left -= 1
        if not ticket.left:
            del self._tickets[result.ticket]

    def _outcome(self, batch: Batch, result: Result, ticket: _Ticket | None) -> SourceOutcome:
        name = result.source.name
        forced = ticket is not None and ticket.asked.force
        dry = ticket is not None and ticket.asked.dry_run
        if result.users is None:
            self._tell(batch, name, result.error, dry=dry)
            return SourceOutcome(source=name, ok=False, reason=cut(result.error))
        claims.lock(batch.tx)
        mapping = SourceMapping(name, result.source.groups, result.source.max_loss)
        found = plan(self._book(batch.tx), result.users, mapping)
        refused = "" if forced else found.refused
        differences = found.draft.differences()
        if refused:
            reason = f"refused: {refused}; if it is true: pilotage admin sync {name} --force"
        elif dry:
            reason = ""
        else:
            actor = ticket.identity if ticket is not None else SYNC + name
            why = ticket.asked.reason if ticket is not None else ""
            self._commit(batch, found.draft, SYNC + name, actor, why)
            self._note(batch, name, actor, differences, ticket)
            reason = ""
        if refused or not dry:
            self._tell(batch, name, reason, dry=dry)
        sources = max(1, len(self._sources.names))
        shown = within(differences[: MAX_DIFFERENCES // sources], ANSWER_BYTES // sources)
        return SourceOutcome(
            source=name,
            ok=not refused,
            reason=reason,
            users=found.users,
            differences=tuple(shown),
            omitted=len(differences) - len(shown),
            notes=tuple(cut(note) for note in found.notes),
        )

    def _note(
        self, batch: Batch, name: str, actor: str, differences: Sequence[Difference], ticket: _Ticket | None
    ) -> None:
        if not differences and ticket is None:
            return
        facts = {"source": name, "changes": len(differences), "forced": ticket is not None and ticket.asked.force}
        client = ticket.client if ticket is not None else ""
        audit.append(batch.tx, batch.now, "registry.sync", identity=actor, client=client, detail=facts)
        log.info("registry.synchronized", **facts)

    def _tell(self, batch: Batch, name: str, reason: str, *, dry: bool) -> None:
        """Keep how a source stands; what is new about it is told."""
        if dry:
            return
        kept = state.get(batch.tx, f"{ROLE}:{name}")
        before = msgspec.json.decode(kept[0], type=_State) if kept is not None else _State()
        now = _State(before.since, reason) if reason else _State(batch.now, "")
        state.put(batch.tx, f"{ROLE}:{name}", msgspec.json.encode(now), batch.now)
        if not reason or reason == before.reason:
            return
        log.error("registry.source_refused", source=name, reason=reason)
        batch.publish(RegistryStale(source=name, reason=reason[:1000], time=batch.now, since=before.since))
        facts = {"source": name, "reason": reason[:1000]}
        audit.append(batch.tx, batch.now, "registry.sync.refused", identity=SYNC + name, detail=facts)
