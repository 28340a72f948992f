"""The vomses files: what counts as a line, where is looked, what a bad file does."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.grid.vomses import MAX_FILE_BYTES, VomsEntry, load_vomses, parse_vomses
from schemas.errors import InvalidInputError

LINE = '"lhcb" "voms.example.org" "15003" "/DC=org/OU=Hosts/CN=voms.example.org" "lhcb"'
ENTRY = VomsEntry("lhcb", "voms.example.org", 15003, "/DC=org/OU=Hosts/CN=voms.example.org", "lhcb")


@pytest.mark.parametrize(
    "text",
    [
        LINE,
        LINE + ' "24"',
        f"# a comment\n\n  {LINE}  \n",
        LINE.replace(" ", "\t", 1),
        LINE.replace("\n", "\r\n") + "\r\n",
    ],
)
def test_a_line_is_read(text: str) -> None:
    assert parse_vomses(text) == (ENTRY,)


def test_names_are_canonical() -> None:
    (entry,) = parse_vomses('"a" "h" "1" "/C=XX/Email=x@example.org/CN=h" "vo.example.org"')
    assert entry.dn == "/C=XX/emailAddress=x@example.org/CN=h"


@pytest.mark.parametrize(
    "text",
    [
        "lhcb voms.example.org 15003 /CN=x lhcb",
        LINE.replace("15003", "0"),
        LINE.replace("15003", "65536"),
        LINE.replace("15003", "99999999999999999999"),
        LINE.replace("15003", "-1"),
        LINE.replace('"/DC=org/OU=Hosts/CN=voms.example.org"', '"no dn"'),
        LINE.replace('"voms.example.org"', '"voms/../example"'),
        LINE.replace('"voms.example.org"', '"voms\r\nX: y"', 1),
        LINE[:-6] + '"lh cb"',
        LINE + " trailing",
        '"lhcb"',
    ],
)
def test_what_is_no_line_is_refused_with_its_number(text: str) -> None:
    with pytest.raises(InvalidInputError, match="line 1"):
        parse_vomses(text)


def test_files_and_directories_are_searched_in_order_and_bad_files_named(tmp_path: Path) -> None:
    folder = tmp_path / "vomses"
    folder.mkdir()
    (folder / "b").write_text(LINE.replace("voms.example.org", "voms2.example.org"))
    (folder / "a").write_text(LINE)
    (folder / "bad").write_text("nonsense")
    (folder / "binary").write_bytes(b"\xff\xfe")
    (folder / "huge").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    (folder / ".hidden").write_text(LINE.replace("15003", "1"))
    own = tmp_path / "own"
    own.write_text(LINE.replace("15003", "15999"))
    found = load_vomses([own, tmp_path / "missing", folder])
    assert [(entry.host, entry.port) for entry in found.servers_of("lhcb")] == [
        ("voms.example.org", 15999),
        ("voms.example.org", 15003),
        ("voms2.example.org", 15003),
    ]
    assert [problem.partition(": ")[0].rpartition("/")[2] for problem in found.problems] == ["bad", "binary", "huge"]
    assert str(tmp_path / "missing") in found.looked


def test_an_alias_goes_before_a_vo() -> None:
    near = LINE.replace('"lhcb" "voms', '"near" "voms', 1)
    found = load_vomses([])
    assert found.servers_of("lhcb") == ()
    found = type(found)((*parse_vomses(LINE), *parse_vomses(near)))
    assert [entry.alias for entry in found.servers_of("near")] == ["near"]
    assert [entry.alias for entry in found.servers_of("lhcb")] == ["lhcb"]
