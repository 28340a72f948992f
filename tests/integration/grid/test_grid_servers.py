"""The private servers of the grid answer the grid's own tools; what other tests build on."""

from __future__ import annotations

import pytest

from tests.support.grid_servers import GridCa, GridUser, MyProxyServer, VomsServer
from tests.support.grid_tools import run_tool

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def member(grid_ca: GridCa, voms_server: VomsServer) -> GridUser:
    user = grid_ca.user("Ada Tester")
    voms_server.add_member(user.dn, "/testvo/analysis", "/testvo/Role=user", nickname="ada")
    return user


def test_voms_server_gives_a_member_the_groups_and_roles_asked_for(member: GridUser) -> None:
    environment = member.environment()
    run_tool("voms-proxy-init", "--rfc", "--voms", "testvo:/testvo/Role=user", environment=environment)
    shown = run_tool("voms-proxy-info", "--fqan", environment=environment).stdout.split()
    assert shown == [
        "/testvo/Role=user/Capability=NULL",
        "/testvo/Role=NULL/Capability=NULL",
        "/testvo/analysis/Role=NULL/Capability=NULL",
    ]


def test_voms_server_refuses_who_is_no_member(grid_ca: GridCa, voms_server: VomsServer) -> None:
    stranger = grid_ca.user("Mallory Stranger")
    result = run_tool("voms-proxy-init", "--rfc", "--voms", "testvo", environment=stranger.environment(), check=False)
    assert result.returncode != 0
    assert "unknown to this VO" in result.stdout + result.stderr


def test_members_come_and_go_while_the_server_runs(grid_ca: GridCa, voms_server: VomsServer) -> None:
    user = grid_ca.user("Grace O'Quote")
    ask = ("voms-proxy-init", "--rfc", "--voms", "testvo:/testvo/Role=user")
    voms_server.add_member(user.dn, "/testvo/Role=user")
    run_tool(*ask, environment=user.environment())
    voms_server.remove_role(user.dn, "/testvo/Role=user")
    assert run_tool(*ask, environment=user.environment(), check=False).returncode != 0
    voms_server.remove_member(user.dn)
    assert run_tool(*ask[:-1], "testvo", environment=user.environment(), check=False).returncode != 0


def test_myproxy_server_stores_and_gives_a_proxy(member: GridUser, myproxy_server: MyProxyServer) -> None:
    environment = {**member.environment(), **myproxy_server.environment()}
    word = "a password of the test"
    run_tool("myproxy-init", "-n", "-x", "-R", myproxy_server.renewer_dn, "-l", "ada-n", environment=environment)
    run_tool("myproxy-init", "-S", "-l", "ada", "-c", "24", "-t", "12", environment=environment, text=f"{word}\n")
    target = member.home / "from-myproxy.pem"
    run_tool("myproxy-logon", "-S", "-l", "ada", "-o", target, environment=environment, text=f"{word}\n")
    assert "proxy" in run_tool("grid-proxy-info", "-f", target, environment=environment).stdout
