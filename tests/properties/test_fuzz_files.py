"""Files that others write: trust directories, credentials, settings; damaged, they are refused or left out in words."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.grid.vomses import load_vomses, parse_vomses
from broker.identity import (
    CredentialError,
    IdentityError,
    TrustStore,
    VomsDir,
    key_pem,
    load_credential,
    load_private_key,
    new_key,
    split_chain,
)
from broker.identity.signing_policy import MAX_POLICY_BYTES, parse_signing_policy, permits
from broker.identity.vomsdir import parse_lsc
from compose import server_settings
from compose.local import configs
from compose.local.layout import Layout
from compose.settings import make_user_settings, read_values
from consumers.store.seed import Seed, parse_seed
from pilot import settings as pilot_settings
from schemas.errors import ConfigurationError, InvalidInputError, PilotageError
from schemas.toml import parse_toml
from tests.support.effort import effort
from tests.support.hostile import calmly
from tests.support.mutations import damaged_bytes, damaged_text
from tests.support.pki import Pki, make_pki, proxy

GRID = Path(__file__).parents[1] / "fixtures" / "grid"
POLICIES = [path.read_text() for path in sorted((GRID / "certificates").glob("*.signing_policy"))]
LSC = (GRID / "vomsdir" / "lhcb" / "voms.gridspike.org.lsc").read_text()
PATTERNS = 600
"""Bytes of objects per byte of a policy: wildcards are compiled."""
SUBJECT = "/DC=org/DC=gridspike/OU=People/CN=Alice Example/CN=12345"


@given(
    damaged_text(
        POLICIES, ["access_id_CA", "pos_rights", "cond_subjects", "globus", "'\"", "*", "?", "#", "\\", "*" * 300]
    )
)
@effort(150)
def test_signing_policies(text: str) -> None:
    text = text[:MAX_POLICY_BYTES]
    found = calmly(lambda: parse_signing_policy(text), len(text), factor=PATTERNS)
    for patterns in found.values():  # type: ignore[union-attr]  # no error is allowed to come out
        calmly(functools.partial(permits, patterns, SUBJECT), len(text))


@given(
    damaged_text(
        [LSC, f"{LSC}------ NEXT CHAIN ------\n{LSC}"], ["/", "=", "\\", "\\u{110000}", "------", "/1.2.3=", "+CN="]
    )
)
@effort(300)
def test_lsc_files(text: str) -> None:
    calmly(lambda: parse_lsc(text), len(text), InvalidInputError)


VOMSES = '"lhcb" "voms.example.org" "15000" "/DC=org/CN=voms.example.org" "lhcb" "24"\n# a comment\n'


@given(damaged_text([VOMSES, VOMSES * 3], ['"', '""', "/", "99999", "\u0663", '" "', "\u2028"]))
@effort(300)
def test_vomses(text: str) -> None:
    found = calmly(lambda: parse_vomses(text), len(text), InvalidInputError)
    if isinstance(found, tuple):
        assert all(0 < entry.port < 65536 for entry in found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@given(damaged_bytes([LSC.encode(), VOMSES.encode(), POLICIES[0].encode(), b"\xff\xfe", b""]))
@effort(100)
def test_what_cannot_be_understood_in_a_directory_is_left_out_and_named(folder: Path, data: bytes) -> None:
    trust, voms = folder / "certificates", folder / "vomsdir"
    (voms / "lhcb").mkdir(parents=True, exist_ok=True)
    trust.mkdir(exist_ok=True)
    for name in ("0a0a0a0a.0", "0a0a0a0a.r0", "0a0a0a0a.signing_policy"):
        (trust / name).write_bytes(data)
    (voms / "lhcb" / "x.lsc").write_bytes(data)
    (folder / "vomses").write_bytes(data)
    found = calmly(lambda: TrustStore.load(trust), len(data))
    assert isinstance(found, TrustStore)
    assert len(found.problems) >= 2
    calmly(lambda: VomsDir.load(voms), len(data))
    calmly(lambda: load_vomses([folder / "vomses"]), len(data))


# -- credentials ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("trust"))


@functools.cache
def pems() -> list[bytes]:
    keys = [key_pem(new_key()), key_pem(new_key(rsa_bits=2048))]
    return [*keys, *((GRID / "proxies" / f"{name}.pem").read_bytes() for name in ("rfc_full", "voms_ga"))]


MARKS = [
    b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"-----BEGIN X509 CERTIFICATE-----", b"-----",
    b"\n\n",
    b"-----BEGIN PRIVATE KEY-----\n", b"-----END PRIVATE KEY-----\n", b"-----BEGIN RSA PRIVATE KEY-----", b"\r\n", b"=",
    b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", b"MII",
]  # fmt: skip


@given(damaged_bytes(pems(), MARKS))
@effort(150)
def test_pem(data: bytes) -> None:
    calmly(lambda: split_chain(data), len(data), IdentityError)
    calmly(lambda: load_private_key(data), len(data), CredentialError)
    calmly(lambda: load_private_key(data, "password"), len(data), CredentialError)


@given(st.data())
@effort(100)
def test_credentials(pki: Pki, data: st.DataObject) -> None:
    sound = proxy(pki.user).to_pem()
    damaged = data.draw(damaged_bytes([sound], MARKS))
    found = calmly(lambda: load_credential(damaged), len(damaged), CredentialError)
    secret = sound.split(b"PRIVATE KEY-----")[1].split()[0].decode()
    assert secret not in repr(found)
    assert secret not in str(found)


# -- settings -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The configuration files as a private stack writes them."""
    layout = Layout(tmp_path_factory.mktemp("stack"))
    addresses = configs.Addresses(broker=5671, gatekeeper=8000, store="sqlite:///x.db", management=15671)
    configs.write_server_config(layout, addresses)
    configs.write_client_config(layout, addresses)
    configs.write_pilot_config(layout, addresses, 1, 2)
    return layout


