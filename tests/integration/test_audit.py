"""The audit in a running deployment: seals in the stream, the command line's check, and what it finds."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator

import pytest

from schemas.audit import GENESIS, digest, from_line
from tests.support.command_line import SCRIPT
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("audit"), services=["gatekeeper", "auditor", "dead-letters"]) as running:
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


def test_all_of_it(place: Deployment) -> None:
    for _ in range(3):
        with place.client() as client:
            client.dead_letters()

    def sealed() -> bool:
        found = verified(place)
        assert found["ok"], found
        return bool(found["witnesses"]) and int(str(found["last"])) >= 3

    wait_until(sealed, 30, "logins are sealed, and the stream tells of it")

    code, text = run(place, "list", "--event", "login", "--output", "lines", "--limit", "1000")
    lines = [from_line(line) for line in text.splitlines()]
    assert code == 0
    assert len(lines) >= 3
    by_place = {line.place: line for line in lines if line.place}
    first = by_place[1]
    assert digest(1, GENESIS, first) == first.hash
    assert first.identity == client.identity
    assert run(place, "list", "--identity", client.identity, "-o", "quiet", "--limit", "2")[1].count("\n") == 2
    assert "login" in run(place, "list", "--since", "1h")[1]

    good = verified(place)
    head = f"{good['last']}:{good['head']}"
    assert verified(place, "--expect-head", head, "--from", "2")["ok"]
    assert not verified(place, "--expect-head", "ab" * 32)["ok"]

    # Somebody who may write to the database.
    with sqlite3.connect(place.layout.sqlite) as intruder:
        intruder.execute("UPDATE audit SET identity = '/O=Pilotage/CN=Nobody' WHERE id = 2")
    intruder.close()
    code, text = run(place, "verify")
    assert code == 1
    assert "place 2: changed: the entry 2 is not what was sealed here (login)" in text

    with sqlite3.connect(place.layout.sqlite) as intruder:
        intruder.execute("UPDATE audit SET identity = ? WHERE id = 2", [client.identity])
        intruder.execute("DELETE FROM audit_seals")
        intruder.execute("DELETE FROM audit_links")
        intruder.execute("DELETE FROM audit")
    intruder.close()
    code, text = run(place, "verify")
    assert code == 1
    assert "cut off" in text or "removed" in text, "the stream remembers"
