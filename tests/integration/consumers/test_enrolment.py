"""Enrolments on both databases: one secret, one pilot, whatever is tried and however many try at once."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
import sqlalchemy as sa

from broker.authorization import Property
from broker.enrolment import Applicant, EnrolmentSecret
from broker.identity import Authority, make_csr, new_key, parse_certificate, split_chain, thumbprint, verify_chain
from broker.refusal import RefusalError
from consumers.directory import Directory
from consumers.enrolled import EnrolledPilots
from consumers.enrolling import WRITTEN_REUSES, EnrolmentDesk
from consumers.pilot_authority import LONGEST, PENDING_SECONDS, RENEW_PAUSE, PilotAuthority
from consumers.store import Store, audit, chains, enrolments, sessions
from schemas.messages.enrolment import (
    CreateEnrolments,
    EnrolmentListing,
    PilotEnrolled,
    PilotEnrolling,
    QueryEnrolments,
    RenewIdentity,
    RevokeEnrolments,
)
from schemas.messages.registrar import IdentityBlocked
from schemas.messages.service import Refused
from schemas.registry import Message
from tests.support import pki
from tests.support.messages import Heard, Sender, admitted, chores, service, tell, user

pytestmark = pytest.mark.integration

OLGA = user("olga", Property.OPERATOR, group="vo_admin")
GATEKEEPER = service("gatekeeper")
DEPLOYMENT, SITE, DAY = "test", "S1", 86_400.0
NAMESPACE = "/DC=org/DC=example/OU=Pilots"


@pytest.fixture(scope="session")
def pilots_authority(authority: pki.Pki) -> Authority:
    made = Authority.create(f"{NAMESPACE}/CN=Authority", confined=True)
    made.write_trust_dir(authority.directory)
    authority.trust.reload_if_changed()
    return made


@pytest.fixture
def office(directory: Directory, pilots_authority: Authority) -> PilotAuthority:
    return PilotAuthority(directory, pilots_authority, DEPLOYMENT)


@pytest.fixture
def desk(store: Store) -> EnrolmentDesk:
    return EnrolmentDesk(store, DEPLOYMENT)


@pytest.fixture
def secret(store: Store, office: PilotAuthority) -> EnrolmentSecret:
    return create(store, office)


def ask(store: Store, office: PilotAuthority, message: Message, sender: Sender = OLGA) -> Message:
    (answer,) = tell(store, office, [admitted(message, sender)]).to(sender)
    return answer


def creation(*secrets: EnrolmentSecret, **changes: object) -> CreateEnrolments:
    values = {"keys": tuple(one.public_key for one in secrets), "site": SITE, "expires": time.time() + DAY}
    return CreateEnrolments(**(values | {"life_seconds": 2 * DAY} | changes))  # type: ignore[arg-type]  # mixed values


def create(store: Store, office: PilotAuthority, **changes: object) -> EnrolmentSecret:
    made = EnrolmentSecret.create()
    listing = ask(store, office, creation(made, **changes))
    assert isinstance(listing, EnrolmentListing), listing
    assert [one.id for one in listing.enrolments] == [made.id]
    return made


def claim(desk: EnrolmentDesk, applicant: Applicant, now: float | None = None) -> None:
    now = time.time() if now is None else now
    text = applicant.password(audience=DEPLOYMENT, group="", now=now, login="")
    desk.claim(desk.check(text, client=applicant.client, now=now), text, now=now)


def refused(desk: EnrolmentDesk, applicant: Applicant, now: float | None = None) -> str:
    with pytest.raises(RefusalError) as caught:
        claim(desk, applicant, now)
    return str(caught.value)


def hint(store: Store, office: PilotAuthority, now: float | None = None, *, of: EnrolmentSecret | None = None) -> Heard:
    """The gatekeeper's hint for one enrolment, or for all there are."""
    with store.reading() as tx:
        ids = [of.id] if of else [row.id for row in enrolments.page(tx, limit=100)]
    told = [PilotEnrolling(enrolment=one, identity="/CN=x", site=SITE, client="c", time=0.0) for one in ids]
    return tell(store, office, [admitted(one, GATEKEEPER) for one in told], now)


