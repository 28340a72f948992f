"""Pilots that enrol while something dies: nobody is enrolled twice, and who can wait gets what he waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.enrolment import EnrolmentSecret
from broker.identity import load_credential
from compose.local.configs import SITE
from compose.services import NAMES
from consumers.store import enrolments
from consumers.store.enrolments import Enrolment
from producers.enrolments import create
from tests.support.wait import wait_until
from tests.support.wire import wire_to

from .harness import START_SECONDS, Stand, stand

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

OTHERS = [name for name in NAMES if name != "pilot-authority"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, postgres) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("enrolling"), postgres) as one:
        one.serve("gatekeeper")
        one.serve(*[name for name in OTHERS if name != "gatekeeper"], known_as="others")
        one.serve("pilot-authority")
        yield one


@pytest.fixture(autouse=True)
def everything_runs(place) -> Iterator[None]:
    yield
    for name in [name for name in place.processes if name.startswith("pilot-") and name != "pilot-authority"]:
        place.stop(name)
    for name in ("gatekeeper", "pilot-authority"):
        if name not in place.processes:
            place.serve(name)


def secret_file(place: Stand, number: int) -> tuple[EnrolmentSecret, Path]:
    layout = place.place.layout
    operator = load_credential(layout.user_certificate, key=layout.user_key)
    with place.place.client(operator) as client:
        (new,) = create(client, 1, site=SITE, expires=time.time() + 600, life_seconds=86_400.0)
    file = place.folder / f"{number}.enrol"
    put(file, new.secret)
    return new.secret, file


def put(file: Path, secret: EnrolmentSecret) -> None:
    file.touch(0o600)
    file.write_text(secret.text())


def row_of(place: Stand, secret: EnrolmentSecret) -> Enrolment:
    with place.store.reading() as tx:
        return enrolments.get(tx, [secret.id])[secret.id]


def start(place: Stand, number: int, file: Path, **options: object) -> str:
    return place.start_pilot(number, enrolment=f'"{file}"', **options)  # type: ignore[arg-type]  # handed through


def is_enrolled(place: Stand, secret: EnrolmentSecret) -> bool:
    return row_of(place, secret).state(time.time()) == "enrolled"


def test_the_authority_is_away_while_a_pilot_enrols(place: Stand) -> None:
    secret, file = secret_file(place, 1)
    place.kill("pilot-authority")
    name = start(place, 1, file, wait=False)
    wait_until(lambda: row_of(place, secret).used is not None, START_SECONDS, "the secret to be used")
    assert file.exists()  # it may still be of use: nobody has answered
    assert not place.ready_file(1).exists()
    place.serve("pilot-authority")
    wait_until(place.ready_file(1).exists, START_SECONDS, f"the pilot to log in\n{place.log(name)}")
    assert is_enrolled(place, secret)
    assert not file.exists()
    place.wait_for(place.submit(1))


def test_a_pilot_is_killed_while_it_enrols(place: Stand) -> None:
    secret, file = secret_file(place, 2)
    place.kill("pilot-authority")
    name = start(place, 2, file, wait=False)
    wait_until(lambda: row_of(place, secret).used is not None, START_SECONDS, "the secret to be used")
    place.kill(name)  # its keeper; the pilot follows
    client = row_of(place, secret).client
    place.serve("pilot-authority")
    wait_until(lambda: is_enrolled(place, secret), START_SECONDS, "a certificate that nobody can use")
    # The batch system starts the job again, with the same secret: it is spent, for the key that it served is gone.
    put(file, secret)
    start(place, 2, file, wait=False)
    again = place.processes[name]
    wait_until(lambda: again.poll() is not None, 60, f"the pilot to give up\n{place.log(name)}")
    assert again.returncode == 1
    assert "used before" in place.log(name)
    assert not file.exists()
    assert row_of(place, secret).client == client
    assert row_of(place, secret).reused > 0
    del place.processes[name]
    _, fresh = secret_file(place, 2)
    start(place, 2, fresh)


def test_the_connection_breaks_while_a_pilot_waits(place: Stand) -> None:
    secret, file = secret_file(place, 3)
    place.kill("pilot-authority")
    with wire_to(place.place.node.port) as wire:
        name = start(place, 3, file, wait=False, port=wire.port)
        wait_until(lambda: row_of(place, secret).used is not None, START_SECONDS, "the secret to be used")
        before = row_of(place, secret)
        wire.cut()
        # The same pilot with the same key comes again, by a new word of its own.
        wait_until(
            lambda: row_of(place, secret).assertion != before.assertion, START_SECONDS, "the pilot to come again"
        )
        place.serve("pilot-authority")
        wait_until(place.ready_file(3).exists, START_SECONDS, f"the pilot to log in\n{place.log(name)}")
    after = row_of(place, secret)
    assert (after.client, after.pilot_key, after.reused) == (before.client, before.pilot_key, 0)


def test_the_gatekeeper_is_away_when_a_pilot_comes(place: Stand) -> None:
    secret, file = secret_file(place, 4)
    place.kill("gatekeeper")
    name = start(place, 4, file, wait=False)
    process = place.processes[name]
    wait_until(lambda: "refused" in place.log(name) or process.poll() is not None, START_SECONDS, "a refusal")
    assert process.poll() is None
    assert row_of(place, secret).used is None
    place.serve("gatekeeper")
    wait_until(place.ready_file(4).exists, 60, f"the pilot to log in\n{place.log(name)}")
    assert is_enrolled(place, secret)
