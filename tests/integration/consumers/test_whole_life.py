"""A job's whole life, as in tests/properties, on PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from compose.local.postgres import PostgresCluster
from consumers.store import Store
from tests.support.whole_life_walk import walk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # to shorten a walk that failed may take minutes


def test_whole_lives(postgres: PostgresCluster) -> None:
    name = f"walk_{uuid.uuid4().hex[:12]}"
    url = postgres.create_database(name)

    @contextmanager
    def place() -> Iterator[Store]:
        with Store.open(url) as store:
            yield store
            empty(store)

    try:
        walk(place, 12)
    finally:
        postgres.drop_database(name)


def empty(store: Store) -> None:
    """Every row goes, for the next walk."""
    with store.transaction() as tx:
        names = sa.inspect(tx.connection).get_table_names()
        kept = {"alembic_version"}
        shown = ", ".join(f'"{name}"' for name in names if name not in kept)
        tx.connection.execute(sa.text(f"TRUNCATE {shown} RESTART IDENTITY"))
