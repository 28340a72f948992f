"""What the registry of 0.1.0 held is there after the upgrade, with its sources; and nobody is let in by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from consumers.store import Store, registry, upgrades

pytestmark = pytest.mark.integration

SEED = {
    "groups": {"g": {"fqan": "/vo", "properties": ["NormalUser"], "share": 2.0}},
    "users": [{"dn": "/CN=a", "nickname": "a", "groups": ["g"]}, {"dn": "/CN=b", "nickname": "b", "groups": ["g"]}],
    "services": [{"name": "matcher", "dn": "/CN=matcher", "sends": ["match.response.v1"]}],
    "sites": {"S": {}, "T": {}},
    "storage_elements": {"SE": {"sites": ["S"]}},
}


def old_store(url: str) -> None:
    """A store of 0.1.0, as its services left it."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        config = upgrades.configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001_post")
        for statement in (
            "INSERT INTO users (dn, nickname, suspended) VALUES ('/CN=a', 'a', FALSE), ('/CN=b', 'b', TRUE)",
            """INSERT INTO vo_groups (name, fqan, properties, share, background)
               VALUES ('g', '/vo', '["NormalUser"]', 2.0, FALSE)""",
            "INSERT INTO memberships (dn, grp, place) VALUES ('/CN=a', 'g', 0), ('/CN=b', 'g', 0)",
            """INSERT INTO services (dn, name, sends) VALUES ('/CN=matcher', 'matcher', '["match.response.v1"]')""",
            "INSERT INTO sites (name, usable, reason) VALUES ('S', TRUE, ''), ('T', FALSE, 'fire')",
            """INSERT INTO storage_elements (name, sites) VALUES ('SE', '["S"]')""",
            "INSERT INTO counters (name, next) VALUES ('registry', 7)",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_registry_is_carried_over(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/a.db" if database == "sqlite" else request.getfixturevalue("postgres_url")
    old_store(url)
    with Store.open(url) as store:
        with store.transaction() as tx:
            changes = registry.seed(tx, SEED)
        assert not changes  # the file says what it said
        with store.reading() as tx:
            found = registry.load(tx)
        assert {dn: user.suspended for dn, user in found.users.items()} == {"/CN=a": False, "/CN=b": True}
        assert found.users["/CN=a"].groups == ("g",)
        assert found.groups["g"].share == 2.0
        assert found.sites["T"] == registry.Site("T", False, "fire")
        with store.transaction() as tx:
            assert registry.set_suspended(tx, "/CN=b", suspended=False)  # it is the operators' to lift
            assert registry.set_site(tx, "T", usable=True)
            found = registry.load(tx)
        assert not found.users["/CN=b"].suspended
        assert found.sites["T"].usable
