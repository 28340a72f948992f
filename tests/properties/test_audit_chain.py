"""Whatever one does to a kept chain without the auditor's key is found: brute force over every place, then random."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.audit import canonical, digest, from_line, to_line
from schemas.messages.audit import AuditEntry
from tests.support.chains import Kept, check, entry, made

SIZE = 23
TEXTS = st.text(max_size=20)
NUMBERS = st.integers(0, 2**53)

entries = st.builds(
    AuditEntry,
    id=NUMBERS,
    time=st.floats(0, 4e9, allow_nan=False),
    event=TEXTS,
    identity=TEXTS,
    client=TEXTS,
    detail=TEXTS,
)


def changed(kept: Kept) -> Iterator[Kept]:
    for index, one in enumerate(kept.entries):
        for values in (
            {"id": one.id + 1},
            {"time": one.time + 1e-6},
            {"event": "logins"},
            {"identity": ""},
            {"client": " "},
            {"detail": "{ }"},
            {"hash": one.hash[::-1]},
            {"hash": ""},
        ):
            yield with_entries(kept, [*kept.entries[:index], replaced(one, **values), *kept.entries[index + 1 :]])


def removed(kept: Kept) -> Iterator[Kept]:
    for index, one in enumerate(kept.entries):
        yield with_entries(kept, [*kept.entries[:index], *kept.entries[index + 1 :]])
        gone = AuditEntry(id=one.id, place=one.place, hash=one.hash, gone=True)
        yield with_entries(kept, [*kept.entries[:index], gone, *kept.entries[index + 1 :]])
        moved = [replaced(other, place=other.place - 1) for other in kept.entries[index + 1 :]]
        yield with_entries(kept, [*kept.entries[:index], *moved])
        yield with_entries(kept, rehashed([*kept.entries[:index], *moved]))


def inserted(kept: Kept) -> Iterator[Kept]:
    for index in range(len(kept.entries) + 1):
        before = kept.entries[index - 1].hash if index else "0" * 64
        new = entry(999, place=index + 1)
        new = replaced(new, hash=digest(index + 1, before, new))
        moved = [replaced(other, place=other.place + 1) for other in kept.entries[index:]]
        yield with_entries(kept, [*kept.entries[:index], new, *moved])
        yield with_entries(kept, rehashed([*kept.entries[:index], new, *moved]))


def swapped(kept: Kept) -> Iterator[Kept]:
    for first in range(len(kept.entries)):
        for second in range(first + 1, len(kept.entries)):
            one, two = kept.entries[first], kept.entries[second]
            order = list(kept.entries)
            order[first], order[second] = replaced(two, place=one.place), replaced(one, place=two.place)
            yield with_entries(kept, order)
            order = list(order)
            order[first], order[second] = (
                replaced(two, place=one.place, hash=one.hash),
                replaced(one, place=two.place, hash=two.hash),
            )
            yield with_entries(kept, order)
            yield with_entries(kept, rehashed(order))


def sealed_otherwise(kept: Kept) -> Iterator[Kept]:
    for index, one in enumerate(kept.seals):
        others = [*kept.seals[:index], *kept.seals[index + 1 :]]
        yield Kept(kept.entries, others)
        for other in others:
            yield Kept(kept.entries, [*others, replaced(one, payload=other.payload, jws=other.jws)])
        yield Kept(kept.entries, [*others, replaced(one, last=one.last + 1)])
        yield Kept(kept.entries, [*others, replaced(one, jws="")])


@pytest.mark.parametrize("page", [1, 4, 7, 100])
@pytest.mark.parametrize("way", [changed, removed, inserted, swapped, sealed_otherwise])
def test_every_single_act_is_found(way: Callable[[Kept], Iterator[Kept]], page: int) -> None:
    kept = made(SIZE, batch=5)
    assert not check(kept, page=page).problems
    tried = 0
    for tampered in way(kept):
        assert check(tampered, page=page).problems, tampered
        tried += 1
    assert tried >= len(kept.seals)


@pytest.mark.parametrize("length", range(SIZE))
def test_every_cut_is_found_with_the_last_head_noted_elsewhere(length: int) -> None:
    kept = made(SIZE, batch=5)
    head = kept.entries[-1].hash
    cut = Kept(kept.entries[:length], [seal for seal in kept.seals if seal.last <= length])
    assert check(cut, heads={head: SIZE}).problems
    assert check(cut, heads={head: 0}).problems


@given(NUMBERS, NUMBERS, entries, entries)
def test_unlike_things_have_unlike_bytes(place: int, other_place: int, one: AuditEntry, other: AuditEntry) -> None:
    same = (place, one) == (other_place, other)
    assert (canonical(place, "0" * 64, one) == canonical(other_place, "0" * 64, other)) == same


@given(entries)
def test_a_line_gives_back_every_entry(one: AuditEntry) -> None:
    kept = replaced(one, place=3, hash=digest(3, "0" * 64, one))
    line = to_line(kept)
    assert "\n" not in line
    assert digest(3, "0" * 64, from_line(line)) == kept.hash


def replaced(struct: msgspec.Struct, **values: object):  # type: ignore[no-untyped-def]  # of the same kind
    return msgspec.structs.replace(struct, **values)


def with_entries(kept: Kept, changed_entries: list[AuditEntry]) -> Kept:
    return Kept(changed_entries, kept.seals)


def rehashed(changed_entries: list[AuditEntry]) -> list[AuditEntry]:
    """All hashes computed anew: what an intruder does who knows how it works."""
    before, result = "0" * 64, []
    for one in changed_entries:
        before = digest(one.place, before, one)
        result.append(replaced(one, hash=before))
    return result
