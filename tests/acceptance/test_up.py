"""The private stack as a user sees it: by the command line only."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from tests.support.command_line import ROOT, CommandLine
from tests.support.wait import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.integration]

HELLO = str(ROOT / "examples" / "hello.jdl")


def test_up_submit_down_and_up_again_with_jobs_intact(fresh_user: CommandLine, tmp_path: Path) -> None:
    run = fresh_user.run
    assert not fresh_user.json("status", code=1)["up"]

    first = run("up")
    assert "pilotage proxy init" in first
    assert "examples/hello.jdl" in first
    status = fresh_user.json("status")
    assert status["up"]
    assert {process["name"] for process in status["processes"]} == {
        "epmd", "rabbitmq", "services", "pilot-1", "pilot-2"
    }  # fmt: skip
    assert all(
        process["pid"] and process["memory_mb"] > 0 for process in status["processes"] if process["name"] != "epmd"
    )
    assert "Already up" in run("up")

    run("proxy", "init")
    job = run("submit", HELLO, "--output", "quiet").strip()
    run("job", "wait", job, "--timeout", "60")
    run("job", "output", job, "--dir", str(tmp_path))
    assert "Hello, world!" in (tmp_path / job / "hello.txt").read_text()
    assert fresh_user.json("status")["jobs"] == {"Done": 1}

    assert "Down" in run("down")
    assert fresh_user.processes() == []
    assert not fresh_user.json("status", code=1)["up"]
    assert "not up" in run("down")

    run("up")
    assert fresh_user.json("status")["jobs"] == {"Done": 1}
    second = run("submit", HELLO, "--wait", "--timeout", "60", "--output", "quiet").split()[0]
    assert int(second) == int(job) + 1
    run("down", "--purge", "--yes")
    assert not fresh_user.data.exists()


def test_waiting_and_running_jobs_survive_a_restart(fresh_user: CommandLine, tmp_path: Path) -> None:
    run = fresh_user.run
    jdl = tmp_path / "sleep.jdl"
    jdl.write_text('[Executable = "sleep"; Arguments = "2"; Parameters = 4; JobName = "sleep-%n"]')
    run("up", "--pilots", "1", "--slots", "1")
    run("proxy", "init")
    ids = run("submit", str(jdl), "--output", "quiet").split()
    run("down")
    run("up")
    run("job", "wait", *ids, "--timeout", "90")
    assert fresh_user.json("status")["jobs"] == {"Done": 4}
    run("down")


def test_what_was_killed_is_started_again(fresh_user: CommandLine) -> None:
    run = fresh_user.run
    run("up", "--pilots", "1")
    before = {process["name"]: process["pid"] for process in fresh_user.json("status")["processes"]}
    for name in ("services", "pilot-1"):
        os.kill(before[name], signal.SIGKILL)
    assert "Not all up" in run("status", code=1)
    run("up")
    after = {process["name"]: process["pid"] for process in fresh_user.json("status")["processes"]}
    assert after["rabbitmq"] == before["rabbitmq"]
    assert after["services"] != before["services"]
    run("up", "--pilots", "0")
    assert "pilot-1" not in {process["name"] for process in fresh_user.json("status")["processes"]}
    run("down")
    # What was killed of the first pilot is its keeper: the pilot itself then ends in order, in its own time.
    wait_until(lambda: fresh_user.processes() == [], 40, "nothing runs any more")


def test_a_failing_start_says_what_failed_and_leaves_nothing(fresh_user: CommandLine) -> None:
    fresh_user.run("up", "--pilots", "0")
    fresh_user.run("down")
    (fresh_user.data / "services" / "master.key").write_text("no key")
    process = fresh_user.start("up")
    output, errors = process.communicate(timeout=120)
    assert process.returncode != 0, output
    assert "services" in errors
    assert fresh_user.processes() == []


def test_an_interrupted_start_leaves_nothing(fresh_user: CommandLine) -> None:
    process = fresh_user.start("up")
    assert process.stdout is not None
    process.stdout.readline()  # the broker is up
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert fresh_user.processes() == []


def test_everything_is_its_owners_alone(fresh_user: CommandLine) -> None:
    fresh_user.run("up", "--pilots", "1")
    fresh_user.run("down")
    assert stat.S_IMODE(fresh_user.data.stat().st_mode) == 0o700
    written = [file for file in (fresh_user.data / "pilots").rglob("*") if file.is_file()]
    assert written
    for file in written:  # no pilot has a key on disk, nor its secret
        assert b"PRIVATE KEY" not in file.read_bytes(), file
        assert b"pilotage-enrol-1" not in file.read_bytes(), file
    for name in (
        "ca/authority.pem",
        "user/userkey.pem",
        "services/master.key",
        "services/pilot-authority-ca.pem",
        "server.toml",
        "store/pilotage.sqlite",
    ):
        assert stat.S_IMODE((fresh_user.data / name).stat().st_mode) == 0o600, name


def test_purge_asks_and_removes_only_what_is_ours(fresh_user: CommandLine, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    fresh_user.run("down", "--purge", "--yes", "--data-dir", str(foreign), code=2)
    fresh_user.run("up", "--data-dir", str(foreign), code=2)
    assert [file.name for file in foreign.iterdir()] == ["thesis.tex"]
    fresh_user.run("up", "--pilots", "0")
    fresh_user.run("down", "--purge", code=2)  # no terminal to ask at
    assert fresh_user.data.exists()
    fresh_user.run("down")
