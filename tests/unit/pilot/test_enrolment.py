"""Where a secret is read from, what is refused, and when the next certificate is asked for."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import cast

import pytest

from broker.enrolment import EnrolmentSecret, EnrolmentSecretError
from broker.identity import Authority, Credential, IdentityError, PrivateKey, new_key, read_csr
from broker.session import Session
from pilot.enrolment import NotEnrolledError, read_secret
from pilot.renewal import AGAIN_SECONDS, Renewal
from pilot.settings import ENVIRONMENT, STDIN
from schemas.errors import ConfigurationError
from schemas.messages.enrolment import PilotEnrolled, RenewIdentity

SECRET = EnrolmentSecret.create()
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DN = "/O=Test/OU=Pilots/CN=one"
AUTHORITY = Authority.create("/O=Test/OU=Pilots/CN=Authority", now=NOW - dt.timedelta(days=1))


def put(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "secret"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    assert read_secret(put(tmp_path, SECRET.text() + "\n"), "").id == SECRET.id


def test_a_secret_comes_from_the_environment() -> None:
    assert read_secret(ENVIRONMENT, SECRET.text()).id == SECRET.id
    with pytest.raises(ConfigurationError, match="holds no secret"):
        read_secret(ENVIRONMENT, "")


def test_a_secret_comes_by_a_pipe_which_nobody_reads_again() -> None:
    reader, writer = os.pipe()
    os.write(writer, SECRET.text().encode())
    os.close(writer)
    kept = os.dup(0)
    try:
        os.dup2(reader, 0)
        os.close(reader)
        assert read_secret(STDIN, "").id == SECRET.id
        assert Path("/proc/self/fd/0").readlink() == Path(os.devnull)
        with pytest.raises(EnrolmentSecretError):
            read_secret(STDIN, "")
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match="0600"):
        read_secret(put(tmp_path, SECRET.text(), mode), "")


def test_what_is_no_secret_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(EnrolmentSecretError) as caught:
        read_secret(put(tmp_path, SECRET.text()[:-3]), "")
    assert SECRET.text()[30:60] not in str(caught.value)
    with pytest.raises(EnrolmentSecretError):
        read_secret(put(tmp_path, "x" * 100_000), "")


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(put(tmp_path, SECRET.text()))
    os.mkfifo(pipe, 0o600)
    for path in (link, tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigurationError):
            read_secret(str(path), "")
    with pytest.raises(EnrolmentSecretError):
        read_secret(str(pipe), "")


# -- renewal ------------------------------------------------------------------------------------------------------


class Desk:
    """A session, and what is said by it."""

    def __init__(self) -> None:
        self.said: list[RenewIdentity] = []
        self.used: list[Credential] = []
        self.refuse: Exception | None = None

    def say(self, message: RenewIdentity) -> str:
        self.said.append(message)
        return f"m{len(self.said)}"

    def use(self, credential: Credential) -> None:
        self.used.append(credential)

    def accept(self, enrolled: PilotEnrolled, key: PrivateKey) -> Credential:
        if self.refuse is not None:
            raise self.refuse
        return certified(key, enrolled.not_after)


def certified(key: PrivateKey, end: float) -> Credential:
    life = dt.datetime.fromtimestamp(end, dt.UTC) - NOW
    return Credential(key, (AUTHORITY.certify(key.public_key(), DN, lifetime=life, now=NOW),))


DAY = NOW.timestamp() + 86_400
TWO_DAYS = DAY + 86_400
LATER = NOW.timestamp() + 60_000


def renewal(desk: Desk) -> Renewal:
    return Renewal(cast("Session", desk), certified(new_key(), DAY), desk.say, desk.accept)


def test_a_certificate_is_renewed_in_good_time() -> None:
    desk = Desk()
    one = renewal(desk)
    one.turn(NOW.timestamp() + 50_000)
    assert desk.said == []
    one.turn(LATER)
    one.turn(LATER + AGAIN_SECONDS - 1)
    assert len(desk.said) == 1
    read_csr(desk.said[0].csr)
    one.on_enrolled(PilotEnrolled(identity=DN, chain="x", not_after=TWO_DAYS), "m1")
    assert len(desk.used) == 1
    one.turn(LATER + 10 * AGAIN_SECONDS)
    assert len(desk.said) == 1  # the new one is young
    one.on_enrolled(PilotEnrolled(identity=DN, chain="x", not_after=TWO_DAYS), "m1")
    assert len(desk.used) == 1


@pytest.mark.parametrize(
    ("slot", "wanted"), [(DAY - 100, None), (DAY + 3600, DAY + 3600 - LATER)], ids=["short", "long"]
)
def test_no_more_is_asked_for_than_the_slot_needs(slot: float, wanted: float | None) -> None:
    desk = Desk()
    one = Renewal(cast("Session", desk), certified(new_key(), DAY), desk.say, desk.accept, slot)
    one.turn(LATER)
    assert [asked.life_seconds for asked in desk.said] == ([] if wanted is None else [wanted])


def test_without_an_answer_it_asks_again_with_another_key() -> None:
    desk = Desk()
    one = renewal(desk)
    one.turn(LATER)
    one.turn(LATER + AGAIN_SECONDS)
    assert len({asked.csr for asked in desk.said}) == 2
    one.on_enrolled(PilotEnrolled(identity=DN, chain="x", not_after=TWO_DAYS), "m1")
    assert desk.used == []  # that key is gone
    one.on_enrolled(PilotEnrolled(identity=DN, chain="x", not_after=TWO_DAYS), "m2")
    assert len(desk.used) == 1


@pytest.mark.parametrize("error", [NotEnrolledError("revoked"), IdentityError("not yours")])
def test_a_refusal_leaves_the_old_one(error: Exception) -> None:
    desk = Desk()
    one = renewal(desk)
    one.turn(LATER)
    desk.refuse = error
    one.on_enrolled(PilotEnrolled(identity=DN), "m1")
    assert desk.used == []
    one.turn(LATER + AGAIN_SECONDS)
    assert len(desk.said) == 2
