"""What other servers and strangers say: MyProxy, VOMS, IAM, RabbitMQ's questions, AMQP tables, enrolments; damaged."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker._pika import TolerantProperties
from broker.enrolment import Applicant, Enrolling, EnrolmentSecret, EnrolmentSecretError, check_enrolment, is_enrolment
from broker.grid import myproxy, voms_client
from broker.grid.errors import GridRefusedError, GridUnavailableError
from broker.grid.vomses import VomsEntry
from broker.identity import Credential, make_csr, new_key
from broker.refusal import RefusalError
from broker.signing import b64url, sign_bytes, unb64url
from broker.subscriber import Gate
from broker.transport import Delivery, Tag
from consumers import dead_letters, iam_scim
from consumers.domain.scim import ScimGroup, ScimUser, members
from consumers.gatekeeper_http import GatekeeperServer
from schemas.identity import Fqan
from tests.support.attribute_certificates import Voms, make_ac, make_voms
from tests.support.effort import effort
from tests.support.hostile import assert_in_step, calmly
from tests.support.mutations import damaged_bytes, damaged_der, damaged_json, mutate_json, seeds
from tests.support.pki import NOW, Pki, make_pki, proxy

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def voms(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Voms:
    return make_voms(pki, tmp_path_factory.mktemp("vomsdir"))


# -- MyProxy --------------------------------------------------------------------------------------------------------


class Said:
    """A link on which a server has said something, in pieces."""

    def __init__(self, data: bytes, pieces: int) -> None:
        size = max(1, len(data) // pieces)
        self._pieces = [data[start : start + size] for start in range(0, len(data), size)]

    def send(self, data: bytes) -> None:
        pass

    def receive(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def __exit__(self, *_: object) -> None:
        pass


OK = b"VERSION=MYPROXYv2\nRESPONSE=0\n\0"
MYPROXY_WORDS = [
    OK, b"\0", b"\0\0\0", b"VERSION=MYPROXYv2\n", b"RESPONSE=", b"1\n", b"2\n", b"ERROR=no\n", b"=", b"\n\n", b"V",
    b"\xff",     b"AUTHORIZATION_DATA=X509_certificate_SHA256:" + b"a" * 3000,
    b"\x30\x84\xff\xff\xff\xff", b"\x30\x80", b"\x01\x30",
]  # fmt: skip


@functools.cache
def answers() -> list[bytes]:
    certificate = proxy(Credential(KEY, (make_certificate(),))).leaf
    challenge = b"VERSION=MYPROXYv2\nRESPONSE=2\nAUTHORIZATION_DATA=X509_certificate_SHA256:abc\n\0"
    return [
        b"\0" + OK + bytes([2]) + certificate + certificate + OK,
        challenge + OK + bytes([1]) + certificate + OK,
        b"VERSION=MYPROXYv2\nRESPONSE=1\nERROR=no credentials\nERROR=at all\n\0",
        b"VERSION=MYPROXYv2\nRESPONSE=0\nCRED_START_TIME=1\nCRED_END_TIME=2\nCRED_OWNER=/CN=x\n\0",
        OK + OK,
        OK + b"\0\0",
    ]


KEY = new_key()


@functools.cache
def make_certificate() -> bytes:
    from broker.identity import Authority

    return Authority.create("/O=Grid/CN=CA").issue("/O=Grid/CN=Ada", key=KEY).leaf


@pytest.mark.parametrize("command", ["get", "renew", "put", "info", "destroy"])
@given(data=damaged_bytes(answers(), MYPROXY_WORDS), pieces=st.sampled_from([1, 2, 50]))
@effort(60)
def test_myproxy(command: str, data: bytes, pieces: int) -> None:
    me = Credential(KEY, (make_certificate(),))
    server: Any = None
    hour = dt.timedelta(hours=1)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: myproxy.get(server, me, "ada", lifetime=hour, passphrase="secret", key=KEY),
        "renew": lambda: myproxy.renew(server, me, "ada", me, lifetime=hour, key=KEY),
        "put": lambda: myproxy.put(
            server, me, "ada", lifetime=hour, longest=hour, now=dt.datetime.now(dt.UTC)
        ),
        "info": lambda: myproxy.info(server, me, "ada"),
        "destroy": lambda: myproxy.destroy(server, me, "ada"),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(myproxy, "_open", lambda *_: myproxy._Talk(Said(data, pieces)))  # type: ignore[arg-type]  # as a link
        calmly(calls[command], len(data), GridRefusedError, GridUnavailableError, myproxy.IdentityError)


@pytest.mark.parametrize("data", [OK + OK, OK + b"\0\x00", OK + b"\0", OK + bytes([200]), OK, b"", b"\0", OK + b"\x01"])
def test_myproxy_sends_no_certificates(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    me = Credential(KEY, (make_certificate(),))
    monkeypatch.setattr(myproxy, "_open", lambda *_: myproxy._Talk(Said(data, 1)))  # type: ignore[arg-type]  # as a link
    with pytest.raises((GridRefusedError, GridUnavailableError)):
        myproxy.get(None, me, "ada", lifetime=dt.timedelta(hours=1), passphrase="secret", key=KEY)  # type: ignore[arg-type]


# -- VOMS -----------------------------------------------------------------------------------------------------------

VOMS_WORDS = [
    b"<ac>", b"</ac>", b"<item>", b"<number>1001</number>", b"<message>", b"</message>", b"</item>", b"</vomsans>",
    b"&lt;",     b"HTTP/1.1 200 OK\r\n\r\n", b"<number>99999999</number>", b"\\n", b"\x1b[2J",
    b"=", b"<warning>x</warning>",
    b"<!ENTITY",
]  # fmt: skip


def voms_answers(ac: bytes) -> list[bytes]:
    text = base64.b64encode(ac)
    warning = b"<error><item><number>3</number><message>shorter</message></item></error>"
    return [
        b'<?xml version="1.0"?><vomsans><version>3</version>' + warning + b"<ac>" + text + b"</ac></vomsans>",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n<voms><ac>" + text + b"</ac></voms>",
        b"<vomsans><error><item><number>1001</number><message>no such user</message></item></error></vomsans>",
    ]


@given(data=st.data())
@effort(120)
def test_voms_servers(voms: Voms, data: st.DataObject) -> None:
    ac = make_ac(voms)
    sample = data.draw(st.sampled_from(voms_answers(data.draw(st.just(ac) | damaged_der([ac])))))
    answer = data.draw(st.just(sample) | damaged_bytes([sample], VOMS_WORDS))
    entry = VomsEntry("lhcb", "voms.example.org", 15000, voms.server.leaf.hex()[:10], "lhcb")
    found = calmly(
        lambda: voms_client._read_answer(answer, entry, voms.pki.user, (Fqan("/lhcb"),)),
        len(answer),
        GridRefusedError,
        GridUnavailableError,
    )
    if not isinstance(found, Exception):
        assert Fqan("/lhcb") in map(Fqan.parse, found.fqans)
        assert all(line.isprintable() for line in found.warnings)


@pytest.mark.parametrize("piece", [*VOMS_WORDS, b"<item><number>1</number><message>", b"<ac>A", b"<message>", b"< "])
def test_what_voms_servers_say_is_read_once(voms: Voms, piece: bytes) -> None:
    entry = VomsEntry("lhcb", "voms.example.org", 15000, "/CN=x", "lhcb")

    def read(data: bytes) -> object:
        try:
            return voms_client._read_answer(data, entry, voms.pki.user, (Fqan("/lhcb"),))
        except GridRefusedError:
            return None

    assert_in_step(read, lambda size: piece * (size // len(piece)), voms_client.MAX_ANSWER_BYTES)


# -- IAM ------------------------------------------------------------------------------------------------------------

USERS = b"""{"totalResults":2,"itemsPerPage":2,"startIndex":1,"Resources":[{"id":"u1","userName":"ada","active":true,
"emails":[{"value":"a@b","primary":true}],"groups":[{"value":"g1","display":"lhcb"}],
"urn:indigo-dc:scim:schemas:IndigoUser":{"certificates":[{"subjectDn":"CN=Ada Example,OU=People,DC=org"}]}},
{"id":"u2","urn:indigo-dc:scim:schemas:IndigoUser":{"certificates":[{"subjectDn":"CN=B\\\\2c,O=\\"x,y\\"+L=z"}]}}]}"""
GROUPS = b"""{"totalResults":1,"Resources":[{"id":"g1","displayName":"lhcb/production",
"urn:indigo-dc:scim:schemas:IndigoGroup":{"labels":[{"name":"voms.role"}]}}]}"""


@given(damaged_json([USERS]), damaged_json([GROUPS]))
@effort(120)
def test_iam(users: bytes, groups: bytes) -> None:
    def read() -> object:
        found: list[list[Any]] = []
        for data, kind in ((users, ScimUser), (groups, ScimGroup)):
            page = iam_scim._decode(data, iam_scim._Page, "/scim")
            found.append([iam_scim._decode(raw, kind, "/scim") for raw in page.resources])
        return members(*found)

    calmly(read, len(users) + len(groups), iam_scim.SourceRefusedError)


# -- RabbitMQ -------------------------------------------------------------------------------------------------------


def sees_text(form: dict[str, str]) -> bool:
    assert all(type(key) is str and type(value) is str for key, value in form.items())
    return form.get("username", "") == "ada" and form["password"] != ""


@given(damaged_bytes([b"username=ada&password=x&vhost=%2F&resource=queue&name=reply.x&permission=read"],
                     [b"&", b"=", b"%", b"%00", b"%ff", b"+", b"username=", b"&a=b" * 40, b";", b"\xff"]),
       st.sampled_from(["/auth/user", "/auth/nothing", "", "/", "/auth/user/../x", "\xff"]))  # fmt: skip
@effort(300)
def test_questions_of_the_broker(form: bytes, path: str) -> None:
    server: Any = SimpleNamespace(_routes={"/auth/user": sees_text}, _passes=None)
    assert calmly(lambda: GatekeeperServer.answer(server, path, form), len(form)) in {b"allow", b"deny"}


@functools.cache
def tables() -> list[bytes]:
    headers = {
        "jws": "a..b", "x-death": [{"reason": "expired", "queue": "q", "count": 1, "time": dt.datetime.now(dt.UTC)}],
        "n": None, "t": True, "deep": {"a": {"b": ["c"]}}, "x-delivery-count": 3,
    }  # fmt: skip
    made = pika.BasicProperties(headers=headers, user_id="u", message_id="m", timestamp=1, content_type="x", priority=3)
    return [b"".join(made.encode())]


@given(
    damaged_bytes(
        tables(), [b"F\xff\xff\xff\xff", b"A\0\0\0\0", b"S\x7f\xff\xff\xff", b"x", b"T" + b"\xff" * 8, b"D\xff\0"]
    )
)
@effort(400)
def test_amqp_tables(data: bytes) -> None:
    found = calmly(lambda: TolerantProperties().decode(data), len(data))
    cause, queue = dead_letters._death(found.headers or {})
    assert len(cause) <= 80
    assert len(queue) <= 256


@given(
    st.dictionaries(st.sampled_from(["jws", "x-death", "x-first-death-reason", "x-first-death-queue", "x"]), json_like),
    st.binary(max_size=100),
    st.none() | st.text(max_size=20),
)
def test_deliveries_of_any_kind(headers: dict[str, object], body: bytes, user: str | None) -> None:
    gate = Gate(["job-manager"], lambda _: None, None)  # type: ignore[arg-type]  # nobody gets so far
    delivery = Delivery(
        queue="q", exchange="x", routing_key="k", body=body, headers=headers, redelivered=False, tag=Tag(1, 1, 1),
        user_id=user,
    )  # fmt: skip
    assert isinstance(calmly(lambda: gate.admit(delivery, 0.0), len(body) + 200, RefusalError), RefusalError)
    dead_letters._death(headers)


# -- enrolment ------------------------------------------------------------------------------------------------------

SECRET = EnrolmentSecret.create()


def enrolled(text: str) -> object:
    return calmly(
        lambda: check_enrolment(
            text,
            audience="here",
            now=NOW.timestamp(),
            find=lambda name: SECRET.public_key if name == SECRET.id else None,
        ),
        len(text),
        RefusalError,
    )


@functools.cache
def application() -> str:
    return Applicant(SECRET, "Site.Example.org").password(audience="here", group="", now=NOW.timestamp(), login="l")


@given(seeds, st.integers(0, 1))
@effort(150)
def test_changed_enrolments_that_are_signed(seed: int, part: int) -> None:
    parts = [unb64url(item) for item in application().split(".")[:2]]
    parts[part] = mutate_json(parts[part], random.Random(seed))
    start = ".".join(map(b64url, parts))
    found = enrolled(f"{start}.{b64url(sign_bytes(SECRET.key, start.encode()))}")
    if isinstance(found, Enrolling):
        assert found.enrolment == SECRET.id
        assert found.claims.aud == "here"


@given(damaged_bytes([application().encode()], [b".", b"..", b"e30", b"="]))
@effort(200)
def test_damaged_enrolments(data: bytes) -> None:
    text = data.decode("latin-1")
    calmly(lambda: is_enrolment(text), len(text))
    assert isinstance(enrolled(text), RefusalError) or text == application()


@given(damaged_bytes([SECRET.text().encode()], [b".", b"pilotage-enrol-1.", b"=", b"A" * 43, b"\n"]))
@effort(200)
def test_damaged_secrets(data: bytes) -> None:
    text = data.decode("latin-1")
    found = calmly(lambda: EnrolmentSecret.parse(text), len(text), EnrolmentSecretError)
    if isinstance(found, EnrolmentSecretError):
        assert SECRET.text().rpartition(".")[2] not in str(found)
    else:
        assert found.id == SECRET.id


@given(damaged_der([make_csr(KEY)]), seeds)
@effort(100)
def test_requests_in_enrolments(csr: bytes, seed: int) -> None:
    header, claims = (unb64url(item) for item in application().split(".")[:2])
    fields = msgspec.json.decode(claims) | {"csr": b64url(csr)}
    start = f"{b64url(header)}.{b64url(msgspec.json.encode(fields))}"
    enrolled(f"{start}.{b64url(sign_bytes(SECRET.key, start.encode()))}")