def enrol(store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret) -> PilotEnrolled:
    applicant = Applicant(secret, SITE)
    claim(desk, applicant)
    (letter,) = hint(store, office).letters
    assert letter.audience == applicant.client
    return msgspec.json.decode(letter.payload, type=PilotEnrolled)


def row_of(store: Store, secret: EnrolmentSecret) -> enrolments.Enrolment:
    with store.reading() as tx:
        return enrolments.get(tx, [secret.id])[secret.id]


def events(store: Store) -> list[str]:
    with store.reading() as tx:
        return [row.event for row in audit.query(tx)][::-1]


def pilot_of(secret: EnrolmentSecret) -> Sender:
    return Sender(f"{NAMESPACE}/CN={secret.id}", "vo_pilot", frozenset({Property.GENERIC_PILOT}))


# -- operators ----------------------------------------------------------------------------------------------------


def test_only_public_halves_are_kept(store: Store, secret: EnrolmentSecret) -> None:
    row = row_of(store, secret)
    assert row.public_key == secret.public_key
    assert (row.identity, row.site, row.grp, row.creator) == (
        f"{NAMESPACE}/CN={secret.id}", SITE, "vo_pilot", OLGA.identity
    )  # fmt: skip
    scalar = secret.key.private_numbers().private_value.to_bytes(32, "big")
    with store.reading() as tx:
        for table in ("enrolments", "audit", "outbox", "inbox"):
            for found in tx.connection.execute(sa.text(f"SELECT * FROM {table}")):
                assert scalar not in b"".join(bytes(v) for v in found if isinstance(v, bytes | memoryview))
                assert secret.text().rpartition(".")[2] not in repr(found)
    assert "enrolment.created" in events(store)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"site": "S9"}, "no site"),
        ({"group": "vo_user"}, "no group of pilots"),
        ({"group": "nobody"}, "no group of pilots"),
        ({"expires": 1.0}, "expire before"),
        ({"expires": time.time() + 400 * DAY}, "30 days"),
        ({"keys": (bytes(91),)}, "public key"),
    ],
    ids=["site", "group", "unknown", "past", "long", "key"],
)
def test_what_makes_no_sense_is_refused(
    store: Store, office: PilotAuthority, changes: dict[str, object], why: str
) -> None:
    answer = ask(store, office, creation(EnrolmentSecret.create(), **changes))
    assert isinstance(answer, Refused)
    assert why in answer.reason


def test_one_key_makes_one_enrolment(store: Store, office: PilotAuthority, secret: EnrolmentSecret) -> None:
    again = ask(store, office, creation(secret))
    assert isinstance(again, Refused)
    assert again.code == "conflict"
    twice = EnrolmentSecret.create()
    assert isinstance(ask(store, office, creation(twice, twice)), Refused)


def test_without_an_authority_nobody_is_enrolled(store: Store, directory: Directory) -> None:
    answer = ask(store, PilotAuthority(directory, None, DEPLOYMENT), creation(EnrolmentSecret.create()))
    assert isinstance(answer, Refused)
    assert "no authority" in answer.reason


def test_enrolments_are_listed_newest_first(store: Store, office: PilotAuthority) -> None:
    made = [create(store, office).id for _ in range(3)]
    first = ask(store, office, QueryEnrolments(limit=2))
    assert isinstance(first, EnrolmentListing)
    assert ([one.id for one in first.enrolments], first.more) == (made[:0:-1], True)
    rest = ask(store, office, QueryEnrolments(limit=2, before=first.enrolments[-1].number, site=SITE))
    assert isinstance(rest, EnrolmentListing)
    assert ([one.id for one in rest.enrolments], rest.more) == (made[:1], False)
    assert ask(store, office, QueryEnrolments(site="S2")) == EnrolmentListing(enrolments=())


# -- one secret, one pilot ----------------------------------------------------------------------------------------


