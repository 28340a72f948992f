"""Sandbox files never reach outside of the work directory, in neither direction."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pilot.sandbox import PickedFile, SandboxError, check_name, pick_output, read_picked, write_input

BAD = ["", "/etc/passwd", "../x", "a/../../x", "..", ".", "a/", "~/x", "a\nb", "a\0b", "x" * 256, "y/" * 600 + "z"]


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SandboxError):
        check_name(name)
    with pytest.raises(SandboxError):
        write_input(tmp_path, {"good": b"x", name: b"y"})
    assert list(tmp_path.iterdir()) == []


def test_input_is_written_with_folders_and_modes(tmp_path: Path) -> None:
    write_input(tmp_path, {"run.sh": b"echo", "lib/a.py": b"1", "lib/b.py": b"2"}, executable=["run.sh"])
    assert (tmp_path / "lib" / "b.py").read_bytes() == b"2"
    assert os.access(tmp_path / "run.sh", os.X_OK)
    assert (tmp_path / "lib" / "a.py").stat().st_mode & 0o777 == 0o600


def test_input_overwrites_nothing_and_follows_no_link(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "link").symlink_to(tmp_path)
    (work / "dangling").symlink_to(tmp_path / "target")
    write_input(work, {"a": b"1"})
    for name in ("a", "a/b", "link/x", "dangling"):
        with pytest.raises(SandboxError, match="taken"):
            write_input(work, {name: b"2"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["work"]


def test_output_is_picked_with_size_and_hash(tmp_path: Path) -> None:
    (tmp_path / "std.out").write_bytes(b"hello")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "1.log").write_bytes(b"a")
    (tmp_path / "logs" / "2.log").write_bytes(b"bb")
    (tmp_path / "x.log").write_bytes(b"ccc")
    picked = pick_output(tmp_path, ["std.out", "logs/*.log", "*.log", "std.out", "missing", "*.none", "../*"])
    assert [file.name for file in picked.files] == ["std.out", "logs/1.log", "logs/2.log", "x.log"]
    assert picked.files[0] == PickedFile("std.out", 5, hashlib.sha256(b"hello").hexdigest())
    assert picked.total_bytes == 11
    reasons = {refused.name: refused.reason for refused in picked.refused}
    assert reasons["missing"] == "was not produced"
    assert reasons["*.none"] == "no file matches"
    assert "leaves the work directory" in reasons["../*"]
    assert read_picked(tmp_path, picked.files[3]) == b"ccc"


def test_output_never_follows_links_or_takes_odd_files(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "secret").write_text("key")
    (work / "file").symlink_to(tmp_path / "secret")
    (work / "inside").symlink_to("real")
    (work / "folder").symlink_to(tmp_path)
    (work / "dir").mkdir()
    os.mkfifo(work / "fifo")
    (work / "real").write_text("x")
    picked = pick_output(work, ["*", "folder/secret", "file"])
    assert [file.name for file in picked.files] == ["real"]
    reasons = {refused.name: refused.reason for refused in picked.refused}
    assert reasons["file"] == reasons["folder/secret"] == reasons["inside"] == "is or lies behind a symbolic link"
    assert reasons["fifo"] == "not a regular file"


def test_output_over_the_limit_is_listed_and_smaller_files_still_fit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 60)
    (tmp_path / "b").write_bytes(b"x" * 60)
    (tmp_path / "c").write_bytes(b"x" * 40)
    picked = pick_output(tmp_path, ["a", "b", "c"], limit_bytes=100)
    assert [file.name for file in picked.files] == ["a", "c"]
    assert picked.refused[0].reason == "60 bytes do not fit: 40 of 100 bytes are left"


def test_changed_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (file,) = pick_output(tmp_path, ["a"]).files
    (tmp_path / "a").write_bytes(b"two")
    with pytest.raises(SandboxError, match="changed"):
        read_picked(tmp_path, file)
    (tmp_path / "a").unlink()
    with pytest.raises(SandboxError, match="vanished"):
        read_picked(tmp_path, file)


def test_a_pattern_does_not_pick_hidden_files_by_accident(tmp_path: Path) -> None:
    for name in (".x509_proxy.pem", ".rc", "out.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "out.txt").write_text("x")
    assert [file.name for file in pick_output(tmp_path, ["*", "?x509_proxy.pem", "*/*"]).files] == ["out.txt"]
    assert [file.name for file in pick_output(tmp_path, [".r*"]).files] == [".rc"]
