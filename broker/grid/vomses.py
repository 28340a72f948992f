"""Where the VOMS servers of a VO are: the ``vomses`` files that every grid user has.

Promises: a line is ``"alias" "host" "port" "DN" "VO"`` with an optional sixth value that nobody needs any more; a path
is a file or a directory of such files; what cannot be understood is left out and named in ``problems``; sizes and
counts are bounded. It opens no connection: that is ``voms_client``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import InvalidInputError
from schemas.identity import canonical_dn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# A directory with all VOs of the grid has about 200 files of one or two lines.
MAX_FILE_BYTES = 64 * 1024
MAX_FILES = 2000

_LINE = re.compile(r'\s*"([^"]*)"\s+"([^"]*)"\s+"([^"]*)"\s+"([^"]*)"\s+"([^"]*)"(?:\s+"[^"]*")*\s*')
_VO = re.compile(r"[A-Za-z0-9._-]{1,255}")
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,255}")


@dataclass(frozen=True, slots=True)
class VomsEntry:
    """One server of a VO.

    Attributes:
        alias: the word by which users name it; mostly the VO itself.
        host: name or address.
        port: TCP port.
        dn: canonical DN that its certificate must have.
        vo: the VO.
    """

    alias: str
    host: str
    port: int
    dn: str
    vo: str


@dataclass(frozen=True, slots=True)
class Vomses:
    """What a search found."""

    entries: tuple[VomsEntry, ...] = ()
    problems: tuple[str, ...] = ()
    looked: tuple[str, ...] = ()
    """Where was searched, for the message to a user whose VO was not found."""

    def servers_of(self, name: str) -> tuple[VomsEntry, ...]:
        """Return the servers whose alias it is, else those of the VO, in the order of the files."""
        by_alias = tuple(entry for entry in self.entries if entry.alias == name)
        return by_alias or tuple(entry for entry in self.entries if entry.vo == name)


def parse_vomses(text: str) -> tuple[VomsEntry, ...]:
    """Read the text of a vomses file.

    Raises:
        InvalidInputError: names the line that is none.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            entries.append(_parse_line(line, number))
    return tuple(entries)


def _parse_line(line: str, number: int) -> VomsEntry:
    match = _LINE.fullmatch(line)
    if match is None:
        raise InvalidInputError(f'line {number} is not of the form "alias" "host" "port" "DN" "VO"')
    alias, host, port, dn, vo = match.groups()
    if not _HOST.fullmatch(host) or not _VO.fullmatch(vo) or not alias.isprintable():
        raise InvalidInputError(f"line {number} has a host or a VO that cannot be one")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise InvalidInputError(f"line {number}: the port must be 1 to 65535")
    try:
        return VomsEntry(alias, host, int(port), canonical_dn(dn), vo)
    except InvalidInputError as error:
        raise InvalidInputError(f"line {number}: {error}") from None


def load_vomses(paths: Iterable[Path]) -> Vomses:
    """Read files, and the files in directories; paths that do not exist are passed over."""
    entries: dict[VomsEntry, None] = {}
    problems: list[str] = []
    looked: list[str] = []
    for path in paths:
        looked.append(str(path))
        try:
            for file in _files(path):
                entries |= dict.fromkeys(_read(file, problems))
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    return Vomses(tuple(entries), tuple(problems), tuple(looked))


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        if path.exists():
            yield path
        return
    names = sorted(item for item in path.iterdir() if item.is_file() and not item.name.startswith("."))
    if len(names) > MAX_FILES:
        raise OSError(0, f"more than {MAX_FILES} files")
    yield from names


def _read(file: Path, problems: list[str]) -> tuple[VomsEntry, ...]:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise InvalidInputError(f"larger than {MAX_FILE_BYTES} bytes")
        return parse_vomses(data.decode("utf-8"))
    except OSError as error:
        problems.append(f"{file}: {error.strerror}")
    except (UnicodeDecodeError, InvalidInputError) as error:
        problems.append(f"{file}: {error if isinstance(error, InvalidInputError) else 'no text'}")
    return ()
