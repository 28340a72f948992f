"""The way to a VO's VOMS database: TLS beyond this machine, nothing secret in errors."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from consumers.store import voms_database
from schemas.errors import ConfigurationError


class StopError(Exception):
    """Far enough."""


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How the driver would be called."""
    found: dict[str, Any] = {}

    def create_engine(url: sa.URL, **options: Any) -> sa.Engine:
        found.update(options["connect_args"], password=url.password)
        raise StopError

    monkeypatch.setattr(sa, "create_engine", create_engine)
    return found


@pytest.mark.parametrize("host", ["voms.example.org", "192.0.2.7"])
def test_beyond_this_machine_the_server_must_show_a_certificate(arguments: dict[str, Any], host: str) -> None:
    with pytest.raises(StopError):
        voms_database.read(f"mysql+pymysql://reader@{host}/voms_vo", "secret")
    context = arguments["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert arguments["password"] == "secret"
    assert arguments["read_timeout"] > 0


@pytest.mark.parametrize("url", ["mysql+pymysql://r@localhost/x", "mysql+pymysql://r@h/x?unix_socket=/run/s"])
def test_on_this_machine_it_need_not(arguments: dict[str, Any], url: str) -> None:
    with pytest.raises(StopError):
        voms_database.read(url)
    assert "ssl" not in arguments


@pytest.mark.parametrize(
    ("url", "word"),
    [("nonsense", "form"), ("postgresql://h/x", "MySQL"), ("mysql+nodriver://localhost/x", "driver"),
     ("mysql+pymysql://h/x", "absent.pem")],
)  # fmt: skip
def test_what_cannot_be_a_voms_database_is_refused(url: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word) as caught:
        voms_database.read(url, "secret", Path("absent.pem"))
    assert "secret" not in str(caught.value)
