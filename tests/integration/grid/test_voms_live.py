"""Attribute certificates of a real server, and forged ones of VOMS's own forger, judged by our verifier."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from broker.grid.voms_client import VomsEntry, request_ac
from broker.identity import (
    Credential,
    TrustStore,
    VomsAc,
    VomsDir,
    create_proxy,
    load_credential,
    parse_certificate,
    save_credential,
    verify_chain,
)
from broker.signing import facts_of
from tests.support.grid_servers import CA_DN, HOST_DN, GridCa, GridUser, VomsServer
from tests.support.grid_tools import run_tool

pytestmark = pytest.mark.integration

HOUR = dt.timedelta(hours=1)
ROLE = "/testvo/Role=user"


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def member(grid_ca: GridCa, voms_server: VomsServer, other_voms_server: VomsServer) -> GridUser:
    user = grid_ca.user("Ada Verified")
    voms_server.add_member(user.dn, "/testvo/analysis", ROLE)
    other_voms_server.add_member(user.dn, "/vo.example.org/Role=pilot")
    return user


def judge(
    ca: GridCa,
    source: Path | Credential,
    *,
    at: dt.datetime | None = None,
    trust: TrustStore | None = None,
    vomsdir: VomsDir | None = None,
) -> tuple[VomsAc, ...]:
    chain = source.read_bytes() if isinstance(source, Path) else source.ders
    return verify_chain(chain, trust or ca.trust(), vomsdir or ca.voms_trust(), at or now()).acs


def voms_proxy(user: GridUser, *words: str | Path, vo: str = "testvo") -> Path:
    run_tool("voms-proxy-init", "--rfc", "--voms", vo, *words, environment=user.environment())
    return user.proxy


@pytest.fixture
def with_ac(member: GridUser) -> Credential:
    """A proxy of voms-proxy-init with the role."""
    return load_credential(voms_proxy(member, vo=f"testvo:{ROLE}"))


def test_both_holder_forms(grid_ca: GridCa, member: GridUser, old_voms_server: VomsServer, tmp_path: Path) -> None:
    (new,) = judge(grid_ca, voms_proxy(member))
    (tmp_path / "vomses").write_text(old_voms_server.vomses_line)
    (old,) = judge(grid_ca, voms_proxy(member, "--vomses", tmp_path / "vomses"))
    assert new.valid
    assert old.valid
    assert new.fqans == old.fqans


def test_what_groups_may_ask_for(grid_ca: GridCa, member: GridUser) -> None:
    """The names by which the registry asks for attributes, of what a real proxy carries."""
    chain = verify_chain(
        voms_proxy(member, vo=f"testvo:{ROLE}").read_bytes(), grid_ca.trust(), grid_ca.voms_trust(), now()
    )
    assert facts_of(chain).fqans == (ROLE, "/testvo", "/testvo/analysis")


def test_several_vos(grid_ca: GridCa, member: GridUser) -> None:
    acs = judge(grid_ca, voms_proxy(member, "--voms", "vo.example.org:/vo.example.org/Role=pilot"))
    assert [(ac.valid, ac.vo) for ac in acs] == [(True, "testvo"), (True, "vo.example.org")]
    assert acs[1].fqans[0] == "/vo.example.org/Role=pilot/Capability=NULL"


def test_an_ac_deep_in_the_chain_counts_however_it_was_passed_on(
    grid_ca: GridCa, member: GridUser, with_ac: Credential, tmp_path: Path
) -> None:
    first = create_proxy(with_ac.ders, with_ac.key, lifetime=HOUR, limited=False, now=now())
    second = create_proxy(first.ders, first.key, lifetime=HOUR, limited=True, now=now())
    for chain in (first, second):
        (ac,) = judge(grid_ca, chain)
        assert (ac.valid, ac.fqans[0]) == (True, f"{ROLE}/Capability=NULL")
    save_credential(with_ac, tmp_path / "p")
    run_tool("grid-proxy-init", "-rfc", "-limited", "-cert", tmp_path / "p", "-key", tmp_path / "p",
             environment=member.environment())  # fmt: skip
    (theirs,) = judge(grid_ca, member.proxy)
    assert theirs.valid


def test_the_leafs_attributes_come_first(grid_ca: GridCa, other_voms_server: VomsServer, with_ac: Credential) -> None:
    where = VomsEntry("other", "localhost", other_voms_server.port, other_voms_server.dn, other_voms_server.vo)
    answer = request_ac(where, with_ac, grid_ca.trust_dir, lifetime=HOUR)
    child = create_proxy(with_ac.ders, with_ac.key, lifetime=HOUR, limited=False, now=now(), acs=[answer.der])
    assert [ac.vo for ac in judge(grid_ca, child) if ac.valid] == ["vo.example.org", "testvo"]


def test_validity_is_the_acs_own(grid_ca: GridCa, member: GridUser) -> None:
    proxy = voms_proxy(member, "--vomslife", "0:10", "--valid", "5:00")
    (ac,) = judge(grid_ca, proxy)
    assert ac.valid
    (late,) = judge(grid_ca, proxy, at=now() + HOUR)
    assert (late.valid, late.fqans, late.reason) == (False, (), "AC expired")


def test_without_lsc_file_or_with_a_wrong_one_nothing_counts(
    grid_ca: GridCa, with_ac: Credential, tmp_path: Path
) -> None:
    (ac,) = judge(grid_ca, with_ac, vomsdir=VomsDir.load(tmp_path))
    assert ac.reason == "AC issuer not in LSC of testvo"
    (tmp_path / "testvo").mkdir()
    lsc = tmp_path / "testvo" / "host.lsc"
    for text, why in (
        (f"{HOST_DN}\n/CN=Another CA\n", "AC issuer's chain is not in LSC of testvo"),
        (f"{HOST_DN}x\n{CA_DN}\n", "AC issuer not in LSC of testvo"),
        (f"{HOST_DN}\n", "AC issuer not in LSC of testvo"),
    ):
        lsc.write_text(text)
        (ac,) = judge(grid_ca, with_ac, vomsdir=VomsDir.load(tmp_path))
        assert (ac.valid, ac.reason) == (False, why)
    lsc.write_text(f"/CN=x\n/CN=y\n------NEXT CHAIN------\n{HOST_DN}\n{CA_DN}\n")
    assert judge(grid_ca, with_ac, vomsdir=VomsDir.load(tmp_path))[0].valid


def test_a_revoked_server_speaks_for_nobody(
    grid_ca: GridCa, voms_server: VomsServer, with_ac: Credential, tmp_path: Path
) -> None:
    serial = parse_certificate(voms_server.credential.leaf).serial
    grid_ca.authority.write_trust_dir(tmp_path, revoked=[serial])
    (ac,) = judge(grid_ca, with_ac, trust=TrustStore.load(tmp_path))
    assert ac.reason == f"AC revoked: {HOST_DN}"


def test_a_member_who_left_keeps_his_attributes_until_they_end(grid_ca: GridCa, voms_server: VomsServer) -> None:
    """An attribute certificate cannot be called back: that is what suspending him with us is for."""
    user = grid_ca.user("Grace Leaving")
    voms_server.add_member(user.dn, ROLE)
    proxy = voms_proxy(user, vo=f"testvo:{ROLE}")
    voms_server.remove_member(user.dn)
    assert judge(grid_ca, proxy)[0].valid


# ---- forged by voms-proxy-fake


def fake(user: GridUser, host: Credential, folder: Path, *words: str, vo: str = "testvo", fqan: str = ROLE) -> Path:
    """A proxy of the user with an attribute certificate signed by any host's key."""
    save_credential(host, folder / "host.pem")
    where = ["-hostcert", str(folder / "host.pem"), "-hostkey", str(folder / "host.pem"), "-uri", "localhost:15000"]
    run_tool("voms-proxy-fake", "-rfc", "-voms", vo, "-fqan", fqan, *where, *words, environment=user.environment())
    return user.proxy


