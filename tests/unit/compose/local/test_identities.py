from __future__ import annotations

import datetime as dt
import stat
from pathlib import Path

import pytest

from broker.authorization import SERVICES
from broker.identity import TrustStore, load_credential, parse_certificate, verify_chain
from compose.local import identities
from compose.local.files import private_folder
from compose.local.identities import ensure_identities, login_name, service_dn, user_dn
from compose.local.layout import Layout
from schemas.errors import ConfigurationError

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "stack")
    private_folder(made.root)
    ensure_identities(made, NOW)
    return made


def contents(layout: Layout) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in layout.root.rglob("*") if file.is_file()}


def test_everybody_verifies_under_the_trust_directory(layout: Layout) -> None:
    trust = TrustStore.load(layout.trust)
    files = {service_dn(name): layout.services / f"{name}.pem" for name in SERVICES}
    for dn, file in files.items():
        assert verify_chain(load_credential(file).ders, trust, None, NOW).identity == dn
    user = load_credential(layout.user_certificate, key=layout.user_key)
    assert verify_chain(user.ders, trust, None, NOW).identity == user_dn(layout)
    assert user_dn(layout).endswith(f"/CN={login_name()}")


def test_nobody_else_may_read_a_secret(layout: Layout) -> None:
    for path in [layout.root, *layout.root.rglob("*")]:
        rights = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert rights == 0o700, path
        elif path.parent != layout.trust:  # certificates and CRLs are public
            assert rights == 0o600, path


def test_the_second_time_nothing_changes(layout: Layout) -> None:
    before = contents(layout)
    ensure_identities(layout, NOW + dt.timedelta(days=1))
    assert contents(layout) == before


def test_what_ends_soon_is_renewed_under_the_same_name_and_authority(layout: Layout) -> None:
    before = contents(layout)
    later = NOW + dt.timedelta(days=340)
    ensure_identities(layout, later)
    after = contents(layout)
    authority, secret = str(layout.authority), str(layout.services / "matcher.secret")
    assert after[authority] == before[authority]
    assert after[secret] == before[secret]
    trust = TrustStore.load(layout.trust)
    for file in (layout.services / "matcher.pem", layout.user_certificate, layout.tls / "server.pem"):
        assert after[str(file)] != before[str(file)]
    user = load_credential(layout.user_certificate, key=layout.user_key)
    assert verify_chain(user.ders, trust, None, later).identity.startswith("/O=Pilotage/OU=Users/CN=")


def test_what_is_missing_is_made_again(layout: Layout) -> None:
    before = contents(layout)
    for file in (layout.user_key, layout.services / "relay.pem", layout.services / "relay.secret"):
        file.unlink()
    ensure_identities(layout, NOW)
    assert contents(layout).keys() == before.keys()
    load_credential(layout.user_certificate, key=layout.user_key)


def test_a_damaged_certificate_is_named(layout: Layout) -> None:
    (layout.services / "relay.pem").write_text("nonsense")
    with pytest.raises(ConfigurationError, match=r"relay\.pem"):
        ensure_identities(layout, NOW)


def test_the_brokers_certificate_names_the_loopback(layout: Layout) -> None:
    text = str(parse_certificate(load_credential(layout.tls / "server.pem", key=layout.tls / "server.key").leaf).x509)
    assert "localhost" in text


@pytest.mark.parametrize(("account", "shown"), [("jane", "jane"), ("a/b=c d", "abcd"), ("", "user"), ("é", "user")])
def test_odd_account_names_fit_into_a_dn(monkeypatch: pytest.MonkeyPatch, account: str, shown: str) -> None:
    monkeypatch.setattr(identities.getpass, "getuser", lambda: account)
    assert login_name() == shown


def test_an_account_without_a_name_is_somebody_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("no entry")

    monkeypatch.setattr(identities.getpass, "getuser", nobody)
    assert login_name() == "user"
