"""The VO's own list of members decides: from IAM to the pilot, through every wing, within one cycle."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.identity import Authority, Credential, create_proxy
from compose.local.configs import SITE, USERS
from compose.local.layout import Layout
from consumers.directory import REFRESH_SECONDS
from producers import Client
from producers.errors import NotAllowedError
from schemas.entries import SiteEntry
from schemas.job import JobStatus
from schemas.messages.registrar import Blocked, EntryKind, IdentityBlocked
from tests.support.deployment import Deployment, deployment
from tests.support.scim_server import TOKEN, ScimServer, scim_server
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

S = JobStatus
EVE = "/O=Grid/CN=Eve"
CYCLE = 2.0
LONG = f'Executable = "/bin/sleep"; Arguments = "600"; NumberOfProcessors = 2; Site = "{SITE}";'
SHORT = f'Executable = "/bin/true"; NumberOfProcessors = 2; Site = "{SITE}";'


@pytest.fixture(scope="module")
def iam(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScimServer]:
    with scim_server(tmp_path_factory.mktemp("iam")) as server:
        server.add_group("local")
        server.add_user("eve", ["CN=Eve,O=Grid"], "local")
        yield server


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("/O=Grid/CN=Grid CA")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, iam: ScimServer, authority: Authority) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("registry")

    def configured(text: str) -> str:
        authority.write_trust_dir(Layout(folder).trust)
        token = folder / "iam.token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        source = (
            f'[[registry.sources]]\nname = "iam"\nkind = "iam-scim"\nurl = "{iam.url}"\n'
            f'token_file = "{token}"\nca_file = "{iam.ca_file}"\ngroups = ["{USERS}"]\n'
        )
        return text.replace("[registry]", f"[registry]\ncycle = {CYCLE}") + source

    with deployment(folder, change=configured) as running, running.running_pilot(1):
        yield running


@pytest.fixture(scope="module")
def operator(place: Deployment) -> Iterator[Client]:
    with place.client() as client:
        yield client


@pytest.fixture(scope="module")
def eve(authority: Authority) -> Credential:
    person = authority.issue(EVE)
    life = dt.timedelta(hours=12)
    return create_proxy(person.ders, person.key, lifetime=life, limited=False, now=dt.datetime.now(dt.UTC))


def status(client: Client, job: int) -> JobStatus:
    return client.jobs([job], owner="*")[0].status


def until(client: Client, job: int, *wanted: JobStatus) -> None:
    wait_until(lambda: status(client, job) in wanted, 60, f"job {job} to be {wanted}")


def may_login(place: Deployment, credential: Credential) -> bool:
    """Services look at the registry every two seconds."""
    try:
        with place.client(credential):
            return True
    except NotAllowedError:
        return False


def suspended(client: Client) -> bool | None:
    entry = client.registry.find(EntryKind.USER, EVE).entry
    return getattr(entry, "suspended", None)


def test_a_member_comes_is_suspended_and_comes_back(
    place: Deployment, operator: Client, eve: Credential, iam: ScimServer
) -> None:
    wait_until(lambda: any(operator.registry.entries(EntryKind.USER, names=[EVE])), 30, "the first look")
    wait_until(lambda: may_login(place, eve), 30, "the gatekeeper to know her")
    with place.client(eve) as client:
        running = client.submit([LONG]).first
        until(operator, running, S.RUNNING)
        waiting = client.submit([SHORT]).first
        until(operator, waiting, S.WAITING)

        iam.set_active("eve", False)
        wait_until(lambda: suspended(operator), 10 * CYCLE, "the suspension to arrive")
        until(operator, running, S.KILLED)
        assert "owner suspended" in operator.job(running).summary.minor
        assert not may_login(place, eve)
    assert status(operator, waiting) is S.WAITING  # the pilot is free, and does not get it

    iam.set_active("eve", True)
    until(operator, waiting, S.DONE)
    lines = operator.registry.history(name=EVE, kind=EntryKind.USER)
    assert [line.source for line in lines] == ["sync:iam"] * 3


def test_a_removed_member_leaves_nothing_behind(
    place: Deployment, operator: Client, eve: Credential, iam: ScimServer
) -> None:
    wait_until(lambda: may_login(place, eve), 30, "the gatekeeper to know her again")
    with place.client(eve) as client:
        ids = list(client.submit([LONG, LONG]).ids)
        wait_until(lambda: S.RUNNING in {status(operator, job) for job in ids}, 60, "one of them to run")
    iam.add_user("other", ["CN=Other,O=Grid"], "local")
    answer = operator.registry.sync("iam", dry_run=True)
    assert answer.outcomes[0].ok
    iam.remove_user("eve")
    for job in ids:
        until(operator, job, S.KILLED)
    facts = [
        event.message
        for event in operator.watch("first", stop=lambda: True)
        if isinstance(event.message, IdentityBlocked)
    ]
    assert [(fact.identity, fact.how) for fact in facts] == [(EVE, Blocked.SUSPENDED), (EVE, Blocked.REMOVED)]


def test_a_banned_site_gets_only_test_jobs(place: Deployment, operator: Client) -> None:
    long = operator.submit([LONG]).first
    until(operator, long, S.RUNNING)
    operator.registry.set(SiteEntry(name=SITE, usable=False), reason="disk on fire")
    banned = time.monotonic()
    job = operator.submit([SHORT]).first
    until(operator, job, S.WAITING)
    wait_until(lambda: time.monotonic() - banned > 2 * REFRESH_SECONDS, 30, "every service to have looked")
    operator.kill([long])
    test = operator.submit(['Executable = "/bin/true"; JobType = "Test";']).first
    until(operator, test, S.DONE)  # the pilot is free and asks for work
    assert status(operator, job) is S.WAITING
    operator.registry.set(SiteEntry(name=SITE, usable=True), reason="extinguished")
    until(operator, job, S.DONE)


def test_the_folder_is_the_services_alone(place: Deployment) -> None:
    assert (Path(place.layout.root) / "iam.token").stat().st_mode & 0o077 == 0
