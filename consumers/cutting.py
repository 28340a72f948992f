"""Ending clients' connections, and finding those that must not be there any more.

Promises: who is cut has lost his connections at the broker and his reply queue; a client that may come back logs in
anew and loses nothing but time. Whose rights grew less since he was let in here is cut, too: the broker would go on
believing what it was told before. A connection that could not be closed is tried again with the next look, as long as
it must not be there. Runs outside of transactions: it waits for the broker.
Lies elsewhere: when (:mod:`.cut_off`); how the broker is told (:mod:`.broker_connections`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import structlog

from broker.authorization import TABLE, Principal, may_read_events, why_not
from broker.connection import Connection
from broker.errors import OperationRefusedError
from broker.topology import MONITORING
from schemas.envelope import reply_queue
from schemas.errors import TemporaryError
from schemas.identity import client_id_prefix

from .broker_connections import BrokerConnections
from .directory import Directory
from .enrolling import KIND as ENROLLING
from .gatekeeper import CLIENT_ID, Gatekeeper
from .store import Store, audit, parked, sessions
from .store.sessions import Session

LISTED_SECONDS = 10.0
"""RabbitMQ lists a new connection five seconds later at most (its collect_statistics_interval)."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of some clients.

    Attributes:
        clients: cut.
        connections: closed.
        left: clients that could not be cut.
        reason: why not.
    """

    clients: int = 0
    connections: int = 0
    left: tuple[str, ...] = ()
    reason: str = ""


class Cutter:
    """Cuts clients.

    Args:
        store: sessions and audit.
        directory: who may be there.
        gatekeeper: forgets who was cut.
        connection: may delete reply queues.
        broker: looks at connections and closes them.
        clock: server time.
    """

    def __init__(
        self,
        *,
        store: Store,
        directory: Directory,
        gatekeeper: Gatekeeper,
        connection: Connection,
        broker: BrokerConnections,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._directory = directory
        self._gatekeeper = gatekeeper
        self._connection = connection
        self._broker = broker
        self._clock = clock

    def connected(self) -> dict[str, tuple[int, Session | None]]:
        """Clients that are connected now: how often, and their session if there is one.

        Those that were let in here a moment ago are there, too, even if the broker does not list them yet (0 times).

        Raises:
            BrokerAwayError: the broker does not tell.
        """
        users = dict.fromkeys(self._gatekeeper.recent(LISTED_SECONDS), 0)
        users |= {name: count for name, count in self._broker.users().items() if CLIENT_ID.match(name)}
        with self._store.reading() as tx:
            known = sessions.get_many(tx, sorted(users))
        return {client: (count, known.get(client)) for client, count in users.items()}

    def cut_somebody(self, who: str, reason: str, *, group: str = "", by: str = "") -> Cut:
        """Cut an identity (in one group, or in all), or one client.

        Raises:
            BrokerAwayError: the broker does not tell who is connected; nobody was cut.
        """
        there = self.connected()
        if CLIENT_ID.match(who):
            return self.cut([who] if who in there else [], reason, by)
        prefix = client_id_prefix(who) + "."
        mine = {client: session for client, (_, session) in there.items() if client.startswith(prefix)}
        chosen = [client for client, session in mine.items() if not group or session is None or session.grp == group]
        return self.cut(chosen, reason, by)

    def sweep(self) -> Cut:
        """Cut everybody who must not be there any more.

        Raises:
            BrokerAwayError: the broker does not tell who is connected.
        """
        wrong: dict[str, list[str]] = {}
        memo: dict[Principal, frozenset[str]] = {}
        for client, (_, session) in self.connected().items():
            why = self._why(session)
            if not why and session is not None:
                why = self._less(session, memo)
            if why:
                wrong.setdefault(why, []).append(client)
        return _total(self.cut(clients, why, "gatekeeper") for why, clients in wrong.items())

    def _why(self, session: Session | None) -> str:
        """Why a client must not be connected; empty if it may."""
        if session is None:
            return "the session is unknown"
        if self._directory.principal(session.identity, session.grp, session.client) is None:
            return "the identity is suspended, or not registered"
        if session.kind == ENROLLING:
            return ""  # it has no chain yet
        chain = self._directory(session.thumbprint)
        if chain is None:
            return "the certificate is revoked, or not trusted any more"
        return "the proxy or certificate has ended" if chain.not_after < self._clock() else ""

    def _less(self, session: Session, memo: dict[Principal, frozenset[str]]) -> str:
        """Whether rights were taken away since a client was let in here.

        The broker asks once for a reader, and for a channel as long as it is busy: only a new login acts on those.
        """
        before = self._gatekeeper.granted(session.client)
        now = self._directory.principal(session.identity, session.grp, session.client)
        if before is None or now is None or before is now:
            return ""
        rights = []
        for principal in (before, now):
            kind = replace(
                principal, identity="", group="", site="", renewed_until=None
            )  # there are few kinds, and many clients
            if kind not in memo:
                memo[kind] = rights_of(kind)
            rights.append(memo[kind])
        return "rights were taken away: log in anew" if rights[0] - rights[1] else ""

    def cut(self, clients: Iterable[str], reason: str, by: str) -> Cut:
        """Cut these clients."""
        return _total(self._cut_one(client, reason, by) for client in clients)

    def _cut_one(self, client: str, reason: str, by: str) -> Cut:
        asked = self._clock()
        self._gatekeeper.forget(client)
        try:
            # The queue first: a client that may come back makes a new one with its next login.
            self._connection.delete_queue(reply_queue(client))
            closed = self._broker.close(client, reason)
            with self._store.transaction() as tx:
                known = sessions.get_many(tx, [client]).get(client)
                sessions.remove(tx, client, asked)
                identity = known.identity if known else ""
                detail: Mapping[str, object] = {"reason": reason, "connections": closed, "by": by}
                if known is None or self._directory.principal(identity, known.grp, client) is None:
                    parked.remove_clients(tx, {client})  # it is to be given no job; who may come back keeps its place
                audit.append(tx, asked, "session.cut", identity=identity, client=client, detail=detail)
        except (TemporaryError, OperationRefusedError) as error:
            log.warning("gatekeeper.not_cut", client=client, reason=str(error)[:300])
            return Cut(left=(client,), reason=str(error)[:300])
        self._gatekeeper.forget(client)
        log.warning("gatekeeper.cut", client=client, identity=identity, connections=closed, reason=reason)
        return Cut(clients=int(closed > 0), connections=closed)


def rights_of(principal: Principal) -> frozenset[str]:
    """All that somebody may send, and whether he may read the stream of events."""
    sends = {name for name in TABLE if why_not(principal, name) is None}
    return frozenset(sends | ({MONITORING} if may_read_events(principal) else set()))


def _total(cuts: Iterable[Cut]) -> Cut:
    done = list(cuts)
    return Cut(
        clients=sum(one.clients for one in done),
        connections=sum(one.connections for one in done),
        left=tuple(client for one in done for client in one.left),
        reason=next((one.reason for one in done if one.reason), ""),
    )
