"""The gatekeeper: RabbitMQ asks it who may log in, and what each client may touch.

Promises: a login is a fresh assertion signed by a chain that is valid now, of an identity that the registry knows; it
leaves the chain in the store, a reply queue at the broker and a welcome in it. Everything not explicitly allowed is
denied. It never answers for the names of internal users. If it is away, new logins fail closed.
Lies elsewhere: the HTTP front (:mod:`consumers.gatekeeper_http`), the rules (:mod:`broker.authorization`).
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from broker.authorization import (
    SERVICES,
    Door,
    Principal,
    is_pilot,
    is_private_pilot,
    may_read_events,
    may_send_by,
    sends,
    writable_doors,
)
from broker.connection import Connection
from broker.enrolment import is_enrolment
from broker.identity import IdentityError, pem_chain
from broker.login import ASSERTION_SECONDS, check_assertion
from broker.publisher import event, reply, seal
from broker.refusal import RefusalError
from broker.signing import Signer, facts_of
from broker.topology import MONITORING, REPLY_ARGUMENTS
from schemas.envelope import CLOCK_SKEW, reply_queue
from schemas.messages.enrolment import PilotEnrolling
from schemas.messages.event import PilotChanged
from schemas.messages.service import ServiceInfo, Welcome

from .denials import Denials
from .directory import Directory
from .enrolling import EnrolmentDesk, SecretReusedError
from .per_minute import PerMinute
from .store import Store, audit, chains, pilots, proxies, sessions

CLIENT_ID = re.compile(r"^[a-z2-7]{20}\.[0-9a-z]{1,40}$")
"""base32(sha256(DN))[:20] + '.' + random. No internal user has a dot in its name."""

CACHED_SESSIONS = 20_000

USABLE_SECONDS = 2 * CLOCK_SKEW + ASSERTION_SECONDS
"""An assertion is valid at most so long after its first use, clocks as different as they may be."""

ASKED_AGAIN_SECONDS = 5.0
"""For one login RabbitMQ asks twice (who it is, what it may), and then believes its own cache for so long."""

MAX_USED = 500_000
"""Assertions remembered: 700 logins a second for that time, several times what RabbitMQ asks; above it logins fail."""

LOGINS_PER_MINUTE = 600
"""Of one identity: each costs a queue, a session and a line in the audit, which is kept for ever. A loop of commands
that log in one by one makes two or three a second. Pilots that share a registered certificate are not counted: after
an outage they come by the thousand."""

CHAIN_SECONDS = 0.25
"""How old the list of services' chains for the welcome may be: a client that logs in because it met an unknown chain
must find it there."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClientSession:
    """A client that logged in; ``limited``: with a limited proxy, as payloads have one."""

    client: str
    identity: str
    group: str
    limited: bool = False


