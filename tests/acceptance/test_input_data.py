"""Input data by the command line only: the optimizer finds the site, the pilot fetches the files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_user_commands import User

pytestmark = [pytest.mark.acceptance, pytest.mark.integration]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user with a stack of his own."""
    user = User(tmp_path_factory.mktemp("d"))
    started = user.run("up", "--pilots", "1", "--slots", "2", timeout=120)
    try:
        assert started.returncode == 0, (started.stdout, started.stderr)
        user.ok("proxy", "init")
        yield user
    finally:
        user.run("down", timeout=120)


def storage(user: User) -> Path:
    """The folder of the private stack's storage element."""
    (folder,) = [path for path in user.home.glob(".local/share/pilotage/**/storage*") if path.is_dir()][:1]
    return folder


def submitted(user: User, text: str) -> str:
    return user.ok("submit", "-", "--output", "quiet", text=text).split()[-1]


def test_a_job_reads_what_the_catalog_knows(user: User) -> None:
    data = storage(user) / "answer.txt"
    data.write_text("42\n")
    user.ok("replica", "add", "/local/answer.txt", "SE.Local", str(data))
    job = submitted(
        user, '[ Executable = "/bin/cat"; Arguments = "answer.txt"; InputData = {"/local/answer.txt"};'
        ' OutputSandbox = {"std.out"}; ]'
    )  # fmt: skip
    user.ok("job", "wait", job)
    user.ok("job", "output", job)
    assert (user.work / job / "std.out").read_text() == "42\n"


def test_data_that_is_nowhere_is_said_with_its_name(user: User) -> None:
    job = submitted(user, '[ Executable = "/bin/true"; InputData = {"/local/nowhere"}; ]')
    assert user.run("job", "wait", job).returncode == 1
    assert "/local/nowhere" in user.ok("job", "history", job, "--output", "json")
