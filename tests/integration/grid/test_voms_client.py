"""Asking VOMS servers: a real one for what it gives, scripted ones for all that a server could do wrong."""

from __future__ import annotations

import base64
import datetime as dt

import pytest

from broker.grid.errors import GridRefusedError, GridUnavailableError
from broker.grid.voms_client import AcAnswer, VomsEntry, load_vomses, request_ac
from broker.identity import Authority, create_proxy, new_key, save_credential, verify_chain
from compose.local.ports import free_port
from schemas.identity import Fqan
from tests.support.grid_servers import HOST_DN, GridCa, GridUser, VomsServer
from tests.support.grid_tools import run_tool
from tests.support.scripted_server import Answer, scripted_server

pytestmark = pytest.mark.integration

HOUR = dt.timedelta(hours=1)
ROLE = "/testvo/Role=user"


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def entry(server: VomsServer) -> VomsEntry:
    return VomsEntry(server.vo, server.host, server.port, server.dn, server.vo)


def ask(server: VomsServer | VomsEntry, user: GridUser, *fqans: str, lifetime: dt.timedelta = HOUR) -> AcAnswer:
    where = server if isinstance(server, VomsEntry) else entry(server)
    wanted = [Fqan.parse(fqan) for fqan in fqans]
    return request_ac(where, user.credential, user.trust_dir, wanted, lifetime=lifetime, seconds=10)


@pytest.fixture(scope="module")
def member(grid_ca: GridCa, voms_server: VomsServer) -> GridUser:
    user = grid_ca.user("Ada Asker")
    voms_server.add_member(user.dn, "/testvo/analysis", ROLE, "/testvo/analysis/Role=prod", nickname="ada")
    return user


@pytest.fixture(scope="module")
def other_member(member: GridUser, other_voms_server: VomsServer) -> GridUser:
    other_voms_server.add_member(member.dn, "/vo.example.org/group")
    return member


def short(answer: AcAnswer) -> list[str]:
    return [str(Fqan.parse(fqan)) for fqan in answer.fqans]


def test_a_member_gets_his_groups(member: GridUser, voms_server: VomsServer) -> None:
    answer = ask(voms_server, member)
    assert short(answer) == ["/testvo", "/testvo/analysis"]
    assert abs(answer.not_after - now() - HOUR) < dt.timedelta(minutes=5)
    assert answer.warnings == ()


def test_groups_and_roles_come_in_the_order_asked_for(member: GridUser, voms_server: VomsServer) -> None:
    assert short(ask(voms_server, member, ROLE)) == [ROLE, "/testvo", "/testvo/analysis"]
    wanted = ["/testvo/analysis/Role=prod", ROLE, "/testvo/analysis"]
    assert short(ask(voms_server, member, *wanted)) == [*wanted, "/testvo"]
    assert short(ask(voms_server, member, *reversed(wanted)))[:3] == wanted[::-1]


def test_the_server_bounds_the_life_and_says_so(member: GridUser, voms_server: VomsServer) -> None:
    answer = ask(voms_server, member, lifetime=100 * HOUR)
    assert answer.not_after - now() < 25 * HOUR
    assert "shortened" in answer.warnings[0]


@pytest.mark.parametrize("fqan", ["/testvo/Role=none-such", "/testvo/none-such"])
def test_a_role_that_he_does_not_have_is_refused_in_one_line(
    member: GridUser, voms_server: VomsServer, fqan: str
) -> None:
    with pytest.raises(GridRefusedError, match=r"^testvo: Unable to satisfy [^\n]*$"):
        ask(voms_server, member, fqan)


def test_a_stranger_is_refused(grid_ca: GridCa, voms_server: VomsServer) -> None:
    with pytest.raises(GridRefusedError, match=r"User unknown to this VO"):
        ask(voms_server, grid_ca.user("Mallory Asker"))


def test_another_vos_group_is_not_even_asked_for(member: GridUser, voms_server: VomsServer) -> None:
    with pytest.raises(GridRefusedError, match="no group of the VO testvo"):
        ask(voms_server, member, "/testvo2/Role=user")


