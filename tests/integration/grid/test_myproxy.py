"""Our MyProxy client and a real myproxy-server; the user's side as a command."""

from __future__ import annotations

import datetime as dt
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broker.grid import myproxy
from broker.grid.errors import GridRefusedError, GridUnavailableError
from broker.identity import Credential, create_proxy, load_credential, new_key, verify_chain
from producers.commands.proxy import app
from producers.settings import MyProxySettings, UserSettings
from schemas.errors import PilotageError
from tests.support import pki
from tests.support.grid_servers import GridCa, GridUser, MyProxyServer
from tests.support.grid_tools import run_tool

pytestmark = pytest.mark.integration

HOUR = dt.timedelta(hours=1)
NAMES = iter(range(1000))


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture
def user(grid_ca: GridCa) -> GridUser:
    return grid_ca.user(f"Mina Renewed {next(NAMES)}")


@pytest.fixture
def server(grid_ca: GridCa, myproxy_server: MyProxyServer) -> myproxy.Server:
    return myproxy.Server(myproxy_server.host, grid_ca.trust_dir, myproxy_server.port)


def proxy_of(user: GridUser, *, limited: bool = False, rsa: bool = False) -> Credential:
    key = new_key(rsa_bits=2048 if rsa else None)
    his = user.credential
    return create_proxy(his.ders, his.key, lifetime=HOUR, limited=limited, now=now(), key=key)


@pytest.fixture
def left(user: GridUser, server: myproxy.Server, myproxy_server: MyProxyServer) -> GridUser:
    """A user whose long proxy lies there."""
    myproxy.put(
        server,
        user.credential,
        user.dn,
        lifetime=dt.timedelta(days=7),
        longest=12 * HOUR,
        renewer=myproxy_server.renewer_dn,
        name=myproxy.CREDENTIAL_NAME,
        now=now(),
    )
    return user


def renewed(server: myproxy.Server, who: Credential, user: GridUser, old: Credential) -> Credential:
    return myproxy.renew(server, who, user.dn, old, lifetime=12 * HOUR, name=myproxy.CREDENTIAL_NAME)


@pytest.mark.parametrize("rsa", [False, True], ids=["P-256", "RSA"])
@pytest.mark.parametrize("limited", [False, True], ids=["full", "limited"])
def test_the_service_renews_with_a_valid_proxy(
    left: GridUser, server: myproxy.Server, myproxy_server: MyProxyServer, grid_ca: GridCa, limited: bool, rsa: bool
) -> None:
    old = proxy_of(left, limited=limited, rsa=rsa)
    fresh = renewed(server, myproxy_server.renewer, left, old)
    chain = verify_chain(fresh.ders, grid_ca.trust(), None, now())
    assert (chain.identity, chain.limited) == (left.dn, limited)
    assert 11.8 * HOUR < chain.not_after - now() < 12.1 * HOUR
    assert fresh.key.public_key() != old.key.public_key()


def test_the_user_himself_cannot_renew(left: GridUser, server: myproxy.Server) -> None:
    old = proxy_of(left)
    for who in (old, left.credential):
        with pytest.raises(GridRefusedError, match="refused"):
            renewed(server, who, left, old)
        with pytest.raises(GridRefusedError, match="refused"):
            myproxy.get(server, who, left.dn, lifetime=HOUR, passphrase="", name=myproxy.CREDENTIAL_NAME)


def test_no_renewal_with_somebody_elses_proxy(
    left: GridUser, server: myproxy.Server, myproxy_server: MyProxyServer, grid_ca: GridCa
) -> None:
    thief = grid_ca.user(f"Theo Thief {next(NAMES)}")
    with pytest.raises(GridRefusedError, match="refused"):
        renewed(server, myproxy_server.renewer, left, proxy_of(thief))


def test_no_renewal_with_an_expired_proxy(
    left: GridUser, server: myproxy.Server, myproxy_server: MyProxyServer
) -> None:
    with pytest.raises((GridRefusedError, GridUnavailableError)):
        renewed(server, myproxy_server.renewer, left, pki.proxy(left.credential, end=now() - HOUR / 60))


