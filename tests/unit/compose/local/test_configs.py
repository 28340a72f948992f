from __future__ import annotations

import datetime as dt
import tomllib
from pathlib import Path

import pytest

from broker.authorization import SERVICES
from compose.local.configs import (
    SITE,
    STORAGE_ELEMENT,
    Addresses,
    default_slots,
    write_client_config,
    write_pilot_config,
    write_registry,
    write_server_config,
)
from compose.local.files import private_folder
from compose.local.identities import ensure_identities, service_dn, user_dn
from compose.local.layout import Layout
from compose.server_settings import load as load_server
from compose.settings import load_user_settings
from consumers.store.seed import parse_seed
from pilot.settings import load as load_pilot

ADDRESSES = Addresses(broker=12345, gatekeeper=12346, store="sqlite:////somewhere/store.db", management=12347)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "a stack with blanks, é and 'quotes'")
    private_folder(made.root)
    ensure_identities(made, dt.datetime.now(dt.UTC))
    return made


def test_the_registry_knows_everybody(layout: Layout) -> None:
    write_registry(layout)
    seed = parse_seed(tomllib.loads(layout.registry.read_text()))
    assert {service.name for service in seed.services} == SERVICES
    users = {user.dn: user.groups for user in seed.users}
    assert users[user_dn(layout)] == ("users",)
    assert len(users) == 1  # pilots enrol
    assert seed.storage_elements[STORAGE_ELEMENT].sites == (SITE,)


def test_the_services_read_their_configuration(layout: Layout) -> None:
    write_server_config(layout, ADDRESSES)
    settings = load_server(layout.server_config)
    assert settings.endpoint.port == ADDRESSES.broker
    assert (settings.gatekeeper_port, settings.management_port) == (ADDRESSES.gatekeeper, ADDRESSES.management)
    assert settings.credentials == layout.services
    assert settings.store_url == ADDRESSES.store


def test_the_users_tools_read_theirs(layout: Layout) -> None:
    write_client_config(layout, ADDRESSES)
    settings = load_user_settings({"PILOTAGE_CONFIG": str(layout.client_config)})
    assert settings.broker is not None
    assert settings.broker.gatekeeper == service_dn("gatekeeper")
    assert settings.user_cert == layout.user_certificate
    assert settings.ca_dir == layout.trust


def test_the_pilots_read_theirs(layout: Layout) -> None:
    write_pilot_config(layout, ADDRESSES, 1, 3)
    settings = load_pilot(layout.pilot_config(1))
    assert settings.slots == 3
    assert settings.idle_seconds == 0
    assert settings.stores == {STORAGE_ELEMENT: layout.storage}
    assert settings.work_dir.is_dir()


def test_no_secret_stands_in_a_configuration(layout: Layout) -> None:
    write_server_config(layout, ADDRESSES)
    write_client_config(layout, ADDRESSES)
    write_pilot_config(layout, ADDRESSES, 1, 1)
    secrets = [file.read_text().strip() for file in layout.services.glob("*.secret")]
    for file in (layout.server_config, layout.client_config, layout.pilot_config(1)):
        assert not any(secret in file.read_text() for secret in secrets)


def test_pilots_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    assert [default_slots(pilots) for pilots in (0, 1, 2, 3, 64)] == [8, 8, 4, 3, 1]
