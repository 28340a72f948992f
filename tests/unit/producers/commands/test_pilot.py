"""``pilotage pilot``: secrets go into files or pipes and nowhere else; what the deployment gets is public."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broker.enrolment import EnrolmentSecret, enrolment_id
from broker.identity import Authority, TrustStore
from broker.signing import Verified
from producers.commands import pilot
from producers.errors import NotFoundError
from schemas.errors import ConfigurationError, InvalidInputError
from schemas.messages.enrolment import (
    CreateEnrolments,
    EnrolmentInfo,
    EnrolmentListing,
    QueryEnrolments,
    RevokeEnrolments,
)
from schemas.registry import Message, encode
from tests.support.fake_deployment import FakeDeployment

SITE = "Site.Example.org"
DAY = 86_400.0


def info(key: bytes, number: int = 1, **changes: object) -> EnrolmentInfo:
    one = enrolment_id(key)
    values: dict[str, object] = {
        "number": number, "id": one, "identity": f"/O=Test/OU=Pilots/CN={one}", "state": "open", "site": SITE,
        "group": "pilots", "creator": "/O=Test/CN=olga", "created": time.time() - 100, "expires": time.time() + DAY,
        "life_seconds": DAY,
    }  # fmt: skip
    return EnrolmentInfo(**(values | changes))  # type: ignore[arg-type]  # mixed values


@pytest.fixture
def entered(deployment: FakeDeployment) -> list[CreateEnrolments]:
    seen: list[CreateEnrolments] = []

    def answer(verified: Verified[Message]) -> tuple[Message, ...]:
        asked = verified.message
        assert isinstance(asked, CreateEnrolments)
        seen.append(asked)
        return (EnrolmentListing(enrolments=tuple(info(key) for key in asked.keys)),)

    deployment.answer_with(CreateEnrolments, answer)
    return seen


def run(deployment: FakeDeployment, *words: str) -> Result:
    return CliRunner().invoke(pilot.app, list(words), obj=deployment.settings)


def test_secrets_go_into_files_of_their_own(
    deployment: FakeDeployment, entered: list[CreateEnrolments], tmp_path: Path
) -> None:
    result = run(deployment, "enrol", "--site", SITE, "--count", "3", "--hours", "48", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    files = sorted(tmp_path.glob("*.enrol"))
    assert len(files) == 3
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    secrets = [EnrolmentSecret.parse(file.read_text()) for file in files]
    (asked,) = entered
    assert {one.public_key for one in secrets} == set(asked.keys)
    assert [file.stem for file in files] == sorted(one.id for one in secrets)
    assert (asked.site, asked.life_seconds) == (SITE, 48 * 3600)
    assert 71 * 3600 < asked.expires - time.time() < 73 * 3600
    said = result.output.encode() + encode(asked)
    for secret in secrets:
        assert secret.text().encode() not in said
        assert secret.text().rpartition(".")[2].encode() not in said


def test_secrets_go_into_a_pipe(deployment: FakeDeployment, entered: list[CreateEnrolments]) -> None:
    result = run(deployment, "enrol", "--site", SITE, "--count", "2", "--group", "pilots")
    lines = result.stdout.splitlines()
    assert {EnrolmentSecret.parse(line).public_key for line in lines} == set(entered[0].keys)
    assert entered[0].group == "pilots"


def test_many_go_in_several_messages(
    deployment: FakeDeployment, entered: list[CreateEnrolments], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.enrolments.MAX_ENROLMENTS", 2)
    result = run(deployment, "enrol", "--site", SITE, "--count", "5")
    assert [len(one.keys) for one in entered] == [2, 2, 1]
    assert len(set(result.stdout.splitlines())) == 5


def test_a_terminal_is_no_place_for_a_secret(deployment: FakeDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "_at_terminal", lambda: True)
    result = run(deployment, "enrol", "--site", SITE)
    assert isinstance(result.exception, InvalidInputError)
    assert "terminal" in str(result.exception)


def test_output_for_programs(deployment: FakeDeployment, entered: list[CreateEnrolments], tmp_path: Path) -> None:
    result = run(deployment, "enrol", "--site", SITE, "--out", str(tmp_path), "-o", "json")
    (one,) = json.loads(result.stdout)
    assert EnrolmentSecret.parse(Path(one["file"]).read_text()).id == one["id"]
    assert entered
    quiet = run(deployment, "enrol", "--site", SITE, "--out", str(tmp_path), "-o", "quiet").stdout
    assert Path(quiet.strip()).exists()


def test_a_missing_folder_is_found_before_anything_is_entered(
    deployment: FakeDeployment, entered: list[CreateEnrolments], tmp_path: Path
) -> None:
    result = run(deployment, "enrol", "--site", SITE, "--out", str(tmp_path / "missing"))
    assert isinstance(result.exception, ConfigurationError)
    assert entered == []


def test_enrolments_are_listed(deployment: FakeDeployment) -> None:
    keys = [EnrolmentSecret.create().public_key for _ in range(3)]
    rows = (
        info(keys[0], 3),
        info(keys[1], 2, state="enrolled", used=time.time() - 50, ends=time.time() + DAY, reused=2),
        info(keys[2], 1, state="revoked", revoked=time.time(), reason="lost"),
    )
    deployment.answer(QueryEnrolments, EnrolmentListing(enrolments=rows, more=True))
    result = run(deployment, "enrolments", "list", "--site", SITE)
    assert result.exit_code == 0, result.output
    assert [line.split()[2] for line in result.stdout.splitlines()[1:]] == ["open", "enrolled", "revoked"]
    assert "lost" in result.stdout
    assert "--before 1" in result.stderr
    assert deployment.take(QueryEnrolments).site == SITE
    quiet = run(deployment, "enrolments", "list", "-o", "quiet")
    assert quiet.stdout.split() == [row.id for row in rows]
    document = json.loads(run(deployment, "enrolments", "list", "-o", "json").stdout)
    assert document["enrolments"][1]["reused"] == 2
    deployment.answer(QueryEnrolments, EnrolmentListing(enrolments=()))
    assert "No enrolments" in run(deployment, "enrolments", "list").stderr


@pytest.mark.parametrize("words", [("revoke",), ("enrolments", "revoke")])
def test_pilots_are_revoked(deployment: FakeDeployment, words: tuple[str, ...]) -> None:
    one = info(EnrolmentSecret.create().public_key, state="revoked", reason="stolen")
    deployment.answer(RevokeEnrolments, EnrolmentListing(enrolments=(one,)))
    result = run(deployment, *words, one.identity, "--reason", "stolen")
    assert result.exit_code == 0, result.output
    asked = deployment.take(RevokeEnrolments)
    assert (asked.whom, asked.reason) == ((one.identity,), "stolen")
    missing = run(deployment, *words, one.id, "nobody")
    assert isinstance(missing.exception, NotFoundError)
    assert "nobody" in str(missing.exception)
    assert one.id in missing.stdout


def test_an_authority_is_made_once(deployment: FakeDeployment, tmp_path: Path) -> None:
    trust, key = tmp_path / "trust", tmp_path / "key.pem"
    trust.mkdir()
    words = ("authority", "/DC=org/OU=Pilots/CN=Authority", "--key", str(key), "--trust", str(trust))
    result = run(deployment, *words)
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    made = Authority.load(key)
    assert made.namespace == "/DC=org/OU=Pilots"
    assert TrustStore.load(trust).problems == ()
    assert isinstance(run(deployment, *words).exception, ConfigurationError)