def test_no_renewal_without_the_old_key(left: GridUser, server: myproxy.Server, myproxy_server: MyProxyServer) -> None:
    stolen = Credential(new_key(), proxy_of(left).ders)
    with pytest.raises((GridRefusedError, GridUnavailableError)):
        renewed(server, myproxy_server.renewer, left, stolen)


def test_put_get_info_destroy(user: GridUser, server: myproxy.Server, grid_ca: GridCa) -> None:
    ends = myproxy.put(
        server, user.credential, user.dn, lifetime=30 * HOUR, longest=5 * HOUR, passphrase="long enough", now=now()
    )
    told = myproxy.info(server, user.credential, user.dn)
    assert abs(int(told["CRED_END_TIME"]) - ends.timestamp()) < 2
    assert told["CRED_OWNER"] == user.dn
    fetched = myproxy.get(server, user.credential, user.dn, lifetime=12 * HOUR, passphrase="long enough")
    chain = verify_chain(fetched.ders, grid_ca.trust(), None, now())
    assert chain.identity == user.dn
    assert chain.not_after - now() < 5.1 * HOUR
    with pytest.raises(GridRefusedError, match="passphrase") as refusal:
        myproxy.get(server, user.credential, user.dn, lifetime=HOUR, passphrase="not so long")
    assert "not so long" not in str(refusal.value)
    myproxy.destroy(server, user.credential, user.dn)
    with pytest.raises(GridRefusedError, match="no credentials found"):
        myproxy.info(server, user.credential, user.dn)


def test_what_the_real_client_stored_is_renewed_and_the_other_way_round(
    user: GridUser, server: myproxy.Server, myproxy_server: MyProxyServer, grid_ca: GridCa, tmp_path: Path
) -> None:
    environment = {**user.environment(), **myproxy_server.environment()}
    run_tool(
        "myproxy-init", "-n", "-x", "-R", myproxy_server.renewer_dn, "-l", user.dn, "-c", "100", "-t", "10",
        "-k", myproxy.CREDENTIAL_NAME, environment=environment,
    )  # fmt: skip
    fresh = renewed(server, myproxy_server.renewer, user, proxy_of(user))
    assert verify_chain(fresh.ders, grid_ca.trust(), None, now()).identity == user.dn
    told = run_tool("myproxy-info", "-l", user.dn, environment=environment).stdout
    assert myproxy_server.renewer_dn in told
    run_tool("myproxy-destroy", "-l", user.dn, "-k", myproxy.CREDENTIAL_NAME, environment=environment)
    with pytest.raises(GridRefusedError, match="refused"):
        renewed(server, myproxy_server.renewer, user, proxy_of(user))


@pytest.mark.parametrize("name", ["a\nUSERNAME=other", "a\0"])
def test_a_name_cannot_become_two_lines(user: GridUser, server: myproxy.Server, name: str) -> None:
    with pytest.raises(GridRefusedError, match="line breaks"):
        myproxy.info(server, user.credential, name)


def test_a_renewer_is_no_pattern(user: GridUser, server: myproxy.Server) -> None:
    with pytest.raises(GridRefusedError, match="pattern"):
        myproxy.put(
            server, user.credential, user.dn, lifetime=HOUR, longest=HOUR, renewer="/DC=org/*", name="x", now=now()
        )


# -- servers that are not what they should be -----------------------------------------------------------------------


def test_the_servers_name_is_checked(user: GridUser, server: myproxy.Server, myproxy_server: MyProxyServer) -> None:
    other = myproxy.Server("127.0.0.2", server.trust_dir, server.port)
    for wrong in (
        myproxy.Server(server.host, server.trust_dir, server.port, dn=myproxy_server.renewer_dn),
        *([other] if _listens(other) else []),
    ):
        with pytest.raises(GridRefusedError, match=r"not /DC|another host"):
            myproxy.info(wrong, user.credential, user.dn)
    right = myproxy.Server(server.host, server.trust_dir, server.port, dn=myproxy_server.dn)
    with pytest.raises(GridRefusedError, match="no credentials"):
        myproxy.info(right, user.credential, user.dn)


def _listens(server: myproxy.Server) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((server.host, server.port)) == 0


