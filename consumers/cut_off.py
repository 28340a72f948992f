"""The gatekeeper's other half: who lost his rights loses his connections, and operators see and cut who is connected.

Promises: a blocked identity (``identity.blocked.v1``) is cut as soon as the fact comes; whoever must not be connected
(blocked, not registered, chain revoked or ended, no session) is cut within :data:`LOOK_SECONDS` of the change even if
the fact was lost, and within :data:`SWEEP_SECONDS` in any case. Every gatekeeper does so; doing it twice does no harm.
The broker is asked after the commit, never inside a transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

import structlog

from broker.subscriber import Admitted
from schemas.errors import PilotageError
from schemas.messages.registrar import IdentityBlocked
from schemas.messages.service import Refused
from schemas.messages.sessions import CutSessions, QuerySessions, SessionInfo, SessionListing, SessionsEnded
from schemas.registry import Message

from .batch import Batch, Consumer
from .cutting import Cutter
from .directory import Directory
from .outcome import ACK, DeadLetter, Outcome
from .store import audit
from .store.sessions import Session

LOOK_SECONDS = 1.0
"""How often registry and trust directory are asked whether they changed; each is read anew every two seconds."""

SWEEP_SECONDS = 30.0
"""Between two looks at everybody who is connected, changed or not: proxies end, and facts get lost."""

AGAIN_SECONDS = (1.0, 7.0)
"""After somebody was blocked everybody is looked at again so much later: he may have been logging in at that moment,
and the broker believes its own memory of a login for five seconds."""

LEFT = 100
"""Clients named in an answer."""

log = structlog.get_logger(__name__)


class CutOff(Consumer):
    """The consumer; it runs beside the gatekeeper, under its name.

    Args:
        directory: who may be there.
        cutter: does it.
        keep: makes the queue by which it hears of the blocked, should it be gone (unused for long, it expires).
        clock: monotonic.
    """

    name = "gatekeeper"
    handlers: ClassVar = {IdentityBlocked: "on_blocked", CutSessions: "on_cut", QuerySessions: "on_query"}
    inbox = False
    batch_size = 64

    def __init__(
        self,
        directory: Directory,
        cutter: Cutter,
        keep: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._cutter = cutter
        self._keep = keep
        self._clock = clock
        self._seen: tuple[int, int] | None = None
        self._next_look = 0.0
        self._next_sweep = 0.0
        self._again: list[float] = []

    # -- facts and commands -------------------------------------------------------------------------------------

    def on_blocked(self, batch: Batch, message: Admitted) -> Outcome:
        """Somebody lost his rights."""
        fact = message.verified.message
        if not isinstance(fact, IdentityBlocked):
            return DeadLetter("not identity.blocked")
        self._directory.forget()
        reason = f"{fact.how}" + (f": {fact.reason}" if fact.reason else "")

        def cut() -> None:
            self._again += [self._clock() + seconds for seconds in AGAIN_SECONDS]
            self._quietly(lambda: self._cutter.cut_somebody(fact.identity, reason, group=fact.group, by=fact.by))

        batch.commits.append(cut)
        return ACK

    def on_cut(self, batch: Batch, message: Admitted) -> Outcome:
        """An operator's word: these connections end now."""
        asked = message.verified.message
        if not isinstance(asked, CutSessions):
            return DeadLetter("not session.cut")
        operator = message.principal.identity
        detail = {"who": asked.who, "reason": asked.reason}
        audit.append(
            batch.tx, batch.now, "session.cut-ordered", identity=operator, client=message.client, detail=detail
        )

        def cut() -> Message:
            done = self._cutter.cut_somebody(asked.who, asked.reason, by=operator)
            return SessionsEnded(
                clients=done.clients, connections=done.connections, left=done.left[:LEFT], reason=done.reason
            )

        self._answer_later(batch, message, cut)
        return ACK

    def on_query(self, batch: Batch, message: Admitted) -> Outcome:
        """Tell who is connected."""
        asked = message.verified.message
        if not isinstance(asked, QuerySessions):
            return DeadLetter("not session.query")
        self._answer_later(batch, message, lambda: self._listing(asked))
        return ACK

    def _listing(self, asked: QuerySessions) -> SessionListing:
        found = [
            _info(client, count, session)
            for client, (count, session) in self._cutter.connected().items()
            if count and (not asked.who or asked.who in {client, *_names(session)})
        ]
        fitting = [one for one in found if not asked.kind or one.kind == asked.kind]
        fitting.sort(key=lambda one: (-one.since, one.client))
        return SessionListing(sessions=tuple(fitting[: asked.limit]), total=len(fitting))

    @staticmethod
    def _answer_later(batch: Batch, message: Admitted, make: Callable[[], Message]) -> None:
        """Answer with what is only known after the commit, before the batch's answers leave."""

        def answer() -> None:
            try:
                batch.say(message, make())
            except PilotageError as error:
                log.warning("gatekeeper.broker_away", reason=str(error)[:300])
                typ = message.verified.header.typ
                batch.say(message, Refused(code="unavailable", reason=f"{error}; try again", type=typ))

        batch.commits.append(answer)

    # -- the look at everybody ----------------------------------------------------------------------------------

    def due_in(self, now: float) -> float | None:  # noqa: ARG002 - by the monotonic clock
        """When to look whether something changed."""
        return self._next_look - self._clock()

    def chores(self, batch: Batch) -> None:
        """Look at everybody if anything changed, or if it is time."""
        now = self._clock()
        self._next_look = now + LOOK_SECONDS
        changed = self._directory.generation()
        if changed == self._seen and now < min([self._next_sweep, *self._again]):
            return
        self._seen = changed
        self._next_sweep = now + SWEEP_SECONDS
        self._again = [moment for moment in self._again if moment > now]
        batch.commits += [lambda: self._quietly(self._cutter.sweep), lambda: self._quietly(self._keep)]

    @staticmethod
    def _quietly(act: Callable[[], object]) -> None:
        """Do it; if the broker is away the next look does it."""
        try:
            act()
        except PilotageError as error:
            log.warning("gatekeeper.broker_away", reason=str(error)[:300])


def _names(session: Session | None) -> tuple[str, ...]:
    return () if session is None else (session.identity, session.grp)


def _info(client: str, count: int, session: Session | None) -> SessionInfo:
    if session is None:
        return SessionInfo(client=client, identity="", since=0.0, connections=count)
    return SessionInfo(
        client=client,
        identity=session.identity,
        group=session.grp,
        kind=session.kind,
        since=session.seen,
        connections=count,
    )
