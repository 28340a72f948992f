"""Proxies of jobs through every wing: renewed while the payload runs, and one of a submission's own."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from producers import Client
from producers.commands.repository import app
from schemas.errors import InvalidInputError
from schemas.job import JobStatus
from schemas.messages.proxies import StoredProxy
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

ISSUED = 24.0
"""Seconds that a pilot's proxy lives here: a payload of twice that needs a second one."""


def short_lived(text: str) -> str:
    """The services' configuration, with times that a test can wait for."""
    return text + f"\n[proxies]\nissue_floor = {ISSUED}\nissue_ceiling = {ISSUED}\nlook = 0.5\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("proxies"), change=short_lived) as running, running.running_pilot(1):
        yield running


@pytest.fixture(scope="module")
def client(place: Deployment) -> Iterator[Client]:
    with place.client() as one:
        yield one


def described(folder: Path, script: str) -> Path:
    path = folder / "run.sh"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    jdl = folder / "job.jdl"
    jdl.write_text('Executable = "run.sh"; InputSandbox = {"run.sh"}; OutputSandbox = {"std.out"};')
    return jdl


def output(client: Client, job: int, folder: Path) -> str:
    (path,) = client.output(job, folder)
    return path.read_text()


WATCH = """
first=$(openssl x509 -in $X509_USER_PROXY -noout -serial -enddate -checkend 0 | tr '\\n' ' ')
echo "first $first"
n=0
while [ $n -lt 900 ]; do
  if ! openssl x509 -in $X509_USER_PROXY -noout -checkend 0 > /dev/null; then echo "EXPIRED after $n"; exit 3; fi
  openssl pkey -in $X509_USER_PROXY -noout || { echo "BROKEN after $n"; exit 4; }
  now=$(openssl x509 -in $X509_USER_PROXY -noout -serial -enddate -checkend 0 | tr '\\n' ' ')
  if [ "$now" != "$first" ]; then
    echo "second $now"; stat -c %a $X509_USER_PROXY
    openssl x509 -in $X509_USER_PROXY -noout -text | grep 3536.1.1.1.9
    exit 0
  fi
  sleep 0.1
  n=$((n + 1))
done
echo "never"
exit 5
"""


def test_a_running_job_gets_a_new_proxy_before_the_old_one_ends(client: Client, tmp_path: Path) -> None:
    submission = client.submit([described(tmp_path, WATCH)])
    statuses = client.wait(submission.ids, timeout=150)
    text = output(client, submission.first, tmp_path / "out")
    assert statuses[submission.first] is JobStatus.DONE, text
    assert "second" in text
    assert "600" in text
    assert "3536.1.1.1.9" in text, "limited, as the first one was"


def test_a_submission_with_its_own_proxy(place: Deployment, tmp_path: Path) -> None:
    script = "openssl x509 -in $X509_USER_PROXY -noout -serial -issuer; while [ ! -e $HOME/../go ]; do sleep 0.1; done"
    with place.client(place.user(hours=80)) as client:
        script = script.replace("$HOME/../go", str(tmp_path / "go"))
        own = client.submit([described(tmp_path, script)], proxy_hours=72)
        usual = client.submit([described(tmp_path, script)])
        everything = list(client.repository.proxies())
        assert [(one.submission > 0, one.jobs) for one in everything] == [(False, 2), (True, 1)]
        account, single = everything
        assert account.not_after - time.time() < 12.1 * 3600
        assert 71.9 * 3600 < single.not_after - time.time() < 72.1 * 3600
        for number in (own.first, usual.first):
            wait_until(lambda: client.job(number).summary.status is JobStatus.RUNNING, 40, "both run")  # noqa: B023
        (tmp_path / "go").touch()
        client.wait([*own.ids, *usual.ids], timeout=60)
        issuers = [issuer_of(output(client, job, tmp_path / "out")) for job in (own.first, usual.first)]
        assert issuers[0] != issuers[1], "made from two stored proxies"

        def stored() -> list[StoredProxy]:
            return list(client.repository.proxies())

        wait_until(lambda: [one.submission for one in stored()] == [0], 20, "the submission's proxy is destroyed")


def issuer_of(text: str) -> str:
    found = re.search(r"^issuer=.*$", text, re.MULTILINE)
    assert found is not None, text
    return found[0]


def test_no_longer_proxy_than_the_users_own(place: Deployment, client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"proxy init --hours 73"):
        client.submit(['Executable = "/bin/true";'], proxy_hours=72)
    with pytest.raises(InvalidInputError, match="at most 168 h"):
        client.submit(['Executable = "/bin/true";'], proxy_hours=200)


def test_the_master_key_is_rotated_while_everything_runs(place: Deployment, client: Client, tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    before = client.repository.status()
    assert [(key.newest, key.at_hand) for key in before.keys] == [(True, True)]
    assert before.keys[0].rows >= 1
    fresh = place.layout.master_key.with_name("second.key")
    fresh.touch(mode=0o600)
    fresh.write_bytes(Fernet.generate_key())
    config = place.layout.server_config
    old = str(place.layout.master_key)
    config.write_text(config.read_text().replace(f'["{old}"]', f'["{fresh}", "{old}"]'))
    answer = client.repository.reencrypt()
    assert answer.done >= 1
    assert (answer.unreadable, answer.left) == (0, 0)
    newest, former = answer.keys
    assert (former.id, former.rows) == (before.keys[0].id, 0)
    assert newest.rows >= 1
    submission = client.submit([described(tmp_path, "true")])
    assert client.wait(submission.ids, timeout=60)[submission.first] is JobStatus.DONE


def test_the_commands(place: Deployment, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.submit(['Executable = "/bin/true";'])
    proxy = place.layout.root / "proxy.pem"
    proxy.touch(mode=0o600)
    proxy.write_bytes(place.user().to_pem())
    monkeypatch.setenv("X509_USER_PROXY", str(proxy))
    settings = client._settings
    runner = CliRunner()
    shown = runner.invoke(app, ["status"], obj=settings)
    assert "newest: encrypts" in shown.output, shown.output
    shown = runner.invoke(app, ["list"], obj=settings)
    assert client.identity[:20] in shown.output
    assert "account" in shown.output
    assert runner.invoke(app, ["reencrypt"], obj=settings).exit_code == 0
    gone = runner.invoke(app, ["delete", client.identity, "--reason", "test"], obj=settings)
    assert "1 proxy deleted" in gone.output
    assert runner.invoke(app, ["delete", client.identity], obj=settings).exit_code == 1
