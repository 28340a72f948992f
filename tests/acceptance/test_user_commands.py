"""A user's day by the command line only: a private stack, a proxy, jobs, outputs, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wait import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.integration]

ROOT = Path(__file__).parents[2]


class User:
    """Somebody at a terminal, in a home of his own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.work = home / "work"
        self.work.mkdir(parents=True)
        # A data home near the root: RabbitMQ and epmd bind sockets below it, and their paths have a short limit.
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "X509_USER_PROXY": str(home / "proxy.pem"),
        }

    def run(self, *words: str, text: str = "", timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "compose.main", *words]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, env=self.environment, cwd=self.work, timeout=timeout,
            check=False,
        )  # fmt: skip

    def ok(self, *words: str, text: str = "") -> str:
        done = self.run(*words, text=text)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def json(self, *words: str, text: str = "") -> dict[str, object]:
        document: dict[str, object] = json.loads(self.ok(*words, "--output", "json", text=text))
        return document


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    user = User(tmp_path_factory.mktemp("u"))
    started = user.run("up", "--pilots", "1", "--slots", "2", timeout=120)
    try:
        assert started.returncode == 0, (started.stdout, started.stderr)
        user.ok("proxy", "init")
        yield user
    finally:
        user.run("down", timeout=120)


def test_submit_wait_fetch(user: User) -> None:
    (user.work / "hello.sh").write_text('#!/bin/sh\necho "hello $1"\nhead -c 700000 /dev/zero > zeros\n')
    (user.work / "hello.sh").chmod(0o755)
    (user.work / "hello.jdl").write_text(
        '[ Executable = "hello.sh"; Arguments = "%n"; Parameters = 2; InputSandbox = "hello.sh";\n'
        '  OutputSandbox = {"std.out", "zeros"}; JobGroup = "greetings"; ]'
    )
    submitted = user.json("submit", "hello.jdl", "--key", "greetings-1")
    first = submitted["first"]
    assert isinstance(first, int)
    assert user.json("submit", "hello.jdl", "--key", "greetings-1") == submitted
    jobs = f"{first}-{first + 1}"
    assert user.json("job", "wait", jobs, "--timeout", "60") == {"jobs": {str(first): "Done", str(first + 1): "Done"}}
    user.ok("job", "output", jobs, "--dir", "out")
    assert (user.work / "out" / str(first + 1) / "std.out").read_text() == "hello 1\n"
    assert (user.work / "out" / str(first) / "zeros").stat().st_size == 700_000
    listed = user.ok("job", "list", "--group", "greetings", "--output", "quiet").split()
    assert listed == [str(first + 1), str(first)]
    statuses = user.ok("job", "history", str(first), "--output", "quiet").split()
    assert (statuses[0], statuses[-1]) == ("Received", "Done")
    assert f"job {first}  Done" in user.ok("watch", "--since", "first", "--until-now")


def test_large_input_sandbox(user: User) -> None:
    (user.work / "large.bin").write_bytes(os.urandom(1_000_000))
    jdl = '[ Executable = "cksum"; Arguments = "large.bin"; InputSandbox = "large.bin"; OutputSandbox = "std.out"; ]'
    job = user.ok("submit", "-", "--wait", "--output", "quiet", text=jdl).split()[0]
    user.ok("job", "output", job)
    expected = subprocess.run(["cksum", "large.bin"], cwd=user.work, capture_output=True, check=True).stdout
    assert (user.work / job / "std.out").read_bytes() == expected


def test_kill_reschedule_delete(user: User) -> None:
    job = user.ok("submit", "-", "-o", "quiet", text='[ Executable = "/bin/sleep"; Arguments = "300"; ]').strip()
    wait_until(lambda: user.ok("job", "show", job, "-o", "quiet") == "Running\n", 30, "the payload to start")
    user.ok("job", "kill", job)
    ended = user.run("job", "wait", job, "--timeout", "15", "--output", "json")
    assert (ended.returncode, json.loads(ended.stdout)) == (1, {"jobs": {job: "Killed"}})
    user.ok("job", "reschedule", job)
    user.ok("job", "kill", job)
    user.run("job", "wait", job, "--timeout", "15")
    user.ok("job", "delete", job)
    assert job not in user.ok("job", "list", "--output", "quiet").split()


def test_a_failing_job_is_a_no(user: User) -> None:
    done = user.run("submit", "-", "--wait", text='[ Executable = "/bin/false"; ]')
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "1 Failed"


def test_why_a_job_waits(user: User) -> None:
    picky = '[ Executable = "/bin/true"; Tags = {"no-such-tag"}; ]'
    dry = user.run("submit", "-", "--dry-run", "--output", "json", text=picky)
    assert dry.returncode == 1, dry.stderr
    (weighed,) = json.loads(dry.stdout)["classes"]
    assert [one["condition"] for one in weighed["outlook"]["obstacles"]] == ["tags"]
    assert user.run("queue", "list").stderr == "Nothing is waiting.\n"
    job = user.ok("submit", "-", "--output", "quiet", text=picky).strip()
    told = user.json("job", "explain", job)
    assert told["outlook"] == weighed["outlook"]
    queue = user.ok("queue", "list", "--output", "quiet").strip()
    assert told["queue"] == int(queue)
    assert user.ok("queue", "show", queue, "--output", "quiet").strip() == job
    assert "would fit but for one condition, tags" in user.ok("job", "explain", job)
    user.ok("job", "delete", job)
    fits = user.run("submit", "-", "--dry-run", text='[ Executable = "/bin/true"; ]')
    assert (fits.returncode, fits.stderr) == (0, "")
    assert "Wait:        any moment now: a pilot that fits asks for a job at this moment" in fits.stdout
    assert user.run("job", "explain", "999999").returncode == 5


def test_replicas(user: User) -> None:
    (user.work / "data").write_text("data\n")
    user.ok("replica", "add", "LFN:/local/data", "SE.Local", "data")
    files = user.json("replica", "list", "/local/data")["files"]
    assert isinstance(files, list)
    assert files[0]["size"] == 5
    assert user.run("replica", "list", "/local/none").returncode == 1


def test_what_is_not_there(user: User) -> None:
    assert user.run("job", "show", "999999").returncode == 5
    assert user.run("job", "wait", "999999").returncode == 5
    assert user.run("job", "kill", "999999").returncode == 1
    assert user.run("submit", "none.jdl").returncode == 2


def test_same_key_for_something_else(user: User) -> None:
    user.ok("submit", "-", "--key", "twice", text='[ Executable = "/bin/true"; ]')
    done = user.run("submit", "-", "--key", "twice", text='[ Executable = "/bin/false"; ]')
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)


def test_no_proxy_and_a_foreign_one(user: User, tmp_path: Path) -> None:
    kept = user.environment["X509_USER_PROXY"]
    user.environment["X509_USER_PROXY"] = str(tmp_path / "none.pem")
    try:
        done = user.run("job", "list")
        assert (done.returncode, "pilotage proxy init" in done.stderr) == (4, True)
        (tmp_path / "none.pem").write_text("no proxy at all")
        (tmp_path / "none.pem").chmod(0o600)
        done = user.run("job", "list")
        assert done.returncode == 4
        assert "Traceback" not in done.stderr
    finally:
        user.environment["X509_USER_PROXY"] = kept
