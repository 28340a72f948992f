"""The register: names, bounds, and what decoding refuses."""

from __future__ import annotations

import msgspec
import pytest

import schemas.messages  # noqa: F401 - fills the register
from schemas.errors import InvalidInputError
from schemas.messages.admin import ReplayDead
from schemas.messages.user import KillJobs, SubmitJobs
from schemas.registry import DAY, Kind, Message, MessageType, by_name, encode, register, registered, type_of

ROWS = sorted(registered().values(), key=lambda row: row.name)
NAMES = [row.name for row in ROWS]
RABBITMQ_LIMIT = 16 << 20


def test_a_row_is_found_by_name_by_struct_and_by_message() -> None:
    assert by_name("job.kill.v1") is type_of(KillJobs) is type_of(KillJobs(jobs=(1,)))


@pytest.mark.parametrize("name", ["", "job.kill", "job.kill.v2", "schemas.messages.user.KillJobs", "x" * 10_000])
def test_an_unknown_name_is_refused_shortly(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        by_name(name)
    assert len(str(caught.value)) < 120


def test_a_name_is_entered_once() -> None:
    class Invented(Message, frozen=True, kw_only=True):
        pass

    with pytest.raises(ValueError, match="registered already"):
        register("job.kill.v1", Kind.COMMAND, "nobody", lifetime=DAY)(Invented)
    with pytest.raises(ValueError, match="registered already"):
        register("job.kill.v99", Kind.COMMAND, "nobody", lifetime=DAY)(KillJobs)
    assert "job.kill.v99" not in registered()


def test_the_register_cannot_be_changed_from_outside() -> None:
    registered().clear()  # type: ignore[attr-defined]  # it is a copy, and that is the point
    assert registered()


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_every_row_has_sound_bounds(row: MessageType) -> None:
    assert 0 < row.max_bytes <= RABBITMQ_LIMIT
    assert 0 < row.lifetime <= 30 * DAY
    assert row.struct.__struct_config__.frozen
    assert row.struct.__doc__
    assert (row.audience == "client") is (row.kind is Kind.REPLY)
    assert (row.audience == "events") is (row.kind is Kind.EVENT)


def test_a_message_survives_the_wire() -> None:
    message = SubmitJobs(descriptions=('Executable = "é";',), key="k")
    assert type_of(message).decode(encode(message)) == message


def test_defaults_are_not_sent() -> None:
    assert encode(SubmitJobs(descriptions=("a",))) == b'{"descriptions":["a"]}'


def test_unknown_fields_are_ignored_so_that_senders_may_be_newer() -> None:
    assert by_name("job.kill.v1").decode(b'{"jobs":[1],"urgent":true}') == KillJobs(jobs=(1,))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"jobs":[]}',
        b'{"jobs":[0]}',
        b'{"jobs":["1"]}',
        b'{"jobs":[1.5]}',
        b'{"jobs":[9007199254740993]}',
        b'{"jobs":[1]}x',
        b'{"jobs":[1]',
        b"\xff\xfe",
        b'{"jobs":' + b"[" * 50_000,
    ],
)
def test_what_is_not_of_the_shape_is_refused_with_the_types_name(payload: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"^job\.kill\.v1: "):
        by_name("job.kill.v1").decode(payload)


def test_what_is_too_large_is_not_parsed() -> None:
    row = by_name("job.kill.v1")
    with pytest.raises(InvalidInputError, match="at most"):
        row.decode(b" " * (row.max_bytes + 1))


def test_messages_are_values() -> None:
    message = ReplayDead(ids=(1,))
    with pytest.raises(AttributeError):
        message.ids = (2,)  # type: ignore[misc]
    assert hash(message) == hash(ReplayDead(ids=(1,)))
    assert msgspec.structs.replace(message, ids=(2,)) != message


def test_a_hash_does_not_end_with_a_newline() -> None:
    good = {"sha256": "a" * 64, "job": 1}
    assert by_name("sandbox.get.v1").decode(msgspec.json.encode(good))
    with pytest.raises(InvalidInputError):
        by_name("sandbox.get.v1").decode(msgspec.json.encode(good | {"sha256": "a" * 64 + "\n"}))


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    """msgspec quotes a wrong enum value in full: a refusal is stored and answered, and must not carry a megabyte."""
    payload = b'{"jobs":[1],"status":["' + b"x" * 100_000 + b'"]}'
    with pytest.raises(InvalidInputError) as caught:
        by_name("job.query.v1").decode(payload)
    assert len(str(caught.value)) < 400
    assert "$.status" in str(caught.value)
