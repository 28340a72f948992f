"""A client's session: login, welcome, signed requests, verified answers. Used by users' tools and by pilots.

Promises: every answer that comes out was signed by a service that the gatekeeper vouched for and that the
authorization table lets send it; the gatekeeper itself is known by its DN and the trust directory. The client
declares nothing at the broker. Times: ``now()`` is server time as learned at the welcome; the estimate is never
behind the server's clock, so that leases end early rather than late on this side.
"""

from __future__ import annotations

import base64
import datetime as dt
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from schemas.envelope import JWS_HEADER, reply_queue
from schemas.errors import PermanentError, TemporaryError
from schemas.messages.service import ChainUnknown, Refused, Welcome
from schemas.registry import Message

from .authorization import Principal, authorize
from .connection import Connection, Subscription, Wakeup
from .identity import Credential, IdentityError, TrustStore, VomsDir, verify_chain
from .passport import ChainPassport, Passport
from .publisher import Letter, request, seal
from .refusal import RefusalError
from .signing import KnownChain, Signer, Verified, facts_of, open_envelope, peek, uuid7
from .transport import Confirm, Delivery, Endpoint, Login, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable

WELCOME = "session.welcome.v1"
DEFAULT_TIMEOUT = 30.0
"""Seconds a request waits for its answer: the broker may fail over in between."""

LEARN_SECONDS = 60.0
"""Between two logins for the sake of unknown chains: certificates are renewed seldom, and garbage must cost little."""

PREFETCH = 64
"""Answers in flight: bounds what a client holds in memory (64 × 8 MiB is never reached: most are below 1 kB)."""


class NoAnswerError(TemporaryError):
    """The service did not answer in time; the request stays with the broker and will be handled."""