@pytest.fixture
def stranger(grid_ca: GridCa) -> GridUser:
    return grid_ca.user("Mallory Forger")


def test_the_forger_works_with_the_servers_own_key(
    grid_ca: GridCa, stranger: GridUser, voms_server: VomsServer, tmp_path: Path
) -> None:
    """Else the refusals below would prove nothing; the old form: its new one is another than the server's."""
    (ac,) = judge(grid_ca, fake(stranger, voms_server.credential, tmp_path))
    assert (ac.valid, ac.reason, ac.fqans) == (True, "", (ROLE,))


@pytest.mark.parametrize(
    "fqan",
    [
        "/testvo2/Role=user",
        "/other/Role=user",
        "/testvo-evil",
        "testvo/Role=user",
        "/testvo/Role=us er",
        "/testvo/../other",
    ],
)
def test_a_server_cannot_speak_for_another_vo(
    grid_ca: GridCa, stranger: GridUser, voms_server: VomsServer, tmp_path: Path, fqan: str
) -> None:
    (ac,) = judge(grid_ca, fake(stranger, voms_server.credential, tmp_path, fqan=fqan))
    assert (ac.valid, ac.fqans) == (False, ())
    assert "FQAN" in ac.reason


def test_nobody_else_can_speak_for_the_vo(grid_ca: GridCa, stranger: GridUser, tmp_path: Path) -> None:
    other_host = grid_ca.host(HOST_DN.replace("localhost", "other.example.org"))
    (ac,) = judge(grid_ca, fake(stranger, other_host, tmp_path))
    assert ac.reason == "AC issuer not in LSC of testvo"
    himself = load_credential(stranger.certificate, key=stranger.key)
    (ac,) = judge(grid_ca, fake(stranger, himself, tmp_path))
    assert ac.reason == "AC issuer not in LSC of testvo"


