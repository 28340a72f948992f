"""server.toml: right values, and errors that name file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from compose.server_settings import load
from consumers.domain.shares import Policy
from consumers.settings import LeaseSettings
from schemas.errors import ConfigurationError

GOOD = """
[deployment]
name = "vo"
[broker]
host = "h"
port = 5671
ca_file = "tls/ca.pem"
[store]
url = "sqlite:////var/lib/store.db"
[trust]
ca_dir = "/abs/certificates"
[registry]
file = "registry.toml"
[services]
credentials = "services"
master_keys = ["new.key", "old.key"]
[gatekeeper]
port = 8000
cert_file = "tls/gatekeeper.pem"
key_file = "tls/gatekeeper.key"
management_port = 15671
[leases]
accept = 2
[shares]
half_life = 604800
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "server.toml"
    path.write_text(text)
    return path


def test_everything_lands_where_it_belongs(tmp_path: Path) -> None:
    settings = load(written(tmp_path, GOOD))
    assert settings.endpoint.ca_file == tmp_path / "tls/ca.pem"
    assert settings.trust_dir == Path("/abs/certificates")
    assert settings.master_keys == (tmp_path / "new.key", tmp_path / "old.key")
    assert (settings.gatekeeper_host, settings.gatekeeper_port) == ("127.0.0.1", 8000)
    assert settings.gatekeeper_certificate == tmp_path / "tls/gatekeeper.pem"
    assert (settings.gatekeeper_key, settings.management_port) == (tmp_path / "tls/gatekeeper.key", 15671)
    assert (settings.voms_dir, settings.store_password_file) == (None, None)
    assert settings.leases == LeaseSettings(accept=2.0)
    assert settings.shares == Policy(half_life=604_800.0)


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ('name = "vo"', "", "[deployment] name is missing"),
        ("port = 5671", 'port = "5671"', "[broker] port is not a whole number"),
        ("port = 8000", "port = true", "[gatekeeper] port is not a whole number"),
        ('key_file = "tls/gatekeeper.key"', "", "[gatekeeper] key_file is missing"),
        ("management_port = 15671", "", "[gatekeeper] management_port is missing"),
        ('master_keys = ["new.key", "old.key"]', "master_keys = []", "[services] master_keys"),
        ('master_keys = ["new.key", "old.key"]', 'master_keys = "new.key"', "[services] master_keys"),
        ("accept = 2", "accept = 0", "[leases] accept"),
        ("accept = 2", "accept = nan", "[leases] accept"),
        ("accept = 2", "accept = inf", "[leases] accept"),
        ("accept = 2", "acept = 2", "[leases] has no acept"),
        ("[leases]\naccept = 2", "[[leases]]\naccept = 2", "[leases] must be a table"),
        ("[store]", "[store", "not TOML"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, good: str, bad: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(written(tmp_path, GOOD.replace(good, bad)))
    assert named in str(caught.value)
    assert str(tmp_path / "server.toml") in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "none.toml")


def test_the_gatekeeper_listens_on_loopback_only(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.0.2.1", "gatekeeper.example.org"):
        with pytest.raises(ConfigurationError, match="loopback"):
            load(written(tmp_path, GOOD.replace("port = 8000", f'port = 8000\nhost = "{host}"')))
