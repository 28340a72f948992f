"""Hashes of the audit's chain, its lines, and what a check of it finds."""

from __future__ import annotations

import hashlib
import json
import struct

import msgspec
import pytest

from schemas.audit import GENESIS, canonical, digest, from_line, to_line
from schemas.audit_check import Kind
from schemas.errors import InvalidInputError
from schemas.messages.audit import AuditEntry
from tests.support.chains import check, entry, made, problems

ADA = "/DC=org/CN=Ada Öström"
ONE = AuditEntry(
    id=17, time=1795456800.25, event="login", identity=ADA, client="abc.1", detail='{"group":"vo"}', place=1
)


def by_hand(place: int, before: str, one: AuditEntry) -> str:
    """The documented form, written down a second time."""
    time = "".join(f"{byte:02x}" for byte in struct.pack("!d", one.time))
    texts = ["pilotage.audit.v1", str(place), before, str(one.id), time, one.event, one.identity, one.client,
             one.detail]  # fmt: skip
    data = b"".join(str(len(text.encode())).encode() + b":" + text.encode() + b"," for text in texts)
    return hashlib.sha256(data).hexdigest()


def test_vectors() -> None:
    """These never change: what was sealed once must stay checkable."""
    assert canonical(1, GENESIS, ONE) == (
        b"17:pilotage.audit.v1,1:1,64:" + b"0" * 64 + b",2:17,16:41dac11fc8100000,5:login,"
        b"23:/DC=org/CN=Ada \xc3\x96str\xc3\xb6m,5:abc.1,14:" + b'{"group":"vo"},'
    )
    assert digest(1, GENESIS, ONE) == by_hand(1, GENESIS, ONE) == VECTOR_1
    assert digest(2, VECTOR_1, ONE) == by_hand(2, VECTOR_1, ONE) == VECTOR_2


VECTOR_1 = "9d840aee6b85cec01f52186cf40918afea87bff29c3550988b37d4ee493a5506"
VECTOR_2 = "379ea6010633bbc0f898223f21d04996cc6f4d2f4b7121ee0264e4cd0fb1830b"


def test_what_moves_from_one_field_to_the_next_has_another_hash() -> None:
    left, right = entry(1, identity="ab", client="c"), entry(1, identity="a", client="bc")
    assert digest(1, GENESIS, left) != digest(1, GENESIS, right)
    assert digest(1, GENESIS, entry(11, identity="1,")) != digest(11, GENESIS, entry(1, identity=",1"))


# -- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "detail",
    [
        '{"group":"vo","jobs":[1,2]}',
        "{}",
        '{ "a": 1 }',
        "not json",
        '"a text"',
        "[1]",
        '{"a":\n1}',
        "",
        '{"ä":"\\u0000"}',
    ],
)
def test_a_line_gives_back_what_was_hashed(detail: str) -> None:
    kept = msgspec.structs.replace(ONE, detail=detail)
    kept = msgspec.structs.replace(kept, hash=digest(1, GENESIS, kept))
    line = to_line(kept)
    assert "\n" not in line
    read = from_line(line)
    assert (read.place, read.hash) == (1, kept.hash)
    assert digest(1, GENESIS, read) == kept.hash
    assert list(json.loads(line)) == ["v", "place", "id", "time", "utc", "event", "identity", "client", "detail",
                                      "hash"]  # fmt: skip


def test_a_line_is_plain_json_for_other_tools() -> None:
    line = json.loads(to_line(ONE))
    assert line["detail"] == {"group": "vo"}
    assert line["utc"] == "2026-11-23T18:00:00.250Z"


@pytest.mark.parametrize("text", ["", "{}", "[]", "x" * 70_000, '{"v":1}', to_line(ONE).replace('"v":1', '"v":2')])
def test_what_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        from_line(text)


# -- checking --------------------------------------------------------------------------------------------------------


def test_a_good_chain_is_good() -> None:
    kept = made(40)
    walk = check(kept)
    assert not walk.problems
    assert (walk.checked, walk.seals, walk.last, walk.head) == (40, 6, 40, kept.entries[-1].hash)
    assert not problems(made(0))


@pytest.mark.parametrize("start", [2, 7, 8, 9, 39, 40])
def test_a_part_is_checked_from_a_place_on(start: int) -> None:
    kept = made(40)
    walk = check(kept, start=start)
    assert not walk.problems
    assert walk.checked == 40 - start + 1
    place = max(start, 20)
    kept.entries[place - 1] = msgspec.structs.replace(kept.entries[place - 1], event="logout")
    assert [(one.kind, one.place) for one in problems(kept, start=start)] == [(Kind.CHANGED, place)]


