"""Encryption at rest and its keys' files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from consumers.vault import Vault, VaultError, key_id, load_keys
from schemas.errors import ConfigurationError

OLD, NEW = Fernet.generate_key(), Fernet.generate_key()
HERE = "proxy /O=Example/CN=ada group"


def test_what_was_encrypted_with_an_older_key_can_be_read() -> None:
    token = Vault([OLD]).encrypt(b"secret", HERE)
    assert b"secret" not in token
    assert Vault([NEW, OLD]).decrypt(token, HERE) == b"secret"


def test_tokens_of_the_first_release_can_be_read() -> None:
    token = Fernet(OLD).encrypt(b"secret")
    assert Vault([NEW, OLD]).decrypt(token, HERE) == b"secret"
    assert key_id(token) == ""
    assert not Vault([OLD]).is_newest(token)
    with pytest.raises(VaultError):
        Vault([NEW]).decrypt(token, HERE)


def test_the_newest_key_encrypts() -> None:
    vault = Vault([NEW, OLD])
    token = vault.encrypt(b"secret", HERE)
    assert Vault([NEW]).decrypt(token, HERE) == b"secret"
    assert key_id(token) == vault.key_ids[0]
    assert vault.is_newest(token)
    assert not Vault([OLD]).is_newest(token)
    with pytest.raises(VaultError):
        Vault([OLD]).decrypt(token, HERE)


def test_a_token_serves_in_its_own_place_only() -> None:
    vault = Vault([OLD])
    with pytest.raises(VaultError):
        vault.decrypt(vault.encrypt(b"secret", HERE), "proxy /O=Example/CN=bob group")


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    vault = Vault([OLD])
    token = bytearray(vault.encrypt(b"secret", HERE))
    place = data.draw(st.integers(0, len(token) - 1))
    token[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(VaultError):
        vault.decrypt(bytes(token), HERE)


@given(st.binary(max_size=200))
def test_what_is_no_token_is_refused(token: bytes) -> None:
    with pytest.raises(VaultError):
        Vault([OLD]).decrypt(token, HERE)
    with pytest.raises(VaultError):
        Vault([OLD]).decrypt(b"2:" + token, HERE)


def test_a_key_that_was_put_first_is_taken_in_at_run_time() -> None:
    keys = [OLD]
    vault = Vault(keys, load=lambda: list(keys))
    old = vault.encrypt(b"secret", HERE)
    keys.insert(0, NEW)
    assert vault.is_newest(old)
    assert len(vault.reload()) == 2
    assert not vault.is_newest(old)
    assert vault.decrypt(old, HERE) == b"secret"


def test_a_token_of_an_unknown_key_has_the_files_read_again() -> None:
    """Another process may have been told of the new key first."""
    keys = [OLD]
    vault = Vault(keys, load=lambda: list(keys))
    token = Vault([NEW]).encrypt(b"secret", HERE)
    keys.insert(0, NEW)
    assert vault.decrypt(token, HERE) == b"secret"


def test_broken_key_files_leave_the_old_keys_in_use() -> None:
    def load() -> list[bytes]:
        raise ConfigurationError("gone")

    vault = Vault([OLD], load=load)
    token = vault.encrypt(b"secret", HERE)
    with pytest.raises(ConfigurationError):
        vault.reload()
    assert vault.decrypt(token, HERE) == b"secret"
    with pytest.raises(VaultError):
        vault.decrypt(Vault([NEW]).encrypt(b"secret", HERE), HERE)


@pytest.mark.parametrize("keys", [[], [b"short"], [OLD, b""]])
def test_no_vault_without_real_keys(keys: list[bytes]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Vault(keys)
    assert all(key.decode() not in str(caught.value) for key in keys if key)


def test_keys_come_from_private_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(OLD + b"\n")
    assert load_keys([path]) == [OLD]
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_keys([path])


def test_a_missing_or_large_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_keys([tmp_path / "none"])
    large = tmp_path / "large"
    large.touch(mode=0o600)
    large.write_bytes(b"x" * 1000)
    with pytest.raises(ConfigurationError, match="no Fernet key"):
        load_keys([large])


def test_a_vault_shows_nothing() -> None:
    vault = Vault([OLD])
    assert OLD.decode() not in repr(vault)
    assert OLD.decode() not in "".join(vault.key_ids)
