"""Input data comes whole and checked, from the site's own storage elements only."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from pilot.data import InputDataError, StagingCancelledError, stage
from schemas.messages.common import InputFile, Replica

CONTENT = b"events " * 1000


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    store, work = tmp_path / "store", tmp_path / "work"
    (store / "lhcb").mkdir(parents=True)
    work.mkdir()
    (store / "lhcb" / "data 1.bin").write_bytes(CONTENT)
    return store, work


def described(
    store: Path, *, size: int = len(CONTENT), adler32: str | None = None, pfn: str | None = None
) -> InputFile:
    checksum = f"{zlib.adler32(CONTENT):08x}" if adler32 is None else adler32
    good = pfn or f"file://{store}/lhcb/data%201.bin"
    return InputFile(lfn="/lhcb/data1.bin", size=size, adler32=checksum, replicas=(Replica(se="SE", pfn=good),))


def test_file_is_copied_and_checked(places: tuple[Path, Path]) -> None:
    store, work = places
    staged = stage(described(store), work, {"SE": store}, margin_mb=0)
    assert (staged.name, staged.size, staged.se) == ("data1.bin", len(CONTENT), "SE")
    assert [path.name for path in work.iterdir()] == ["data1.bin"]
    assert (work / "data1.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 5}, "larger than"),
        ({"size": 10_000}, "the catalog says 10000"),
        ({"adler32": "00000001"}, "checksum"),
        ({"pfn": "root://server//file"}, "protocol 'root' is not available"),
        ({"pfn": "file:///etc/passwd"}, "outside of the storage element"),
        ({"pfn": "file://{store}/../work/x"}, "leaves"),
        ({"pfn": "file://{store}/link"}, "symbolic|levels"),
        ({"pfn": "file://{store}/lhcb"}, "not a regular file"),
        ({"pfn": "file://elsewhere{store}/lhcb/data%201.bin"}, "not available"),
        ({"pfn": "file://{store}/none"}, "No such file"),
    ],
)
def test_bad_replicas_are_named(places: tuple[Path, Path], change: dict[str, object], message: str) -> None:
    store, work = places
    (store / "link").symlink_to("/etc/passwd")
    if isinstance(pfn := change.get("pfn"), str):
        change = {"pfn": pfn.format(store=store)}
    with pytest.raises(InputDataError, match=message):
        stage(described(store, **change), work, {"SE": store}, margin_mb=0)  # type: ignore[arg-type]
    assert list(work.iterdir()) == []


def test_unknown_storage_element_is_refused(places: tuple[Path, Path]) -> None:
    store, work = places
    with pytest.raises(InputDataError, match="names no folder"):
        stage(described(store), work, {}, margin_mb=0)


def test_second_replica_helps(places: tuple[Path, Path]) -> None:
    store, work = places
    good = described(store).replicas[0]
    file = InputFile(lfn="/lhcb/d", size=len(CONTENT), replicas=(Replica(se="FAR", pfn="root://x//y"), good))
    assert stage(file, work, {"SE": store}, margin_mb=0).se == "SE"


def test_disk_margin_is_kept(places: tuple[Path, Path]) -> None:
    store, work = places
    with pytest.raises(InputDataError, match="do not fit"):
        stage(described(store), work, {"SE": store}, margin_mb=10**12)


def test_taken_name_and_cancellation(places: tuple[Path, Path]) -> None:
    store, work = places
    with pytest.raises(StagingCancelledError):
        stage(described(store), work, {"SE": store}, margin_mb=0, cancelled=lambda: True)
    assert list(work.iterdir()) == []
    (work / "data1.bin").write_text("mine")
    with pytest.raises(InputDataError, match="taken"):
        stage(described(store), work, {"SE": store}, margin_mb=0)
    assert (work / "data1.bin").read_text() == "mine"
