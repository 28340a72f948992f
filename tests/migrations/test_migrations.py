"""The tables that the code names are the sum of the migrations, on both databases; and there is only one way: up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from consumers.store import Store, upgrades
from consumers.store.tables import metadata
from schemas.errors import ConfigurationError

pytestmark = pytest.mark.integration

VERSIONS = upgrades.MIGRATIONS / "versions"


@contextmanager
def inspected(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def described(connection: sa.Connection) -> dict[str, object]:
    """Tables, columns, keys and indexes as the database itself tells them."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'")
        # The order of a table's constraints has no meaning.
        return {f"{kind} {name}": sorted(re.split(r",?\s+", sql)) for kind, name, sql in rows if sql}
    columns = connection.exec_driver_sql(
        "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity, ordinal_position "
        "FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
    )
    indexes = connection.exec_driver_sql("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")
    constraints = connection.exec_driver_sql(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
    )
    options = connection.exec_driver_sql(
        "SELECT relname, reloptions FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL"
    )
    found: dict[str, object] = {f"options {name}": values for name, values in options}
    found |= {f"column {row[0]}.{row[1]}": tuple(row[2:]) for row in columns}
    found |= {f"index {name}": text for name, text in indexes if not name.startswith("alembic")}
    return found | {f"constraint {name}": text for name, text in constraints if not name.startswith("alembic")}


def metadata_makes(url: str) -> dict[str, object]:
    with inspected(url) as connection:
        metadata.create_all(connection)
        connection.commit()
        return described(connection)


def migrations_make(url: str) -> dict[str, object]:
    Store.open(url).close()
    with inspected(url) as connection:
        return described(connection)


def test_sqlite(tmp_path: Path) -> None:
    assert migrations_make(f"sqlite:///{tmp_path}/a.db") == metadata_makes(f"sqlite:///{tmp_path}/b.db")


def test_postgresql(postgres_url: str) -> None:
    migrated = migrations_make(postgres_url)
    with inspected(postgres_url) as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        connection.commit()
    assert migrated == metadata_makes(postgres_url)


def test_the_migrations_are_one_chain_of_pairs() -> None:
    scripts = list(ScriptDirectory.from_config(upgrades.configuration()).walk_revisions())
    chain = [script.revision for script in reversed(scripts)]
    assert chain == [f"{i // 2 + 1:04}_{'post' if i % 2 else 'pre'}" for i in range(len(chain))]
    assert chain[-2:] == [upgrades.PRE, upgrades.POST]
    for path in VERSIONS.glob("[0-9]*.py"):
        assert re.fullmatch(r"\d{4}_(pre|post)_[a-z0-9_]+\.py", path.name)
        assert "def downgrade" not in path.read_text()


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    assert migrations_make(url) == migrations_make(url)


def test_an_empty_database_is_refused_without_upgrade(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="version none"):
        Store.open(f"sqlite:///{tmp_path}/a.db", upgrade=False)


def test_tables_of_a_newer_release_are_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    Store.open(url).close()
    with inspected(url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_pre'")
        connection.commit()
    with pytest.raises(ConfigurationError, match="newer release"):
        Store.open(url)


def test_on_postgresql_a_start_runs_only_what_adds(postgres_url: str) -> None:
    Store.open(postgres_url).close()
    with inspected(postgres_url) as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{upgrades.PRE}'")
        connection.commit()
        with Store.open(postgres_url) as store:
            assert upgrades.version(connection) == upgrades.PRE
            connection.rollback()
            store.finish_upgrade()
            assert upgrades.version(connection) == upgrades.POST
            connection.rollback()