def test_a_pilot_is_enrolled(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret, directory: Directory,
    authority: pki.Pki,
) -> None:  # fmt: skip
    identity = pilot_of(secret).identity
    assert directory.principal(identity, "vo_pilot", "x") is None
    enrolled = enrol(store, office, desk, secret)
    chain = verify_chain(split_chain(enrolled.chain), authority.trust, None, dt.datetime.now(dt.UTC))
    assert chain.identity == enrolled.identity == identity
    assert not chain.limited
    assert LONGEST - 10 < enrolled.not_after - time.time() <= LONGEST
    assert enrolled.ends == pytest.approx(time.time() + 2 * DAY, abs=10)
    principal = directory.principal(identity, "vo_pilot", "x")
    assert principal is not None
    assert (principal.properties, principal.site) == ({Property.GENERIC_PILOT}, SITE)
    assert directory.first_group(identity) == "vo_pilot"
    assert directory(chain.thumbprint_b64url) is not None  # what it signs can be checked before its first login
    assert directory.principal(identity, "vo_admin", "x") is None
    waiting = directory.principal(identity, "", "x")
    assert waiting is not None
    assert not waiting.properties
    assert events(store)[-2:] == ["enrolment.used", "pilot.enrolled"]
    certificate = parse_certificate(chain.ders[0]).x509
    assert certificate.issuer.rfc4514_string().startswith("CN=Authority")


def test_the_same_pilot_may_come_again_and_another_may_not(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret
) -> None:
    first, second = Applicant(secret, SITE), Applicant(secret, SITE)
    claim(desk, first)
    claim(desk, first)
    for _ in range(WRITTEN_REUSES + 3):
        assert "used before" in refused(desk, second)
    claim(desk, first)
    row = row_of(store, secret)
    assert (row.client, row.reused) == (first.client, WRITTEN_REUSES + 3)
    assert events(store).count("enrolment.used") == 1
    assert events(store).count("enrolment.reused") == WRITTEN_REUSES
    with store.reading() as tx:
        alarm = next(one for one in audit.query(tx) if one.event == "enrolment.reused")
    assert msgspec.json.decode(alarm.detail)["first_client"] == first.client
    assert alarm.client == second.client


