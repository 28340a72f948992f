"""The ``vomsdir``: which VOMS servers may speak for which VO, as LSC files ``VO/HOST.lsc``.

Promises: an LSC file lists names of certificates, one a line, from the server upwards; several chains are
separated by ``------ NEXT CHAIN ------``. What cannot be understood is left out and named in ``problems``. Read
again when a file changes.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Self

from schemas.errors import ConfigurationError, InvalidInputError
from schemas.identity import canonical_dn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# An LSC file holds a few names.
MAX_LSC_BYTES = 64 * 1024
# Same as the trust directory's: a new file counts within this time.
RELOAD_SECONDS = 5.0

_NEXT_CHAIN = re.compile(r"-{3,}\s*NEXT CHAIN\s*-{3,}", re.IGNORECASE)
Chain = tuple[str, ...]
_Mark = tuple[tuple[str, int, int, int], ...]


class VomsDir:
    """The servers that we believe, per VO. Safe for use by several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._mark, self._chains, self.problems = _read(directory)
        self._looked = time.monotonic()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a vomsdir.

        Raises:
            ConfigurationError: the directory cannot be read.
        """
        return cls(path)

    def chains_of(self, vo: str) -> tuple[Chain, ...]:
        """Return the chains of canonical names (server first) that may speak for a VO."""
        if time.monotonic() - self._looked > RELOAD_SECONDS:
            self.reload_if_changed()
        return self._chains.get(vo, ())

    def reload_if_changed(self) -> bool:
        """Read the directory again if a file changed; return whether it was read."""
        with self._lock:
            self._looked = time.monotonic()
            try:
                if _fingerprint(self._directory) == self._mark:
                    return False
                self._mark, self._chains, self.problems = _read(self._directory)
            except ConfigurationError:
                return False
            return True


def parse_lsc(text: str) -> tuple[Chain, ...]:
    """Read an LSC file.

    Raises:
        InvalidInputError: a line that is no DN, or no chain at all.
    """
    chains: list[list[str]] = [[]]
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if _NEXT_CHAIN.fullmatch(line):
            chains.append([])
        else:
            chains[-1].append(canonical_dn(line))
    if not all(len(chain) >= 2 for chain in chains):
        raise InvalidInputError("an LSC chain needs the server's name and its authority's")
    return tuple(tuple(chain) for chain in chains)


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    try:
        for vo in sorted(directory.iterdir()):
            if vo.is_dir():
                yield from ((vo.name, path) for path in sorted(vo.glob("*.lsc")))
    except OSError as error:
        raise ConfigurationError(f"cannot read the vomsdir {directory}: {error.strerror}") from None


def _fingerprint(directory: Path) -> _Mark:
    marks = []
    for _vo, path in _files(directory):
        try:
            stat = path.stat()
        except OSError:
            continue
        marks.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(marks)


def _read(directory: Path) -> tuple[_Mark, dict[str, tuple[Chain, ...]], tuple[str, ...]]:
    mark = _fingerprint(directory)
    found: dict[str, tuple[Chain, ...]] = {}
    problems = []
    for vo, path in _files(directory):
        try:
            if path.stat().st_size > MAX_LSC_BYTES:
                raise InvalidInputError(f"larger than {MAX_LSC_BYTES} bytes")
            found[vo] = found.get(vo, ()) + parse_lsc(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, InvalidInputError) as error:
            problems.append(f"{path}: {error}")
    return mark, found, tuple(problems)
