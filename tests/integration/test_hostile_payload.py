"""A payload that runs under the pilot's own account gets at nothing that the pilot holds in memory.

The pilot is a real one, enrolled with its secret in the environment (the worst of the places that are allowed), and so
is the payload. Both run as an ordinary account: the super-user may read everything, whoever forbids it. The payload
tries the same on a process of its own, where all of it must work.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.enrolment import EnrolmentSecret
from broker.identity import load_credential
from compose.local.configs import SITE
from pilot.stagehand import PROXY_FILE
from producers.enrolments import create, listing
from schemas.job import FINAL
from tests.support.deployment import Deployment, deployment
from tests.support.servers import server_folder
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAYLOAD = Path(__file__).parents[1] / "support" / "curious_payload.py"
NOBODY = 65534
ORDINARY = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"] if os.geteuid() == 0 else []
"""Where the tests run as the super-user, as in a container, pilot and payload must not."""


def _ours() -> dict[str, str]:
    """Environment in which another interpreter of the same version finds what this one imports."""
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])}


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter that an ordinary account can run: ours may lie in the super-user's home."""
    environment = {**_ours(), "PATH": "/usr/bin:/bin"}
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        command = [*ORDINARY, "/usr/bin/env", candidate, "-c", "import cryptography.x509, msgspec, compose.pilot"]
        if subprocess.run(command, cwd="/", env=environment, capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.fail(f"uid {NOBODY} may run no interpreter like {sys.version}: put one outside of {Path.home()}")


@dataclass
class Node:
    """A worker node.

    Attributes:
        place: the deployment that it works for.
        folder: all that is there.
        config: of the pilot.
        python: runs it.
    """

    place: Deployment
    folder: Path
    config: Path
    python: str

    @property
    def environment(self) -> dict[str, str]:
        """Of the pilot: whatever it writes lies in the node's folder."""
        return {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"), **_ours()}

    @property
    def command(self) -> list[str]:
        """The pilot's command line."""
        # By env: it is looked up by the account that it will have, and not by the one that starts it.
        return [*ORDINARY, "/usr/bin/env", self.python, "-P", "-m", "compose.pilot", "--config", str(self.config)]

    @contextmanager
    def pilot(self, secret: EnrolmentSecret, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A pilot at work, once it has logged in."""
        ready = self.folder / "home" / "ready"
        ready.unlink(missing_ok=True)
        process = subprocess.Popen(
            [*self.command, "--ready-file", str(ready)],
            cwd=self.folder / "home",
            env={"PATH": os.environ["PATH"], **self.environment, **environment},
            stdin=subprocess.PIPE,
        )
        try:
            assert process.stdin is not None
            if not environment:
                process.stdin.write(secret.text().encode())
            process.stdin.close()
            wait_until(lambda: ready.exists() or process.poll() is not None, 30, "the pilot to log in")
            assert process.poll() is None
            yield process
        finally:
            process.terminate()
            process.wait(40)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("hostile")) as running:
        yield running


@pytest.fixture
def node(place: Deployment, python: str) -> Iterator[Node]:
    with server_folder("pilotage-node-") as folder:
        folder.chmod(0o755)
        shutil.copytree(place.layout.trust, folder / "trust")
        shutil.copy(place.layout.tls / "ca.pem", folder / "ca.pem")
        for name in ("home", "work", "se", "tmp"):
            (folder / name).mkdir(mode=0o700)
            if ORDINARY:
                os.chown(folder / name, NOBODY, NOBODY)
        for path in [folder / "trust", *(folder / "trust").iterdir(), folder / "ca.pem"]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield Node(place, folder, folder / "pilot.toml", python)


def configure(node: Node, enrolment: str) -> None:
    """Write the pilot's settings: those of a certified pilot, with an enrolment instead, and in its own folder."""
    layout = node.place.layout
    lines = layout.pilot_config(1).read_text("utf-8").splitlines()
    lines = [line for line in lines if not line.startswith(("credential =", "enrolment =", "slots ="))]
    start = lines.index("[pilot]") + 1
    text = "\n".join([*lines[:start], f'enrolment = "{enrolment}"', "slots = 1", *lines[start:]])
    moved = {
        layout.trust: node.folder / "trust",
        layout.tls / "ca.pem": node.folder / "ca.pem",
        layout.pilot_work(1): node.folder / "work",
        layout.storage: node.folder / "se",
    }
    for old, new in moved.items():
        text = text.replace(str(old), str(new))
    node.config.write_text(text, "utf-8")
    node.config.chmod(0o644)


def fresh_secret(place: Deployment) -> EnrolmentSecret:
    operator = load_credential(place.layout.user_certificate, key=place.layout.user_key)
    with place.client(operator) as client:
        (new,) = create(client, 1, site=SITE, expires=time.time() + 600, life_seconds=86_400.0)
    return new.secret


def run_payload(node: Node, tmp_path: Path, *arguments: str) -> dict[str, object]:
    """Run the curious payload as a job; its report."""
    description = f"""[
        Executable = "{node.python}";
        Arguments = "{" ".join([PAYLOAD.name, *arguments])}";
        InputSandbox = {{"{PAYLOAD}"}};
        OutputSandbox = {{"report.json", "std.out", "std.err"}};
        CPUTime = 600;
    ]"""
    with node.place.client() as client:
        (job,) = client.submit([description]).ids
        assert client.wait([job], 90)[job] in FINAL
        detail = client.job(job)
        folder = tmp_path / "output"
        client.output(detail, folder)
    files = {file.name: file for file in folder.rglob("*") if file.is_file()}
    assert "report.json" in files, (detail.history[-1], [file.read_text() for file in files.values()])
    found: dict[str, object] = json.loads(files["report.json"].read_text())
    return found


@pytest.mark.parametrize("source", ["env", "-"])
def test_the_pilots_memory_is_its_own(node: Node, tmp_path: Path, source: str) -> None:
    configure(node, source)
    secret = fresh_secret(node.place)
    variables = {"PILOTAGE_ENROLMENT": secret.text()} if source == "env" else {}
    with node.pilot(secret, **variables):
        report = run_payload(node, tmp_path, "look", str(node.folder))
    assert report["uid"] == (NOBODY if ORDINARY else os.geteuid())
    control = report["control"]
    assert isinstance(control, dict)
    assert all(control.values()), f"these attempts prove nothing here: {control}"
    for who in ("pilot", "keeper"):
        got = report[who]
        assert isinstance(got, dict)
        assert not any(got.values()), f"the payload got at the {who}: {got}"
    assert not report["core limit"]
    assert all("compose.pilot" in name for name in report["names"])  # it attacked what it meant to
    assert report["commands"] == []
    assert report["open"] == []
    environment = report["environment"]
    assert isinstance(environment, dict)
    assert "PILOTAGE_ENROLMENT" not in environment
    assert secret.text() not in json.dumps(report)
    # Of all files that this account may read, one holds a key: the proxy of the payload's own job.
    assert report["key files"] == [environment["X509_USER_PROXY"]]


def test_a_crash_leaves_no_memory_behind(node: Node, tmp_path: Path) -> None:
    configure(node, "-")
    secret = fresh_secret(node.place)
    with node.place.client() as client, node.pilot(secret) as pilot:
        (job,) = client.submit(
            [
                f"""[Executable = "{node.python}"; CPUTime = 600;
                Arguments = "curious_payload.py crash {node.folder}";
                InputSandbox = {{"{PAYLOAD}"}};]"""
            ]
        ).ids
        # It may kill the pilot: both have one account. What it gets by that is an end, no more.
        assert pilot.wait(60) != 0
        client.kill([job])
    # Its keeper has wiped the folders of its jobs, and their owners' proxies with them.
    left = [file for file in node.folder.rglob("*") if file.is_file()]
    assert not [file for file in left if file.name in {PROXY_FILE, PAYLOAD.name}]
    assert not [file for file in left if file.name.startswith("core")]
    scalar = secret.key.private_numbers().private_value.to_bytes(32, "big")
    own = [scalar, secret.text().encode(), b"PRIVATE KEY"]
    for file in left:
        data = file.read_bytes()
        assert not any(shape in data for shape in own), file


def put_secret(file: Path, secret: EnrolmentSecret) -> None:
    file.write_text(secret.text() + "\n")
    file.chmod(0o600)
    if ORDINARY:
        os.chown(file, NOBODY, NOBODY)


def test_the_secrets_file_is_gone_once_it_is_used(node: Node) -> None:
    file = node.folder / "home" / "secret"
    configure(node, str(file))
    secret = fresh_secret(node.place)
    put_secret(file, secret)
    with node.pilot(secret):
        assert not file.exists()
        put_secret(file, secret)  # a copy, for another pilot: it is refused, and the copy removed, too
        home, environment = node.folder / "home", {"PATH": os.environ["PATH"], **node.environment}
        done = subprocess.run(
            node.command, cwd=home, env=environment, capture_output=True, text=True, timeout=90, check=False
        )
    assert done.returncode == 1
    assert "used before" in done.stderr
    assert secret.text() not in done.stderr
    assert not file.exists()
    operator = load_credential(node.place.layout.user_certificate, key=node.place.layout.user_key)
    with node.place.client(operator) as client:
        found = {one.id: one for one in listing(client).enrolments}[secret.id]
    assert found.state == "enrolled"
    assert found.reused > 0


def test_the_node_of_this_test_is_as_it_should_be(node: Node) -> None:
    for name in ("home", "work"):
        assert stat.S_IMODE((node.folder / name).stat().st_mode) == 0o700
