"""A user's own pilot on a real broker: his own jobs run, and whatever he says he gets nothing of anybody else's."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from broker.errors import LoginRefusedError
from broker.identity import Credential, create_proxy, make_csr, new_key, parse_certificate
from broker.session import RequestRefusedError, Session
from compose.local.configs import PILOTS, SITE, USERS
from producers import Client
from schemas.errors import PilotageError
from schemas.job import JobStatus
from schemas.messages.pilot import Offer, RequestMatch
from schemas.messages.proxies import RequestProxy
from schemas.messages.service import MatchResponse
from schemas.messages.user import GetSandbox, KillJobs
from tests.support.certified_pilots import pilot_dn
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

OWN = "vo_private"


def dn(credential: Credential) -> str:
    return parse_certificate(credential.ders[-1]).dn


def with_private_pilots(text: str) -> str:
    """A group of private pilots in the seed, with the user and a second one in it (who has a certificate already)."""
    seed = Path(tomllib.loads(text)["registry"]["file"])
    entries = seed.read_text()
    user = next(one for one in tomllib.loads(entries)["users"] if one["groups"] == [USERS])
    for his, groups in ((user["dn"], [USERS]), (pilot_dn(2), [PILOTS])):
        at = entries.index(f'dn = "{his}"')
        old = f"groups = {json.dumps(groups)}"
        assert old in entries[at:]
        entries = entries[:at] + entries[at:].replace(old, f"groups = {json.dumps([USERS, OWN])}", 1)
    seed.write_text(entries + f'\n[groups.{OWN}]\nproperties = ["PrivatePilot"]\n')
    return text


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("private"), change=with_private_pilots) as running:
        yield running


@pytest.fixture(scope="module")
def ada(place: Deployment) -> Iterator[Client]:
    with place.client() as one:
        yield one


@pytest.fixture(scope="module")
def bob(place: Deployment) -> Iterator[Client]:
    his = place.pilot(2)
    proxy = create_proxy(his.ders, his.key, lifetime=dt.timedelta(hours=12), limited=False, now=dt.datetime.now(dt.UTC))
    with place.client(proxy) as one:
        yield one


def submit(client: Client, folder: Path) -> int:
    (folder / "in.txt").write_text("secret of its owner\n")
    jdl = folder / "job.jdl"
    files = 'InputSandbox = {"in.txt"}; OutputSandbox = {"std.out"};'
    jdl.write_text(f'Executable = "/bin/cat"; Arguments = "in.txt"; CPUTime = 600; {files}')
    return client.submit([jdl]).first


def ask(session: Session, owners: tuple[str, ...]) -> MatchResponse:
    offer = Offer(site=SITE, cpu_seconds=1e9, wall_seconds=1e9, processors=8, memory_mb=1e6, disk_mb=1e6, owners=owners,
                  platforms=("any",), whole_node=True)  # fmt: skip
    csrs = tuple(make_csr(new_key()) for _ in range(4))
    answer = session.request(RequestMatch(slot="main", offer=offer, jobs=8, csrs=csrs))
    assert isinstance(answer, MatchResponse)
    return answer


def test_a_lying_private_pilot_gets_nothing_of_anybody_elses(
    place: Deployment, ada: Client, bob: Client, tmp_path: Path
) -> None:
    theirs = submit(bob, tmp_path)
    wait_until(lambda: bob.job(theirs).summary.status is JobStatus.WAITING)
    mine, other = dn(place.user()), dn(place.pilot(2))
    with place.session(place.user(), OWN) as session:
        for owners in ((), (other,), (mine, other)):
            answer = ask(session, owners)
            assert answer.matches == ()
            assert any("owners" in reason for reason in answer.reasons)
        own = submit(ada, tmp_path)
        wait_until(lambda: ada.job(own).summary.status is JobStatus.WAITING)
        answer = ask(session, (other,))
        assert [(match.job, match.owner) for match in answer.matches] == [(own, mine)]
        for message in (
            RequestProxy(job=theirs, attempt=1, csr=make_csr(new_key())),
            GetSandbox(job=theirs, sha256=answer.matches[0].files[0].sha256),
        ):
            with pytest.raises(RequestRefusedError):
                session.request(message)
    assert bob.job(theirs).summary.status is JobStatus.WAITING
    ada.kill([own])
    bob.kill([theirs])


def test_it_sends_what_pilots_send_and_nothing_of_its_owners(place: Deployment) -> None:
    with place.session(place.user(), OWN) as session, pytest.raises(PilotageError, match="NormalUser"):
        session.request(KillJobs(jobs=(1,)))


def test_a_payloads_limited_proxy_is_no_private_pilot(place: Deployment) -> None:
    with pytest.raises(LoginRefusedError), place.session(place.user(limited=True), OWN):
        pass


def test_who_is_not_in_its_group_is_none(place: Deployment) -> None:
    with pytest.raises(LoginRefusedError), place.session(place.pilot(3), OWN):
        pass
    with place.session(place.user(), USERS) as session, pytest.raises(PilotageError, match="PrivatePilot"):
        ask(session, ())


def test_a_users_own_pilot_runs_his_jobs_and_leaves_others(
    place: Deployment, ada: Client, bob: Client, tmp_path: Path
) -> None:
    theirs, own = submit(bob, tmp_path), submit(ada, tmp_path)
    credential, config = tmp_path / "proxy.pem", tmp_path / "pilot.toml"
    credential.touch(mode=0o600)
    credential.write_bytes(place.user().to_pem())
    text = place.layout.pilot_config(1).read_text()
    text = re.sub(r"(?m)^(credential|work_dir) = .*$", "", text)
    more = f'[pilot]\ncredential = "{credential}"\ngroup = "{OWN}"\nwork_dir = "{tmp_path / "work"}"'
    config.write_text(text.replace("[pilot]", more))
    process = Popen([sys.executable, "-P", "-m", "compose.pilot", "--config", str(config)], cwd=tmp_path)
    try:
        assert ada.wait([own], timeout=60)[own] is JobStatus.DONE
        assert bob.job(theirs).summary.status is JobStatus.WAITING
    finally:
        process.terminate()
        process.wait(40)
    (output,) = [path for path in ada.output(own, tmp_path / "out") if path.name == "std.out"]
    assert output.read_text() == "secret of its owner\n"
    bob.kill([theirs])
