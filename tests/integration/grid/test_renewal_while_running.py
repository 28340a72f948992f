"""The whole story: a grid user leaves a long proxy, submits, and his running job goes on with renewed proxies.

Real RabbitMQ, all services, a pilot as a process, a real myproxy-server and a real voms-server.
"""

from __future__ import annotations

import re
import shutil
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.identity import load_credential
from compose.settings import load_user_settings
from consumers.store import proxies
from consumers.store.proxies import Proxy
from producers import Client
from producers.commands.proxy import app
from producers.settings import MyProxySettings, UserSettings
from schemas.job import JobStatus
from schemas.messages.proxies import ProxyRenewal
from tests.support.deployment import Deployment, deployment
from tests.support.grid_servers import GridCa, GridUser, MyProxyServer, VomsServer
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

FQAN = "/testvo/Role=user"
GROUP = "testvo_user"

REGISTRY = """
[groups.{group}]
fqan = "{fqan}"
properties = ["NormalUser", "Operator", "JobMonitor"]

[[users]]
dn = "{dn}"
nickname = "gridder"
groups = ["{group}"]
"""

SERVER = """
[proxies]
issue_floor = 24.0
issue_ceiling = 24.0
look = 0.5

[myproxy]
host = "{host}"
port = {port}
credential = "{credential}"

[voms]
vomses = "{vomses}"
"""


@pytest.fixture(scope="module")
def user(grid_ca: GridCa, voms_server: VomsServer) -> GridUser:
    made = grid_ca.user("Long Runner")
    voms_server.add_member(made.dn, "/testvo", FQAN)
    return made


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, grid_ca: GridCa, myproxy_server: MyProxyServer, user: GridUser
) -> Iterator[Deployment]:
    """A deployment that also trusts the grid's authority, knows its user, and renews."""
    folder = tmp_path_factory.mktemp("renewal")
    credential = folder / "wms.pem"
    credential.touch(mode=0o600)
    credential.write_bytes(myproxy_server.renewer.to_pem())

    def change(text: str) -> str:
        known = tomllib.loads(text)
        for file in grid_ca.trust_dir.iterdir():
            shutil.copy(file, known["trust"]["ca_dir"])
        registry = Path(known["registry"]["file"])
        registry.write_text(registry.read_text() + REGISTRY.format(group=GROUP, fqan=FQAN, dn=user.dn))
        more = SERVER.format(
            host=myproxy_server.host, port=myproxy_server.port, credential=credential, vomses=grid_ca.vomses
        )
        return text.replace("[trust]", f'[trust]\nvoms_dir = "{grid_ca.vomsdir}"') + more

    with deployment(folder / "deployment", change=change) as running, running.running_pilot(1):
        yield running


def settings_of(place: Deployment, user: GridUser, myproxy_server: MyProxyServer) -> UserSettings:
    environment = {"PILOTAGE_CONFIG": str(place.layout.client_config), "HOME": str(user.home), "PILOTAGE_GROUP": GROUP}
    theirs = load_user_settings(environment)
    return UserSettings(
        ca_dir=theirs.ca_dir,
        user_cert=user.certificate,
        user_key=user.key,
        proxy_path=user.proxy,
        group=GROUP,
        broker=theirs.broker,
        myproxy=MyProxySettings(myproxy_server.host, myproxy_server.port, renewer=myproxy_server.renewer_dn),
    )


WATCH = """
n=0
show() { openssl crl2pkcs7 -nocrl -certfile $X509_USER_PROXY | openssl pkcs7 -print_certs -text -noout; }
echo "depth at first: $(show | grep -c 3536.1.1.1.9)"
while [ $n -lt 600 ]; do
  openssl x509 -in $X509_USER_PROXY -noout -checkend 0 > /dev/null || { echo "EXPIRED"; exit 3; }
  if show | grep -q 8005.100.100.5 && [ -e GO ]; then echo "attributed and renewed"; show | grep Not.After; exit 0; fi
  sleep 0.2
  n=$((n + 1))
done
exit 5
"""


def test_a_long_job_goes_on_with_renewed_proxies(
    place: Deployment,
    user: GridUser,
    myproxy_server: MyProxyServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("X509_USER_PROXY", "X509_CERT_DIR", "X509_USER_CERT", "X509_USER_KEY"):
        monkeypatch.delenv(name, raising=False)
    settings = settings_of(place, user, myproxy_server)
    made = CliRunner().invoke(app, ["init", "--renewable"], obj=settings)
    assert made.exit_code == 0, made.output
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n" + WATCH.replace("GO", str(tmp_path / "go")))
    script.chmod(0o755)
    jdl = tmp_path / "job.jdl"
    jdl.write_text('Executable = "run.sh"; InputSandbox = {"run.sh"}; OutputSandbox = {"std.out"};')
    began = time.time()
    with Client(settings, load_credential(user.proxy)) as client:
        submission = client.submit([jdl])

        def status() -> JobStatus:
            return client.job(submission.first).summary.status

        wait_until(lambda: status() is JobStatus.RUNNING, 60, "the job runs")
        # Hours later: what is stored is in the last quarter of its life.
        age(place, user, began)
        wait_until(lambda: stored(place, user).not_after > began + 11.9 * 3600, 30, "the service renews it")
        (tmp_path / "go").touch()
        ended = client.wait(submission.ids, timeout=150)[submission.first]
        (path,) = client.output(submission.first, tmp_path / "out")
        assert ended is JobStatus.DONE, path.read_text()
        assert "attributed and renewed" in path.read_text()
        facts = [one for event in client.watch("first", stop=lambda: True) if (one := fact_of(event)) is not None]
    assert [(one.owner, one.what, one.renewed) for one in facts if one.what == "proxy"] == [(user.dn, "proxy", True)]
    assert re.search(r"Not.After", path.read_text())


def fact_of(event: object) -> ProxyRenewal | None:
    message = getattr(event, "message", None)
    return message if isinstance(message, ProxyRenewal) else None


def stored(place: Deployment, user: GridUser) -> Proxy:
    assert place.services is not None
    store = place.services._store
    assert store is not None
    with store.reading() as tx:
        (row,) = proxies.get(tx, [(user.dn, GROUP)]).values()
    return row


def age(place: Deployment, user: GridUser, now: float) -> None:
    """Let the stored proxy look ten hours old; its end must come earlier then, as a row that lives longer stays."""
    assert place.services is not None
    store = place.services._store
    assert store is not None
    row = stored(place, user)
    with store.transaction() as tx:
        proxies.delete(tx, user.dn, GROUP)
        proxies.put(tx, Proxy(row.dn, row.grp, row.chain, row.key, now + 2.5 * 3600, now - 9.5 * 3600))
