"""What was once on the wire stays readable: every golden payload and envelope opens with today's code."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from broker.authorization import TABLE
from broker.signing import ChainFacts, open_envelope, peek
from schemas.registry import by_name, encode, registered

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("golden_make", HERE / "make.py")
assert _spec is not None
assert _spec.loader is not None
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)

NAMES = sorted(path.stem for path in make.FOLDER.glob("*.json"))


def test_every_type_has_its_example_and_none_was_lost() -> None:
    assert set(registered()) <= set(NAMES), "run: python tests/golden/make.py"
    assert set(NAMES) <= set(registered()), "a message type was removed; what is still on its way cannot be read"
    assert sorted(path.stem for path in make.FOLDER.glob("*.jws")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_payload_is_read_and_nothing_of_it_is_lost(name: str) -> None:
    payload = (make.FOLDER / f"{name}.json").read_bytes()
    message = by_name(name).decode(payload)
    assert json.loads(encode(message)) == json.loads(payload)


@pytest.mark.parametrize("name", NAMES)
def test_the_envelope_opens(name: str) -> None:
    row = by_name(name)
    jws = (make.FOLDER / f"{name}.jws").read_text("ascii")
    sender = peek(jws)[0].cli  # of those that may send it, one that might when the example was made
    assert sender in (TABLE[name].services or {make.CLIENT})
    issuer = make.SERVICE_DN.format(sender) if TABLE[name].services else make.DN
    facts = ChainFacts(issuer, False, make.NOW - 1, make.NOW + 1, make.KEY.public_key())
    verified = open_envelope(
        jws,
        (make.FOLDER / f"{name}.json").read_bytes(),
        resolve=lambda asked: facts if asked == make.THUMBPRINT else None,
        audiences={row.audience, make.CLIENT},
        now=make.NOW + make.SECONDS / 2,
        user_id=sender,
    )
    assert verified.type is row


@pytest.mark.parametrize("name", sorted(registered()))
def test_the_example_of_a_new_type_would_fill_every_field(name: str) -> None:
    row = by_name(name)
    assert set(json.loads(encode(make.example(row)))) == set(row.struct.__struct_encode_fields__)


def test_old_examples_are_never_written_again() -> None:
    before = {path: path.stat().st_mtime_ns for path in make.FOLDER.iterdir()}
    assert not any(make.write(row) for row in registered().values())
    assert before == {path: path.stat().st_mtime_ns for path in make.FOLDER.iterdir()}
