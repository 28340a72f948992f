"""Proxies between us and the grid's tools, both ways: what we make they take, what they make we judge rightly."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.identity import (
    Credential,
    IdentityError,
    VerifiedChain,
    create_proxy,
    load_credential,
    make_csr,
    new_key,
    save_credential,
    sign_csr,
    split_chain,
    verify_chain,
)
from tests.support.grid_servers import GridCa, GridUser, MyProxyServer, VomsServer
from tests.support.grid_tools import run_tool

pytestmark = pytest.mark.integration

HOUR = dt.timedelta(hours=1)
PASSWORD = "a word of the test"


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module", params=["rsa-user", "ec-user"])
def user(grid_ca: GridCa, request: pytest.FixtureRequest) -> GridUser:
    return grid_ca.user(f"Ada {request.param}", rsa=request.param == "rsa-user")


@pytest.fixture(scope="module")
def rsa_user(grid_ca: GridCa, voms_server: VomsServer) -> GridUser:
    person = grid_ca.user("Grace Globus")
    voms_server.add_member(person.dn, "/testvo/Role=user")
    return person


def judge(ca: GridCa, chain: Path | Credential, at: dt.datetime | None = None) -> VerifiedChain:
    source = chain.read_bytes() if isinstance(chain, Path) else chain.ders
    return verify_chain(source, ca.trust(), ca.voms_trust(), at or now())


def openssl_accepts(ca: GridCa, file: Path, *, strict: bool = True) -> bool:
    """Strict: also what no tool of the grid heeds, such as the authority key identifier in each certificate."""
    flags = ["-allow_proxy_certs", "-crl_check_all", *["-x509_strict"] * strict]
    where = ["-CApath", ca.trust_dir, "-untrusted", file]
    return run_tool("openssl", "verify", *flags, *where, file, environment={}, check=False).returncode == 0


# ---- ours, taken by the tools

KINDS = [(False,), (True,), (False, False), (False, True), (True, False), (False, False, False, True)]


@pytest.mark.parametrize(("rsa", "delegated"), [(2048, False), (None, True)], ids=["rsa, own key", "ec, by request"])
@pytest.mark.parametrize("limits", KINDS, ids=["".join("L" if item else "F" for item in kind) for kind in KINDS])
def test_tools_take_what_we_make(
    grid_ca: GridCa,
    user: GridUser,
    myproxy_server: MyProxyServer,
    limits: Sequence[bool],
    rsa: int | None,
    delegated: bool,
) -> None:
    chain = user.credential
    for limited in limits:
        key = new_key(rsa_bits=rsa)
        if delegated:
            signed = sign_csr(make_csr(key), chain.ders, chain.key, lifetime=HOUR, limited=limited, now=now())
            chain = Credential(key, tuple(split_chain(signed)))
        else:
            chain = create_proxy(chain.ders, chain.key, lifetime=HOUR, limited=limited, now=now(), key=key)
    save_credential(chain, user.proxy)
    environment = {**user.environment(), **myproxy_server.environment()}
    assert openssl_accepts(grid_ca, user.proxy)
    run_tool("grid-proxy-info", "-exists", environment=environment)
    assert run_tool("grid-proxy-info", "-identity", environment=environment).stdout.strip() == user.dn
    kind = "limited" if any(limits) else "impersonation"
    assert run_tool("grid-proxy-info", "-type", environment=environment).stdout == f"RFC 3820 compliant {kind} proxy\n"
    assert "type      : RFC compliant proxy" in run_tool("voms-proxy-info", "--all", environment=environment).stdout
    # A handshake with a real server: it names the owner that it has recognized, of a credential that is not there.
    refused = run_tool("myproxy-info", "-l", "none-such", environment=environment, check=False)
    assert f'no credentials found for user none-such, owner "{user.dn}"' in refused.stderr


def test_tools_heed_the_path_length_that_we_set(grid_ca: GridCa, rsa_user: GridUser, tmp_path: Path) -> None:
    person = rsa_user.credential
    last = create_proxy(
        person.ders, person.key, lifetime=HOUR, limited=False, now=now(), path_length=0, key=new_key(rsa_bits=2048)
    )
    save_credential(last, rsa_user.proxy)
    assert openssl_accepts(grid_ca, rsa_user.proxy)
    child = tmp_path / "child.pem"
    # grid-proxy-init itself makes the child without a word: the verifiers refuse it.
    run_tool("grid-proxy-init", "-rfc", "-cert", rsa_user.proxy, "-key", rsa_user.proxy, "-out", child,
             environment=rsa_user.environment())  # fmt: skip
    assert not openssl_accepts(grid_ca, child)
    with pytest.raises(IdentityError, match="path length exceeded"):
        judge(grid_ca, child)


def test_a_myproxy_server_keeps_and_gives_what_we_made(
    grid_ca: GridCa, rsa_user: GridUser, myproxy_server: MyProxyServer, tmp_path: Path
) -> None:
    person = rsa_user.credential
    for limited in (False, True):
        ours = create_proxy(
            person.ders, person.key, lifetime=5 * HOUR, limited=limited, now=now(), key=new_key(rsa_bits=2048)
        )
        save_credential(ours, rsa_user.proxy)
        environment = {**rsa_user.environment(), **myproxy_server.environment()}
        name = f"ours-{limited}"
        where = ["-C", rsa_user.proxy, "-y", rsa_user.proxy]
        run_tool("myproxy-init", "-S", "-l", name, "-c", "2", *where, environment=environment, text=f"{PASSWORD}\n")
        back = tmp_path / f"{name}.pem"
        run_tool(
            "myproxy-logon", "-S", "-l", name, "-t", "1", "-o", back, environment=environment, text=f"{PASSWORD}\n"
        )
        chain = judge(grid_ca, back)
        assert (chain.identity, chain.limited) == (rsa_user.dn, limited)
        assert chain.depth == 4  # ours, the one that myproxy-init makes, the server's, and the one that is fetched
        assert chain.not_after - now() <= HOUR


# ---- theirs, judged by us


@pytest.mark.parametrize(
    ("words", "limited"),
    [
        (("-rfc",), False),
        (("-rfc", "-limited"), True),
        (("-rfc", "-bits", "4096"), False),
        (("-rfc", "-path-length", "1"), False),
        (("-rfc", "-valid", "0:20"), False),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, tuple) else "",
)
def test_grid_proxy_init(grid_ca: GridCa, rsa_user: GridUser, words: tuple[str, ...], limited: bool) -> None:
    run_tool("grid-proxy-init", *words, environment=rsa_user.environment())
    chain = judge(grid_ca, rsa_user.proxy)
    assert (chain.identity, chain.limited, chain.depth, chain.fqans) == (rsa_user.dn, limited, 1, ())
    left = int(run_tool("grid-proxy-info", "-timeleft", environment=rsa_user.environment()).stdout)
    assert abs((chain.not_after - now()).total_seconds() - left) < 5


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-old",), "legacy proxies are refused"),
        (("-draft",), "legacy proxies are refused"),
        (("-rfc", "-bits", "1024"), "weak key"),
        (("-rfc", "-pl", "1.2.3.4", "-policy", "POLICY"), "policy language not understood"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, tuple) else "",
)
def test_what_we_refuse_of_grid_proxy_init(
    grid_ca: GridCa, rsa_user: GridUser, words: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    (tmp_path / "policy").write_text("a policy")
    arguments = [str(tmp_path / "policy") if word == "POLICY" else word for word in words]
    run_tool("grid-proxy-init", *arguments, environment=rsa_user.environment())
    with pytest.raises(IdentityError, match=why):
        judge(grid_ca, rsa_user.proxy)


def test_an_independent_proxy_is_not_its_user(grid_ca: GridCa, rsa_user: GridUser) -> None:
    run_tool("grid-proxy-init", "-rfc", "-independent", environment=rsa_user.environment())
    chain = judge(grid_ca, rsa_user.proxy)
    assert chain.identity.startswith(f"{rsa_user.dn}/CN=")


def test_an_expired_and_an_early_one(grid_ca: GridCa, rsa_user: GridUser) -> None:
    run_tool("grid-proxy-init", "-rfc", "-valid", "0:10", environment=rsa_user.environment())
    with pytest.raises(IdentityError, match="expired"):
        judge(grid_ca, rsa_user.proxy, now() + HOUR / 4)
    with pytest.raises(IdentityError, match="not yet valid"):
        judge(grid_ca, rsa_user.proxy, now() - HOUR / 4)


@pytest.mark.parametrize(
    "kinds",
    [("-rfc", "-limited"), ("-limited", "-rfc"), ("-rfc", "-rfc", "-rfc", "-limited")],
    ids=lambda item: "".join(item),
)
def test_chains_of_their_proxies(grid_ca: GridCa, rsa_user: GridUser, kinds: tuple[str, ...], tmp_path: Path) -> None:
    """Globus makes a child of a limited proxy that says inheritAll: it is limited all the same."""
    source: list[str | Path] = []
    for number, kind in enumerate(kinds):
        file = tmp_path / str(number)
        flags = ["-rfc"] if kind == "-rfc" else ["-rfc", "-limited"]
        run_tool("grid-proxy-init", *flags, *source, "-out", file, environment=rsa_user.environment())
        source = ["-cert", file, "-key", file]
    chain = judge(grid_ca, file)
    assert (chain.identity, chain.limited, chain.depth) == (rsa_user.dn, True, len(kinds))
    shown = run_tool("grid-proxy-info", "-f", file, "-type", environment=rsa_user.environment()).stdout
    assert "limited" in shown


@pytest.mark.parametrize(
    ("words", "limited"), [((), False), (("--limited",), True), (("--path-length", "3"), False)], ids=str
)
def test_voms_proxy_init(grid_ca: GridCa, rsa_user: GridUser, words: tuple[str, ...], limited: bool) -> None:
    ask = ["--rfc", "--voms", "testvo:/testvo/Role=user", *words]
    run_tool("voms-proxy-init", *ask, environment=rsa_user.environment())
    chain = judge(grid_ca, rsa_user.proxy)
    assert (chain.identity, chain.limited, chain.depth) == (rsa_user.dn, limited, 1)
    shown = run_tool("voms-proxy-info", "--fqan", environment=rsa_user.environment()).stdout.split()
    assert list(chain.fqans) == shown
    assert shown[0] == "/testvo/Role=user/Capability=NULL"


def test_legacy_voms_proxies_are_refused(grid_ca: GridCa, rsa_user: GridUser) -> None:
    run_tool("voms-proxy-init", "--old", "--voms", "testvo", environment=rsa_user.environment())
    with pytest.raises(IdentityError, match="legacy"):
        judge(grid_ca, rsa_user.proxy)


def test_a_proxy_from_myproxy_goes_on_with_us(
    grid_ca: GridCa, rsa_user: GridUser, myproxy_server: MyProxyServer, tmp_path: Path
) -> None:
    """Theirs, loaded with its key, delegated further by us, taken by them."""
    environment = {**rsa_user.environment(), **myproxy_server.environment()}
    run_tool("myproxy-init", "-S", "-l", "theirs", "-c", "5", environment=environment, text=f"{PASSWORD}\n")
    run_tool("myproxy-logon", "-S", "-l", "theirs", "-o", tmp_path / "p", environment=environment, text=f"{PASSWORD}\n")
    theirs = load_credential(tmp_path / "p")
    ours = create_proxy(theirs.ders, theirs.key, lifetime=100 * HOUR, limited=True, now=now())
    save_credential(ours, rsa_user.proxy)
    chain = judge(grid_ca, rsa_user.proxy)
    assert (chain.identity, chain.limited) == (rsa_user.dn, True)
    assert chain.not_after == judge(grid_ca, theirs).not_after
    assert openssl_accepts(grid_ca, rsa_user.proxy, strict=False)
    assert run_tool("grid-proxy-info", "-identity", environment=environment).stdout.strip() == rsa_user.dn


def test_a_revoked_user_has_no_proxies(grid_ca: GridCa, tmp_path: Path) -> None:
    from broker.identity import TrustStore, parse_certificate

    mallory = grid_ca.user("Mallory Revoked")
    run_tool("grid-proxy-init", "-rfc", environment=mallory.environment())
    serial = parse_certificate(mallory.credential.leaf).serial
    grid_ca.authority.write_trust_dir(tmp_path, revoked=[serial])
    assert judge(grid_ca, mallory.proxy).identity == mallory.dn
    with pytest.raises(IdentityError, match=f"^revoked: {mallory.dn}$"):
        verify_chain(mallory.proxy.read_bytes(), TrustStore.load(tmp_path), None, now())
