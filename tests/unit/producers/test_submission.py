from __future__ import annotations

import os
from pathlib import Path

import pytest

from producers.errors import InvalidJobError
from producers.submission import Description, place_of, prepare, read_description
from schemas.messages.common import MAX_INLINE_BYTES, MAX_SANDBOX_BYTES


def jdl(*entries: str) -> str:
    names = ", ".join(f'"{entry}"' for entry in entries)
    return f'[ Executable = "x"; InputSandbox = {{{names}}}; ]'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[\nInputSandbox = {"a", "b"};\n]', (2, 22)),
        ("[ inputsandbox={b} ]", (1, 17)),
        ('[ InputSandbox = {strcat("b", "c")}; ]', (1, 26)),
        ('[ Executable = "b"; ]', (1, 1)),
    ],
)
def test_places(text: str, place: tuple[int, int]) -> None:
    assert place_of("b", text) == place


def test_inline_up_to_the_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * MAX_INLINE_BYTES)
    prepared = prepare([Description(jdl("a"), tmp_path)], "k")
    assert (prepared.uploads, prepared.message.files[0].size) == ((), MAX_INLINE_BYTES)
    (tmp_path / "b").write_bytes(b"y")
    prepared = prepare([Description(jdl("a", "b"), tmp_path)], "k")
    assert len(prepared.uploads) == 2
    assert all(file.content is None for file in prepared.message.files)


def test_same_content_is_uploaded_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x" * MAX_INLINE_BYTES)
    prepared = prepare([Description(jdl("a", "b"), tmp_path)], "k")
    assert (len(prepared.uploads), len(prepared.message.files)) == (1, 2)


def test_every_fault_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_SANDBOX_BYTES + 1)
    descriptions = [
        Description(jdl("folder", "pipe", "huge", "none"), tmp_path),
        Description("[ Executable = ; ]", tmp_path),
    ]
    with pytest.raises(InvalidJobError) as caught:
        prepare(descriptions, "k")
    faults = caught.value.faults
    assert [fault.source for fault in faults] == [0, 0, 0, 0, 1]
    assert [fault.column for fault in faults[:4]] == [37, 47, 55, 63]


def test_parametric_jobs_bring_all_their_files(tmp_path: Path) -> None:
    for name in ("in_0", "in_1"):
        (tmp_path / name).write_text(name)
    text = '[ Executable = "x"; Parameters = 2; InputSandbox = "in_%n"; ]'
    prepared = prepare([Description(text, tmp_path)], "k")
    assert (prepared.count, [file.name for file in prepared.message.files]) == (2, ["in_0", "in_1"])


def test_a_submission_is_bounded() -> None:
    text = f'[ Executable = "x"; Arguments = "{"a" * 30_000}"; ]'
    with pytest.raises(InvalidJobError, match="larger than"):
        prepare([Description(text, Path())] * 40, "k")
    with pytest.raises(InvalidJobError, match="1 to 1000"):
        prepare([], "k")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InvalidJobError, match="cannot read /nowhere"):
        read_description(Path("/nowhere"))