WORDS = [
    b"[broker]", b"[[users]]", b"=", b"[", b"]", b"{", b"}", b'"""', b"'''", b"1e400", b"inf", b"nan", b"9" * 400,
    b"9" * 5000,
    b"true", b"[" * 2000, b"2026-01-01", b"a.b.c = 1\n", b"\\u0000", b"-1", b"0x10", b"[pilot]\n", b"host = 1\n", b"#",
]  # fmt: skip
MAX_SETTINGS = 64 * 1024
"""Some sixty times what settings have."""
TOML = 400
"""Bytes of objects per byte of TOML: the library makes a table of each."""


def read_user(path: Path) -> object:
    return make_user_settings(read_values(path), path, {"HOME": "/nonexistent"})


@given(st.data())
@effort(120)
def test_settings(written: Layout, folder: Path, data: st.DataObject) -> None:
    readers: list[tuple[Path, Any]] = [
        (written.server_config, server_settings.load),
        (written.pilot_config(1), pilot_settings.load),
        (written.client_config, read_user),
    ]
    source, load = data.draw(st.sampled_from(readers))
    damaged = data.draw(damaged_bytes([source.read_bytes()], WORDS))[:MAX_SETTINGS]
    path = folder / "settings.toml"
    path.write_bytes(damaged)
    # His own file: what is wrong in it may be shown.
    calmly(lambda: load(path), len(damaged), ConfigurationError, factor=TOML, reason=2000 + len(damaged))


REGISTRY = b"""
[groups.vo_user]
fqan = "/vo"
properties = ["NormalUser"]
share = 1.0
[[users]]
dn = "/C=XX/O=Example/CN=Jane Doe"
groups = ["vo_user"]
[[services]]
name = "job-manager"
dn = "/C=XX/O=Example/CN=job-manager"
sends = ["job.submitted.v1"]
[sites."Site.Example.org"]
usable = true
[storage_elements.SE-USER]
sites = ["Site.Example.org"]
"""


@given(damaged_bytes([REGISTRY], WORDS))
@effort(120)
def test_the_registrys_file(data: bytes) -> None:
    data = data[:MAX_SETTINGS]

    def read() -> Seed:
        return parse_seed(parse_toml(data, "registry.toml"))

    # All that is wrong is named at once.
    calmly(read, len(data), ConfigurationError, factor=TOML, reason=10 * len(data))


def test_every_error_here_is_of_the_one_family() -> None:
    assert all(issubclass(kind, PilotageError) for kind in (ConfigurationError, CredentialError, IdentityError))