def test_the_kind_is_told() -> None:
    def first(kept: object) -> tuple[Kind, int]:
        found = problems(kept)  # type: ignore[arg-type]
        return found[0].kind, found[0].place

    kept = made(40)
    kept.entries[11] = msgspec.structs.replace(kept.entries[11], detail='{"x":1}')
    assert first(kept) == (Kind.CHANGED, 12)

    kept = made(40)
    del kept.entries[11]
    assert first(kept) == (Kind.REMOVED, 12)

    kept = made(40)
    kept.entries[11] = AuditEntry(id=12, place=12, hash=kept.entries[11].hash, gone=True)
    assert [(one.kind, one.place, one.id) for one in problems(kept)] == [(Kind.REMOVED, 12, 12)]

    kept = made(40)
    one, two = kept.entries[11], kept.entries[12]
    kept.entries[11] = msgspec.structs.replace(two, place=12, hash=one.hash)
    kept.entries[12] = msgspec.structs.replace(one, place=13, hash=two.hash)
    assert [(one.kind, one.place) for one in problems(kept)] == [(Kind.REORDERED, 12), (Kind.REORDERED, 13)]

    kept = made(40)
    forged = entry(99, place=41)
    kept.entries.append(msgspec.structs.replace(forged, hash=digest(41, kept.entries[-1].hash, forged)))
    assert first(kept) == (Kind.INSERTED, 41)

    kept = made(40)
    del kept.entries[30:]
    assert first(kept) == (Kind.REMOVED, 31)

    kept = made(40)
    kept.seals[2] = msgspec.structs.replace(kept.seals[2], jws="other")
    assert first(kept) == (Kind.SEAL_FORGED, 21)

    kept = made(40)
    kept.seals[2] = msgspec.structs.replace(kept.seals[2], payload=kept.seals[1].payload)
    assert first(kept) == (Kind.SEAL_FORGED, 21)

    kept = made(40)
    del kept.seals[2]
    assert first(kept) == (Kind.SEAL_REMOVED, 15)

    kept = made(40)
    del kept.seals[-1]
    assert first(kept) == (Kind.INSERTED, 36)


def test_an_entry_that_was_put_between() -> None:
    kept = made(40)
    for index in range(16, 40):
        kept.entries[index] = msgspec.structs.replace(kept.entries[index], place=index + 2)
    forged = entry(99, place=17)
    kept.entries.insert(16, msgspec.structs.replace(forged, hash=digest(17, kept.entries[15].hash, forged)))
    assert (problems(kept)[0].kind, problems(kept)[0].place) == (Kind.INSERTED, 17)


def test_a_chain_computed_anew_does_not_fit_its_seals() -> None:
    kept, other = made(40), made(40)
    other.entries[11] = msgspec.structs.replace(other.entries[11], identity="/CN=somebody else")
    fresh = [msgspec.structs.replace(one, place=0, hash="") for one in other.entries]
    kept.entries = []
    seals, kept.seals = kept.seals, []
    kept.seal(fresh)
    kept.seals = seals
    assert problems(kept)[0].kind is Kind.CHANGED
    assert problems(kept)[0].place == 8  # the first place of the seal that does not fit any more


def test_an_end_that_was_cut_off_is_known_from_a_head_noted_elsewhere() -> None:
    kept = made(40)
    head = kept.entries[-1].hash
    assert not problems(kept, heads={head: 0})
    assert not problems(kept, heads={head: 40, kept.entries[3].hash: 4})
    del kept.entries[35:], kept.seals[-1:]
    assert not problems(kept)
    assert [(one.kind, one.place) for one in problems(kept, heads={head: 40})] == [(Kind.CUT_OFF, 36)]
    assert [(one.kind, one.place) for one in problems(kept, heads={head: 0})] == [(Kind.CUT_OFF, 36)]
    assert [one.kind for one in problems(kept, heads={"0" * 63 + "1": 3})] == [Kind.CHANGED]


def test_what_waits_too_long_is_told() -> None:
    kept = made(3)
    links = msgspec.structs.replace(kept.page(0, 10), unsealed=2, oldest_unsealed=1000.0, time=1010.0)
    for time, expected in ((1010.0, []), (2000.0, [Kind.UNSEALED])):
        walk = check(kept)
        walk.finish(msgspec.structs.replace(links, time=time))
        assert [one.kind for one in walk.problems] == expected


def test_entries_that_a_server_holds_back_are_missed() -> None:
    walk = check(made(0))
    walk.page(msgspec.structs.replace(made(40).page(0, 40), entries=()))
    assert walk.problems[0].kind is Kind.REMOVED
