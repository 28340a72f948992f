"""A deployment without a broker: the real session, real certificates and signatures, and only AMQP replaced.

Every message is signed and encoded by the client's own code, then opened and decoded here as a service would, and
the other way round. ``assert_nothing_else_sent()`` tells what a test forgot to expect.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from broker.authorization import SERVICES, TABLE, Principal, authorize, sends
from broker.identity import Authority, Credential, TrustStore, create_proxy, save_credential, thumbprint, verify_chain
from broker.publisher import Letter, event, reply, seal
from broker.session import Session
from broker.signing import ChainFacts, Signer, Verified, open_envelope
from broker.transport import Confirm, Delivery, Outgoing, Tag
from producers.settings import BrokerSettings, UserSettings
from schemas.envelope import JWS_HEADER
from schemas.messages.service import ServiceInfo, Welcome
from schemas.registry import Message, encode, type_of

M = TypeVar("M", bound=Message)
Answer = Callable[[Verified[Message]], Sequence[Message]]

ROOT = "/DC=org/DC=example"
USER = f"{ROOT}/OU=People/CN=Alice Example"
GROUP = "example_user"


class FakeSubscription:
    """Deliveries of one queue."""

    def __init__(self) -> None:
        self.waiting: deque[Delivery] = deque()
        self.acked: list[Delivery] = []
        self.changed = threading.Condition()

    def put(self, delivery: Delivery) -> None:
        with self.changed:
            self.waiting.append(delivery)
            self.changed.notify_all()

    def wait_active(self, timeout: float) -> None:
        pass

    def drain(self, limit: int, timeout: float) -> list[Delivery]:
        with self.changed:
            self.changed.wait_for(lambda: self.waiting, timeout)
            return [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.acked.extend(deliveries)


class FakeConnection:
    """Takes the place of ``broker.connection.Connection`` in a session."""

    def __init__(self, deployment: FakeDeployment) -> None:
        self.deployment = deployment
        self.closed = False

    def start(self, timeout: float) -> None:
        self.deployment.on_login()

    def close(self, timeout: float = 5.0) -> None:
        self.closed = True

    def publish(self, messages: Sequence[Outgoing]) -> list[Future[Confirm]]:
        futures = []
        for message in messages:
            future: Future[Confirm] = Future()
            future.set_result(self.deployment.on_publish(message))
            futures.append(future)
        return futures

    def subscribe(
        self, queue: str, *, prefetch: int, arguments: Mapping[str, object] | None = None, wakeup: object = None
    ) -> FakeSubscription:
        self.deployment.subscribed.append((queue, dict(arguments or {})))
        return self.deployment.stream if queue == "monitoring" else self.deployment.replies


class FakeDeployment:
    """Services that answer as the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = dt.datetime.now(dt.UTC)
        self.authority = Authority.create(f"{ROOT}/CN=Example CA")
        self.authority.write_trust_dir(folder / "ca")
        (folder / "ca.pem").write_bytes(self.authority.certificate_pem)
        self.user = self.authority.issue(USER)
        self.proxy = create_proxy(
            self.user.ders, self.user.key, lifetime=dt.timedelta(hours=12), limited=False, now=self.now
        )
        save_credential(self.proxy, folder / "proxy.pem")
        self.services = {name: self.authority.issue(f"{ROOT}/OU=Services/CN={name}") for name in sorted(SERVICES)}
        self.trust = TrustStore.load(folder / "ca")
        self.settings = UserSettings(
            ca_dir=folder / "ca",
            proxy_path=folder / "proxy.pem",
            group=GROUP,
            broker=BrokerSettings(
                host="localhost",
                port=5671,
                ca_file=folder / "ca.pem",
                name="test",
                gatekeeper=f"{ROOT}/OU=Services/CN=gatekeeper",
            ),
        )
        self.properties: tuple[str, ...] = ("NormalUser", "JobMonitor", "Operator", "DataManager")
        self.delegated_until: float | None = time.time() + 12 * 3600
        self.replies = FakeSubscription()
        self.stream = FakeSubscription()
        self.subscribed: list[tuple[str, dict[str, object]]] = []
        self.sent: deque[Message] = deque()
        self.answers: dict[type[Message], Answer] = {}
        self.confirms: dict[type[Message], deque[Confirm]] = {}
        self.sessions: list[Session] = []
        self.logins = 0

    # -- what tests say ------------------------------------------------------------------------------------------

    def answer(self, question: type[M], *answers: Message) -> None:
        """Always answer this question with these messages."""
        self.answers[question] = lambda _asked: answers

    def answer_with(self, question: type[Message], answer: Answer) -> None:
        """Answer this question with what the function says."""
        self.answers[question] = answer

    def say(self, message: Message, correlation: str = "") -> None:
        """A service tells the client something by itself."""
        self._reply(message, correlation)

    def happen(self, message: Message, offset: int, *, service: str = "job-state", at: float | None = None) -> None:
        """A service puts a fact into the stream."""
        letter = event(message)
        self.stream.put(self._deliver(letter, service, "monitoring", at or time.time(), offset))

    def take(self, kind: type[M]) -> M:
        """The next message that the client sent, which must be of this kind."""
        assert self.sent, f"nothing was sent, {kind.__name__} expected"
        message = self.sent.popleft()
        assert isinstance(message, kind), message
        return message

    def assert_nothing_else_sent(self) -> None:
        assert not self.sent, list(self.sent)

    # -- what the session meets ----------------------------------------------------------------------------------

    def connect(self, *_: object, **__: object) -> FakeConnection:
        return FakeConnection(self)

    def on_login(self) -> None:
        self.logins += 1
        session = self.sessions[-1]
        welcome = Welcome(
            server_time=time.time(),
            client=session.client,
            identity=USER,
            group=GROUP,
            properties=self.properties,
            services=tuple(self._info(name) for name in self.services),
            delegated_until=self.delegated_until,
        )
        self._reply(welcome, "", "gatekeeper", with_chain=True)

    def on_publish(self, outgoing: Outgoing) -> Confirm:
        session = next(one for one in self.sessions if one.client == outgoing.user_id)
        self.sessions.sort(key=lambda one: one is session)  # a stream has a session of its own; this one is answered
        chain = verify_chain(self.proxy.ders, self.trust, None, dt.datetime.now(dt.UTC))
        audience = "".join(type_of(kind).audience for kind in [type_of_name(outgoing.type or "")])
        verified = open_envelope(
            outgoing.headers[JWS_HEADER],
            outgoing.body,
            resolve=lambda asked: _facts(self.proxy, chain.identity) if asked == chain.thumbprint_b64url else None,
            audiences=(audience,),
            now=time.time(),
            user_id=outgoing.user_id,
        )
        authorize(Principal(USER, GROUP, frozenset(self.properties)), verified.type.name)
        assert outgoing.exchange in {door.value for door in TABLE[verified.type.name].doors}
        assert outgoing.routing_key == verified.type.name
        assert verified.header.rpl == f"reply.{session.client}"
        queue = self.confirms.get(type(verified.message))
        if queue:
            confirm = queue.popleft()
            if confirm is not Confirm.ACKED:
                return confirm
        self.sent.append(verified.message)
        answer = self.answers.get(type(verified.message))
        for message in answer(verified) if answer is not None else ():
            self._reply(message, verified.header.jti)
        return Confirm.ACKED

    def _reply(self, message: Message, correlation: str, service: str = "", *, with_chain: bool = False) -> None:
        name = type_of(message).name
        sender = service or next(iter(sorted(TABLE[name].services - {"relay"})))
        letter = reply(message, self.sessions[-1].client, correlation)
        delivery = self._deliver(letter, sender, letter.routing_key, time.time(), None, with_chain=with_chain)
        self.replies.put(delivery)

    def _deliver(
        self, letter: Letter, service: str, queue: str, now: float, offset: int | None, *, with_chain: bool = False
    ) -> Delivery:
        outgoing = seal(letter, self._signer(service), now, with_chain=with_chain)
        return Delivery(
            queue=queue,
            exchange=outgoing.exchange,
            routing_key=outgoing.routing_key,
            body=outgoing.body,
            headers=dict(outgoing.headers),
            redelivered=False,
            tag=Tag(1, 1, 1),
            user_id=outgoing.user_id,
            stream_offset=offset,
        )

    def _signer(self, service: str) -> Signer:
        import base64

        credential = self.services[service]
        x5c = tuple(base64.b64encode(der).decode() for der in credential.ders)
        return Signer(credential.key, thumbprint(credential.leaf), f"{ROOT}/OU=Services/CN={service}", service, "", x5c)

    def _info(self, service: str) -> ServiceInfo:
        return ServiceInfo(
            name=service,
            dn=f"{ROOT}/OU=Services/CN={service}",
            chain=self.services[service].chain_pem.decode(),
            sends=sends(service),
        )


def type_of_name(name: str) -> type[Message]:
    from schemas.registry import by_name

    return by_name(name).struct


def _facts(credential: Credential, identity: str) -> ChainFacts:
    return ChainFacts(identity, False, 0.0, time.time() + 86_400, credential.key.public_key())


def install(deployment: FakeDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every session of this process meet the deployment."""
    original = Session.__init__

    def remember(self: Session, *args: object, **kwargs: object) -> None:
        deployment.sessions.append(self)
        original(self, *args, **kwargs)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(Session, "__init__", remember)
    monkeypatch.setattr("broker.session.Connection", deployment.connect)
    monkeypatch.setenv("X509_USER_PROXY", str(deployment.folder / "proxy.pem"))
    monkeypatch.setenv("X509_CERT_DIR", str(deployment.folder / "ca"))


__all__ = ["GROUP", "USER", "FakeDeployment", "encode", "install", "replace"]
