from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from compose.local.files import private_folder, toml_text, write_private
from schemas.errors import ConfigurationError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, "a\n")
    assert mode(file) == 0o600
    assert file.read_text() == "a\n"
    assert list(tmp_path.iterdir()) == [file]


def test_the_same_content_is_not_written_again(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, b"a")
    before = file.stat().st_ino
    write_private(file, b"a")
    assert file.stat().st_ino == before
    write_private(file, b"b")
    assert file.read_bytes() == b"b"


def test_a_file_that_was_opened_to_others_is_closed_again(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, "a")
    file.chmod(0o644)
    write_private(file, "a")
    assert mode(file) == 0o600


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "secret"
    victim.write_text("mine")
    file.symlink_to(victim)
    write_private(file, "new")
    assert victim.read_text() == "mine"
    assert not file.is_symlink()


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_private(tmp_path / "missing" / "secret", "a")


def test_a_private_folder_is_tightened(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    private_folder(folder)
    folder.chmod(0o755)
    assert mode(private_folder(folder)) == 0o700
    assert mode(private_folder(folder, 0o711)) == 0o711


def test_toml_reads_back_as_it_was_meant() -> None:
    odd = 'a "quoted" \\ name\n\t\x7f é 😀'
    text = toml_text(
        {
            "plain": {"text": odd, "number": 7, "real": 0.5, "yes": True, "list": ["a", odd]},
            'sites."Site.X"': {"usable": False},
            "users": [{"dn": "/CN=a"}, {"dn": "/CN=b", "odd key": 1}],
        },
        "two\nlines",
    )
    assert text.startswith("# two\n# lines\n")
    assert tomllib.loads(text) == {
        "plain": {"text": odd, "number": 7, "real": 0.5, "yes": True, "list": ["a", odd]},
        "sites": {"Site.X": {"usable": False}},
        "users": [{"dn": "/CN=a"}, {"dn": "/CN=b", "odd key": 1}],
    }