@pytest.mark.parametrize("rsa", [True, False])
@pytest.mark.parametrize("form", ["new", "old"])
def test_voms_proxy_info_and_our_verifier_read_what_we_embed(
    grid_ca: GridCa, other_member: GridUser, request: pytest.FixtureRequest, form: str, rsa: bool
) -> None:
    server = request.getfixturevalue("voms_server" if form == "new" else "old_voms_server")
    other = request.getfixturevalue("other_voms_server")
    acs = [ask(server, other_member, ROLE).der, ask(other, other_member).der]
    user = other_member.credential
    proxy = create_proxy(
        user.ders, user.key, lifetime=2 * HOUR, limited=False, now=now(), acs=acs,
        key=new_key(rsa_bits=2048 if rsa else None),
    )  # fmt: skip
    chain = verify_chain(proxy.ders, grid_ca.trust(), grid_ca.voms_trust(), now())
    assert [(ac.valid, ac.vo, ac.reason) for ac in chain.acs] == [(True, "testvo", ""), (True, "vo.example.org", "")]
    assert chain.acs[0].generic[0].name == "nickname"  # its value this server leaves empty, whatever the VO has
    assert chain.fqans[0] == f"{ROLE}/Capability=NULL"
    assert chain.not_after - now() <= 2 * HOUR
    save_credential(proxy, other_member.proxy)
    shown = run_tool("voms-proxy-info", "--all", environment=other_member.environment()).stdout
    assert f"identity  : {other_member.dn}" in shown
    assert f"attribute : {ROLE}/Capability=NULL" in shown
    assert "attribute : /vo.example.org/group/Role=NULL/Capability=NULL" in shown
    for vo in ("testvo", "vo.example.org"):
        run_tool("voms-proxy-info", "--acexists", vo, environment=other_member.environment())
    run_tool("openssl", "verify", "-allow_proxy_certs", "-crl_check_all", "-CApath", grid_ca.trust_dir,
             "-untrusted", other_member.proxy, other_member.proxy, environment={})  # fmt: skip


def test_a_proxy_asks_for_its_holder(member: GridUser, voms_server: VomsServer) -> None:
    user = member.credential
    proxy = create_proxy(user.ders, user.key, lifetime=HOUR, limited=True, now=now())
    answer = request_ac(entry(voms_server), proxy, member.trust_dir, lifetime=HOUR)
    assert short(answer)[0] == "/testvo"


def test_the_server_must_be_the_one_of_the_vomses_entry(member: GridUser, voms_server: VomsServer) -> None:
    wrong = VomsEntry("testvo", voms_server.host, voms_server.port, HOST_DN + "x", "testvo")
    with pytest.raises(GridRefusedError, match="not /DC=org"):
        ask(wrong, member)


def test_nobody_there_is_told_in_one_line(member: GridUser) -> None:
    with pytest.raises(GridUnavailableError, match=r"^cannot talk to the service: [^\n]+$"):
        ask(VomsEntry("testvo", "localhost", free_port(), HOST_DN, "testvo"), member)


# ---- servers that go wrong


class Scripted:
    """What a test lets a server say."""

    def __init__(self, ca: GridCa, member: GridUser, good: bytes) -> None:
        self.ca, self.member, self.good = ca, member, good

    def ask(self, *answers: Answer, fqans: tuple[str, ...] = (), vo: str = "testvo") -> tuple[AcAnswer, list[bytes]]:
        with scripted_server(self.ca.host(), self.ca.trust_dir, answers) as (port, said):
            return ask(VomsEntry(vo, "localhost", port, HOST_DN, vo), self.member, *fqans), said


@pytest.fixture(scope="module")
def scripted(grid_ca: GridCa, member: GridUser, voms_server: VomsServer) -> Scripted:
    return Scripted(grid_ca, member, ask(voms_server, member).der)


def xml(ac: bytes, extra: str = "") -> bytes:
    text = base64.encodebytes(ac).decode()
    return f'<?xml version="1.0"?><vomsans><version>3</version>{extra}<ac>{text}</ac></vomsans>'.encode()


def item(number: int, message: str) -> str:
    return f"<error><item><number>{number}</number><message>{message}</message></item></error>"


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: text/xml\r\n\r\n".encode() + body


def test_the_scripted_server_speaks_as_the_real_one(scripted: Scripted) -> None:
    answer, said = scripted.ask(xml(scripted.good))
    assert short(answer) == ["/testvo", "/testvo/analysis"]
    assert said[0].startswith(b'0<?xml version="1.0"')


