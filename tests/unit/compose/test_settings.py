from __future__ import annotations

from pathlib import Path

import pytest

from compose.settings import find_file, load_user_settings
from schemas.errors import ConfigurationError

GOOD = """
[broker]
host = "broker.example.org"
port = 5671
ca_file = "ca.pem"
name = "production"
gatekeeper = "/O=Example/CN=gatekeeper"

[trust]
ca_dir = "certificates"
voms_dir = "/etc/grid-security/vomsdir"

[user]
cert = "usercert.pem"
key = "userkey.pem"
group = "example_user"
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def write(path: Path, text: str = GOOD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (path.parent / "ca.pem").write_text("")
    return path


def test_nothing_configured(home: dict[str, str]) -> None:
    settings = load_user_settings(home)
    assert (settings.broker, settings.origin) == (None, None)


def test_order_of_files(home: dict[str, str], tmp_path: Path) -> None:
    local = write(tmp_path / ".local/share/pilotage/local/client.toml")
    assert find_file(home) == local
    config = write(tmp_path / ".config/pilotage/config.toml")
    assert find_file(home) == config
    named = write(tmp_path / "named.toml")
    assert find_file(home | {"PILOTAGE_CONFIG": str(named)}) == named
    elsewhere = write(tmp_path / "xdg/pilotage/config.toml")
    assert find_file(home | {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}) == elsewhere
    assert find_file(home | {"XDG_CONFIG_HOME": "relative"}) == config
    with pytest.raises(ConfigurationError, match="no file"):
        find_file(home | {"PILOTAGE_CONFIG": "/nowhere"})


def test_values(home: dict[str, str], tmp_path: Path) -> None:
    origin = write(tmp_path / ".config/pilotage/config.toml")
    settings = load_user_settings(home)
    assert settings.broker is not None
    assert (settings.broker.port, settings.broker.ca_file) == (5671, origin.parent / "ca.pem")
    assert settings.ca_dir == origin.parent / "certificates"
    assert settings.vomsdir == Path("/etc/grid-security/vomsdir")
    assert settings.group == "example_user"
    assert load_user_settings(home | {"PILOTAGE_GROUP": "other"}).group == "other"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("port = 5671", "", r"\[broker\] port is missing"),
        ("port = 5671", 'port = "5671"', r"\[broker\] port must be an integer"),
        ("port = 5671", "port = true", r"\[broker\] port must be an integer"),
        ("port = 5671", "port = 0", r"\[broker\] port must be 1 to 65535"),
        ("port = 5671", "prot = 5671", r"\[broker\] has no key 'prot'"),
        ("[trust]", "[turst]", r"no section \[turst\]"),
        ("[trust]", "trust = 1\n[user]", "config.toml"),
        ('"ca.pem"', '"none.pem"', r"\[broker\] ca_file: there is no file"),
        ('"/O=Example/CN=gatekeeper"', '"gatekeeper"', r"\[broker\] gatekeeper"),
        ("[broker]", "[broker", "config.toml"),
        ("[broker]", "broker = 5\n[trust2]", "broker must be a section"),
        ("[broker]", "[broker]\n" + "#" * 300_000, "larger"),
    ],
)
def test_errors_name_file_and_key(home: dict[str, str], tmp_path: Path, before: str, after: str, said: str) -> None:
    write(tmp_path / ".config/pilotage/config.toml", GOOD.replace(before, after, 1))
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_user_settings(home)
    assert "config.toml" in str(caught.value)


def test_no_text(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / ".config/pilotage/config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"config\.toml"):
        load_user_settings(home)


@pytest.mark.parametrize("ca_file", ["x" * 5000, "~nobody-of-this-name/ca.pem"])
def test_a_file_that_cannot_be(home: dict[str, str], tmp_path: Path, ca_file: str) -> None:
    write(tmp_path / ".config/pilotage/config.toml", GOOD.replace("ca.pem", ca_file))
    with pytest.raises(ConfigurationError, match="ca_file"):
        load_user_settings(home)
