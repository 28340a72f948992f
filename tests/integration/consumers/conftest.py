"""The same tests run on both databases, with one throwaway authority and a small registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumers.directory import Directory
from consumers.store import Store, registry
from tests.support import pki
from tests.support.messages import pilot, user

REGISTRY: dict[str, Any] = {
    "groups": {
        "vo_user": {"fqan": "/vo", "properties": ["NormalUser"]},
        "vo_prod": {"fqan": "/vo/Role=production", "properties": ["NormalUser", "JobSharing", "DataManager"]},
        "vo_admin": {"properties": ["Operator", "JobAdministrator"]},
        "vo_pilot": {"properties": ["GenericPilot"]},
    },
    "users": [
        {"dn": user("ada").identity, "nickname": "ada", "groups": ["vo_user", "vo_prod"]},
        {"dn": user("bob").identity, "nickname": "bob", "groups": ["vo_user", "vo_prod"]},
        {"dn": user("olga").identity, "nickname": "olga", "groups": ["vo_admin"]},
        {"dn": pilot().identity, "nickname": "pilot", "groups": ["vo_pilot"]},
        {"dn": pki.USER_DN, "nickname": "real", "groups": ["vo_user", "vo_pilot"]},
    ],
    "sites": {"S1": {}, "S2": {}, "S3": {}},
    "storage_elements": {"SE1": {"sites": ["S1"]}, "SE2": {"sites": ["S2", "S3"]}, "SE-FAR": {"sites": []}},
}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store with the small registry in it."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/data/store.db" if sqlite else request.getfixturevalue("postgres_url")
    with Store.open(url) as opened:
        with opened.transaction() as tx:
            registry.seed(tx, REGISTRY)
        yield opened


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> pki.Pki:
    """A throwaway authority with one user."""
    return pki.make_pki(tmp_path_factory.mktemp("trust"))


@pytest.fixture
def directory(store: Store, authority: pki.Pki) -> Directory:
    """Who is who."""
    return Directory(store, authority.trust)