def test_a_server_that_speaks_http_is_asked_by_http(scripted: Scripted) -> None:
    body = b"<voms><ac>" + base64.b64encode(scripted.good) + b"</ac><warning>shortened</warning></voms>"
    answer, said = scripted.ask(http(b"", "400 Bad Request"), http(body), fqans=("/testvo", "/testvo/analysis"))
    assert said[1].startswith(b"GET /generate-ac?fqans=/testvo,/testvo/analysis&lifetime=3600 HTTP/1.0\r\n")
    assert answer.warnings == ("shortened",)


def test_what_http_refuses_is_told(scripted: Scripted) -> None:
    body = b"<voms><error><code>NoSuchUser</code><message>Unknown user.</message></error></voms>"
    with pytest.raises(GridRefusedError, match=r"^Unknown user\.$"):
        scripted.ask(http(b"", "400 Bad Request"), http(body, "403 Forbidden"))
    with pytest.raises(GridRefusedError, match="HTTP, but not VOMS"):
        scripted.ask(http(b"<html>hello</html>"))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"<vomsans><ac>QQ==</ac></vomsans>", "bad attribute certificate"),
        (b"<vomsans><ac>Q</ac></vomsans>", "no attribute certificate"),
        (b"<vomsans></vomsans>", "no VOMS server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no VOMS server"),
        (xml(b"0\x82\xff\xff" + b"0" * 100), "bad attribute certificate"),
        (xml(b"0\x80" + b"0" * 70000), "bad attribute certificate"),
        (b"<ac>" + b"A" * 200_000, "more than"),
        (
            b"<vomsans>" + item(1001, "a &lt;b&gt;\\n\x1b[31m" + "x" * 5000).encode() + b"</vomsans>",
            r"^a <b> +\[31mx+$",
        ),
    ],
    ids=["empty", "base64", "nothing", "ssh", "truncated", "indefinite", "endless", "escapes"],
)
def test_a_strange_answer_is_refused_in_one_line(scripted: Scripted, answer: bytes, why: str) -> None:
    with pytest.raises(GridRefusedError, match=why) as caught:
        scripted.ask(answer)
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()


def test_an_error_counts_even_beside_a_certificate(scripted: Scripted) -> None:
    for strange in (item(1001, "x" * 9000), "<item><number>99999999</number><message>a</message></item>", "<item>"):
        with pytest.raises(GridRefusedError):
            scripted.ask(xml(scripted.good, strange))
    with pytest.raises(GridRefusedError, match=r"^not today$"):
        scripted.ask(xml(scripted.good, item(1001, "not today")))
    answer, _said = scripted.ask(xml(scripted.good, item(2, "a word")))
    assert answer.warnings == ("a word",)


def test_less_than_asked_for_is_no_success(scripted: Scripted) -> None:
    with pytest.raises(GridRefusedError, match=f"did not give {ROLE}"):
        scripted.ask(xml(scripted.good), fqans=(ROLE,))


def test_attributes_of_another_vo_or_person_are_refused(
    scripted: Scripted, grid_ca: GridCa, other_voms_server: VomsServer, voms_server: VomsServer, other_member: GridUser
) -> None:
    with pytest.raises(GridRefusedError, match="another VO"):
        scripted.ask(xml(ask(other_voms_server, other_member).der))
    somebody = grid_ca.user("Grace Asker")
    voms_server.add_member(somebody.dn)
    with pytest.raises(GridRefusedError, match="holder is not the end entity"):
        scripted.ask(xml(ask(voms_server, somebody).der))


def test_a_server_that_hangs_up_is_away(scripted: Scripted) -> None:
    with pytest.raises(GridUnavailableError):
        scripted.ask(b"")


def test_a_server_of_a_foreign_authority_gets_nothing(grid_ca: GridCa, member: GridUser) -> None:
    foreign = Authority.create("/DC=org/DC=gridtest/CN=Foreign CA")
    host = foreign.issue(HOST_DN, "server", ["localhost"])
    with scripted_server(host, grid_ca.trust_dir, [b"never"]) as (port, said):
        with pytest.raises(GridRefusedError, match="certificate"):
            ask(VomsEntry("testvo", "localhost", port, HOST_DN, "testvo"), member)
        assert said == []


def test_all_servers_of_the_run_are_in_the_vomses_file(grid_ca: GridCa, voms_server: VomsServer) -> None:
    assert load_vomses([grid_ca.vomses]).servers_of("testvo") == (entry(voms_server),)
