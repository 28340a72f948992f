"""Reads the VO's sources beside the registry's own work: no transaction is open while somebody else's server thinks.

One thread, one source at a time, each bounded in time by its reader; results wait until the registry's consumer takes
them. What they mean: :mod:`.domain.synchronization`.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from schemas.errors import ConfigurationError, PilotageError

from .domain.synchronization import SourceUser
from .iam_scim import Iam, read_token
from .settings import SourceKind, SourceSettings
from .store import voms_database

MAX_SECRET_BYTES = 4096

log = structlog.get_logger(__name__)

Read = Callable[[SourceSettings], Sequence[SourceUser]]


@dataclass(frozen=True, slots=True)
class Result:
    """One source, read.

    Attributes:
        ticket: as it was asked.
        users: all that it names; None if it could not be read.
        error: why not.
    """

    ticket: int
    source: SourceSettings
    users: Sequence[SourceUser] | None
    error: str = ""


def read_source(source: SourceSettings) -> Sequence[SourceUser]:
    """Read one source.

    Raises:
        PilotageError: it could not be read whole.
    """
    if source.kind is SourceKind.IAM_SCIM:
        if source.secret_file is None:
            raise ConfigurationError(f"source {source.name}: IAM needs a token_file")
        return Iam(source.url, read_token(source.secret_file), source.ca_file).read()
    password = _secret(source.secret_file) if source.secret_file else None
    return voms_database.read(source.url, password, source.ca_file)


class Sources:
    """The sources and their reader.

    Args:
        sources: what may be read.
        read: how.
    """

    def __init__(self, sources: Sequence[SourceSettings], read: Read = read_source) -> None:
        self._sources = {source.name: source for source in sources}
        self._read = read
        self._wanted: queue.SimpleQueue[tuple[int, SourceSettings]] = queue.SimpleQueue()
        self._results: deque[Result] = deque()
        self._thread: threading.Thread | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All sources, in the order of the configuration."""
        return tuple(self._sources)

    @property
    def ready(self) -> bool:
        """Whether a result waits."""
        return bool(self._results)

    def ask(self, ticket: int, names: Sequence[str]) -> None:
        """Have these read, as soon as those before them are."""
        for name in names:
            self._wanted.put((ticket, self._sources[name]))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="registry-sources", daemon=True)
            self._thread.start()

    def first(self) -> Result | None:
        """The oldest result; it stays until it is done with."""
        return self._results[0] if self._results else None

    def done(self) -> None:
        """The oldest result is done with."""
        self._results.popleft()

    def _work(self) -> None:
        while True:
            ticket, source = self._wanted.get()
            try:
                self._results.append(Result(ticket, source, self._read(source)))
            except PilotageError as error:
                self._results.append(Result(ticket, source, None, str(error)))
            except Exception as error:
                log.exception("registry.source_failed", source=source.name)
                self._results.append(Result(ticket, source, None, f"it cannot be read ({type(error).__name__})"))


def _secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SECRET_BYTES).decode("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: holds no password") from None
