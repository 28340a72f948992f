"""`pilotage proxy init --voms` against a real VOMS server, read by voms-proxy-info and by ourselves."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from compose.local.ports import free_port
from producers.commands.proxy import app
from tests.support.grid_servers import HOST_DN, GridCa, GridUser, VomsServer
from tests.support.grid_tools import run_tool

pytestmark = pytest.mark.integration

ROLE = "/testvo/Role=user"


@pytest.fixture(scope="module")
def member(grid_ca: GridCa, voms_server: VomsServer, other_voms_server: VomsServer) -> GridUser:
    user = grid_ca.user("Ada Typist")
    voms_server.add_member(user.dn, "/testvo/analysis", ROLE)
    other_voms_server.add_member(user.dn)
    return user


@pytest.fixture(autouse=True)
def his_shell(member: GridUser, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in member.environment().items():
        monkeypatch.setenv(name, value)
    member.proxy.unlink(missing_ok=True)


def init(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def seen_by_voms(member: GridUser) -> list[str]:
    return run_tool("voms-proxy-info", "--fqan", environment=member.environment()).stdout.split()


def test_a_vo_is_enough(member: GridUser) -> None:
    result = init("--voms", "testvo")
    assert result.exit_code == 0, result.output
    assert "/testvo/Role=NULL/Capability=NULL" in result.stdout
    assert result.stderr == ""
    assert seen_by_voms(member)[0] == "/testvo/Role=NULL/Capability=NULL"
    run_tool("voms-proxy-info", "--acexists", "testvo", environment=member.environment())
    whole = run_tool("voms-proxy-info", "--all", environment=member.environment()).stdout
    assert "type      : RFC compliant proxy" in whole


def test_groups_roles_and_vos_in_the_order_of_the_words(member: GridUser) -> None:
    words = ["--voms", "testvo:/testvo/analysis", "--voms", "vo.example.org", "--voms", f"testvo:{ROLE}"]
    result = init(*words, "--valid", "1:30", "--rsa", "--limited", "--output", "json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert [ac["vo"] for ac in printed["acs"]] == ["testvo", "vo.example.org"]
    assert seen_by_voms(member) == [
        "/testvo/analysis/Role=NULL/Capability=NULL",
        f"{ROLE}/Capability=NULL",
        "/testvo/Role=NULL/Capability=NULL",
        "/vo.example.org/Role=NULL/Capability=NULL",
    ]
    found = json.loads(CliRunner().invoke(app, ["info", "--output", "json"]).stdout)
    assert (found["valid"], found["limited"], [ac["valid"] for ac in found["acs"]]) == (True, True, [True, True])
    left = dt.datetime.fromisoformat(found["acs"][0]["not_after"]) - dt.datetime.now(dt.UTC)
    assert abs(left - dt.timedelta(minutes=90)) < dt.timedelta(minutes=1)


def test_info_shows_groups_and_their_end(member: GridUser) -> None:
    assert init("--voms", "testvo").exit_code == 0
    shown = CliRunner().invoke(app, ["info"])
    assert shown.exit_code == 0
    assert "/testvo/analysis/Role=NULL/Capability=NULL" in shown.stdout
    assert shown.stdout.count("left)") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--voms", "testvo:/testvo/Role=none-such"], "Unable to satisfy"),
        (["--voms", "testvo", "--voms", "vo.example.org:/vo.example.org/Role=x"], "Unable to satisfy"),
        (["--voms", "no-such-vo"], "no VOMS server is known for no-such-vo: looked in "),
        (["--voms", "testvo:/other/group"], "its groups begin with /testvo"),
        (["--voms", "testvo:"], "VO:/group/Role=role"),
        (["--voms", "testvo:analysis"], "an FQAN must look like"),
        (["--voms", "testvo", "--vomses", "/none/such"], "looked in /none/such"),
    ],
)
def test_without_the_attributes_no_proxy_is_written(member: GridUser, words: list[str], said: str) -> None:
    result = init(*words)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not member.proxy.exists()


def test_the_next_server_of_a_vo_is_tried(member: GridUser, voms_server: VomsServer, tmp_path: Path) -> None:
    dead = f'"testvo" "localhost" "{free_port()}" "{HOST_DN}" "testvo"\n'
    (tmp_path / "vomses").write_text(dead + voms_server.vomses_line)
    assert init("--voms", "testvo", "--vomses", tmp_path / "vomses").exit_code == 0
    (tmp_path / "vomses").write_text(dead)
    member.proxy.unlink()
    result = init("--voms", "testvo", "--vomses", tmp_path / "vomses")
    assert result.exit_code == 1
    assert "try again later" in result.stderr
    assert not member.proxy.exists()


def test_attributes_that_would_not_count_here_are_told(
    member: GridUser, grid_ca: GridCa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vomsdir").mkdir()
    monkeypatch.setenv("X509_VOMS_DIR", str(tmp_path / "vomsdir"))
    result = init("--voms", "testvo")
    assert result.exit_code == 0
    assert "would not count here: AC issuer not in LSC of testvo" in result.stderr


@pytest.mark.parametrize("valid", ["x", "1:60", "-1", "", "1:1:1"])
def test_a_lifetime_that_is_none_is_a_usage_error(valid: str) -> None:
    assert init("--valid", valid).exit_code == 2


def test_a_lifetime_in_hours_and_minutes(member: GridUser) -> None:
    assert init("--valid", "0:30").exit_code == 0
    left = int(run_tool("grid-proxy-info", "-timeleft", environment=member.environment()).stdout)
    assert 29 * 60 < left <= 30 * 60