def test_of_many_at_once_one_wins(store: Store, desk: EnrolmentDesk, secret: EnrolmentSecret) -> None:
    applicants = [Applicant(secret, SITE) for _ in range(8)]
    start = threading.Barrier(len(applicants))
    outcomes: list[str] = []

    def attempt(applicant: Applicant) -> None:
        start.wait(10)
        try:
            claim(desk, applicant)
        except RefusalError as error:
            outcomes.append(str(error))
        else:
            outcomes.append(applicant.client)

    threads = [threading.Thread(target=attempt, args=(one,)) for one in applicants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    winners = [one for one in outcomes if one in {applicant.client for applicant in applicants}]
    assert len(outcomes) == len(applicants)
    assert len(winners) == 1
    assert row_of(store, secret).client == winners[0]
    assert all("used before" in one for one in outcomes if one not in winners)


@pytest.mark.parametrize(
    ("site", "offset", "why"),
    [("S2", 0.0, "for S1"), (SITE, -2 * DAY, "not valid yet"), (SITE, 2 * DAY, "expired")],
    ids=["elsewhere", "early", "late"],
)
def test_a_secret_is_for_its_site_and_time(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, site: str, offset: float, why: str
) -> None:
    secret = create(store, office, not_before=time.time() - 60)
    assert why in refused(desk, Applicant(secret, site), time.time() + offset)
    claim(desk, Applicant(secret, SITE))  # it was not used up by that


def test_a_life_ends(store: Store, office: PilotAuthority, desk: EnrolmentDesk) -> None:
    secret = create(store, office, life_seconds=3600.0)
    applicant = Applicant(secret, SITE)
    claim(desk, applicant)
    assert "over" in refused(desk, applicant, time.time() + 3700)


def test_a_revoked_secret_is_dead(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret
) -> None:
    heard = tell(store, office, [admitted(RevokeEnrolments(whom=(secret.id, "nobody"), reason="lost"), OLGA)])
    (listing,) = heard.to(OLGA)
    assert isinstance(listing, EnrolmentListing)
    assert [(one.state, one.reason) for one in listing.enrolments] == [("revoked", "lost")]
    assert not any(isinstance(one, IdentityBlocked) for one in heard.said)  # nobody is there to be cut off
    assert "revoked" in refused(desk, Applicant(secret, SITE))


# -- who is believed ----------------------------------------------------------------------------------------------


def forge(store: Store, secret: EnrolmentSecret, **values: object) -> None:
    """What a gatekeeper that fell into wrong hands could write."""
    changes = ", ".join(f"{name} = :{name}" for name in values)
    with store.transaction() as tx:
        tx.connection.execute(sa.text(f"UPDATE enrolments SET {changes} WHERE id = :id"), {"id": secret.id, **values})


def test_a_gatekeeper_cannot_make_pilots(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret
) -> None:
    thief = EnrolmentSecret.create()
    applicant = Applicant(thief, SITE)
    text = applicant.password(audience=DEPLOYMENT, group="", now=time.time(), login="")
    now = time.time()
    used = {"used": now, "ends": now + DAY, "client": applicant.client, "pilot_key": "0" * 64}
    forge(store, secret, assertion=text, **used)
    (said,) = hint(store, office).said
    assert isinstance(said, PilotEnrolled)
    assert not said.chain
    assert "enrolment" in said.reason
    with store.reading() as tx:
        assert not chains.of_identity(tx, f"{NAMESPACE}/CN={secret.id}", valid_at=0.0)
    assert events(store)[-1] == "enrolment.refused"
    assert hint(store, office).said == []


@pytest.mark.parametrize(
    "values",
    [{"pilot_key": "0" * 64}, {"client": "a" * 20 + ".1"}, {"site": "S2"}, {"identity": "/DC=org/DC=example/CN=ada"},
     {"identity": f"{NAMESPACE}/CN=other"}],
    ids=["key", "client", "site", "user", "pilot"],
)  # fmt: skip
def test_what_the_pilot_signed_counts(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret, values: dict[str, object]
) -> None:
    claim(desk, Applicant(secret, SITE))
    forge(store, secret, **values)
    (said,) = hint(store, office).said
    assert isinstance(said, PilotEnrolled)
    assert not said.chain


def test_who_waited_too_long_gets_none(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret
) -> None:
    claim(desk, Applicant(secret, SITE))
    (said,) = hint(store, office, time.time() + PENDING_SECONDS + 1000).said
    assert isinstance(said, PilotEnrolled)
    assert not said.chain


def test_nobody_is_certified_by_the_hint_of_another(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret
) -> None:
    """Who has no hint yet may have no queue yet: what is sent to him is lost, and his secret with it."""
    other = create(store, office)
    slow, quick = Applicant(secret, SITE), Applicant(other, SITE)
    claim(desk, slow)
    claim(desk, quick)
    assert [letter.audience for letter in hint(store, office, of=other).letters] == [quick.client]
    assert chores(store, office, time.time() + 2).letters == []
    assert [letter.audience for letter in hint(store, office, of=secret).letters] == [slow.client]


def test_a_lost_hint_does_no_harm(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret
) -> None:
    applicant = Applicant(secret, SITE)
    claim(desk, applicant)
    (letter,) = chores(store, office, time.time() + 6).letters
    assert letter.audience == applicant.client
    assert hint(store, office).letters == []
    claim(desk, applicant)  # its connection broke: it comes again, and is answered again
    assert len(hint(store, office).letters) == 1


def test_a_certificate_is_as_short_as_asked_for(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret
) -> None:
    claim(desk, Applicant(secret, SITE, 7200.0))
    (said,) = hint(store, office).said
    assert isinstance(said, PilotEnrolled)
    assert said.not_after - time.time() == pytest.approx(7200, abs=10)


# -- renewal and revocation ---------------------------------------------------------------------------------------


def test_a_pilot_renews_its_certificate(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret, authority: pki.Pki
) -> None:
    first = enrol(store, office, desk, secret)
    pilot, key = pilot_of(secret), new_key()
    later = time.time() + RENEW_PAUSE + 1

    def renew(sender: Sender, now: float) -> Message:
        message = admitted(RenewIdentity(csr=make_csr(key)), sender)
        (answer,) = tell(store, office, [message], now).to(sender)
        return answer

    with store.transaction() as tx:
        old = thumbprint(split_chain(first.chain)[0])
        sessions.put(tx, pilot.cli, pilot.identity, pilot.group, old, "pilot", time.time())
    soon = renew(pilot, time.time())
    assert isinstance(soon, Refused)
    assert soon.code == "limit"
    second = renew(pilot, later)
    assert isinstance(second, PilotEnrolled)
    assert second.identity == first.identity
    assert second.not_after > first.not_after
    assert second.ends == first.ends
    chain = verify_chain(split_chain(second.chain), authority.trust, None, dt.datetime.now(dt.UTC))
    assert chain.identity == pilot.identity
    with store.reading() as tx:
        session = sessions.get(tx, pilot.cli)
    assert session is not None
    assert (session.thumbprint, session.grp) == (chain.thumbprint_b64url, pilot.group)
    last = renew(pilot, second.ends - 600)
    assert isinstance(last, PilotEnrolled)
    assert last.not_after <= second.ends
    assert isinstance(renew(pilot, second.ends - 30), Refused)
    stranger = replace(pilot, identity="/DC=org/DC=example/CN=certified")
    assert isinstance(renew(stranger, later), Refused)


def test_a_revoked_pilot_is_nobody(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret, directory: Directory
) -> None:
    enrol(store, office, desk, secret)
    pilot = pilot_of(secret)
    other = Directory(store, directory._trust)
    assert directory.principal(pilot.identity, "vo_pilot", "x") is not None
    assert other.principal(pilot.identity, "vo_pilot", "x") is not None
    heard = tell(store, office, [admitted(RevokeEnrolments(whom=(pilot.identity,), reason="stolen"), OLGA)])
    blocked = [one for one in heard.said if isinstance(one, IdentityBlocked)]
    assert [(one.identity, one.reason, one.by) for one in blocked] == [(pilot.identity, "stolen", OLGA.identity)]
    assert directory.principal(pilot.identity, "vo_pilot", "x") is None
    before = other.generation()
    other.forget()  # as 2 s would
    assert other.principal(pilot.identity, "vo_pilot", "x") is None
    assert other.generation() != before
    renewal = tell(store, office, [admitted(RenewIdentity(csr=make_csr(new_key())), pilot)], time.time() + 3600)
    assert isinstance(renewal.said[0], Refused)
    again = tell(store, office, [admitted(RevokeEnrolments(whom=(pilot.identity,), reason="again"), OLGA)])
    assert not any(isinstance(one, IdentityBlocked) for one in again.said)
    assert row_of(store, secret).reason == "stolen"


def test_a_pilot_revoked_while_it_waits_gets_nothing(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret
) -> None:
    claim(desk, Applicant(secret, SITE))
    ask(store, office, RevokeEnrolments(whom=(secret.id,), reason="x"))
    assert hint(store, office).said == []


def test_what_is_long_over_is_forgotten(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret
) -> None:
    enrol(store, office, desk, secret)
    unused = create(store, office)
    chores(store, office, time.time() + 80 * DAY)
    assert row_of(store, secret)
    chores(store, office, time.time() + 100 * DAY)
    with store.reading() as tx:
        assert enrolments.get(tx, [secret.id, unused.id]) == {}


@pytest.fixture
def counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    reads = 0
    original = enrolments.of_identity

    def count(*arguments: object) -> enrolments.Enrolment | None:
        nonlocal reads
        reads += 1
        return original(*arguments)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(enrolments, "of_identity", count)
    return lambda: reads


def test_a_pilot_is_looked_up_once(
    store: Store, office: PilotAuthority, desk: EnrolmentDesk, secret: EnrolmentSecret, counted: Callable[[], int]
) -> None:
    enrol(store, office, desk, secret)
    before = counted()
    known = EnrolledPilots(store)
    for _ in range(100):
        assert known.get(pilot_of(secret).identity) is not None
    assert counted() == before + 1
    ask(store, office, RevokeEnrolments(whom=(secret.id,), reason="x"))
    known.forget()
    found = known.get(pilot_of(secret).identity)
    assert found is not None
    assert found.revoked
