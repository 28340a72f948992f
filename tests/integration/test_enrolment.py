"""Enrolment over the real broker: what a secret opens, and what a pilot may do before, while and after."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pika
import pytest
from pika import exceptions

from broker.authorization import Door
from broker.enrolment import Applicant, EnrolmentSecret
from broker.errors import LoginRefusedError
from broker.identity import Credential, load_credential, parse_certificate
from broker.passport import Passport
from broker.session import Incoming, RequestRefusedError, Session
from broker.topology import EXCHANGES, QUEUES
from compose.local.configs import DEPLOYMENT, SITE
from consumers import pilot_authority
from pilot.enrolment import NotEnrolledError, accept, enrol
from pilot.renewal import Renewal
from pilot.settings import PilotSettings, load
from producers.enrolments import create, listing, revoke
from schemas.envelope import reply_queue
from schemas.messages.enrolment import PilotEnrolled
from schemas.messages.event import PilotChanged
from schemas.messages.pilot import Heartbeat, Offer, RequestMatch
from schemas.messages.service import MatchResponse
from tests.support.certified_pilots import pilot_credential
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

SERVICES = ["gatekeeper", "pilot-authority", "matcher", "job-state", "relay", "registry"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("enrolment"), services=SERVICES) as running:
        yield running


def operator(place: Deployment) -> Credential:
    return load_credential(place.layout.user_certificate, key=place.layout.user_key)


@pytest.fixture
def secret(place: Deployment) -> EnrolmentSecret:
    with place.client(operator(place)) as client:
        (new,) = create(client, 1, site=SITE, expires=time.time() + 600, life_seconds=86_400.0)
    return new.secret


def settings_of(place: Deployment, file: Path | None = None) -> PilotSettings:
    return replace(load(place.layout.pilot_config(1)), credential=None, enrolment="env" if file is None else str(file))


def enrolled(place: Deployment, secret: EnrolmentSecret) -> Credential:
    def log_in(passport: Passport) -> Session:
        session = Session(place.session_settings, passport, name="test")
        session.open()
        return session

    return enrol(settings_of(place), secret.text(), log_in, lambda: False)


def connect(place: Deployment, user: str, password: str) -> pika.BlockingConnection:
    context = ssl.create_default_context(cafile=str(place.layout.tls / "ca.pem"))
    parameters = pika.ConnectionParameters(
        "127.0.0.1",
        place.node.port,
        credentials=pika.PlainCredentials(user, password),
        ssl_options=pika.SSLOptions(context, "localhost"),
        socket_timeout=20,
        stack_timeout=30,
        blocked_connection_timeout=20,
    )
    return pika.BlockingConnection(parameters)


def word(applicant: Applicant, *, site: str = SITE, now: float | None = None) -> str:
    del site
    return applicant.password(audience=DEPLOYMENT, group="", now=time.time() if now is None else now, login="")


def test_a_secret_becomes_a_working_identity(place: Deployment, secret: EnrolmentSecret) -> None:
    credential = enrolled(place, secret)
    with place.session(credential) as session:
        assert session.group == "pilots"
        beat = session.send(Heartbeat(site=SITE))
        offer = RequestMatch(slot="main", offer=Offer(site=SITE), wait_seconds=0.0)
        assert isinstance(session.request(offer), MatchResponse)
        assert beat
        foreign = RequestMatch(slot="main", offer=Offer(site="Site.Elsewhere.org"), wait_seconds=0.0)
        with pytest.raises(RequestRefusedError) as caught:
            session.request(foreign)
        assert "enrolled for" in caught.value.refused.reason


def test_a_secret_opens_its_own_queue_and_nothing_else(place: Deployment, secret: EnrolmentSecret) -> None:
    applicant = Applicant(secret, SITE)
    connection = connect(place, applicant.client, word(applicant))

    def refused(attempt: object) -> int:
        channel = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(exceptions.ChannelClosedByBroker) as caught:
            attempt(channel)  # type: ignore[operator]  # a function of the channel
        return int(caught.value.reply_code)

    for queue in [*(queue.name for queue in QUEUES), f"reply.{'a' * 20}.1", reply_queue("a" * 20 + ".1")]:
        assert refused(lambda channel, name=queue: channel.basic_get(name)) in {403, 404}
    for exchange in [*EXCHANGES, "amq.topic", ""]:
        key = "match.request.v1" if exchange == Door.PILOTS else "pilot.renew.v1"
        properties = pika.BasicProperties(user_id=applicant.client)
        assert refused(lambda channel, x=exchange, k=key, p=properties: channel.basic_publish(x, k, b"{}", p)) == 403
    assert refused(lambda channel: channel.queue_declare("mine")) == 403
    assert refused(lambda channel: channel.exchange_declare("mine")) == 403
    channel = connection.channel()
    kinds: list[str] = []
    for method, properties, _ in channel.consume(reply_queue(applicant.client), inactivity_timeout=10):
        assert method is not None, kinds
        kinds.append(properties.type)
        if "pilot.enrolled.v1" in kinds:
            break
    assert kinds[0] == "session.welcome.v1"
    connection.close()


def test_one_secret_makes_one_pilot(place: Deployment, secret: EnrolmentSecret) -> None:
    enrolled(place, secret)
    with pytest.raises(NotEnrolledError):
        enrolled(place, secret)
    with place.client(operator(place)) as client:
        alarms = [
            one.message
            for one in client.watch("first", stop=lambda: True)
            if isinstance(one.message, PilotChanged) and one.message.status == "alarm"
        ]
        assert alarms[-1].identity.endswith(secret.id)
        found = {one.id: one for one in listing(client).enrolments}[secret.id]
    assert (found.state, found.reused > 0) == ("enrolled", True)


def test_what_was_signed_once_is_no_login_twice(place: Deployment, secret: EnrolmentSecret) -> None:
    applicant = Applicant(secret, SITE)
    stolen = word(applicant)
    connect(place, applicant.client, stolen).close()
    # RabbitMQ asks twice for each login, within seconds; after that a copy is worth nothing.
    wait_until(lambda: not _is_let_in(place, applicant.client, stolen), 20, "the copy to be refused")
    assert _is_let_in(place, applicant.client, word(applicant))  # the pilot itself comes again


def _is_let_in(place: Deployment, client: str, password: str) -> bool:
    try:
        connect(place, client, password).close()
    except exceptions.AMQPConnectionError:
        return False
    return True


@pytest.mark.parametrize("offset", [-3600.0, 3600.0])
def test_an_old_word_is_refused(place: Deployment, secret: EnrolmentSecret, offset: float) -> None:
    applicant = Applicant(secret, SITE)
    assert not _is_let_in(place, applicant.client, word(applicant, now=time.time() + offset))
    assert not _is_let_in(place, applicant.client, word(Applicant(secret, "Site.Elsewhere.org")))
    assert not _is_let_in(place, f"{secret.id}.other", word(applicant))
    assert not _is_let_in(place, applicant.client, word(Applicant(EnrolmentSecret.create(), SITE)))
    assert _is_let_in(place, applicant.client, word(applicant))


def test_a_certificate_is_renewed_without_a_new_login(
    place: Deployment, secret: EnrolmentSecret, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pilot_authority, "RENEW_PAUSE", 0.0)
    settings, credential = settings_of(place), enrolled(place, secret)
    with place.session(credential) as session:
        welcome = session.welcome
        renewal = Renewal(
            session, credential, session.send, lambda answer, key: accept(answer, key, settings, session.now())
        )
        renewal.turn(session.now() + 80_000)
        found: list[Incoming] = []
        wait_until(lambda: bool(found.extend(session.receive(1, 0.2)) or found), 20, "the next certificate")
        (incoming,) = found
        session.ack(found)
        assert isinstance(incoming.message, PilotEnrolled)
        renewal.on_enrolled(incoming.message, incoming.verified.header.cid)
        answer = session.request(RequestMatch(slot="main", offer=Offer(site=SITE), wait_seconds=0.0))
        assert isinstance(answer, MatchResponse)
        assert session.welcome is welcome
        new = parse_certificate(session._passport._credential.leaf)  # type: ignore[attr-defined]  # what it signs with
        assert new.serial != parse_certificate(credential.leaf).serial
        assert new.spki != parse_certificate(credential.leaf).spki
        with pytest.raises(Exception, match="one identity"):
            session.use(load_credential(pilot_credential(place.layout, 1)))


def test_a_revoked_pilot_does_nothing_new(place: Deployment, secret: EnrolmentSecret) -> None:
    credential = enrolled(place, secret)
    request = RequestMatch(slot="main", offer=Offer(site=SITE), wait_seconds=0.0)
    with place.session(credential) as session:
        assert isinstance(session.request(request), MatchResponse)
        with place.client(operator(place)) as client:
            (gone,) = revoke(client, [session.identity], "stolen")
        assert gone.state == "revoked"

        def is_out() -> bool:
            try:
                session.request(request, 5)
            except Exception:  # noqa: BLE001 - refused by the service, by the broker, or cut off
                return True
            return False

        wait_until(is_out, 5, "the pilot to be refused")
    with pytest.raises(LoginRefusedError), place.session(credential):
        pass
    with pytest.raises(NotEnrolledError):
        enrolled(place, secret)


def test_a_certified_pilot_goes_on_as_before(place: Deployment) -> None:
    with place.session(place.pilot(2)) as session:
        anywhere = RequestMatch(slot="main", offer=Offer(site="Site.Elsewhere.org"), wait_seconds=0.0)
        assert isinstance(session.request(anywhere), MatchResponse)  # bound to no site
