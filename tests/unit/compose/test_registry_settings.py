"""The registry's part of the services' configuration: what is wrong is named, secrets stay in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compose.registry_settings import read_registry
from consumers.settings import RegistrySettings, SourceKind, SourceSettings
from schemas.errors import ConfigurationError
from schemas.messages.registrar import Policy

PATH = Path("/etc/pilotage/server.toml")
VOMS: dict[str, Any] = {"name": "lhcb", "kind": "voms-database", "url": "mysql+pymysql://reader@db/voms_lhcb"}
IAM: dict[str, Any] = {"name": "iam", "kind": "iam-scim", "url": "https://iam.example.org", "token_file": "iam.token"}


def test_nothing_said_is_the_default() -> None:
    assert read_registry(PATH, {"cycle": None, "sources": None}) == RegistrySettings()


def test_sources() -> None:
    found = read_registry(PATH, {"cycle": 60, "on_removed": "hold", "sources": [VOMS, IAM | {"groups": ["a"]}]})
    assert (found.cycle, found.on_removed, found.on_suspended) == (60.0, Policy.HOLD, Policy.HOLD)
    assert found.sources == (
        SourceSettings("lhcb", SourceKind.VOMS_DATABASE, VOMS["url"]),
        SourceSettings("iam", SourceKind.IAM_SCIM, IAM["url"], PATH.parent / "iam.token", groups=("a",)),
    )


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"cycle": 0}, "cycle"),
        ({"cycle": float("nan")}, "cycle"),
        ({"on_removed": "shoot"}, "shoot"),
        ({"sources": [VOMS, VOMS]}, "twice"),
        ({"sources": [VOMS | {"name": "A b"}]}, "name"),
        ({"sources": [VOMS | {"url": "mysql+pymysql://reader:secret@db/x"}]}, "no password in the url"),
        ({"sources": [VOMS | {"max_loss": 2}]}, "max_loss"),
        ({"sources": [VOMS | {"token_file": "t"}]}, "token_file"),
        ({"sources": [VOMS | {"groop": "t"}]}, "groop"),
        ({"sources": [IAM | {"url": "http://iam.example.org"}]}, "https"),
        ({"sources": [IAM | {"token_file": ""}]}, "token_file"),
        ({"sources": [VOMS | {"kind": "ldap"}]}, "ldap"),
    ],
)
def test_what_is_wrong_is_named_without_secrets(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_registry(PATH, values)
    assert word in str(caught.value)
    assert "secret@" not in str(caught.value)
