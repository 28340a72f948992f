"""What an older release wrote into the audit gets its place in the chain."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from consumers.store import Store, audit_chain, upgrades
from tests.support import pki
from tests.support.audits import Audits

pytestmark = pytest.mark.integration

ROWS = [
    {"id": 3, "time": 5.0, "event": "login", "identity": "/CN=Ada", "client": "ada.1", "detail": '{"group":"g"}'},
    {"id": 7, "time": 6.5, "event": "proxy.stored", "identity": "/CN=Ödön", "client": "", "detail": "{}"},
]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_old_rows_are_sealed(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/s.db" if database == "sqlite" else request.getfixturevalue("postgres_url")
    engine = sa.create_engine(url)
    config = upgrades.configuration()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001_post")
        insert = "INSERT INTO audit VALUES (:id, :time, :event, :identity, :client, :detail)"
        connection.execute(sa.text(insert), ROWS)
    engine.dispose()
    with Store.open(url) as store:
        with store.reading() as tx:
            assert audit_chain.waiting(tx).count == len(ROWS)
        audits = Audits.of(store, pki.make_pki(tmp_path / "trust"))
        audits.seal(audits.auditor())
        assert [(entry.place, entry.id) for entry in audits.links().entries] == [(1, 3), (2, 7)]
        assert not audits.problems()
