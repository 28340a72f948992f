"""Encryption at rest and its keys' files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from consumers.vault import Vault, VaultError, load_keys
from schemas.errors import ConfigurationError

OLD, NEW = Fernet.generate_key(), Fernet.generate_key()


def test_what_was_encrypted_with_an_older_key_can_be_read() -> None:
    token = Vault([OLD]).encrypt(b"secret")
    assert b"secret" not in token
    assert Vault([NEW, OLD]).decrypt(token) == b"secret"


def test_the_newest_key_encrypts() -> None:
    token = Vault([NEW, OLD]).encrypt(b"secret")
    assert Vault([NEW]).decrypt(token) == b"secret"
    with pytest.raises(VaultError):
        Vault([OLD]).decrypt(token)


def test_a_changed_token_is_refused() -> None:
    token = bytearray(Vault([OLD]).encrypt(b"secret"))
    token[-1] ^= 1
    with pytest.raises(VaultError):
        Vault([OLD]).decrypt(bytes(token))


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
    assert OLD.decode() not in repr(Vault([OLD]))
