"""Bringing the tables up to date, and refusing tables that do not fit this release.

Migrations come in pairs. ``NNNN_pre_<name>`` only adds (tables, columns, indexes): old and new processes both work
with its result, so it runs before the new release starts. ``NNNN_post_<name>`` takes away what the old release needed,
so it runs when the last old process is gone. Every release has both, in one chain: 0001_pre, 0001_post, 0002_pre, …

At start a process runs everything that was due before its own release, and its own ``pre``. Where it is alone (SQLite)
or the database is new it runs its ``post``, too; else an operator does (``Store.finish_upgrade``). There is no way
down.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import sqlalchemy as sa

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import Connection, Engine

PRE = "0003_pre"
POST = "0003_post"
"""The newest pair. A test compares them with the files."""

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK = 0x50494C4F54
"""PostgreSQL advisory lock: one process upgrades at a time."""


def prepare(engine: Engine, *, upgrade: bool) -> None:
    """Make sure that the tables fit this release.

    Raises:
        ConfigurationError: they do not, and ``upgrade`` is off, or they are of a newer release.
    """
    with engine.connect() as connection:
        found = version(connection)
    if found == POST or (found == PRE and engine.dialect.name == "postgresql"):
        return
    if not upgrade:
        raise ConfigurationError(f"the store's tables are of version {found or 'none'}, this release needs {PRE}")
    to_post = engine.dialect.name == "sqlite" or found is None
    run(engine, "post" if to_post else "pre")


def version(connection: Connection) -> str | None:
    """The last migration that ran; ``None`` on an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def run(engine: Engine, stage: Literal["pre", "post"]) -> None:
    """Run the migrations up to this release's ``pre`` or ``post``, in one transaction."""
    # Alembic is slow to import and needed only when there is something to do.
    from alembic import command
    from alembic.script import ScriptDirectory

    config = configuration()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        found = version(connection)
        if found is not None and found not in known:
            raise ConfigurationError(
                f"the store's tables are of version {found}, made by a newer release than this one"
            )
        if stage == "pre" and found == POST:
            return
        config.attributes["connection"] = connection
        command.upgrade(config, POST if stage == "post" else PRE)


def configuration() -> Config:
    """Alembic's settings, without a file."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config