class Gatekeeper:
    """Decides; one per broker node.

    Args:
        store: the state.
        directory: registry and chains.
        connection: its own standing connection, with the right to make reply queues.
        signer: its identity, with its chain (``x5c``).
        broker: name of the deployment, audience of the logins.
        clock: server time.
    """

    def __init__(
        self,
        *,
        store: Store,
        directory: Directory,
        connection: Connection,
        signer: Signer,
        broker: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._directory = directory
        self._connection = connection
        self._signer = signer
        self._broker = broker
        self._desk = EnrolmentDesk(store, broker)
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, ClientSession] = OrderedDict()
        self._granted: OrderedDict[str, tuple[float, Principal]] = OrderedDict()
        self._services: tuple[ServiceInfo, ...] = ()
        self._services_at = float("-inf")
        self._used: OrderedDict[str, float] = OrderedDict()
        self._prepared: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._denials = Denials(store, clock)
        self._logins = PerMinute(LOGINS_PER_MINUTE)

    # -- login --------------------------------------------------------------------------------------------------

    def user(self, form: Mapping[str, str]) -> bool:
        """May this user log in with this password? If so, everything is prepared for it."""
        client, assertion = form.get("username", ""), form.get("password", "")
        if client in SERVICES or not CLIENT_ID.match(client) or not assertion:
            return self._deny("login", client, "not a client id, or no assertion")
        now = self._clock()
        if is_enrolment(assertion):
            return self._enrol(client, assertion, now)
        try:
            claims, chain = check_assertion(
                assertion, client=client, audience=self._broker, now=now, verify=self._directory.verify
            )
        except (RefusalError, IdentityError) as error:
            return self._deny("login", client, str(error))
        if not self._is_first_use(claims.jti, now):
            return self._deny("login", client, "the login assertion was used before")
        group = claims.grp or self._directory.first_group(chain.identity)
        principal = self._directory.principal(chain.identity, group, client)
        if principal is None or principal.service:
            return self._deny("login", client, f"{chain.identity} is not known, or not in group {group!r}")
        facts = facts_of(chain)
        if principal.voms and principal.voms not in facts.fqans:
            reason = f"{chain.identity}: group {group!r} asks for a proxy with the VOMS attribute {principal.voms}"
            return self._deny("login", client, reason)
        if self._is_prepared(client, claims.jti):
            return True
        is_one = is_pilot(principal.properties)
        is_private = is_private_pilot(principal.properties)
        if is_private and chain.limited:
            return self._deny("login", client, f"{chain.identity}: a private pilot needs its owner's full proxy")
        shares = is_one and not is_private and not principal.site
        if not shares and not self._logins.take(chain.identity, now):
            return self._deny("login", client, f"{chain.identity} logs in more than {LOGINS_PER_MINUTE} times a minute")
        session = ClientSession(client, chain.identity, group, chain.limited)
        with self._store.transaction() as tx:
            kind = "pilot" if is_one else "user"
            chains.put(tx, chain.thumbprint_b64url, chain.ders, chain.identity, chain.not_after.timestamp(), now)
            sessions.put(tx, client, chain.identity, group, chain.thumbprint_b64url, kind, now)
            detail = {
                "group": group,
                "kind": kind,
                "thumbprint": chain.thumbprint_b64url,
                "not_after": chain.not_after.timestamp(),
            }
            audit.append(tx, now, "login", identity=chain.identity, client=client, detail=detail)
            if is_one:
                pilots.seen(tx, client, chain.identity, now)
            delegated = None if is_one else proxies.until(tx, chain.identity, group)
        self._directory.remember(chain.thumbprint_b64url, facts)
        self._remember(session)
        self._welcome(session, principal, delegated, claims.jti[:64])
        self._note_granted(client, principal)
        self._note_prepared(client, claims.jti)
        if is_one:
            self._announce(session)
        return True

    def _enrol(self, client: str, assertion: str, now: float) -> bool:
        """A pilot that uses its one-time secret: it may read its own queue, where its certificate will come."""
        try:
            wish = self._desk.check(assertion, client=client, now=now)
            if not self._is_first_use(wish.claims.jti, now):
                return self._deny("enrolment", client, "the enrolment assertion was used before")
            if not self._is_prepared(client, wish.claims.jti) and not self._logins.take(wish.enrolment, now):
                return self._deny("enrolment", client, f"{wish.enrolment} comes too often")
            row = self._desk.claim(wish, assertion, now=now)
        except SecretReusedError as error:
            if error.alarm:
                self._tell_of(client, error.row.identity, "alarm", str(error), error.row.site)
            return self._deny("enrolment", client, str(error))
        except RefusalError as error:
            return self._deny("enrolment", client, str(error))
        session = ClientSession(client, row.identity, "")
        principal = self._directory.principal(row.identity, "", client)
        if principal is None:
            return self._deny("enrolment", client, "the enrolment is revoked")
        if self._is_prepared(client, wish.claims.jti):
            return True
        self._remember(session)
        self._welcome(session, principal, None, wish.claims.jti[:64])
        fact = PilotEnrolling(enrolment=row.id, identity=row.identity, site=row.site, client=client, time=now)
        self._connection.publish([seal(event(fact), self._signer, self._clock())])
        self._note_prepared(client, wish.claims.jti)
        return True

    def _announce(self, session: ClientSession) -> None:
        """Tell that a pilot came; a hint for dashboards, so it may be lost."""
        self._tell_of(session.client, session.identity, "alive", "logged in")

    def _tell_of(self, client: str, identity: str, status: str, cause: str, site: str = "") -> None:
        now = self._clock()
        fact = PilotChanged(client=client, identity=identity, status=status, site=site, time=now, cause=cause)
        self._connection.publish([seal(event(fact), self._signer, now)])

    def _is_prepared(self, client: str, login: str) -> bool:
        """Whether everything was prepared for this login already: RabbitMQ asks twice for each."""
        with self._lock:
            return (client, login) in self._prepared

    def _note_prepared(self, client: str, login: str) -> None:
        with self._lock:
            self._prepared[client, login] = None
            while len(self._prepared) > CACHED_SESSIONS:
                self._prepared.popitem(last=False)

    def _is_first_use(self, login: str, now: float) -> bool:
        """Whether this assertion is new: one login each, so that a copy of it is soon worth nothing."""
        with self._lock:
            while self._used and next(iter(self._used.values())) < now - USABLE_SECONDS:
                self._used.popitem(last=False)
            if len(self._used) >= MAX_USED:
                return False
            return now - self._used.setdefault(login, now) <= ASKED_AGAIN_SECONDS

    def _welcome(self, session: ClientSession, principal: Principal, delegated: float | None, login: str) -> None:
        queue = reply_queue(session.client)
        self._connection.declare_queue(queue, durable=True, arguments=REPLY_ARGUMENTS)
        self._connection.bind_queue(queue, Door.REPLIES.value, queue)
        user = self._directory.registry().users.get(session.identity)
        welcome = Welcome(
            server_time=self._clock(),
            client=session.client,
            identity=session.identity,
            group=session.group,
            nickname=user.nickname if user else "",
            properties=tuple(sorted(principal.properties)),
            services=self._known_services(),
            delegated_until=delegated,
            rules=principal.rules,
        )
        letter = reply(welcome, session.client, login)
        self._connection.publish([seal(letter, self._signer, self._clock(), with_chain=True)])

    def _known_services(self) -> tuple[ServiceInfo, ...]:
        if time.monotonic() - self._services_at > CHAIN_SECONDS or not self._services:
            infos: list[ServiceInfo] = []
            with self._store.reading() as tx:
                for dn, name in self._directory.registry().services.items():
                    infos.extend(
                        ServiceInfo(name=name, dn=dn, chain=pem_chain(stored.ders).decode(), sends=sends(name))
                        for stored in chains.of_identity(tx, dn, valid_at=self._clock())
                    )
            self._services, self._services_at = tuple(infos), time.monotonic()
        return self._services

    # -- what a client may touch --------------------------------------------------------------------------------

    def vhost(self, form: Mapping[str, str]) -> bool:
        """May this client enter the virtual host?"""
        return self._principal(form) is not None

    def resource(self, form: Mapping[str, str]) -> bool:
        """May this client configure, write or read this exchange or queue?"""
        principal = self._principal(form)
        if principal is None:
            return False
        kind, name, permission = form.get("resource", ""), form.get("name", ""), form.get("permission", "")
        allowed = False
        if kind == "exchange" and permission == "write":
            allowed = name in writable_doors(principal)
        elif kind == "queue" and permission == "read":
            own = name == reply_queue(form["username"])
            allowed = own or (name == MONITORING and may_read_events(principal))
            if allowed and not own and self._is_limited(form["username"]):
                allowed = False  # what happens to everybody's jobs is not for worker nodes
        return allowed or self._no_access(form, principal, f"{permission} {kind} {name!r}")

    def _no_access(self, form: Mapping[str, str], principal: Principal, wanted: str) -> bool:
        """Our own tools ask for nothing that they may not have: this is somebody who looks what is open."""
        return self._deny("access", form["username"], f"may not {wanted}", identity=principal.identity)

    def topic(self, form: Mapping[str, str]) -> bool:
        """May this client publish this routing key (a message name) to this exchange?"""
        principal = self._principal(form)
        if principal is None:
            return False
        name, key, permission = form.get("name", ""), form.get("routing_key", ""), form.get("permission", "")
        allowed = permission == "write" and may_send_by(principal, name, key)
        return allowed or self._no_access(form, principal, f"{permission} {key!r} to exchange {name!r}")

    def _principal(self, form: Mapping[str, str]) -> Principal | None:
        client = form.get("username", "")
        session = self._session(client)
        if session is None:
            return None
        return self._directory.principal(session.identity, session.group, client)

    def _session(self, client: str) -> ClientSession | None:
        with self._lock:
            if client in self._sessions:
                self._sessions.move_to_end(client)
                return self._sessions[client]
        if not CLIENT_ID.match(client):
            return None
        with self._store.reading() as tx:
            row = sessions.get(tx, client)
        if row is None:
            return None
        chain = self._directory(row.thumbprint)
        session = ClientSession(client, row.identity, row.grp, chain is None or chain.limited)
        self._remember(session)
        return session

    def _is_limited(self, client: str) -> bool:
        session = self._session(client)
        return session is None or session.limited

    def granted(self, client: str) -> Principal | None:
        """As whom a client was let in here at its last login; None if it was elsewhere, or before the last start."""
        with self._lock:
            found = self._granted.get(client)
        return None if found is None else found[1]

    def recent(self, seconds: float) -> list[str]:
        """Clients that were let in here within so many seconds."""
        since = time.monotonic() - seconds
        with self._lock:
            latest = itertools.takewhile(lambda item: item[1][0] >= since, reversed(self._granted.items()))
            return [client for client, _ in latest]

    def _note_granted(self, client: str, principal: Principal) -> None:
        with self._lock:
            self._granted[client] = time.monotonic(), principal
            self._granted.move_to_end(client)
            while len(self._granted) > CACHED_SESSIONS:
                self._granted.popitem(last=False)

    def forget(self, client: str) -> None:
        """Look this client up again at its next question."""
        with self._lock:
            self._sessions.pop(client, None)
            self._granted.pop(client, None)

    def _remember(self, session: ClientSession) -> None:
        with self._lock:
            self._sessions[session.client] = session
            while len(self._sessions) > CACHED_SESSIONS:
                self._sessions.popitem(last=False)

    def _deny(self, what: str, client: str, reason: str, **facts: str) -> bool:
        self._denials.note(what, client, reason, **facts)
        return False
