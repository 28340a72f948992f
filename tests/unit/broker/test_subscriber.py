"""The gate: nothing reaches a handler that is not verified, from somebody known, and allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.authorization import Principal, Property
from broker.publisher import event, reply, request, seal, to_queue
from broker.refusal import RefusalError
from broker.signing import ChainFacts, Signer
from broker.subscriber import Gate
from broker.transport import Delivery, Outgoing, Tag
from schemas.envelope import JWS_HEADER
from schemas.identity import make_client_id
from schemas.messages.admin import Readmit
from schemas.messages.event import WorkWaiting
from schemas.messages.pilot import Goodbye, Heartbeat, Offer, RequestMatch
from schemas.messages.user import KillJobs, SubmitJobs
from schemas.registry import DAY, Message, encode

NOW = 1_800_000_000.0
DN = "/O=Test/CN=Alice"
CLIENT = make_client_id(DN, "abc123")
SERVICE = "/O=Test/CN={}"
KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("alice", "dead-letters", "matcher", "job-monitor")}
USER = frozenset({Property.NORMAL_USER})
KILL = KillJobs(jobs=(1, 2))


class Registry:
    """A registry that knows Alice and some services."""

    def __init__(self, properties: frozenset[str] = USER, site: str = "") -> None:
        self.properties = properties
        self.site = site

    def principal(self, identity: str, group: str, client: str) -> Principal | None:
        if identity == DN and group == "users":
            return Principal(identity, group, self.properties, site=self.site)
        service = identity.removeprefix("/O=Test/CN=")
        return Principal(identity, service=service) if service in KEYS and service != "alice" and not group else None


def signer(name: str = "alice", **changes: Any) -> Signer:
    issuer, client, group = (DN, CLIENT, "users") if name == "alice" else (SERVICE.format(name), name, "")
    values = {"key": KEYS[name], "thumbprint": name, "issuer": issuer, "client": client, "group": group} | changes
    return Signer(**values)


def gate(
    properties: frozenset[str] = USER, *, audience: str = "job-manager", limited: bool = False, site: str = ""
) -> Gate:
    def resolve(thumbprint: str) -> ChainFacts | None:
        if thumbprint not in KEYS:
            return None
        identity = DN if thumbprint == "alice" else SERVICE.format(thumbprint)
        return ChainFacts(identity, limited, NOW - DAY, NOW + DAY, KEYS[thumbprint].public_key())

    return Gate({audience}, resolve, Registry(properties, site))


def delivered(out: Outgoing, queue: str = "control", **changes: Any) -> Delivery:
    values = {
        "queue": queue,
        "exchange": out.exchange,
        "routing_key": out.routing_key,
        "body": out.body,
        "headers": dict(out.headers),
        "redelivered": False,
        "tag": Tag(1, 1, 1),
        "user_id": out.user_id,
    }
    return Delivery(**(values | changes))


def asked(message: Message = KILL, by: Signer | None = None, now: float = NOW, **changes: Any) -> Delivery:
    everything = (
        frozenset(Property) - {Property.GENERIC_PILOT} if not isinstance(message, Goodbye) else {"GenericPilot"}
    )
    return delivered(seal(request(message, frozenset(everything), "users"), by or signer(), now), **changes)


def refused(delivery: Delivery, by: Gate | None = None, now: float = NOW) -> RefusalError:
    with pytest.raises(RefusalError) as caught:
        (by or gate()).admit(delivery, now)
    return caught.value


def test_an_honest_message_comes_in_with_its_sender() -> None:
    admitted = gate().admit(asked(), NOW)
    assert admitted.message == KILL
    assert admitted.principal == Principal(DN, "users", USER)
    assert admitted.client == CLIENT
    assert admitted.key == admitted.inbox_key == (DN, admitted.verified.header.jti)
    assert admitted.verified.header.rpl == f"reply.{CLIENT}"
    assert not admitted.readmitted


@pytest.mark.parametrize(
    "headers", [{}, {JWS_HEADER: None}, {JWS_HEADER: 7}, {JWS_HEADER: b"\xff"}, {"JWS": "x"}, {JWS_HEADER: ["a"]}]
)
def test_without_a_signature_nothing_comes_in(headers: dict[str, object]) -> None:
    refusal = refused(asked(headers=headers))
    assert refusal.code == "invalid"
    assert not refusal.proven


@pytest.mark.parametrize(
    ("changes", "code", "proven"),
    [
        ({"body": encode(KillJobs(jobs=(3,)))}, "forged", False),
        ({"user_id": make_client_id("/O=Test/CN=Bob", "x")}, "forged", False),
        ({"user_id": None}, "forged", False),
    ],
)
def test_what_was_changed_on_the_way_is_forged(changes: dict[str, Any], code: str, proven: bool) -> None:
    refusal = refused(asked(**changes))
    assert (refusal.code, refusal.proven) == (code, proven)


def test_the_signed_audience_counts_and_not_the_queue() -> None:
    assert refused(asked(), gate(audience="matcher")).code == "misaddressed"


def test_an_unknown_chain_is_said_so() -> None:
    assert refused(asked(by=signer(thumbprint="unknown"))).code == "chain-unknown"


def test_an_expired_message_is_refused_by_name() -> None:
    refusal = refused(asked(), now=NOW + 2 * DAY)
    assert (refusal.code, refusal.proven) == ("expired", True)


def test_whom_the_registry_does_not_know_in_that_group_is_denied() -> None:
    refusal = refused(asked(by=signer(group="others")))
    assert (refusal.code, refusal.proven) == ("denied", True)


def test_what_the_table_does_not_allow_is_denied() -> None:
    refusal = refused(asked(), gate(frozenset({Property.JOB_MONITOR})))
    assert (refusal.code, refusal.proven) == ("denied", True)
    assert refusal.header is not None
    assert refused(asked(Goodbye(reason="x")), gate(audience="job-state")).code == "denied"


def test_a_limited_proxy_submits_nothing() -> None:
    submit = asked(SubmitJobs(descriptions=("a",)))
    assert gate().admit(submit, NOW)
    assert "limited" in str(refused(submit, gate(limited=True)))


def test_a_service_that_signs_as_another_is_forged() -> None:
    letter = event(WorkWaiting(queues=(1,)))
    assert gate(audience="events").admit(delivered(seal(letter, signer("matcher"), NOW)), NOW)
    impostor = delivered(seal(letter, signer("job-monitor", client="matcher"), NOW))
    assert refused(impostor, gate(audience="events")).code == "forged"


def test_a_service_may_not_say_what_another_says() -> None:
    letter = event(WorkWaiting(queues=(1,)))
    assert refused(delivered(seal(letter, signer("job-monitor"), NOW)), gate(audience="events")).code == "denied"


def test_a_reply_to_a_client_is_no_request() -> None:
    letter = reply(KILL, CLIENT)
    assert refused(delivered(seal(letter, signer(), NOW))).code == "misaddressed"


# -- readmission -------------------------------------------------------------------------------------------------------


def readmission(inner: Delivery, by: str = "dead-letters", queue: str = "control", **changes: Any) -> Delivery:
    values = {
        "letter": 1,
        "queue": queue,
        "user": inner.user_id or "",
        "jws": str(inner.headers[JWS_HEADER]),
        "body": inner.body,
        "operator": "/O=Test/CN=Oscar",
    } | changes
    return delivered(seal(to_queue(Readmit(**values), queue), signer(by), NOW + 10 * DAY))


def fresh_gate() -> Gate:
    def resolve(thumbprint: str) -> ChainFacts | None:
        identity = DN if thumbprint == "alice" else SERVICE.format(thumbprint)
        return ChainFacts(identity, False, NOW - DAY, NOW + 100 * DAY, KEYS[thumbprint].public_key())

    return Gate({"job-manager"}, resolve, Registry())


def test_a_dead_letter_comes_back_on_the_services_word_long_after_its_time() -> None:
    old = asked()
    admitted = fresh_gate().admit(readmission(old), NOW + 10 * DAY)
    assert admitted.message == KILL
    assert admitted.readmitted
    assert admitted.principal.identity == DN
    assert admitted.user_id == CLIENT
    assert admitted.jws == old.headers[JWS_HEADER]
    assert admitted.inbox_key[0] == ""  # services are one issuer: the relay may say it in another's place
    assert admitted.key[0] == DN


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"queue_inside": "submissions"}, "misaddressed"),
        ({"user": make_client_id("/O=Test/CN=Bob", "x")}, "forged"),
        ({"body": b'{"jobs":[9]}'}, "forged"),
        ({"jws": "x"}, "invalid"),
    ],
)
def test_a_readmission_changes_nothing_of_what_it_carries(changes: dict[str, Any], code: str) -> None:
    inside = changes.pop("queue_inside", None)
    delivery = readmission(asked(), **changes) if inside is None else readmission(asked(), queue=inside)
    with pytest.raises(RefusalError) as caught:
        fresh_gate().admit(delivery if inside is None else delivered_to(delivery, "control"), NOW + 10 * DAY)
    assert caught.value.code == code


def delivered_to(delivery: Delivery, queue: str) -> Delivery:
    return msgspec.structs.replace(delivery, queue=queue)


def test_a_user_readmits_nothing() -> None:
    inner = asked()
    message = Readmit(
        letter=1, queue="control", user=CLIENT, jws=str(inner.headers[JWS_HEADER]), body=inner.body, operator=DN
    )
    everything = frozenset(Property)
    delivery = delivered(seal(to_queue(message, "control"), signer(), NOW))
    assert refused(delivery, gate(everything)).code == "denied"


def test_a_readmission_inside_a_readmission_is_refused() -> None:
    inner = readmission(asked())
    delivery = readmission(inner, user="dead-letters")
    with pytest.raises(RefusalError, match="inside a readmission"):
        fresh_gate().admit(delivery, NOW + 10 * DAY)


PILOTS_WORDS: list[tuple[Message, str]] = [
    (Heartbeat(site="S1"), "job-state"),
    (Goodbye(reason="x", site="S1"), "job-state"),
    (RequestMatch(slot="main", offer=Offer(site="S1")), "matcher"),
]


@pytest.mark.parametrize(("message", "audience"), PILOTS_WORDS, ids=["heartbeat", "goodbye", "request"])
def test_a_pilot_speaks_for_the_site_that_it_was_enrolled_for(message: Message, audience: str) -> None:
    pilot = frozenset({Property.GENERIC_PILOT})
    words = delivered(seal(request(message, pilot, "users"), signer(), NOW))
    for site in ("S1", ""):  # its own; any, of a pilot with a certificate
        assert gate(pilot, audience=audience, site=site).admit(words, NOW).message == message
    refusal = refused(words, gate(pilot, audience=audience, site="S2"))
    assert (refusal.code, refusal.proven) == ("denied", True)
    assert "enrolled for S2" in str(refusal)


def test_a_pilot_that_names_no_site_is_believed() -> None:
    pilot = frozenset({Property.GENERIC_PILOT})
    words = delivered(seal(request(Goodbye(reason="x"), pilot, "users"), signer(), NOW))
    assert gate(pilot, audience="job-state", site="S2").admit(words, NOW)


@pytest.mark.parametrize(
    ("carried", "comes_in"),
    [
        (("/vo/Role=prod",), True),
        (("/vo", "/vo/Role=prod"), True),
        ((), False),
        (("/vo",), False),
        (("/vo/Role=prod2", "/vo/sub/Role=prod", "/other/Role=prod"), False),
    ],
)
def test_a_group_that_asks_for_its_attribute(carried: tuple[str, ...], comes_in: bool) -> None:
    class Asking(Registry):
        def principal(self, identity: str, group: str, client: str) -> Principal | None:
            found = super().principal(identity, group, client)
            return replace(found, voms="/vo/Role=prod") if found else None

    facts = ChainFacts(DN, False, NOW - DAY, NOW + DAY, KEYS["alice"].public_key(), carried)
    asking = Gate({"job-manager"}, {"alice": facts}.get, Asking())
    if comes_in:
        assert asking.admit(asked(), NOW).message == KILL
    else:
        refusal = refused(asked(), asking)
        assert (refusal.code, refusal.proven) == ("denied", True)
        assert str(refusal) == "group users asks for a proxy with the VOMS attribute /vo/Role=prod"