class RequestRefusedError(PermanentError):
    """The service refused the request.

    Attributes:
        refused: code, reason and all errors.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.reason)
        self.refused = refused


class NotSentError(TemporaryError):
    """The broker did not take the message."""


@dataclass(frozen=True)
class SessionSettings:
    """How to reach a deployment and whom to believe.

    Attributes:
        endpoint: the broker.
        broker: the deployment's name (audience of logins).
        trust_dir: CA directory in grid layout.
        gatekeeper: canonical DN of the gatekeeper.
        voms_dir: LSC files, if any.
    """

    endpoint: Endpoint
    broker: str
    trust_dir: Path
    gatekeeper: str
    voms_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Incoming:
    """A verified answer and the delivery it came in."""

    verified: Verified[Message]
    delivery: Delivery

    @property
    def message(self) -> Message:
        """The payload."""
        return self.verified.message


class Session:
    """One client's standing login.

    Args:
        settings: the deployment.
        passport: proxy (users) or certificate (pilots) with its key; or how else it logs in.
        group: group to act for; empty lets the gatekeeper choose the identity's first one.
        name: shown to operators as the connection's name.
        wakeup: set when an answer comes, for a thread that waits for other things, too.
    """

    def __init__(
        self,
        settings: SessionSettings,
        passport: Credential | Passport,
        *,
        group: str = "",
        name: str,
        wakeup: Wakeup | None = None,
    ) -> None:
        self._settings = settings
        self._trust = TrustStore.load(settings.trust_dir)
        self._voms = VomsDir.load(settings.voms_dir) if settings.voms_dir else None
        self._passport = self._accepted(passport) if isinstance(passport, Credential) else passport
        self.identity = self._passport.identity
        self.client = self._passport.client
        self.group = group
        self.welcome: Welcome | None = None
        self._zero: float | None = None
        self._pending: tuple[str, float] = ("", steady_now())
        self._chains: dict[str, KnownChain] = {}
        self._services: dict[str, Principal] = {}
        self._kept: deque[Incoming] = deque()
        self._name = name
        self._wakeup = wakeup
        self._learning_since = float("-inf")
        self._learning_from: Welcome | None = None
        self._unknown: dict[str | None, Delivery] = {}
        self._connection = Connection(settings.endpoint, self._login, name=name)
        self._subscription: Subscription | None = None
        self._signer: Signer | None = None

    def _accepted(self, credential: Credential, client: str = "") -> ChainPassport:
        """Our own chain is verified first: what we would not believe of others, others will not believe of us."""
        chain = verify_chain(credential.ders, self._trust, self._voms, _utc_now())
        chain.check_may_act()
        return ChainPassport(credential, chain, client)

    def use(self, credential: Credential) -> None:
        """Sign and log in with this credential of the same identity from now on. The services know its chain already.

        Raises:
            IdentityError: it cannot be used, or it is another identity's.
        """
        passport = self._accepted(credential, self.client)
        if passport.identity != self.identity:
            raise IdentityError("a session has one identity for its life")
        self._passport = passport
        self._signer = passport.signer(self.group) if self.welcome is not None else None

    # -- life ---------------------------------------------------------------------------------------------------

    def open(self, timeout: float = DEFAULT_TIMEOUT) -> Welcome:
        """Log in and wait for the welcome.

        Raises:
            LoginRefusedError: the gatekeeper refused; the broker does not say more.
            NoAnswerError: no welcome came.
        """
        self._connection.start(timeout=timeout)
        self._subscription = self._connection.subscribe(
            reply_queue(self.client), prefetch=PREFETCH, wakeup=self._wakeup
        )
        return self._await_welcome(timeout)

    def _await_welcome(self, timeout: float) -> Welcome:
        deadline = time.monotonic() + timeout
        while self.welcome is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise NoAnswerError("no welcome from the gatekeeper")
            self._kept.extend(self._receive(16, left))
        return self.welcome

    def close(self, timeout: float = 5.0) -> None:
        """Leave; what was published before is confirmed first."""
        self._connection.close(timeout)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connection(self) -> Connection:
        """The connection below, for streams."""
        return self._connection

    def now(self) -> float:
        """Server time, seconds since the epoch."""
        return time.time() if self._zero is None else self._zero + steady_now()

    def _login(self) -> Login:
        login = uuid7()
        self._pending = (login, steady_now())
        audience = self._settings.broker
        password = self._passport.password(audience=audience, group=self.group, now=self.now(), login=login)
        return Login(self.client, password)

    # -- sending ------------------------------------------------------------------------------------------------

    def letter(self, message: Message) -> Letter:
        """Address a message to its service.

        Raises:
            RefusalError: this session's group may not send it.
        """
        if self.welcome is None:
            raise NoAnswerError("not logged in yet")
        return request(message, frozenset(self.welcome.properties), self.group, self.welcome.rules)

    def seal(self, letter: Letter) -> Outgoing:
        """Sign a letter with the session's key."""
        if self._signer is None:
            self._signer = self._passport.signer(self.group)
        return seal(letter, self._signer, self.now())

    def post(self, letters: Sequence[Letter]) -> list[Future[Confirm]]:
        """Publish; each future tells what became of its letter."""
        return self._connection.publish([self.seal(letter) for letter in letters])

    def send(self, message: Message, timeout: float = DEFAULT_TIMEOUT) -> str:
        """Publish one message and wait until the broker has it. Returns its id.

        Raises:
            NotSentError: the broker did not take it.
        """
        letter = self.letter(message)
        self._deliver([letter], time.monotonic() + timeout)
        return letter.message_id

    def _deliver(self, letters: Sequence[Letter], deadline: float) -> None:
        """Publish letters, all of them at once; again, one by one, those that got lost on the way."""
        for letter, future in zip(letters, self.post(letters), strict=True):
            while not self._is_taken(letter, future, deadline):
                if time.monotonic() >= deadline:
                    raise NotSentError("the broker did not take the message")
                future = self.post([letter])[0]  # noqa: PLW2901 - the same letter's next try

    @staticmethod
    def _is_taken(letter: Letter, future: Future[Confirm], deadline: float) -> bool:
        try:
            outcome = future.result(max(0.001, deadline - time.monotonic()))
        except TimeoutError:
            raise NotSentError("the broker did not confirm the message in time") from None
        if outcome is Confirm.REFUSED:
            raise NotSentError(f"the broker refuses {letter.name}: this identity may not send it now")
        if outcome is Confirm.RETURNED:
            raise NotSentError(f"no queue takes {letter.name}: is the deployment complete?")
        return outcome is Confirm.ACKED

    # -- receiving ----------------------------------------------------------------------------------------------

    def request(self, message: Message, timeout: float = DEFAULT_TIMEOUT) -> Message:
        """Send a request and wait for its answer. Other answers stay for :meth:`receive`.

        Raises:
            RequestRefusedError: the service said no.
            NoAnswerError: it said nothing in time.
            NotSentError: the broker did not take it.
        """
        return self.request_many([message], timeout)[0]

    def request_many(self, messages: Sequence[Message], timeout: float = DEFAULT_TIMEOUT) -> list[Message]:
        """Send several requests at once and wait for all answers, in the order of the requests.

        Raises:
            RequestRefusedError: as soon as one is refused.
            NoAnswerError: an answer is missing.
            NotSentError: the broker did not take one.
        """
        deadline = time.monotonic() + timeout
        letters = [self.letter(message) for message in messages]
        self._deliver(letters, deadline)
        waiting = {letter.message_id: index for index, letter in enumerate(letters)}
        answers: dict[int, Message] = {}
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise NoAnswerError(f"no answer to {letters[0].name} within {timeout:.0f} s")
            for incoming in self._receive(PREFETCH, left):
                index = waiting.pop(incoming.verified.header.cid, None)
                if index is None:
                    self._kept.append(incoming)
                    continue
                self.ack([incoming])
                if isinstance(incoming.message, ChainUnknown):
                    self.renew()
                    self._deliver([letters[index]], deadline)
                    waiting[letters[index].message_id] = index
                elif isinstance(incoming.message, Refused):
                    raise RequestRefusedError(incoming.message)
                else:
                    answers[index] = incoming.message
        return [answers[index] for index in range(len(letters))]

    def receive(self, limit: int, timeout: float) -> list[Incoming]:
        """Verified answers: at least one unless the time runs out. Call :meth:`ack` when they are dealt with."""
        if self._kept:
            return [self._kept.popleft() for _ in range(min(limit, len(self._kept)))]
        return self._receive(limit, timeout)

    def ack(self, incomings: Sequence[Incoming]) -> None:
        """These answers are dealt with."""
        if self._subscription is not None:
            self._subscription.ack([incoming.delivery for incoming in incomings])

    def _receive(self, limit: int, timeout: float) -> list[Incoming]:
        if self._subscription is None:
            raise NoAnswerError("not logged in yet")
        result: list[Incoming] = []
        for delivery in self._subscription.drain(limit, timeout):
            self._take(delivery, result)
        return result

    def _take(self, delivery: Delivery, result: list[Incoming]) -> None:
        try:
            incoming = Incoming(self.open_delivery(delivery), delivery)
        except RefusalError as refusal:
            if refusal.code == "chain-unknown" and self._learns_chains():
                self._unknown[delivery.message_id] = delivery  # delivered again, it takes its own place
            elif self._subscription is not None:
                self._subscription.ack([delivery])  # nothing of ours: an answer that proves nothing is worth nothing
            return
        if not isinstance(incoming.message, Welcome):
            result.append(incoming)
            return
        self._on_welcome(incoming.message, incoming.verified.header.cid)
        self.ack([incoming])
        unknown, self._unknown = self._unknown, {}
        for earlier in unknown.values():
            self._take(earlier, result)

    # -- whom to believe ----------------------------------------------------------------------------------------

    def open_delivery(self, delivery: Delivery, audiences: Sequence[str] = ()) -> Verified[Message]:
        """Verify an answer or an event.

        Raises:
            RefusalError: it is not from a service that may send it.
        """
        jws = delivery.headers.get(JWS_HEADER)
        header = peek(jws)[0]
        resolve: Callable[[str], KnownChain | None] = self._chains.get
        if header.typ == WELCOME:
            resolve = self._gatekeeper_chain(header.x5c)
        verified = open_envelope(
            jws,
            delivery.body,
            resolve=resolve,
            audiences=audiences or (self.client,),
            now=self.now(),
            user_id=delivery.user_id or "",
        )
        if header.typ != WELCOME:
            sender = self._services.get(verified.issuer)
            if sender is None or sender.service != verified.client:
                raise RefusalError("forged", "not from a service that the gatekeeper vouched for", header=header)
            authorize(sender, header.typ)
        return verified

    def _gatekeeper_chain(self, x5c: Sequence[str]) -> Callable[[str], KnownChain | None]:
        try:
            ders = [base64.b64decode(item, validate=True) for item in x5c]
            chain = verify_chain(ders, self._trust, None, _utc_now())
            facts = facts_of(chain)
        except (ValueError, PermanentError) as error:
            raise RefusalError("forged", f"the welcome's chain: {error}") from None
        if chain.identity != self._settings.gatekeeper:
            raise RefusalError("forged", "the welcome is not from the gatekeeper")
        return lambda asked: facts if asked == chain.thumbprint_b64url else None

    def _on_welcome(self, welcome: Welcome, login: str) -> None:
        pending, started = self._pending
        if login != pending:
            return  # of an earlier login that was cut off: its time is older than this one's start
        # The server read its clock after this login began: so the sum is never behind the server's clock.
        self._zero = welcome.server_time - started
        self.welcome = welcome
        self.group = welcome.group
        self._signer = None  # it signs for the group that the welcome names
        chains: dict[str, KnownChain] = {}
        services: dict[str, Principal] = {}
        for info in welcome.services:
            try:
                chain = verify_chain(info.chain, self._trust, None, _utc_now())
                facts = facts_of(chain)
            except PermanentError:
                continue  # this side does not trust it: whatever it says is refused
            if chain.identity == info.dn:
                chains[chain.thumbprint_b64url] = facts
                services[info.dn] = Principal(info.dn, service=info.name)
        self._chains, self._services = chains, services

    def log_in_again(self) -> None:
        """Log in anew without waiting, but not all the time: a service does not know our chain, or we not its."""
        now = time.monotonic()
        if now - self._learning_since > LEARN_SECONDS:
            self._learning_since = now
            self._learning_from = self.welcome
            self._connection.login_again()

    def _learns_chains(self) -> bool:
        """A service may have a newer certificate than the welcome told: whether a login may still tell it."""
        self.log_in_again()
        return self.welcome is self._learning_from

    def renew(self) -> None:
        """Log in anew: the services do not know our chain (any more)."""
        self.welcome = None
        self._kept.clear()  # not acknowledged yet: they come again with the new connection
        self._connection.close()
        self._connection = Connection(self._settings.endpoint, self._login, name=self._name)
        self.open()


def steady_now() -> float:
    """Seconds on a clock that nobody sets; where there is one, it goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
