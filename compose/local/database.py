"""The store of a private stack: a SQLite file, a private PostgreSQL cluster, or a database somewhere else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from schemas.errors import ConfigurationError

from .choices import POSTGRES, SQLITE
from .files import FOLDER_MODE
from .postgres import PostgresCluster

if TYPE_CHECKING:
    from .layout import Layout
    from .processes import ManagedProcess


class Database:
    """One of the three; only the private cluster has a process to start.

    Args:
        layout: the data directory.
        store: ``sqlite``, ``postgres`` or a URL.
        dies_with_parent: as in ``PostgresCluster``.
    """

    def __init__(self, layout: Layout, store: str, *, dies_with_parent: bool) -> None:
        self._layout = layout
        self._store = store
        self._cluster = (
            PostgresCluster(layout.postgres, dies_with_parent=dies_with_parent) if store == POSTGRES else None
        )

    @property
    def url(self) -> str:
        """SQLAlchemy's URL."""
        if self._cluster is not None:
            return self._cluster.url
        return f"sqlite:///{self._layout.sqlite}" if self._store in {SQLITE, ""} else self._store

    @property
    def process(self) -> ManagedProcess | None:
        """The server's process; None where there is none of ours."""
        return None if self._cluster is None else self._cluster.process

    def start(self) -> None:
        """Start the private cluster."""
        if self._cluster is None:
            return
        if os.geteuid() == 0:
            self._check_way()
        self._cluster.start()

    def stop(self) -> None:
        """Stop the private cluster."""
        if self._cluster is not None:
            self._cluster.stop()

    @property
    def root_mode(self) -> int:
        """Rights of the data directory: PostgreSQL never runs as root, its account must walk through to its folder."""
        return 0o711 if self._cluster is not None and os.geteuid() == 0 else FOLDER_MODE

    def _check_way(self) -> None:
        closed = [folder for folder in self._layout.root.parents if not folder.stat().st_mode & 0o001]
        if closed:
            raise ConfigurationError(
                f"PostgreSQL does not run as root, and its own account cannot enter {closed[-1]}: take a --data-dir "
                "such as /var/lib/pilotage"
            )