def test_a_server_of_another_authority_is_refused(user: GridUser, server: myproxy.Server, tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    other = myproxy.Server(server.host, tmp_path / "ca", server.port)
    with pytest.raises(GridRefusedError, match="certificate is refused"):
        myproxy.info(other, user.credential, user.dn)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    kept.append(listener.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def test_a_silent_server_costs_a_bounded_time(user: GridUser, server: myproxy.Server, silent: int) -> None:
    deaf = myproxy.Server("127.0.0.1", server.trust_dir, silent, seconds=0.3)
    with pytest.raises(GridUnavailableError, match="in time"):
        myproxy.info(deaf, user.credential, user.dn)


# -- pilotage proxy init --renewable --------------------------------------------------------------------------------


def init(
    user: GridUser, server: MyProxyServer, *words: str, renewer: str | None = None, command: str = "init"
) -> Result:
    settings = UserSettings(
        ca_dir=user.trust_dir,
        user_cert=user.certificate,
        user_key=user.key,
        proxy_path=user.proxy,
        myproxy=MyProxySettings(server.host, server.port, renewer=server.renewer_dn if renewer is None else renewer),
    )
    return CliRunner().invoke(app, [command, *words], obj=settings)


def test_proxy_init_renewable(
    user: GridUser, server: myproxy.Server, myproxy_server: MyProxyServer, grid_ca: GridCa
) -> None:
    result = init(user, myproxy_server, "--renewable")
    assert result.exit_code == 0, result.output
    assert "Renewable until" in result.output
    told = myproxy.info(server, user.credential, user.dn, name=myproxy.CREDENTIAL_NAME)
    assert told["CRED_RENEWER"] == myproxy_server.renewer_dn
    days = (int(told["CRED_END_TIME"]) - now().timestamp()) / 86_400
    assert 6.9 < days < 7.1
    short = load_credential(user.proxy)
    chain = verify_chain(short.ders, grid_ca.trust(), None, now())
    assert 11.9 * HOUR < chain.not_after - now() < 12.1 * HOUR
    fresh = renewed(server, myproxy_server.renewer, user, short)
    assert verify_chain(fresh.ders, grid_ca.trust(), None, now()).identity == user.dn
    with pytest.raises(GridRefusedError, match="refused"):
        renewed(server, short, user, short)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--renewable", "--myproxy", "localhost:1"], "cannot talk"),
        (["--renewable", "--myproxy", "localhost:x"], "HOST or HOST:PORT"),
        (["--renewable", "--limited"], "--limited"),
    ],
)
def test_proxy_init_renewable_says_what_is_wrong(
    user: GridUser, myproxy_server: MyProxyServer, words: list[str], why: str
) -> None:
    result = init(user, myproxy_server, *words)
    assert result.exit_code != 0
    assert why in result.output
    assert not user.proxy.exists(), "a proxy, but nothing renews it"


def test_proxy_init_renewable_needs_a_renewer_and_an_rsa_key(
    grid_ca: GridCa, user: GridUser, myproxy_server: MyProxyServer
) -> None:
    result = init(user, myproxy_server, "--renewable", renewer="")
    assert "renewer is missing" in result.output
    curved = grid_ca.user(f"Elise Curve {next(NAMES)}", rsa=False)
    result = init(curved, myproxy_server, "--renewable")
    assert "RSA certificates only" in result.output


def test_proxy_destroy_renewable_takes_it_back(
    user: GridUser, server: myproxy.Server, myproxy_server: MyProxyServer
) -> None:
    assert init(user, myproxy_server, "--renewable").exit_code == 0
    short = load_credential(user.proxy)
    failed = init(user, myproxy_server, "--myproxy", "localhost:1", command="destroy")
    assert "cannot talk" in failed.output
    assert user.proxy.exists(), "there must be one for another try"
    gone = init(user, myproxy_server, "--renewable", command="destroy")
    assert gone.exit_code == 0, gone.output
    assert not user.proxy.exists()
    with pytest.raises(GridRefusedError, match="refused"):
        renewed(server, myproxy_server.renewer, user, short)


def test_the_family_of_errors() -> None:
    assert issubclass(GridRefusedError, PilotageError)
    assert issubclass(GridUnavailableError, PilotageError)
