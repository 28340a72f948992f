"""The audit in a running deployment: seals in the stream, the command line's check, and what it finds."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from broker.identity import thumbprint
from schemas.audit import GENESIS, digest, from_line
from schemas.job import JobStatus
from tests.support.command_line import SCRIPT
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("audit")) as running, running.running_pilot(1):
        yield running


def run(place: Deployment, *words: str) -> tuple[int, str]:
    proxy = place.layout.root / "proxy.pem"
    proxy.touch(0o600)
    proxy.write_bytes(place.user().to_pem())
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(place.layout.root),
        "PILOTAGE_CONFIG": str(place.layout.client_config),
        "X509_USER_PROXY": str(proxy),
    }
    result = subprocess.run(
        [SCRIPT, "audit", *words], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode in {0, 1}, result.stderr
    return result.returncode, result.stdout


def verified(place: Deployment, *words: str) -> dict[str, object]:
    code, text = run(place, "verify", "-o", "json", *words)
    document: dict[str, object] = json.loads(text)
    assert code == (0 if document["ok"] else 1)
    return document


def test_what_a_credential_did(place: Deployment) -> None:
    credential = place.user()
    with place.client(credential) as client:
        submission = client.submit(['Executable = "/bin/true";'])
        assert client.wait(submission.ids, timeout=60)[submission.first] is JobStatus.DONE
        client.delete(submission.ids)
        (own, other) = client.identity, place.client()
    with other:
        other.kill([submission.first])

    def traced(who: str) -> dict[str, Any]:
        code, text = run(place, "trace", who, "-o", "json")
        assert code == 0
        found: dict[str, Any] = json.loads(text)
        return found

    def whats(found: dict[str, Any]) -> list[str]:
        return [step["what"] for step in found["steps"]]

    whole = traced(own)
    assert whole["identity"] == own
    story = ["login", "proxy.stored", "job.submitted", "proxy.issued", "job.commanded"]
    order = [whats(whole).index(what) for what in story]
    assert order == sorted(order)
    (given,) = whole["given"]
    assert (given["job"], given["site"]) == (submission.first, "Site.Local.here")
    assert given["until"] > time.time()
    assert [one["first"] for one in whole["trail"]["submissions"]] == [submission.first]

    by_proxy = traced(thumbprint(credential.leaf))
    assert by_proxy["identity"] == own
    assert len(by_proxy["clients"]) == 1
    assert whats(by_proxy).count("login") == 1
    assert whats(by_proxy).count("job.commanded") == 1, "the other client's kill is not its doing"
    assert len(by_proxy["given"]) == 1
    assert traced(hashlib.sha256(credential.leaf).hexdigest().upper())["clients"] == by_proxy["clients"]

    pilots = traced(given["pilot"])
    assert pilots["identity"] != own
    assert [(one["job"], one["owner"]) for one in pilots["got"]] == [(submission.first, own)]
    assert "job.matched" in whats(pilots)

    code, text = run(place, "list", "--event", "access.denied", "-o", "lines")
    assert not text, "our own tools and pilots ask for nothing that is not open to them"

    by_serial = traced(given["serial"])
    assert by_serial["identity"] == own
    code, text = run(place, "trace", own)
    assert code == 0
    assert "1, of which 1 can still be used" in text


SECRETS = re.compile(r"PRIVATE KEY|BEGIN CERT|eyJ[A-Za-z0-9_-]{20}|x5c|gAAAA|password", re.IGNORECASE)
"""Keys, certificates, signed assertions, encrypted keys."""


def test_no_secret_stands_in_it(place: Deployment) -> None:
    """A deployment has run by now: logins, delegation, jobs, a pilot."""
    _, text = run(place, "list", "--limit", "100000", "-o", "lines")
    assert len(text.splitlines()) > 5
    assert not SECRETS.search(text)
    secrets = [path.read_text().strip() for path in place.layout.services.glob("*.secret")]
    assert secrets
    assert not [secret for secret in secrets if secret in text]


def test_all_of_it(place: Deployment) -> None:
    for _ in range(3):
        with place.client() as client:
            client.dead_letters()
            own = client.identity

    def sealed() -> bool:
        found = verified(place)
        assert found["ok"], found
        return bool(found["witnesses"]) and int(str(found["last"])) >= 3

    wait_until(sealed, 30, "logins are sealed, and the stream tells of it")

    code, text = run(place, "list", "--event", "login", "--output", "lines", "--limit", "1000")
    lines = [from_line(line) for line in text.splitlines()]
    assert code == 0
    assert len(lines) >= 3
    victim = next(line for line in lines if line.place and line.identity == own)
    first = from_line(run(place, "list", "--output", "lines", "--limit", "1000")[1].splitlines()[-1])
    assert (first.place, digest(1, GENESIS, first)) == (1, first.hash)
    assert run(place, "list", "--identity", own, "-o", "quiet", "--limit", "2")[1].count("\n") == 2
    assert "login" in run(place, "list", "--since", "1h")[1]

    good = verified(place)
    head = f"{good['last']}:{good['head']}"
    assert verified(place, "--expect-head", head, "--from", "2")["ok"]
    assert not verified(place, "--expect-head", "ab" * 32)["ok"]

    # Somebody who may write to the database.
    with sqlite3.connect(place.layout.sqlite) as intruder:
        intruder.execute("UPDATE audit SET identity = '/O=Pilotage/CN=Nobody' WHERE id = ?", [victim.id])
    intruder.close()
    code, text = run(place, "verify")
    assert code == 1
    finding = f"place {victim.place}: changed: the entry {victim.id} is not what was sealed here (login)"
    assert finding in text

    with sqlite3.connect(place.layout.sqlite) as intruder:
        intruder.execute("UPDATE audit SET identity = ? WHERE id = ?", [victim.identity, victim.id])
        intruder.execute("DELETE FROM audit_seals")
        intruder.execute("DELETE FROM audit_links")
        intruder.execute("DELETE FROM audit")
    intruder.close()
    code, text = run(place, "verify")
    assert code == 1
    assert "cut off" in text or "removed" in text, "the stream remembers"