def test_a_server_of_the_same_name_below_another_authority(grid_ca: GridCa, stranger: GridUser, tmp_path: Path) -> None:
    from broker.identity import Authority, new_key

    forger = Authority.create(CA_DN, key=new_key(rsa_bits=2048))
    host = forger.issue(HOST_DN, "server", ["localhost"], key=new_key(rsa_bits=2048))
    (ac,) = judge(grid_ca, fake(stranger, host, tmp_path))
    assert not ac.valid
    assert "not issued by a trusted authority" in ac.reason


def test_attributes_of_somebody_else(
    grid_ca: GridCa, stranger: GridUser, member: GridUser, with_ac: Credential, tmp_path: Path
) -> None:
    """An attribute certificate cut out of a member's proxy and put into another person's."""
    from broker.identity import der
    from broker.identity.voms import OID_VOMS_ACS
    from tests.support.pki import pci, proxy, unknown, usage

    value = parse_certificate(with_ac.leaf).extensions[OID_VOMS_ACS].value
    assert der.read_exactly(value, der.SEQUENCE)
    stolen = unknown(OID_VOMS_ACS, value, critical=False)
    forged = proxy(stranger.credential, extensions=[pci(), usage(digital_signature=True), stolen])
    (ac,) = judge(grid_ca, forged)
    assert ac.reason == "AC holder is not the end entity of the chain"


def test_a_critical_extension_that_nobody_knows(
    grid_ca: GridCa, stranger: GridUser, voms_server: VomsServer, tmp_path: Path
) -> None:
    (harmless,) = judge(grid_ca, fake(stranger, voms_server.credential, tmp_path, "-acextension", "1.2.3.4/false"))
    assert harmless.valid
    (ac,) = judge(grid_ca, fake(stranger, voms_server.credential, tmp_path, "-acextension", "1.2.3.4/true"))
    assert ac.reason == "AC critical extension that is not understood: 1.2.3.4"


def test_a_target_restriction_refuses_for_we_are_no_target(
    grid_ca: GridCa, stranger: GridUser, voms_server: VomsServer, tmp_path: Path
) -> None:
    (ac,) = judge(grid_ca, fake(stranger, voms_server.credential, tmp_path, "-target", "ce.example.org"))
    assert not ac.valid
    assert "critical extension" in ac.reason
